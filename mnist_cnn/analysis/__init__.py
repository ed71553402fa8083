"""Finished runs: found, ranked, compared, and how good a network's predictions are."""
