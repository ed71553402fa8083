"""The only place that uses what Lightning and Hydra do not promise."""
