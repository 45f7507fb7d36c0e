"""Train BEVDepth; `python training/train.py --help` prints the manual."""

from bevdepth_core.training.train import main

if __name__ == '__main__':
    main()
