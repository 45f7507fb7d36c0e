"""Compares the scores and boxes of the running node with the results of the offline evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.evaluation import ERRORS
from bevdepth_ros.closed_loop.results import SceneResults

SAME_BOX_M, SAME_SCORE, SAME_SPEED = 0.05, 0.01, 0.05
"""Two boxes of the same class count as the same box if their centers differ by at most
SAME_BOX_M meters and their scores by at most SAME_SCORE. If the velocities of such boxes differ by
more than SAME_SPEED, m/s, the difference is counted."""


@dataclass(frozen=True)
class BoxComparison:
    """Differences between the boxes of two result files.

    Attributes:
        offline, node: number of boxes in each file.
        matching: number of boxes that are in both files.
        velocity_differs: number of matching boxes whose velocities differ by more than 0.05 m/s.
        largest_distance: largest distance between the centers of matching boxes, meters.
    """

    offline: int
    node: int
    matching: int
    velocity_differs: int
    largest_distance: float


def compare_boxes(
    offline: Mapping[str, list[dict]], node: Mapping[str, list[dict]]
) -> BoxComparison:
    """Compare the boxes of two results. The arguments map sample tokens to result entries."""
    pairs = [
        pair
        for token, entries in offline.items()
        for pair in _matching(entries, node.get(token, []))
    ]
    distances = [_distance(entry, other, 'translation') for entry, other in pairs]
    differing = sum(_distance(entry, other, 'velocity') > SAME_SPEED for entry, other in pairs)
    return BoxComparison(
        sum(map(len, offline.values())),
        sum(map(len, node.values())),
        len(pairs),
        differing,
        max(distances, default=0.0),
    )


def _matching(entries: Sequence[dict], others: Sequence[dict]) -> list[tuple[dict, dict]]:
    free, pairs = list(others), []
    for entry in entries:
        alike = [
            other
            for other in free
            if other['detection_name'] == entry['detection_name']
            and abs(other['detection_score'] - entry['detection_score']) <= SAME_SCORE
        ]
        distances = [_distance(entry, other, 'translation') for other in alike]
        if distances and min(distances) <= SAME_BOX_M:
            nearest = alike[distances.index(min(distances))]
            free.remove(nearest)
            pairs.append((entry, nearest))
    return pairs


def _distance(entry: dict, other: dict, name: str) -> float:
    return float(np.linalg.norm(np.subtract(entry[name], other[name])))


def side_by_side(offline: Mapping | None, node: Mapping) -> str:
    """Return two Markdown tables: the mean metrics with their difference, and the metrics per
    class.
    """
    rows = [
        ('mAP', 'mean_ap', None),
        ('NDS', 'nd_score', None),
        *((f'm{name}', 'tp_errors', key) for key, name in ERRORS.items()),
    ]
    lines = ['| mean | offline | node | difference |', '| --- | ---: | ---: | ---: |']
    for name, group, key in rows:
        node_value = node[group] if key is None else node[group][key]
        offline_value = (
            None if offline is None else offline[group] if key is None else offline[group][key]
        )
        cells = [
            _number(offline_value),
            _number(node_value),
            '-' if offline_value is None else f'{node_value - offline_value:+.4f}',
        ]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    lines += [
        '',
        f'| class, {"offline / " if offline else ""}node | AP | {" | ".join(ERRORS.values())} |',
        '| --- |' + ' ---: |' * 6,
    ]
    summaries = [summary for summary in (offline, node) if summary is not None]
    for name in NUSCENES_CLASSES:
        columns = [[summary['mean_dist_aps'][name] for summary in summaries]]
        columns += [
            [summary['label_tp_errors'][name][error] for summary in summaries] for error in ERRORS
        ]
        cells = [' / '.join(_number(value, 3) for value in column) for column in columns]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def coverage_table(scenes: Mapping[str, SceneResults]) -> str:
    """Return a Markdown table of key frames, image sets and latency (ms) per scene."""
    lines = [
        '| scene | key frames | with result | without result | late | image sets | dropped '
        '| p50 ms | p95 ms |',
        '| --- |' + ' ---: |' * 8,
    ]
    rows = {name: _coverage(scene) for name, scene in scenes.items()}
    for name, row in rows.items():
        lines.append(f'| {name} | {" | ".join(f"{value:g}" for value in row)} |')
    counts = [sum(column) for column in list(zip(*rows.values(), strict=True))[:6]]
    p50, p95 = list(zip(*rows.values(), strict=True))[6:]
    lines.append(
        '| all (median p50, largest p95) | '
        f'{" | ".join(f"{value:g}" for value in (*counts, median(p50), max(p95)))} |'
    )
    return '\n'.join(lines)


def _coverage(scene: SceneResults) -> tuple[float, ...]:
    sets, latency = scene.diagnostics.get('sets', {}), scene.diagnostics.get('latency', {})
    frames, missed = len(scene.entries), len(scene.missed)
    counts = [int(sets.get(name, 0)) for name in ('received', 'dropped')]
    times = [float(latency.get(f'total_p{percent}_ms', 'nan')) for percent in (50, 95)]
    return frames, frames - missed, missed, len(scene.late), *counts, *times


def explanation(scenes: Mapping[str, SceneResults], boxes: BoxComparison | None) -> str:
    """Return sentences about the causes of differences between node and offline evaluation."""
    missed, unfused = (
        sum(len(getattr(scene, name)) for scene in scenes.values())
        for name in ('missed', 'unfused')
    )
    sentences = [
        f'For {unfused} key frames, the node published boxes without velocities, because it had '
        'no past frame. The score of the node counts these velocities as 0 m/s. The score of the '
        'offline evaluation uses the velocities that the network computes for these key frames.'
    ]
    if missed:
        sentences.append(
            f'For {missed} key frames, the node published no result; they count as key frames '
            'without boxes.'
        )
    if boxes is not None:
        sentences.append(
            f'{boxes.matching} boxes are in both results (offline: {boxes.offline}, node: '
            f'{boxes.node}); their centers differ by at most '
            f'{boxes.largest_distance * 1e3:.1f} mm. The velocities of '
            f'{boxes.velocity_differs} of these boxes differ by more than {SAME_SPEED} m/s.'
        )
    return '\n'.join(sentences)


def _number(value: float | None, digits: int = 4) -> str:
    return '-' if value is None or np.isnan(value) else f'{value:.{digits}f}'
