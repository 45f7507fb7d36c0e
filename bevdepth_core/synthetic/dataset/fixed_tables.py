"""Creates the table rows that do not depend on the drives: categories, attributes, visibility
levels and sensors. Also returns the tokens of the category, the attribute and the visibility level
of an actor.
"""

from __future__ import annotations

from collections.abc import Iterable

from bevdepth_core.nuscenes.classes import LIDAR, MOVING_SPEED
from bevdepth_core.nuscenes.table_files import token

CHILD_HEIGHT = 1.4
"""A pedestrian with a height below this value, in meters, has the category child."""

_CATEGORIES = (
    'human.pedestrian.adult', 'human.pedestrian.child', 'human.pedestrian.wheelchair',
    'human.pedestrian.stroller',
    'human.pedestrian.personal_mobility', 'human.pedestrian.police_officer',
    'human.pedestrian.construction_worker', 'animal',
    'vehicle.car', 'vehicle.motorcycle', 'vehicle.bicycle', 'vehicle.bus.bendy',
    'vehicle.bus.rigid', 'vehicle.truck',
    'vehicle.construction', 'vehicle.emergency.ambulance', 'vehicle.emergency.police',
    'vehicle.trailer', 'movable_object.barrier',
    'movable_object.trafficcone', 'movable_object.pushable_pullable', 'movable_object.debris',
    'static_object.bicycle_rack',
)  # fmt: skip
_ATTRIBUTES = (
    'vehicle.moving', 'vehicle.stopped', 'vehicle.parked', 'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.sitting_lying_down', 'pedestrian.standing', 'pedestrian.moving',
)  # fmt: skip
_VISIBILITIES = {'1': (0, 40), '2': (40, 60), '3': (60, 80), '4': (80, 100)}
"""Maps the token of each visibility level to the lowest and the highest visible percentage of an
object of this level."""

_CATEGORY_OF_CLASS = {
    'car': 'vehicle.car',
    'truck': 'vehicle.truck',
    'construction_vehicle': 'vehicle.construction',
    'bus': 'vehicle.bus.rigid',
    'trailer': 'vehicle.trailer',
    'barrier': 'movable_object.barrier',
    'motorcycle': 'vehicle.motorcycle',
    'bicycle': 'vehicle.bicycle',
    'pedestrian': 'human.pedestrian.adult',
    'traffic_cone': 'movable_object.trafficcone',
}


def fixed_rows(cameras: Iterable[str]) -> dict[str, list[dict]]:
    """Return the tables that do not depend on scenes: category, attribute, visibility, sensor."""
    return {
        'category': [
            {'token': token('category', name), 'name': name, 'description': ''}
            for name in _CATEGORIES
        ],
        'attribute': [
            {'token': token('attribute', name), 'name': name, 'description': ''}
            for name in _ATTRIBUTES
        ],
        'visibility': [
            {
                'token': number,
                'level': f'v{start}-{stop}',
                'description': f'visibility of whole object is between {start} and {stop}%',
            }
            for number, (start, stop) in _VISIBILITIES.items()
        ],
        'sensor': [
            {
                'token': token('sensor', channel),
                'channel': channel,
                'modality': 'lidar' if channel == LIDAR else 'camera',
            }
            for channel in (*cameras, LIDAR)
        ],
    }


def category_token(class_name: str, height: float) -> str:
    """Return the category token of an actor; ``height`` distinguishes children from adults."""
    child = class_name == 'pedestrian' and height < CHILD_HEIGHT
    return token('category', 'human.pedestrian.child' if child else _CATEGORY_OF_CLASS[class_name])


def attribute_tokens(class_name: str, rider: bool, speed: float, ever_moves: bool) -> list[str]:
    """Return the attribute of an actor as a list of at most one token.

    Args:
        class_name: one of the ten classes.
        rider: whether a bicycle or motorcycle has a rider.
        speed: current speed over ground, m/s.
        ever_moves: whether the actor moves at any time of the scene. A vehicle that never moves is
            parked. A bus that never moves is stopped instead, because it stands at a bus stop.
    """
    moves = speed > MOVING_SPEED
    if class_name in ('barrier', 'traffic_cone'):
        return []
    if class_name == 'pedestrian':
        return [token('attribute', 'pedestrian.moving' if moves else 'pedestrian.standing')]
    if class_name in ('bicycle', 'motorcycle'):
        return [token('attribute', 'cycle.with_rider' if rider else 'cycle.without_rider')]
    if moves:
        return [token('attribute', 'vehicle.moving')]
    return [
        token(
            'attribute',
            'vehicle.stopped' if ever_moves or class_name == 'bus' else 'vehicle.parked',
        )
    ]


def visibility_token(fraction: float) -> str:
    """Return the token of the visibility level for a visible fraction of an object, 0 to 1."""
    return next(
        (number for number, (_, stop) in _VISIBILITIES.items() if fraction * 100 < stop), '4'
    )
