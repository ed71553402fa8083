"""Trained networks: built, read from files, ready for use, written; and those that ship."""
