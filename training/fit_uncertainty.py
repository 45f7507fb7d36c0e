"""Fit the covariance of detections to a checkpoint's errors; `--help` prints the manual."""

import sys

try:
    from bevdepth_core.training.uncertainty_fit import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run 'make setup' once, then '. ./env.sh', in the folder of the project")

if __name__ == '__main__':
    main()
