"""Many runs: every combination of values, or a search by Optuna."""
