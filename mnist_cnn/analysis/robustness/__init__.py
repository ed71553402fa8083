"""Suites of conditions that MNIST does not have."""
