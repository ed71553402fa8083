"""Pictures for benchmarks and tests of reading, drawn from a seed; never used for training."""
