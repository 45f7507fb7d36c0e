"""Rigs of synthetic vehicles: rig files, lens distortion, and datasets with a given rig."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.synthetic import make_scene
from bevdepth_core.synthetic.__main__ import main
from bevdepth_core.synthetic.sensors.lens import Lens
from bevdepth_core.synthetic.sensors.rig import NUSCENES_RIG
from bevdepth_core.synthetic.sensors.rig_file import RigFileError, read_rig
from tests.reference import ROOT

RIGS = ROOT / 'config' / 'rigs'
SMALL = {
    'image_size': [96, 64],
    'cameras': {
        'front': {
            'position': [2.0, 0.0, 1.1],
            'angles': [0.0, 0.0, 0.0],
            'field_of_view': 90.0,
            'distortion': [-0.1, 0.01, 0.0, 0.0],
            'offset_s': 0.02,
        },
        'rear': {'position': [-1.0, 0.0, 2.0], 'angles': [180, 0, 0], 'focal': 80},
    },
    'lidar': {'position': [1.0, 0.0, 1.9], 'angles': [0.0, 0.0, 0.0], 'beams': 8},
}


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_rig_a_is_the_default_rig() -> None:
    assert read_rig(RIGS / 'a.yaml') == NUSCENES_RIG


@pytest.mark.parametrize(
    ('name', 'cameras', 'size'), [('b', 4, (1280, 720)), ('c', 1, (1920, 1080)), ('d', 8, None)]
)
def test_rigs_b_c_and_d_are_valid(name: str, cameras: int, size: tuple | None) -> None:
    rig = read_rig(RIGS / f'{name}.yaml')
    assert len(rig.cameras) == cameras
    assert size is None or rig.image_size == size


def test_rig_b_has_distorted_wide_angle_cameras_at_a_height_of_1_1_meters() -> None:
    rig = read_rig(RIGS / 'b.yaml')
    for camera in rig.cameras.values():
        assert camera.position[2] == 1.1 and any(camera.distortion)
        assert math.degrees(2 * math.atan(640 / camera.focal)) == pytest.approx(100)


@pytest.mark.parametrize('name', 'abcd')
def test_rigs_a_b_and_d_cover_the_full_circle_and_rig_c_does_not(name: str) -> None:
    assert read_rig(RIGS / f'{name}.yaml').covers_full_circle == (name != 'c')


def test_the_rig_has_the_values_of_its_file(tmp_path: Path) -> None:
    rig = read_rig(write(tmp_path / 'rig.yaml', SMALL))
    front, rear = rig.cameras.values()
    assert tuple(rig.cameras) == ('front', 'rear') and rig.lidar.beams == 8
    assert front.focal == pytest.approx(48) and front.center == (47.5, 31.5)
    assert (rear.focal, rear.offset_s, rear.distortion) == (80, 0, ())
    assert rig.offsets_s == {'front': 0.02, 'rear': 0.0} and rig.measured_offset_s == 0.01
    cameras = rig.camera_rig(48, 32)
    np.testing.assert_allclose(cameras.intrinsics[1], [[40, 0, 23.75], [0, 40, 15.75], [0, 0, 1]])
    np.testing.assert_allclose(
        cameras.ego_from_camera[0],
        [[0, 0, 1, 2.0], [-1, 0, 0, 0], [0, -1, 0, 1.1], [0, 0, 0, 1]],
        atol=1e-12,
    )
    np.testing.assert_allclose(rig.ego_from_lidar()[:3, 3], (1, 0, 1.9))


@pytest.mark.parametrize(
    ('keys', 'value', 'message'),
    [
        (('cameras', 'front', 'position'), [1, 2], 'front.position must be a list of 3 numbers'),
        (('cameras', 'front', 'position'), [1, 2, 0.1], 'front.position must have a height'),
        (('cameras', 'front', 'position'), [1, 'x', 1], "front.position must be .* has 'x'"),
        (('cameras', 'front', 'angles'), [float('nan'), 0, 0], 'front.angles must be between'),
        (('cameras', 'front', 'field_of_view'), 170, 'field_of_view .* 5 and 150, but is 170'),
        (('cameras', 'front', 'focal'), 60, 'field_of_view or focal must be given, but not both'),
        (('cameras', 'rear', 'focal'), 1e6, 'rear.focal must be between'),
        (('cameras', 'front', 'fov'), 60, 'front.fov is unknown'),
        (('cameras', 'front', 'offset_s'), 0.05, 'front.offset_s must be between 0 and 0.045'),
        (('cameras', 'front', 'distortion'), [1, 2], 'distortion must be a list of 4, 5 or 8'),
        (('cameras', 'front', 'distortion'), [-0.9, 0, 0, 0], 'distortion is invalid: the lens'),
        (('cameras', 'front'), 3, 'cameras.front must contain "key: value" lines; keys: position'),
        (('cameras', 'LIDAR_TOP'), {}, 'cameras.LIDAR_TOP is not a valid camera name'),
        (('cameras', '../x'), {}, 'is not a valid camera name'),
        (('cameras',), {}, 'cameras must have a section for at least one camera'),
        (('image_size',), [1280.5, 720], 'image_size must be two whole numbers'),
        (('image_size',), [8, 720], 'image_size must be between 16 and 8192'),
        (('lidar',), None, 'lidar must contain "key: value" lines'),
        (('lidar', 'beams'), 1, 'lidar.beams must be between 2 and 256'),
        (('lidar', 'beams'), 8.5, 'lidar.beams must be a whole number'),
    ],
)
def test_the_message_about_an_invalid_value_names_the_file_and_the_key(
    tmp_path: Path, keys: tuple[str, ...], value: object, message: str
) -> None:
    content = copy.deepcopy(SMALL)
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path = write(tmp_path / 'rig.yaml', content)
    with pytest.raises(RigFileError, match=message) as error:
        read_rig(path)
    assert str(error.value).startswith(f'{path}: ')


@pytest.mark.parametrize('key', ['image_size', 'cameras', 'lidar'])
def test_the_message_about_a_missing_key_names_the_key(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in SMALL.items() if name != key}
    with pytest.raises(RigFileError, match=f'{key} is missing: add it'):
        read_rig(write(tmp_path / 'rig.yaml', content))


def test_the_program_rejects_a_rig_file_that_is_invalid_yaml_or_missing(tmp_path: Path) -> None:
    path = tmp_path / 'rig.yaml'
    path.write_text('[')
    with pytest.raises(SystemExit, match=r'error: .*rig.yaml cannot be read'):
        main([str(tmp_path / 'data'), '--rig', str(path)])
    path.unlink()
    with pytest.raises(SystemExit, match=r'error: .*rig.yaml cannot be read: .*No such file'):
        main([str(tmp_path / 'data'), '--rig', str(path)])


def test_a_distorted_image_shows_a_point_at_the_pixel_that_opencv_computes() -> None:
    """``Lens`` resamples a pinhole image; ``cv2.projectPoints`` computes the distorted pixel."""
    matrix = np.array([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]])
    distortion = (-0.1, 0.01, 0.002, -0.001)
    columns, rows = Lens(matrix, 160, 120, distortion)._pinhole_pixels()
    for column, row in ((0, 0), (159, 119), (80, 3), (140, 60)):
        seen = np.array([(columns[row, column], rows[row, column], 1.0)])
        ray = seen @ np.linalg.inv(matrix).T
        pixel, _ = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), matrix, np.array(distortion))
        np.testing.assert_allclose(pixel.ravel(), (column, row), atol=0.02)


def test_undistortion_makes_an_image_more_similar_to_a_pinhole_image() -> None:
    scene = make_scene(3, 1.0)
    matrix = np.array([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]])
    forward = np.array([[0, 0, 1, 1.7], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1.0]])
    pose = scene.world_from_ego(0.0) @ forward
    lens, pinhole = Lens(matrix, 160, 120, (-0.2, 0.03, 0, 0)), Lens(matrix, 160, 120)
    distorted, plain = (each.render(scene, pose, 0.0).astype(int) for each in (lens, pinhole))
    restored = lens.undistorted(distorted.astype(np.uint8)).astype(int)
    difference = [np.abs(image - plain)[3:-3, 3:-3].mean() for image in (restored, distorted)]
    assert difference[0] < 0.6 * difference[1]
    assert pinhole.undistorted(distorted) is distorted


@pytest.mark.parametrize('distorted', [False, True])
def test_a_dataset_has_the_sensors_of_its_rig(tmp_path: Path, distorted: bool) -> None:
    path = write(tmp_path / 'rig.yaml', SMALL)
    options = ['--train-scenes', '1', '--val-scenes', '0', '--duration', '0.5', '--jobs', '1']
    more = ['--distorted'] if distorted else []
    main([str(tmp_path / 'data'), '--rig', str(path), '--no-sweeps', *options, *more])
    tables = tmp_path / 'data' / 'v1.0-synthetic'
    rows = json.loads((tables / 'calibrated_sensor.json').read_text())
    lenses = [row.get('camera_distortion') for row in rows]
    assert lenses == [[-0.1, 0.01, 0.0, 0.0] if distorted else None, None, None]
    heights = [row['translation'][2] for row in rows]
    np.testing.assert_allclose(heights, (1.1, 2.0, 1.9), atol=0.03)
    arguments = (tmp_path / 'data', 'v1.0-synthetic', 'synthetic_train', tmp_path / 'cache')
    if distorted:
        with pytest.raises(ValueError, match=r'front .* lens distortion .*bag_to_nuscenes'):
            load_index(*arguments)
        return
    index = load_index(*arguments)
    assert (index.channels.cameras, index.channels.lidar) == (('front', 'rear'), 'LIDAR_TOP')
    front, rear = index[0].cameras
    assert front.image_size == (96, 64) and front.stamp_ns - rear.stamp_ns == 20_000_000
    points = np.fromfile(tmp_path / 'data' / index[0].lidar.filename, np.float32).reshape(-1, 5)
    assert points[:, 4].max() == 7
    annotations = json.loads((tables / 'sample_annotation.json').read_text())
    unseen = [row for row in annotations if row['visibility_token'] == '1']
    assert any(row['num_lidar_pts'] == 0 for row in unseen)
