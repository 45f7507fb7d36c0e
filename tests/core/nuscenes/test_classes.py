from __future__ import annotations

import pytest
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES
from nuscenes.eval.detection.utils import (
    category_to_detection_name,
    detection_name_to_rel_attributes,
)

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.classes import CAMERAS, attribute_of, label_of_category
from tests.reference import golden

CATEGORIES = (
    'animal', 'human.pedestrian.adult', 'human.pedestrian.child',
    'human.pedestrian.construction_worker',
    'human.pedestrian.personal_mobility', 'human.pedestrian.police_officer',
    'human.pedestrian.stroller',
    'human.pedestrian.wheelchair', 'movable_object.barrier', 'movable_object.debris',
    'movable_object.pushable_pullable',
    'movable_object.trafficcone', 'static_object.bicycle_rack', 'vehicle.bicycle',
    'vehicle.bus.bendy', 'vehicle.bus.rigid',
    'vehicle.car', 'vehicle.construction', 'vehicle.emergency.ambulance',
    'vehicle.emergency.police', 'vehicle.motorcycle',
    'vehicle.trailer', 'vehicle.truck',
)  # fmt: skip
"""All 23 categories of nuScenes."""


@pytest.mark.parametrize('category', CATEGORIES)
def test_a_category_maps_to_the_class_that_the_devkit_evaluates(category):
    label = label_of_category(category)
    assert (None if label is None else NUSCENES_CLASSES[label]) == category_to_detection_name(
        category
    )


def test_all_ten_classes_come_from_some_category():
    assert {label_of_category(category) for category in CATEGORIES} == {None, *range(10)}


def test_an_unknown_category_is_no_class():
    assert label_of_category('vehicle.hovercraft') is None


def test_cameras_are_in_the_official_order():
    assert list(CAMERAS) == golden('pipeline')[0]['cams_order']


@pytest.mark.parametrize('name', NUSCENES_CLASSES)
@pytest.mark.parametrize('speed', [0.0, 5.0])
def test_an_attribute_is_one_that_the_devkit_accepts_for_the_class(name, speed):
    attribute = attribute_of(name, speed)
    assert attribute in (detection_name_to_rel_attributes(name) or [''])
    assert attribute in ('', *ATTRIBUTE_NAMES)


def test_the_speed_limit_itself_still_stands():
    assert (
        attribute_of('car', 0.2) == 'vehicle.parked'
        and attribute_of('car', 0.2001) == 'vehicle.moving'
    )
