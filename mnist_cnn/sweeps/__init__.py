"""Sweeps that are resumed, for any Hydra application: see README.md in this folder."""
