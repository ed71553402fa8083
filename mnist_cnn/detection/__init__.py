"""Detection of characters: a network over the ink of a page, its training and its decoding."""
