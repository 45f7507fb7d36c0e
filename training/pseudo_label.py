"""Write the boxes of a teacher as pseudo labels of a dataset; `--help` prints the manual."""

from bevdepth_core.training.pseudo_labels import main

if __name__ == '__main__':
    main()
