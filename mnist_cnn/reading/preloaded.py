"""What processes that read pictures import, once, before they are forked."""

import os
import signal

from mnist_cnn.runs.imports import without_collection

# Ctrl-C reaches this process, too; the command ends it
signal.signal(signal.SIGINT, signal.SIG_IGN)
# oneDNN keeps what it compiled for each size of picture, which is seldom seen again: 1,024 of these
# take 1.2 GB in bfloat16 and save no time
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
with without_collection():
    from mnist_cnn.reading import networks as networks
    from mnist_cnn.reading import reader as reader
