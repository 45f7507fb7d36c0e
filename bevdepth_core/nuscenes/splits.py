"""Finds the scenes of a split."""

from __future__ import annotations

from pathlib import Path

from bevdepth_core.nuscenes.completeness import consistent, read_json, require_scene_names
from bevdepth_core.nuscenes.suggestions import did_you_mean

_EXAMPLE = 'such as {"my_train": ["scene-0001", "scene-0002"]}'


def split_scenes(dataroot: str | Path, version: str, split: str) -> list[str]:
    """Return the names of a split's scenes in the order of the scene table.

    Raises:
        ValueError: the split is unknown or empty, or contains scenes that are not in the tables.
            The message lists the splits whose scenes are all in the tables.
    """
    # The devkit takes seconds to import.
    from nuscenes.utils.splits import create_splits_scenes

    tables = Path(dataroot) / version
    custom = _custom_splits(tables / 'splits.json')
    official = create_splits_scenes()
    splits = custom | official
    with consistent(tables):
        present = [scene['name'] for scene in read_json(tables / 'scene.json')]
    require_scene_names(tables, present)
    wanted = set(splits.get(split, ()))
    absent = sorted(wanted - set(present))
    if wanted and not absent:
        return [name for name in present if name in wanted]
    problem = (
        f'needs {len(absent)} scene{"s" * (len(absent) != 1)} that {tables} does not '
        f'contain, such as {", ".join(absent[:3])}'
        if absent
        else 'is unknown or empty'
    )
    if split in custom.keys() & official:
        problem += (
            f'; the official split {split!r} takes precedence over the split in '
            f'{tables / "splits.json"}: rename the split in this file'
        )
    complete = sorted(
        name for name, scenes in splits.items() if scenes and set(scenes) <= set(present)
    )
    raise ValueError(f'split {split!r} {problem}; {_remedy(split, complete, tables)}')


def _remedy(split: str, complete: list[str], tables: Path) -> str:
    path = tables / 'splits.json'
    if not complete:
        return f'{tables} has no complete split: define one in {path}, {_EXAMPLE}'
    return (
        f'{tables} has the splits {", ".join(complete)}{did_you_mean(split, complete)}; you can '
        f'define more splits in {path}'
    )


def _custom_splits(path: Path) -> dict[str, list[str]]:
    custom = read_json(path) if path.exists() else {}
    if not isinstance(custom, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in custom.values()
    ):
        raise ValueError(f'{path} must map names of splits to lists of scene names')
    return custom
