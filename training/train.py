"""Train BEVDepth; `--help` prints the manual."""

import signal
import sys

# Until the imports are done, Ctrl-C ends the process immediately, without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    from bevdepth_core.training.train import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run 'make setup' once, then '. ./env.sh', in the folder of the project")

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
