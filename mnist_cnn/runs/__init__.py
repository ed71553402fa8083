"""A run's folder: claimed, described, resumed, and what a finished run leaves in it."""
