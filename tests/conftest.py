"""For all tests."""

import signal

# A background job of a script starts with SIGINT ignored, and so would everything that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
