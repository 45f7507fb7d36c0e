"""Datasets of vehicles other than the nuScenes car: sensors, classes, categories, point counts."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES, BEVGrid, ImageSpec
from bevdepth_core.nuscenes.box_counts import count_boxes
from bevdepth_core.nuscenes.channels import Channels
from bevdepth_core.nuscenes.classes import CAMERAS, ClassMap
from bevdepth_core.nuscenes.columns import InvalidAnnotationError
from bevdepth_core.nuscenes.dataset import NuScenesDataset, ground_truth, load_frame
from bevdepth_core.nuscenes.index import SampleIndex, Selection, load_index
from bevdepth_core.nuscenes.recording import read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from tests.core.nuscenes.own_rig import (
    SCENE,
    SPLIT,
    VERSION,
    OwnBox,
    rewrite,
    rows_of,
    write_own_dataset,
)

SEEN = {'num_lidar_pts': 3, 'num_radar_pts': 0}


def load(root, classes=NUSCENES_CLASSES, categories=None, **selection) -> SampleIndex:
    chosen = Selection(ClassMap(tuple(classes), categories or {}), **selection)
    return load_index(root, VERSION, SPLIT, root.parent / 'cache', chosen)


def names(index: SampleIndex, position: int = 0) -> list[str]:
    """Return the classes of a sample's ground truth."""
    return [index.class_names[label] for label in ground_truth(index[position])[1]]


# Classes


@pytest.mark.parametrize(
    'classes', [NUSCENES_CLASSES, ('pedestrian', 'truck', 'car'), ('tram', 'car', 'truck')]
)
def test_a_label_is_the_position_of_the_class_in_the_class_list(tmp_path, classes):
    boxes = [OwnBox(name, counts=SEEN) for name in ('vehicle.car', 'truck', 'car')]
    root = write_own_dataset(tmp_path / 'data', boxes, categories=['tram'])
    assert names(load(root, classes)) == ['car', 'truck', 'car']
    assert load(root, classes).class_names == classes


def test_an_index_with_another_class_list_reuses_the_cache_files(tmp_path):
    root = write_own_dataset(tmp_path / 'data')
    load(root)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / 'cache').rglob('*.npz')}
    assert names(load(root, ('truck', 'car'))) == ['car', 'truck']
    assert names(load(root, ('truck',))) == ['truck']
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / 'cache').rglob('*.npz')} == files


def test_samples_keep_their_own_boxes_if_boxes_of_earlier_samples_are_excluded(tmp_path):
    boxes = [OwnBox('tram', 9, 0, SEEN), OwnBox('car', 8, 1, SEEN)]
    index = load(write_own_dataset(tmp_path / 'data', boxes, frames=3))
    for position in range(3):
        found, labels = ground_truth(index[position])
        assert labels.tolist() == [0]
        assert found.center[0] == pytest.approx((8, 1, 0.8))
        assert index.labels(position).tolist() == [0]


def test_an_unknown_class_is_rejected_with_a_suggestion(tmp_path):
    root = write_own_dataset(tmp_path / 'data', categories=['excavator'])
    with pytest.raises(ValueError, match="did you mean 'excavator'"):
        load(root, ('car', 'excavtor'))


# Counts


def test_the_counts_report_excluded_boxes_and_the_reasons(tmp_path):
    boxes = [
        OwnBox('car', 8, 1, SEEN),
        OwnBox('car', 8, 1),
        OwnBox('truck', 200, 0, SEEN),
        OwnBox('bus', 8, 0, {'num_lidar_pts': 0, 'num_radar_pts': 0}),
        OwnBox('animal', 8, 0, SEEN),
    ]
    counts = count_boxes(load(write_own_dataset(tmp_path / 'data', boxes, frames=2)), BEVGrid())
    assert (counts.used['car'], counts.used['truck'], counts.total) == (4, 0, 10)
    assert (counts.categories, counts.without_points) == ({'animal': 2}, 2)
    assert (counts.outside, counts.unknown_points) == (2, 2)
    text = counts.summary()
    assert '4 of 10 boxes are used (car 4, truck 0' in text
    assert 'excluded: 2 of categories without a class (animal 2)' in text
    assert '2 with too few lidar and radar points' in text and '2 with the center outside' in text
    assert text.endswith('2 used boxes have no point count')


def test_the_counts_report_no_exclusion_if_all_boxes_are_used(tmp_path):
    text = count_boxes(load(write_own_dataset(tmp_path / 'data')), BEVGrid()).summary()
    assert '6 of 6 boxes are used' in text and 'excluded' not in text and 'no point' not in text


