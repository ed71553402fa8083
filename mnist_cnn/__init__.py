"""A convolutional network for handwritten digits: train, compare and ship it."""
