"""Plots the losses of a run.

    python training/plot.py out/training/small curves.png

A run has one part for its start, and one part for each time that it was resumed. Each part has its
own color. Steps that were repeated after an interruption are plotted twice.
"""

from __future__ import annotations

import csv
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

LOSSES = {'total': 'total', 'heatmap': 'heatmaps', 'box': 'boxes', 'depth': 'depth'}
"""Maps the logged name of each loss to the title of its plot."""


def read_parts(run: str | Path) -> list[dict[str, np.ndarray]]:
    """Return the curves of each part of a run, in order of time. Parts that logged no loss are
    left out. The curves of a part are a dictionary of (n,) float64 arrays: the optimizer ``step``,
    counted from 0, and each loss of ``LOSSES``.

    Raises:
        FileNotFoundError: ``run`` is not the output folder of a run, or no loss was logged.
    """
    paths = sorted(
        Path(run).glob('csv/version_*/metrics.csv'),
        key=lambda path: int(path.parent.name.removeprefix('version_')),
    )
    if not paths:
        raise FileNotFoundError(
            f'{run} contains no csv/version_*/metrics.csv: give the output folder of a run of '
            'training/train.py, after the run has logged a loss (every '
            'trainer.log_every_n_steps steps)'
        )
    parts = [part for part in map(_read, paths) if len(part['step'])]
    if not parts:
        raise FileNotFoundError(
            f'{run}: the run has logged no loss yet, because it has fewer steps than '
            'trainer.log_every_n_steps: train longer, or with --trainer.log_every_n_steps 1'
        )
    return parts


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get('loss/total')]
    columns = {'step': 'step', **{name: f'loss/{name}' for name in LOSSES}}
    return {
        name: np.array([float(row[column]) for row in rows]) for name, column in columns.items()
    }


def repeated_steps(parts: list[dict[str, np.ndarray]]) -> tuple[int, float]:
    """Return the number of steps that two successive parts of a run both logged, and the largest
    relative difference between the two values of the total loss.
    """
    counts, differences = 0, [0.0]
    for before, after in pairwise(parts):
        _, first, second = np.intersect1d(before['step'], after['step'], return_indices=True)
        counts += len(first)
        differences += list(np.abs(after['total'][second] / before['total'][first] - 1))
    return counts, max(differences)


def plot(run: str | Path, figure_path: str | Path) -> None:
    """Write the curves of ``run`` to ``figure_path``; raises the errors of ``read_parts``."""
    parts = read_parts(run)
    figure, panels = plt.subplots(2, 2, figsize=(11, 7), sharex=True, layout='constrained')
    for (name, title), panel in zip(LOSSES.items(), panels.flat, strict=True):
        _plot_loss(panel, parts, name)
        panel.set_title(title)
    panels[0, 0].legend()
    for panel in panels[1]:
        panel.set_xlabel('optimizer step')
    figure.suptitle(f'Loss of {Path(run).name}')
    figure.savefig(figure_path, dpi=110)
    plt.close(figure)


def _plot_loss(panel: Axes, parts: list[dict[str, np.ndarray]], name: str) -> None:
    for number, part in enumerate(parts):
        color = f'C{number}'
        label = _label(number, part['step'])
        panel.plot(part['step'], part[name], color=color, linewidth=1.2, alpha=0.85, label=label)
    panel.set_yscale('log')
    panel.grid(which='both', alpha=0.25)


def _label(number: int, steps: np.ndarray) -> str:
    if number == 0:
        return 'from the start'
    return f'resumed before step {int(steps[0])}'


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = ArgumentParser('training/plot.py', description='Plot the losses of a run.')
    parser.add_argument('run', metavar='RUN', type=Path, help='output folder of training/train.py')
    parser.add_argument('figure', metavar='PNG', type=Path, help='image file to write')
    options = parser.parse_args(arguments)
    try:
        plot(options.run, options.figure)
    except OSError as error:
        parser.exit(1, f'{error}\n')
    except ValueError as error:  # matplotlib does not support the format
        parser.exit(1, f'{options.figure}: {error}\n')
    print(f'wrote {options.figure}')


if __name__ == '__main__':
    main()
