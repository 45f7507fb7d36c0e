"""Categories, classes and attributes of nuScenes and of other class lists."""

from __future__ import annotations

import pytest
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES
from nuscenes.eval.detection.utils import (
    category_to_detection_name,
    detection_name_to_rel_attributes,
)

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.classes import CAMERAS, ClassMap, attribute_of, read_categories
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
def test_a_category_has_the_same_class_as_in_the_devkit(category):
    label = ClassMap().label(category)
    assert (None if label is None else NUSCENES_CLASSES[label]) == category_to_detection_name(
        category
    )


def test_each_of_the_ten_nuscenes_classes_has_a_category():
    assert {ClassMap().label(category) for category in CATEGORIES} == {None, *range(10)}


def test_an_unknown_category_has_no_class():
    assert ClassMap().label('vehicle.hovercraft') is None


def test_cameras_are_in_the_official_order():
    assert list(CAMERAS) == golden('pipeline')[0]['cams_order']


@pytest.mark.parametrize('name', NUSCENES_CLASSES)
@pytest.mark.parametrize('speed', [0.0, 5.0])
def test_the_devkit_accepts_the_attribute_of_each_class(name, speed):
    attribute = attribute_of(name, speed)
    assert attribute in (detection_name_to_rel_attributes(name) or [''])
    assert attribute in ('', *ATTRIBUTE_NAMES)


def test_a_car_is_parked_at_the_speed_threshold_and_moving_above_it():
    assert (
        attribute_of('car', 0.2) == 'vehicle.parked'
        and attribute_of('car', 0.2001) == 'vehicle.moving'
    )


def test_a_category_with_the_name_of_a_class_belongs_to_this_class():
    classes = ClassMap(('truck', 'tram'))
    assert [classes.label(name) for name in ('truck', 'tram', 'car')] == [0, 1, None]


def test_labels_follow_the_order_of_the_class_list():
    classes = ClassMap(tuple(reversed(NUSCENES_CLASSES)))
    assert classes.label('vehicle.car') == 9 and classes.label('movable_object.trafficcone') == 0


def test_a_category_mapping_replaces_the_default_class_and_null_excludes_the_category():
    classes = ClassMap(categories={'van': 'car', 'vehicle.truck': 'bus', 'car': None})
    assert classes.label('van') == 0
    assert classes.label('vehicle.truck') == NUSCENES_CLASSES.index('bus')
    assert classes.label('car') is None and classes.label('vehicle.car') == 0


def test_a_mapping_to_an_unknown_class_is_rejected_with_a_suggestion():
    with pytest.raises(
        ValueError, match=r"'towing_truck' is mapped to 'trck'.*did you mean 'truck'"
    ):
        ClassMap(categories={'towing_truck': 'trck'})


def test_a_repeated_class_is_rejected():
    with pytest.raises(ValueError, match='unique, but car is repeated'):
        ClassMap(('car', 'truck', 'car'))


def test_a_class_without_any_category_is_rejected_with_a_suggestion():
    ClassMap(('car', 'tram')).require_known(['tram'])
    ClassMap(('car', 'tram'), {'rail': 'car', 'x': None}).require_known(['tram'])
    with pytest.raises(ValueError, match=r"class 'pedestrain'.*did you mean 'pedestrian'"):
        ClassMap(('car', 'pedestrain')).require_known(['tram'])


def test_a_category_is_official_only_if_the_devkit_gives_it_the_same_class():
    assert all(map(ClassMap().is_official, CATEGORIES))
    assert not ClassMap().is_official('car')
    assert not ClassMap(categories={'animal': 'car'}).is_official('animal')
    assert not ClassMap(('car',)).is_official('vehicle.truck')


def test_the_mapping_is_read_from_a_file_and_is_empty_without_a_file(tmp_path):
    path = tmp_path / 'categories.yaml'
    path.write_text('van: car\ntram: null\n')
    assert read_categories(path) == {'van': 'car', 'tram': None}
    assert read_categories(None) == {}


@pytest.mark.parametrize('content', ['- van', 'van: [car]', '7: car', 'van: 3', '{'])
def test_a_mapping_file_that_does_not_map_names_to_names_is_rejected(tmp_path, content):
    path = tmp_path / 'categories.yaml'
    path.write_text(content)
    with pytest.raises(ValueError, match=r'categories\.yaml'):
        read_categories(path)


def test_the_message_about_a_missing_mapping_file_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r'nothing\.yaml cannot be read'):
        read_categories(tmp_path / 'nothing.yaml')


def test_a_class_outside_nuscenes_has_no_attribute():
    assert attribute_of('tram', 5.0) == ''