@pytest.mark.parametrize(('x', 'inside'), [(3.3, 1), (3.1, 0), (11.9, 1), (12.0, 0)])
def test_boxes_less_than_one_cell_before_the_start_of_the_grid_are_used(tmp_path, x, inside):
    grid = BEVGrid(x=(4.0, 12.0, 0.8), y=(-8.0, 8.0, 0.8))
    root = write_own_dataset(tmp_path / 'data', [OwnBox('car', x, 1, SEEN)], frames=1)
    counts = count_boxes(load(root), grid)
    assert (counts.used['car'], counts.outside) == (inside, 1 - inside)


@pytest.mark.parametrize(
    ('boxes', 'message'),
    [
        ([], 'mine has no annotations'),
        ([OwnBox('tram', counts=SEEN)], r'no usable boxes: 0 of 3 .*tram 3.*data\.categories'),
        ([OwnBox('car', counts={'num_lidar_pts': 0})], r'data\.min_points to 0'),
    ],
)
def test_a_dataset_without_a_usable_box_is_rejected_with_the_reason_and_a_remedy(
    tmp_path, boxes, message
):
    counts = count_boxes(load(write_own_dataset(tmp_path / 'data', boxes)))
    with pytest.raises(ValueError, match=message):
        counts.require_boxes('mine')


def test_a_dataset_with_one_usable_box_is_accepted(tmp_path):
    boxes = [OwnBox('car', counts=SEEN)]
    count_boxes(load(write_own_dataset(tmp_path / 'data', boxes, frames=1))).require_boxes('mine')


# Cameras


@pytest.mark.parametrize(
    ('x', 'y', 'is_seen'), [(8, 0, True), (-8, 0, False), (4, 6, False), (5, 4.5, True)]
)
def test_a_box_outside_every_image_is_not_ground_truth_and_is_counted_as_out_of_view(
    tmp_path, x, y, is_seen
):
    """The cameras at x = 1 m, y = 0 look along x and cover 38.7 degrees to each side. The center
    of the last box is outside this angle, but its corner at (7, 3.5) m is inside.
    """
    root = write_own_dataset(
        tmp_path / 'data', [OwnBox('car', x, y, SEEN), OwnBox('truck', counts=SEEN)], frames=2
    )
    index = load(root)
    assert names(index) == ['car'] * is_seen + ['truck']
    counts = count_boxes(index)
    assert (counts.used['car'], counts.out_of_view) == ((2, 0) if is_seen else (0, 2))
    assert (counts.without_points, counts.total) == (0, 4)
    assert ('2 that no camera sees' in counts.summary()) != is_seen


def test_with_the_six_nuscenes_cameras_boxes_outside_every_image_are_ground_truth(tmp_path):
    boxes = [OwnBox('vehicle.car', -8, 0, SEEN)]
    root = write_own_dataset(tmp_path / 'data', boxes, cameras=CAMERAS, lidar='LIDAR_TOP')
    assert load(root).is_official
    assert names(load(root)) == ['car']
    index = load(root, cameras=('CAM_FRONT', 'CAM_BACK'))
    assert not index.is_official
    assert names(index) == []


@pytest.mark.parametrize(
    ('table', 'change', 'message'),
    [
        ('sample_data', {'width': None}, 'front.* no width and height'),
        ('sample_data', {'height': 0}, 'front.* no width and height'),
        ('calibrated_sensor', {'camera_intrinsic': []}, 'front.* no camera_intrinsic'),
    ],
)
def test_a_camera_without_image_size_or_intrinsics_is_reported(tmp_path, table, change, message):
    root = write_own_dataset(tmp_path / 'data')
    rewrite(root, table, [row | change for row in rows_of(root, table)])
    with pytest.raises(ValueError, match=message):
        load(root)


# Point counts


@pytest.mark.parametrize(
    ('counts', 'points', 'used'),
    [
        ({'num_lidar_pts': 2, 'num_radar_pts': 3}, 5, True),
        ({'num_lidar_pts': 0, 'num_radar_pts': 3}, 3, True),
        ({'num_lidar_pts': 1}, 1, True),
        ({'num_lidar_pts': 0, 'num_radar_pts': 0}, 0, False),
        ({'num_lidar_pts': 0}, 0, False),
        ({'num_lidar_pts': 0, 'num_radar_pts': -1}, 0, False),
        ({'num_lidar_pts': -1, 'num_radar_pts': -1}, -1, True),
        ({'num_lidar_pts': -1, 'num_radar_pts': 4}, 4, True),
        ({'num_lidar_pts': None, 'num_radar_pts': 0}, -1, True),
        ({'num_lidar_pts': float('nan')}, -1, True),
        ({}, -1, True),
    ],
)
def test_a_box_is_excluded_only_if_its_point_count_is_zero(tmp_path, counts, points, used):
    root = write_own_dataset(tmp_path / 'data', [OwnBox('car', counts=counts)], frames=1)
    record = load(root)[0]
    assert record.annotations.points.tolist() == [points]
    assert len(ground_truth(record)[1]) == used


