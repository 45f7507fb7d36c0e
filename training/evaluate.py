"""Score a checkpoint with the official nuScenes metrics; `--help` prints the manual."""

from bevdepth_core.training.evaluate import main

if __name__ == '__main__':
    main()
