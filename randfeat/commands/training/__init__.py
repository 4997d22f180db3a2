"""Monitoring that every training shares: rows of a CSV file, TensorBoard, a progress bar, and the page of a run."""
