"""Synthetic pages: characters, clutter and paper, drawn from a seed, with every character's box."""
