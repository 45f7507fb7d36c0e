"""Export the weights of a training checkpoint; `--help` prints the manual."""

from bevdepth_core.training.checkpoints import main

if __name__ == '__main__':
    main()
