"""A run's folder: locked, recorded, resumed; its processes and signals. Nothing of digits."""
