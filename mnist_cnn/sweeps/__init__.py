"""Sweeps whose jobs are resumed by the same command, for any Hydra application."""
