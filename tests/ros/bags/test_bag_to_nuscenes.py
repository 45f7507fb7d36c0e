"""A bag becomes the dataset that it was made of, and what is missing is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField

from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.recording import SceneRecording, read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_ros.bags import messages
from bevdepth_ros.bags.bag_to_nuscenes import main
from bevdepth_ros.bags.conversion.key_frames import complete_times, nearest, select
from bevdepth_ros.bags.conversion.sensor_files import cloud_columns
from bevdepth_ros.bags.scene_bag import Target, write_bag
from bevdepth_ros.bags.writer import BagWriter
from tests.ros.bags.conftest import SCENES

VERSION = 'v1.0-own'
MS = 1_000_000
START_NS = 1_000_000_000_000


@pytest.fixture(autouse=True)
def signals_kept() -> Iterator[None]:
    """Give the test process its signal handlers back."""
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope='module')
def bag(recording: SceneRecording, dataroot: Path, tmp_path_factory) -> Path:
    return write_bag(recording, Target(dataroot, tmp_path_factory.mktemp('bags')))


def test_the_round_trip_keeps_images_stamps_poses_calibration_points_and_boxes(
    bag: Path, recording: SceneRecording, dataroot: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'own'
    main(['--bag', str(bag), '--out', str(out)])
    found = read_recording(open_devkit(out, VERSION), SCENES[0])
    streams = {stream.channel: stream for stream in found.streams}
    assert set(streams) == {stream.channel for stream in recording.streams}
    for stream in recording.streams:
        own = streams[stream.channel]
        np.testing.assert_array_equal(own.stamps_ns, stream.stamps_ns)
        np.testing.assert_array_equal(own.intrinsics, stream.intrinsics)
        assert (own.modality, own.image_size) == (stream.modality, stream.image_size)
        np.testing.assert_allclose(
            found.mounts[stream.channel], recording.mounts[stream.channel], atol=1e-9
        )
        for name, expected in zip(own.filenames, stream.filenames, strict=True):
            assert (out / name).read_bytes() == (dataroot / expected).read_bytes()
            assert name.split('/')[0] == expected.split('/')[0]
    np.testing.assert_array_equal(found.pose_stamps_ns, recording.pose_stamps_ns)
    for own_pose, pose in zip(found.poses, recording.poses, strict=True):
        np.testing.assert_allclose(own_pose.matrix(), pose.matrix(), atol=1e-9)
    for own_moment, moment in zip(found.moments, recording.moments, strict=True):
        assert own_moment.stamp_ns == moment.stamp_ns
        order, own_order = np.lexsort(moment.center.T), np.lexsort(own_moment.center.T)
        assert [moment.class_names[i] for i in order] == [
            own_moment.class_names[i] for i in own_order
        ]
        np.testing.assert_allclose(own_moment.center[own_order], moment.center[order], atol=1e-6)
        np.testing.assert_allclose(own_moment.size[own_order], moment.size[order], atol=1e-9)
    assert len(found.moments) == len(recording.moments) == 2
    index = load_index(out, VERSION, 'own_train', tmp_path / 'cache')
    assert len(index) == 2
    assert np.isfinite(index[1].annotations.velocity).any()


def write_small_bag(path: Path, *, info: bool = True, mount: bool = True, pose: bool = True,
                    coefficients: tuple[float, ...] = ()) -> np.ndarray:  # fmt: skip
    """Write two raw images of one camera without a lidar, half a second apart."""
    stripes = 127 + 120 * np.sin(np.arange(80) / 2)
    pixels = np.broadcast_to(stripes[:, None], (60, 80, 3)).astype(np.uint8)
    matrix = np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    with BagWriter(path, 'mcap') as bag:
        if mount:
            bag.write_mounts({'front': np.eye(4)}, START_NS)
        for stamp in (START_NS, START_NS + 500 * MS):
            if pose:
                bag.write_ego_pose(stamp, np.eye(4))
            if info:
                message = messages.camera_info(stamp, 'front', matrix, 80, 60)
                message.d = np.array((*coefficients, *(0.0,) * (5 - len(coefficients))))
                bag.write('/front/camera_info', 'sensor_msgs/msg/CameraInfo', stamp, message)
            image = messages.raw_image(stamp, 'front', pixels)
            bag.write('/front/image_raw', 'sensor_msgs/msg/Image', stamp, image)
    return pixels


def convert_small(tmp_path: Path, *arguments: str, **missing) -> Path:
    write_small_bag(tmp_path / 'drive', **missing)
    out = tmp_path / 'own'
    main(['--bag', str(tmp_path / 'drive'), '--out', str(out), *arguments])
    return out


def test_raw_images_without_a_lidar_are_converted(tmp_path: Path) -> None:
    out = convert_small(tmp_path)
    index = load_index(out, VERSION, 'own_train', tmp_path / 'cache')
    assert (index.channels.cameras, index.channels.lidar, len(index)) == (('front',), None, 2)
    assert index[0].cameras[0].image_size == (80, 60)


def test_images_are_undistorted(tmp_path: Path) -> None:
    pixels = write_small_bag(tmp_path / 'drive', coefficients=(-0.3,))
    out = convert_small(tmp_path, coefficients=(-0.3,))
    matrix = np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    expected = cv2.undistort(pixels, matrix, np.array((-0.3, 0, 0, 0, 0)))
    stored = cv2.imread(str(next((out / 'samples' / 'front').iterdir())))[..., ::-1]
    assert np.abs(stored.astype(int) - expected)[5:-5, 5:-5].mean() < 4
    assert np.abs(pixels.astype(int) - expected)[5:-5, 5:-5].mean() > 10


@pytest.mark.parametrize(
    ('missing', 'arguments', 'message'),
    [
        ({'info': False}, ['--cameras', '/front/image_raw'], 'camera front has no CameraInfo'),
        ({'mount': False}, [], 'camera front: tf has no base_link <- front'),
        ({'pose': False}, [], 'there are no ego poses: tf has no map <- base_link'),
        ({}, ['--cameras', '/rear/image_raw'], 'no .* on /rear/image_raw; it has /front'),
        ({}, ['--lidar', '/points'], '--lidar: the bag has no .*PointCloud2 on /points'),
    ],
)
def test_missing_input_is_named_and_nothing_is_left(
    tmp_path: Path, missing: dict, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        convert_small(tmp_path, *arguments, **missing)
    assert [path.name for path in tmp_path.iterdir()] == ['drive']


def test_an_existing_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / 'own').mkdir()
    with pytest.raises(SystemExit, match='own exists: choose another folder'):
        convert_small(tmp_path)


def test_key_frames_are_half_a_second_apart_and_a_gap_begins_a_scene() -> None:
    steady = np.arange(0, 2000, 99) * MS
    [scene] = select(steady)
    gaps = np.diff(steady[scene]) / MS
    assert ((gaps >= 400) & (gaps <= 600)).all()
    assert scene == [0, 5, 10, 15, 20]
    assert select(np.array([0, 400, 1000]) * MS) == [[0, 1, 2]]
    assert select(np.array([0, 399, 1000]) * MS) == [[0], [2]]
    assert select(np.array([0, 20, 601]) * MS) == [[0], [2]]
    assert select(np.array([], np.int64)) == []


def test_the_nearest_stamp_is_found_and_incomplete_times_are_left_out() -> None:
    stamps = np.array([0, 100, 200])
    assert nearest(stamps, np.array([-5, 49, 51, 160, 900])).tolist() == [0, 0, 1, 2, 2]
    assert nearest(stamps[:1], np.array([7])).tolist() == [0]
    times, chosen = complete_times(np.array([0, 60, 200]), [stamps, np.array([0, 210])], 10)
    assert (times.tolist(), chosen.tolist()) == ([0, 200], [[0, 0], [2, 1]])


def test_a_cloud_of_any_layout_is_read_and_invalid_points_are_left_out() -> None:
    layout = np.dtype([('ring', '<u1'), ('z', '<f8'), ('y', '<f8'), ('x', '<f8')])
    points = np.array([(7, 3.0, 2.0, 1.0), (8, 3.0, np.nan, 1.0)], layout)
    kinds = {'|u1': PointField.UINT8, '<f8': PointField.FLOAT64}
    fields = [
        PointField(name=name, offset=offset, datatype=kinds[kind.str], count=1)
        for name, (kind, offset) in layout.fields.items()
    ]
    cloud = PointCloud2(
        height=1, width=2, fields=fields, point_step=layout.itemsize,
        row_step=2 * layout.itemsize, data=points.tobytes(),
    )  # fmt: skip
    assert cloud_columns(cloud).tolist() == [[1.0, 2.0, 3.0, 0.0, 7.0]]
    cloud.fields = fields[:3]
    with pytest.raises(ValueError, match='but not x, y and z'):
        cloud_columns(cloud)
