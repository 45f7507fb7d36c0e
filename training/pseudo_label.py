"""Label a dataset with the boxes that a teacher network detects; `--help` prints the manual."""

import sys

try:
    from bevdepth_core.training.pseudo_labels import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run 'make setup' once, then '. ./env.sh', in the folder of the project")

if __name__ == '__main__':
    main()
