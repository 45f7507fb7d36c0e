"""Writes results of benchmarks as JSON files, and bar charts as PNG files."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes


def write_json(results: dict, path: Path) -> None:
    """Write ``results``, and make the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))


def stage_bar(axes: Axes, stages: dict[str, float], total: float, rest: str) -> None:
    """Draw the stages of one step as a stacked bar in ms, and the remainder of ``total`` as
    ``rest``.
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


def value_bars(axes: Axes, values: dict[str, float], form: str = '%.1f') -> None:
    """Draw one labeled bar per value, the first on top."""
    axes.bar_label(
        axes.barh(list(values), list(values.values()), color='tab:blue'), fmt=form, padding=3
    )
    axes.margins(x=0.2)
    axes.invert_yaxis()


def two_charts(title: str):
    """Return a figure with a wide and a narrow chart."""
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 3.2), width_ratios=(2, 1), layout='constrained'
    )
    figure.suptitle(title)
    return figure, left, right


def grouped_bars(axes: Axes, groups: dict[str, dict[str, float]], colors: dict[str, str]) -> None:
    """Draw a group of labeled bars per name, the first on top, on a logarithmic axis; a bar's key
    decides its color."""
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
