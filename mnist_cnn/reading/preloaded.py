"""What processes that read pictures import, once, before they are forked."""

from mnist_cnn.runs.imports import without_collection

with without_collection():
    from mnist_cnn.reading import reader as reader
