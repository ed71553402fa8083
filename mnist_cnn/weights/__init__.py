"""Trained networks: building, reading, predicting, writing; and the shipped weights."""
