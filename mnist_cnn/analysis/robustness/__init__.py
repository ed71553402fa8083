"""Robustness suites: conditions that do not occur in MNIST."""
