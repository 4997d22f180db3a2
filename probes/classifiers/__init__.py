"""Estimators that are trained on features: k-NN, linear, attentive and SVM."""
