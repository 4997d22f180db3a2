"""Evaluation tasks, one file each: from features and ground truth to scores."""
