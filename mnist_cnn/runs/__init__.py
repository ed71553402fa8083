"""Folders of runs, resuming, processes and signals; independent of models and data."""
