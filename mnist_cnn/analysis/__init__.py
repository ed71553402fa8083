"""Analysis of finished runs: find, rank and compare them, and evaluate predictions."""
