"""Writes the results of benchmarks to JSON files, and draws bar charts of the results."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes


def write_json(results: dict, path: Path) -> None:
    """Write ``results`` to a JSON file, and create the folder of the file if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))


def stage_bar(axes: Axes, stages: dict[str, float], total: float, rest: str) -> None:
    """Draw one stacked bar, which shows how the time of a step is divided.

    Args:
        axes: axes to draw on.
        stages: time of each stage by its name, milliseconds.
        total: time of the whole step, milliseconds.
        rest: label of the last part, which is the total minus the sum of the stages.
    """
    parts = {
        **{f'{name.replace("_", " ")} {value:.2f}': value for name, value in stages.items()},
        rest: max(total - sum(stages.values()), 0),
    }
    start = 0.0
    colors = [*pyplot.cm.tab10.colors, *pyplot.cm.Set3.colors][: len(parts)]
    for color, (label, value) in zip(colors, parts.items(), strict=True):
        axes.barh(
            [0], [value], left=start, label=label, color='lightgrey' if label == rest else color
        )
        start += value
    axes.legend(ncols=3, loc='upper center', fontsize=8, frameon=False)
    axes.set_ylim(-0.5, 1.4)
    axes.set_yticks([])


def value_bars(axes: Axes, values: dict[str, float], number_format: str = '%.1f') -> None:
    """Draw one horizontal bar per value, with the number beside it; the first bar is on top."""
    drawn = axes.barh(list(values), list(values.values()), color='tab:blue')
    axes.bar_label(drawn, fmt=number_format, padding=3)
    axes.margins(x=0.2)
    axes.invert_yaxis()


def two_charts(title: str):
    """Return a figure, the axes of its wide left chart, and the axes of its narrow right chart."""
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 3.2), width_ratios=(2, 1), layout='constrained'
    )
    figure.suptitle(title)
    return figure, left, right


def grouped_bars(axes: Axes, groups: dict[str, dict[str, float]], colors: dict[str, str]) -> None:
    """Draw groups of horizontal bars on a logarithmic axis, with the number beside each bar.

    Args:
        axes: axes to draw on.
        groups: per group, a dictionary of values; each value is one bar. The first group is on
            top.
        colors: color of a bar, by the key of its value in the dictionary of the group.
    """
    ticks, top = [], 0.0
    for bars in groups.values():
        places = [top + place for place in range(len(bars))]
        drawn = axes.barh(
            places, list(bars.values()), height=0.9, color=[colors[key] for key in bars]
        )
        axes.bar_label(
            drawn,
            [f'{value:,.0f}' if value >= 100 else f'{value:.1f}' for value in bars.values()],
            padding=3,
            fontsize=7,
        )
        ticks.append(top + (len(bars) - 1) / 2)
        top += len(bars) + 0.8
    axes.set_yticks(ticks, list(groups))
    axes.set_xscale('log')
    axes.margins(x=0.15)
    axes.set_ylim(top - 0.3, -1)
