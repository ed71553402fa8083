"""A convolutional network for handwritten digits: train, compare and ship it."""

import signal
import sys

# In `python -m mnist_cnn.COMMAND` alone sys.argv[0] is still "-m" here. Until the command handles
# Ctrl-C itself, the signal ends the program silently, without the traceback of an import.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
