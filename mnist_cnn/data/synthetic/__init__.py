"""Synthetic pages: characters with their boxes, clutter and paper, drawn from a seed."""
