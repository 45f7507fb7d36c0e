"""Plot the losses of a training run: `python training/plot.py RUN FIGURE.png`."""

import sys

try:
    from bevdepth_core.training.plot import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run 'make setup' once, then '. ./env.sh', in the folder of the project")

if __name__ == '__main__':
    main()
