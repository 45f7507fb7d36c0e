"""A synthetic dataset in nuScenes format is valid for the devkit and for our own readers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.data_classes import Box, LidarPointCloud
from nuscenes.utils.geometry_utils import BoxVisibility, points_in_box, view_points
from pyquaternion import Quaternion

from bevdepth_core.config import NUSCENES_CLASSES, ImageSpec
from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.nuscenes.dataset import NuScenesDataset, Sample, ground_truth
from bevdepth_core.nuscenes.evaluation import evaluate
from bevdepth_core.nuscenes.images import read_image
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.result_file import result_boxes, write_results
from bevdepth_core.nuscenes.table_files import token
from bevdepth_core.synthetic import EXPOSURE_OFFSET_S, make_scene, nuscenes_like_rig, render_camera
from bevdepth_core.synthetic.dataset.writing import SPLITS, VERSION
from bevdepth_core.synthetic.sensors.schedule import Shot
from bevdepth_core.types import Detections3D
from tests.core.synthetic.drives import IMAGES, KEY_FRAMES, PLAN, TURNS, digests

VISIBLE = '4'
"""Visibility token of objects of which at least 80 % is visible."""


@pytest.fixture(scope='module')
def devkit(drives_root) -> NuScenes:
    return NuScenes(VERSION, str(drives_root), verbose=False)


@pytest.fixture(scope='module')
def index(drives_root, tmp_path_factory) -> SampleIndex:
    return load_index(drives_root, VERSION, SPLITS[1], tmp_path_factory.mktemp('cache'))


def chains(table: list[dict]) -> list[list[dict]]:
    """Return one list for each chain of rows that are linked by ``prev`` and ``next``, from the
    first row of the chain to the last row.
    """
    by_token = {row['token']: row for row in table}
    found = []
    for row in table:
        if not row['prev']:
            chain = [row]
            while chain[-1]['next']:
                chain.append(by_token[chain[-1]['next']])
            assert all(
                second['prev'] == first['token'] for first, second in itertools.pairwise(chain)
            )
            found.append(chain)
    assert sum(map(len, found)) == len(table)
    return found


def test_the_dataset_contains_exactly_the_files_that_its_tables_list(drives_root, devkit):
    named = {record['filename'] for record in (*devkit.sample_data, *devkit.map)}
    assert named == {name for name in digests(drives_root) if not name.startswith(VERSION)}
    assert [
        len(table)
        for table in (devkit.sensor, devkit.category, devkit.attribute, devkit.visibility)
    ] == [7, 23, 8, 4]


def test_sensors_have_the_periods_of_nuscenes(devkit):
    assert [len(chain) for chain in chains(devkit.sample)] == [KEY_FRAMES] * 2
    for chain in chains(devkit.sample_data):
        channel, stamps = chain[0]['channel'], np.array([record['timestamp'] for record in chain])
        assert {record['channel'] for record in chain} == {channel}
        assert len(chain) == (TURNS if channel == LIDAR else IMAGES)
        assert set(np.diff(stamps)) == ({50_000} if channel == LIDAR else {50_000, 100_000})
        assert [
            devkit.get('ego_pose', record['ego_pose_token'])['timestamp'] for record in chain
        ] == stamps.tolist()


def test_files_between_key_frames_belong_to_the_sample_that_follows(devkit):
    for chain in chains(devkit.sample_data):
        keys = [record for record in chain if record['is_key_frame']]
        following = np.searchsorted(
            [record['timestamp'] for record in keys], [record['timestamp'] for record in chain]
        )
        assert [record['sample_token'] for record in chain] == [
            keys[number]['sample_token'] for number in following
        ]
        ahead = {
            devkit.get('sample', key['sample_token'])['timestamp'] - key['timestamp']
            for key in keys
        }
        assert (
            ahead == {0} if keys[0]['channel'] == LIDAR else 0 < min(ahead) == max(ahead) < 50_000
        )


def test_objects_keep_their_instance_and_their_attribute_fits_their_speed(devkit):
    speeds = {
        'vehicle.moving': [],
        'vehicle.parked': [],
        'pedestrian.moving': [],
        'pedestrian.standing': [],
    }
    for track in chains(devkit.sample_annotation):
        instance = devkit.get('instance', track[0]['instance_token'])
        assert {record['instance_token'] for record in track} == {instance['token']}
        assert instance['nbr_annotations'] == len(track)
        assert (instance['first_annotation_token'], instance['last_annotation_token']) == (
            track[0]['token'],
            track[-1]['token'],
        )
        for record in track[1:-1]:
            names = [devkit.get('attribute', name)['name'] for name in record['attribute_tokens']]
            speeds.setdefault(''.join(names), []).append(
                np.linalg.norm(devkit.box_velocity(record['token']))
            )
    assert min(speeds['vehicle.moving']) > 0.1 > max(speeds['vehicle.parked'])
    assert min(speeds['pedestrian.moving']) > 0.1 > max(speeds['pedestrian.standing'])


def test_the_devkit_renders_the_dataset_and_the_vehicle_is_on_the_road(devkit, tmp_path):
    mpl.use('Agg')
    sample = devkit.sample[1]
    devkit.render_sample_data(
        sample['data'][LIDAR], out_path=str(tmp_path / 'lidar.png'), verbose=False
    )
    devkit.render_pointcloud_in_image(
        sample['token'],
        camera_channel='CAM_FRONT',
        out_path=str(tmp_path / 'front.png'),
        verbose=False,
    )
    _, (box, *_), _ = devkit.get_sample_data(sample['data']['CAM_FRONT'], BoxVisibility.ALL)
    devkit.render_annotation(box.token, out_path=str(tmp_path / 'box.png'))
    assert len(list(tmp_path.iterdir())) == 3
    for record in devkit.sample_data:
        scene = devkit.get('scene', devkit.get('sample', record['sample_token'])['scene_token'])
        mask = devkit.get('map', devkit.get('log', scene['log_token'])['map_token'])['mask']
        x, y, _ = devkit.get('ego_pose', record['ego_pose_token'])['translation']
        assert mask.is_on_mask(x, y).all()
    assert mask.mask().mean() < 128


def test_the_devkit_gives_full_scores_to_detections_that_equal_the_ground_truth(
    drives_root, index, tmp_path
):
    results = {}
    for record in index:
        boxes, labels = ground_truth(record)
        found = Detections3D(
            boxes, np.ones(len(labels), np.float32), labels, NUSCENES_CLASSES, stamp_ns=0
        )
        results[record.token] = result_boxes(record.token, found, record.world_from_ego())
    write_results(results, tmp_path / 'results.json')
    summary = evaluate(tmp_path / 'results.json', drives_root, VERSION, SPLITS[1], tmp_path)
    present = [name for name, precision in summary['mean_dist_aps'].items() if precision > 0]
    assert len(present) >= 5
    for name in present:
        assert summary['mean_dist_aps'][name] > 0.999
        assert (
            np.nanmax(
                [
                    summary['label_tp_errors'][name][error]
                    for error in ('trans_err', 'scale_err', 'orient_err', 'vel_err')
                ]
            )
            < 1e-2
        )


def test_lidar_points_of_an_object_are_in_its_box(devkit):
    counted = 0
    for sample in devkit.sample:
        path, boxes, _ = devkit.get_sample_data(sample['data'][LIDAR])
        points = LidarPointCloud.from_file(path).points[:3]
        for box in boxes:
            points_in_table = devkit.get('sample_annotation', box.token)['num_lidar_pts']
            box.wlh += 0.12
            assert points_in_box(box, points).sum() >= points_in_table
            counted += points_in_table
    assert counted > 200


def test_boxes_with_at_least_30_lidar_points_contain_depth_targets(drives_root, index):
    dataset = NuScenesDataset(index, drives_root, ImageSpec(height=64, width=128), key_frames=1)
    checked = 0
    for place in range(len(dataset)):
        sample, points = dataset[place], index[place].annotations.points
        shown = depth_points(sample)
        for row, count in zip(sample.boxes.double().numpy(), points[points > 0], strict=True):
            if count >= 30:
                box = Box(
                    row[:3], row[[4, 3, 5]] + 0.6, Quaternion(axis=(0, 0, 1), radians=row[6])
                )
                assert points_in_box(box, shown.T).sum() >= 3
                checked += 1
    assert checked > 10


def depth_points(sample: Sample) -> np.ndarray:
    """Return the (n, 3) points of all depth maps of a sample, in the ego frame."""
    found = []
    for camera, depth in enumerate(sample.depth.double().numpy()):
        rows, columns = depth.nonzero()
        matrices = sample.matrices
        aug, intrinsics, ego_from_camera = (
            matrix[0, camera].double().numpy()
            for matrix in (matrices.image_aug, matrices.intrinsics, matrices.key_ego_from_camera)
        )
        pixels = np.linalg.inv(aug)[:2] @ np.stack(
            (columns + 0.5, rows + 0.5, 0 * rows, 1 + 0 * rows)
        )
        rays = np.linalg.inv(intrinsics[:3, :3]) @ np.vstack((pixels, np.ones(len(rows))))
        found.append(
            (ego_from_camera[:3, :3] @ (rays * depth[rows, columns]) + ego_from_camera[:3, 3:]).T
        )
    return np.concatenate(found)


def test_boxes_lie_on_their_objects_in_the_image_files(devkit):
    """If an actor is omitted, the image changes almost only where the devkit projects the box of
    the actor.
    """
    drive = PLAN.drives()[SPLITS[1]][0]
    scene, checked = make_scene(drive.seed, drive.duration_s), 0
    actors = {
        token('instance', drive.name, drive.seed, number): actor
        for number, actor in enumerate(scene.actors)
    }
    for channel in CAMERAS:
        shot = Shot(channel, 10, EXPOSURE_OFFSET_S[channel])
        path, boxes, intrinsics = devkit.get_sample_data(
            token('sample_data', drive.name, drive.seed, channel, shot.turn), BoxVisibility.ALL
        )
        for box in boxes:
            record, area = devkit.get('sample_annotation', box.token), outline(box, intrinsics)
            if record['visibility_token'] == VISIBLE and area.sum() > 100:
                others = tuple(
                    actor
                    for actor in scene.actors
                    if actor is not actors[record['instance_token']]
                )
                changed = (
                    np.abs(
                        read_image(path).astype(int)
                        - rendered(replace(scene, actors=others), drive, shot)
                    ).max(axis=2)
                    > 16
                )
                assert changed[area].mean() > 0.2
                assert changed[~area].mean() < 0.04
                checked += 1
    assert checked >= 3


def outline(box: Box, intrinsics: np.ndarray) -> np.ndarray:
    """Return the (height, width) mask of the pixels that a box in camera coordinates covers."""
    mask = np.zeros((PLAN.sensors.height, PLAN.sensors.width), np.uint8)
    hull = cv2.convexHull(
        view_points(box.corners(), intrinsics, normalize=True)[:2].T.astype(np.float32)
    )
    cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), 1)
    return mask.astype(bool)


def rendered(scene, drive, shot: Shot) -> np.ndarray:
    rig = drive.camera_rig(PLAN.sensors)
    camera = rig.names.index(shot.channel)
    world_from_camera = scene.world_from_ego(shot.time_s) @ rig.ego_from_camera[camera]
    return render_camera(
        scene, rig.intrinsics[camera], world_from_camera, shot.time_s, width=160, height=90
    ).astype(int)


def test_every_log_has_its_own_calibration(devkit):
    by_channel = {}
    for record in devkit.calibrated_sensor:
        by_channel.setdefault(record['sensor_token'], []).append(record)
    for first, second in by_channel.values():
        assert 0 < np.abs(np.subtract(first['translation'], second['translation'])).max() < 0.15
        angle = (Quaternion(first['rotation']).inverse * Quaternion(second['rotation'])).degrees
        assert 0 < abs(angle) < 8
        if first['camera_intrinsic']:
            assert (
                0
                < abs(first['camera_intrinsic'][0][0] / second['camera_intrinsic'][0][0] - 1)
                < 0.05
            )
    nominal = nuscenes_like_rig(160, 90).intrinsics
    assert not any(
        np.allclose(record['camera_intrinsic'], nominal[1], atol=0.01)
        for record in devkit.calibrated_sensor
        if record['camera_intrinsic']
    )
