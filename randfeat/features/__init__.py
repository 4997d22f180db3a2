"""Features of images: encoders, extraction to disk, feature stores and the scikit-learn transformer."""
