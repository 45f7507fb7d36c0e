"""The names of nuScenes: cameras, categories to classes, attributes."""

from __future__ import annotations

from bevdepth_core.config import NUSCENES_CLASSES

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
"""Metres per second over ground above which the official evaluator calls an object moving."""

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


def label_of_category(category: str) -> int | None:
    """Return the class index of a nuScenes category name, None for categories that are not
    detected.
    """
    name = _CLASS_OF_CATEGORY.get(category)
    return None if name is None else NUSCENES_CLASSES.index(name)


def attribute_of(class_name: str, speed: float) -> str:
    """Return the attribute that the official evaluator gives an object.

    Args:
        class_name: one of the ten classes.
        speed: m/s over ground.

    Returns:
        An attribute name, empty for classes that have none.

    Raises:
        KeyError: not one of the ten classes.
    """
    standing, moving = _ATTRIBUTES[class_name]
    return moving if speed > MOVING_SPEED else standing
