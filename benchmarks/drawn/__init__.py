"""Pictures to measure and to test by, drawn from a seed; no network is trained on their kinds."""
