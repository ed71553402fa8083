"""Pictures to measure and test reading by, drawn from a seed; no network is trained on such."""