@pytest.mark.parametrize(('min_points', 'used'), [(0, [0, 2, 3]), (2, [2, 3]), (3, [3])])
def test_boxes_with_fewer_points_than_min_points_are_not_used(tmp_path, min_points, used):
    boxes = [OwnBox('car', counts={'num_lidar_pts': count}) for count in (0, 2, 3)]
    annotations = load(write_own_dataset(tmp_path / 'data', boxes), min_points=min_points)[
        0
    ].annotations
    assert annotations.points[annotations.seen].tolist() == used


# Sensors


def test_the_index_has_the_cameras_and_the_lidar_of_the_dataset(tmp_path):
    root = write_own_dataset(tmp_path / 'data', cameras=('rear', 'CAM_BACK', 'CAM_FRONT'))
    index = load(root)
    assert index.channels == Channels(('CAM_FRONT', 'CAM_BACK', 'rear'), 'os1')
    assert [camera.channel for camera in index[0].cameras] == ['CAM_FRONT', 'CAM_BACK', 'rear']
    assert index[0].lidar.channel == 'os1' and index[0].lidar.filename == 'samples/os1/file'
    frame = load_frame(index[0], root)
    assert frame.rig.names == ('CAM_FRONT', 'CAM_BACK', 'rear')


def test_cameras_have_the_order_in_which_they_are_selected(tmp_path):
    root = write_own_dataset(tmp_path / 'data', cameras=('a', 'b', 'c'))
    index = load(root, cameras=('c', 'a'))
    assert [camera.filename for camera in index[0].cameras] == [
        'samples/c/file',
        'samples/a/file',
    ]
    assert index.channels.cameras == ('c', 'a') and load(root).channels.cameras == ('a', 'b', 'c')


@pytest.mark.parametrize(
    ('selection', 'message'),
    [
        ({'cameras': ('front', 'reer')}, "no camera 'reer' .did you mean 'rear'"),
        ({'cameras': ('front', 'front')}, 'must not repeat'),
        ({'cameras': ()}, 'lists no camera'),
        ({'cameras': ('os1',)}, "no camera 'os1'"),
        ({'lidar': 'os2'}, "no lidar 'os2' .did you mean 'os1'"),
    ],
)
def test_an_invalid_selection_of_sensors_is_rejected(tmp_path, selection, message):
    with pytest.raises(ValueError, match=message):
        load(write_own_dataset(tmp_path / 'data'), **selection)


def test_a_dataset_with_several_lidars_needs_a_selected_lidar_unless_one_lidar_is_lidar_top(
    tmp_path,
):
    root = write_own_dataset(tmp_path / 'data')
    more = {'token': 'x', 'channel': 'vlp', 'modality': 'lidar'}
    rewrite(root, 'sensor', [*rows_of(root, 'sensor'), more])
    with pytest.raises(ValueError, match='lists the lidars os1, vlp: choose one'):
        load(root)
    assert load(root, lidar='os1').channels.lidar == 'os1'
    root = write_own_dataset(tmp_path / 'official', lidar='LIDAR_TOP')
    rewrite(root, 'sensor', [*rows_of(root, 'sensor'), more])
    assert load(root).channels.lidar == 'LIDAR_TOP'


def test_the_depth_maps_of_a_dataset_without_a_lidar_are_zero(tmp_path):
    root = write_own_dataset(tmp_path / 'data', lidar=None)
    index = load(root)
    sample = NuScenesDataset(index, root, ImageSpec(32, 64), 2)[1]
    assert index.channels.lidar is None and index[0].lidar is None
    assert sample.depth.shape == (2, 32, 64) and not sample.depth.any()


def test_a_sample_has_images_and_depth_of_every_camera(tmp_path):
    root = write_own_dataset(tmp_path / 'data', cameras=('a', 'b', 'c'))
    sample = NuScenesDataset(load(root), root, ImageSpec(32, 64), 2)[1]
    assert sample.images.shape == (2, 3, 32, 64, 3)
    assert all((sample.depth[camera] > 0).sum() > 10 for camera in range(3))


