"""The schema of a configuration, its composition, and messages about mistakes."""
