"""Characters in place: a network over the ink of a page, its training, and what it finds."""
