"""Train BEVDepth; `--help` prints the manual."""

from bevdepth_core.training.train import main

if __name__ == '__main__':
    main()
