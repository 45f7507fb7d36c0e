"""Maps categories of a dataset to classes, and defines the names of cameras and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.suggestions import did_you_mean

CAMERAS = (
    'CAM_FRONT_LEFT',
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK',
    'CAM_BACK_RIGHT',
)
"""The official order of cameras."""
LIDAR = 'LIDAR_TOP'

MOVING_SPEED = 0.2
"""Speed over ground above which the official evaluation considers an object as moving, m/s."""

_CLASS_OF_CATEGORY = {
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian',
    'movable_object.barrier': 'barrier',
    'movable_object.trafficcone': 'traffic_cone',
    'vehicle.bicycle': 'bicycle',
    'vehicle.bus.bendy': 'bus',
    'vehicle.bus.rigid': 'bus',
    'vehicle.car': 'car',
    'vehicle.construction': 'construction_vehicle',
    'vehicle.motorcycle': 'motorcycle',
    'vehicle.trailer': 'trailer',
    'vehicle.truck': 'truck',
}

_ATTRIBUTES = {  # class: (standing, moving)
    'car': ('vehicle.parked', 'vehicle.moving'),
    'truck': ('vehicle.parked', 'vehicle.moving'),
    'construction_vehicle': ('vehicle.parked', 'vehicle.moving'),
    'bus': ('vehicle.stopped', 'vehicle.moving'),
    'trailer': ('vehicle.parked', 'vehicle.moving'),
    'barrier': ('', ''),
    'motorcycle': ('cycle.without_rider', 'cycle.with_rider'),
    'bicycle': ('cycle.without_rider', 'cycle.with_rider'),
    'pedestrian': ('pedestrian.standing', 'pedestrian.moving'),
    'traffic_cone': ('', ''),
}


@dataclass(frozen=True)
class ClassMap:
    """The classes of a network, and the class of each category of a dataset.

    If ``categories`` contains a category, this entry defines the class of the category. Otherwise,
    the category belongs to the class of the same name. If there is no such class, the category
    belongs to its nuScenes class; for example, ``vehicle.car`` belongs to ``car``.

    Attributes:
        class_names: names of the classes in the order of the labels.
        categories: maps names of categories to classes; None excludes a category.
    """

    class_names: tuple[str, ...] = NUSCENES_CLASSES
    categories: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        repeated = sorted({n for n in self.class_names if self.class_names.count(n) > 1})
        if repeated:
            raise ValueError(f'class names must be unique, but {", ".join(repeated)} is repeated')
        for category, name in self.categories.items():
            if name is not None and name not in (*self.class_names, *NUSCENES_CLASSES):
                raise ValueError(
                    f'category {category!r} is mapped to {name!r}, which is not a class of the '
                    f'network ({", ".join(self.class_names)})'
                    f'{did_you_mean(name, self.class_names)}'
                )

    def label(self, category: str) -> int | None:
        """Return the index of the class of ``category``; None for a category without a class."""
        plain = category if category in self.class_names else _CLASS_OF_CATEGORY.get(category)
        name = self.categories.get(category, plain)
        return self.class_names.index(name) if name in self.class_names else None

    def is_official(self, category: str) -> bool:
        """Return True if ``label`` and the nuScenes devkit give ``category`` the same class."""
        label = self.label(category)
        name = None if label is None else self.class_names[label]
        return name == _CLASS_OF_CATEGORY.get(category)

    def require_known(self, categories: Iterable[str]) -> None:
        """Raise ValueError if a class has no possible category. A class must be a nuScenes class,
        a category of the dataset, or the class of an entry in ``self.categories``.

        Args:
            categories: all categories of the dataset.
        """
        mapped = {name for name in self.categories.values() if name is not None}
        category_names = {*NUSCENES_CLASSES, *categories, *mapped}
        for name in self.class_names:
            if name not in category_names:
                raise ValueError(
                    f'class {name!r} is neither a nuScenes class nor a category of the dataset '
                    f'({", ".join(sorted(set(categories))) or "which has no categories"})'
                    f'{did_you_mean(name, category_names)}; correct model.network.head.tasks, or '
                    'map categories to this class in a file, and set data.categories to the path '
                    'of this file'
                )


def read_categories(path: str | Path | None) -> dict[str, str | None]:
    """Return the content of a YAML or JSON file that maps categories to classes or to null.

    Args:
        path: path of the file; None gives an empty mapping.

    Raises:
        ValueError: the file cannot be read, or does not map names to names or to null.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'category mapping {path} cannot be read: {error}') from error
    if not isinstance(content, dict) or not all(
        isinstance(category, str) and (name is None or isinstance(name, str))
        for category, name in content.items()
    ):
        raise ValueError(
            f'category mapping {path} must have lines such as "van: car" or "tram: null"'
        )
    return content


def attribute_of(class_name: str, speed: float) -> str:
    """Return the attribute that the official evaluator gives an object.

    Args:
        class_name: any class.
        speed: m/s over ground.

    Returns:
        An attribute name; empty for barriers, traffic cones and classes that nuScenes does not
        have.
    """
    standing, moving = _ATTRIBUTES.get(class_name, ('', ''))
    return moving if speed > MOVING_SPEED else standing
