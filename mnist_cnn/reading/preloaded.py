"""What processes that read pictures import, once, before they are forked."""

import signal

from mnist_cnn.runs.imports import without_collection

# Ctrl-C reaches this process, too; the command ends it
signal.signal(signal.SIGINT, signal.SIG_IGN)
with without_collection():
    from mnist_cnn.reading import reader as reader
