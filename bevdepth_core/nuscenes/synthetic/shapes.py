"""From the kind of an object to its shape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bevdepth_core.nuscenes.synthetic import people, scenery, vehicles
from bevdepth_core.nuscenes.synthetic.solids import Shape

_BUILDERS = {
    'car': vehicles.car,
    'truck': vehicles.truck,
    'trailer': vehicles.trailer,
    'bus': vehicles.bus,
    'construction_vehicle': vehicles.construction_vehicle,
    'bicycle': people.bicycle,
    'motorcycle': people.motorcycle,
    'barrier': scenery.barrier,
    'traffic_cone': scenery.traffic_cone,
    'building': scenery.building,
    'tree': scenery.tree,
    'lamp': scenery.lamp,
}


@lru_cache(maxsize=4096)
def build_shape(kind: str, size: tuple[float, float, float], appearance: int, rider: bool = True, stride: float = 0.0) -> Shape:
    """Return the shape of an object.

    Args:
        kind: a nuScenes class or building, tree, lamp.
        size: length, width, height, metres.
        appearance: seed of colours and parts.
        rider: whether somebody sits on a bicycle or motorcycle.
        stride: phase of a walker's step, -1..1; pass few different values, shapes are remembered.
    """
    rng = np.random.default_rng(appearance)
    if kind == 'pedestrian':
        return Shape(people.pedestrian(*size, rng, stride))
    if kind in ('bicycle', 'motorcycle'):
        return Shape(_BUILDERS[kind](*size, rng, rider))
    return Shape(_BUILDERS[kind](*size, rng))
