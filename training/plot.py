"""Plot the losses of a training run: `python training/plot.py RUN FIGURE.png`."""

from bevdepth_core.training.plot import main

if __name__ == '__main__':
    main()
