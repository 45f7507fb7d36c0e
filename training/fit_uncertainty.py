"""Fit the covariance of detections to a checkpoint's errors; `--help` prints the manual."""

from bevdepth_core.training.uncertainty_fit import main

if __name__ == '__main__':
    main()
