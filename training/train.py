"""Train BEVDepth; `--help` prints the manual."""

import signal

# Until the imports are done, Ctrl-C ends the process at once, without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from bevdepth_core.training.train import main  # noqa: E402

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
