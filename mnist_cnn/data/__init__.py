"""Datasets of images: loading, splitting, random augmentation and batching."""
