"""Write the weights of a `last.ckpt` to a file that the detector loads; `--help` prints the
manual.
"""

from bevdepth_core.training.checkpoints import main

if __name__ == '__main__':
    main()
