import signal

# A shell without job control starts its background jobs deaf to Ctrl-C, and their children inherit that; the tests of
# Ctrl-C need children that hear it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
