"""Finds the scenes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bevdepth_core.nuscenes.completeness import consistent, read_json, require_scene_names
from bevdepth_core.nuscenes.suggestions import did_you_mean


def split_scenes(dataroot: str | Path, version: str, split: str) -> list[str]:
    """Return the names of a split's scenes in the order of the scene table.

    Raises:
        ValueError: the split is unknown or empty, or contains scenes that are not in the tables.
    """
    # The devkit takes seconds to import.
    from nuscenes.utils.splits import create_splits_scenes

    tables = Path(dataroot) / version
    custom = _custom_splits(tables / 'splits.json')
    official = create_splits_scenes()
    wanted = set(_scenes(custom | official, split, tables / 'splits.json'))
    with consistent(tables):
        present = [scene['name'] for scene in read_json(tables / 'scene.json')]
    require_scene_names(tables, present)
    absent = sorted(wanted - set(present))
    if absent:
        hint = (
            f'; the official split {split!r} takes precedence over that of '
            f'{tables / "splits.json"}: rename the latter'
            if split in custom.keys() & official
            else ''
        )
        raise ValueError(
            f'split {split!r} needs {len(absent)} scenes that {tables} does not contain, such as '
            f'{", ".join(absent[:3])}{hint}'
        )
    return [name for name in present if name in wanted]


def _scenes(splits: Mapping[str, list[str]], split: str, path: Path) -> list[str]:
    if not splits.get(split):
        raise ValueError(
            f'split {split!r} is unknown or empty{did_you_mean(split, splits)}; choose one of '
            f'{", ".join(sorted(splits))}, or add it to {path}'
        )
    return splits[split]


def _custom_splits(path: Path) -> dict[str, list[str]]:
    custom = read_json(path) if path.exists() else {}
    if not isinstance(custom, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in custom.values()
    ):
        raise ValueError(f'{path} must map names of splits to lists of scene names')
    return custom