@pytest.mark.parametrize('frames', [1, 2, 5])
def test_scenes_may_have_any_length(tmp_path, frames):
    index = load(write_own_dataset(tmp_path / 'data', frames=frames, scenes=2))
    assert index.scenes() == [range(frames), range(frames, 2 * frames)]


def test_a_scene_without_samples_is_reported_by_name(tmp_path):
    root = write_own_dataset(tmp_path / 'data')
    rewrite(root, 'scene', [rows_of(root, 'scene')[0] | {'first_sample_token': ''}])
    with pytest.raises(ValueError, match=f'scene {SCENE} has no samples'):
        load(root)


def test_a_velocity_that_the_devkit_returns_as_nan_is_zero_in_the_ground_truth(tmp_path):
    record = load(write_own_dataset(tmp_path / 'data', frames=1))[0]
    assert np.isnan(record.annotations.velocity).all()
    assert (ground_truth(record)[0].velocity == 0).all()
    moving = load(write_own_dataset(tmp_path / 'more', frames=2))[0]
    assert ground_truth(moving)[0].velocity[0] == pytest.approx((10, 0))


# Invalid boxes


@pytest.mark.parametrize(
    ('changes', 'value'),
    [
        ({'size': [0, 4.0, 1.6]}, r'size \[0.0, 4.0, 1.6\]'),
        ({'size': [2.0, 4.0, float('nan')]}, 'size .*nan'),
        ({'size': [2.0, -4.0, 1.6]}, 'size .*-4.0'),
        ({'translation': [1.0, float('inf'), 0.0]}, 'translation .*inf'),
        ({'rotation': [0.0, 0, 0, 0]}, r'rotation \[0.0, 0.0, 0.0, 0.0\]'),
        ({'rotation': [1.0, 0, 0, float('nan')]}, 'rotation .*nan'),
        ({'size': None}, 'has size None'),
        ({'translation': None}, 'has translation None'),
        ({'size': [2.0, 4.0]}, 'size must be 3 numbers'),
        ({'rotation': ['a', 'b', 'c', 'd']}, 'rotation must be 4 numbers'),
    ],
)
def test_an_invalid_box_is_reported_with_its_sample_and_dataset(tmp_path, changes, value):
    boxes = [OwnBox('tram', counts=SEEN), OwnBox('car', counts=SEEN)]
    root = write_own_dataset(tmp_path / 'data', boxes)
    rows = rows_of(root, 'sample_annotation')
    row = next(place for place, row in enumerate(rows) if row['token'] == f'{SCENE}-1-box-1')
    rows[row] |= changes
    rewrite(root, 'sample_annotation', rows)
    expected = rf'annotation {SCENE}-1-box-1 of sample {SCENE}-1 in .*data.* {value}'
    with pytest.raises(InvalidAnnotationError, match=expected):
        load(root)


def test_invalid_boxes_are_accepted_if_they_are_not_used(tmp_path):
    flat = {'size': [0.0, 4.0, 1.6]}
    boxes = [
        OwnBox('tram', counts=SEEN, changes=flat),
        OwnBox('car', counts={'num_lidar_pts': 0}, changes=flat),
        OwnBox('car', counts=SEEN),
    ]
    assert names(load(write_own_dataset(tmp_path / 'data', boxes))) == ['car']


# Recordings


@pytest.mark.parametrize('boxes', [[], [OwnBox('tram', counts=SEEN)]])
def test_a_recording_contains_key_frames_without_boxes(tmp_path, boxes):
    root = write_own_dataset(tmp_path / 'data', boxes)
    recording = read_recording(open_devkit(root, VERSION), SCENE)
    assert len(recording.moments) == 3
    for moment in recording.moments:
        assert moment.poses_in_ego().shape == (0, 4, 4)
        assert moment.size.shape == (0, 3) and moment.class_names == ()


def test_a_recording_contains_only_boxes_of_the_classes_in_the_class_list(tmp_path):
    root = write_own_dataset(tmp_path / 'data', [OwnBox('tram', 9, 2), OwnBox('truck', 7, 1)])
    devkit = open_devkit(root, VERSION)
    assert read_recording(devkit, SCENE).moments[0].class_names == ('truck',)
    moment = read_recording(devkit, SCENE, ClassMap(('tram',))).moments[1]
    assert moment.class_names == ('tram',)
    assert moment.poses_in_ego()[0, :3, 3] == pytest.approx((9, 2, 0.8))
    assert moment.size.tolist() == [[4.0, 2.0, 1.6]]
