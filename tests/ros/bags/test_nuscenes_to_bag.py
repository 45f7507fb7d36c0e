"""Reads the messages of converted bags with ROS, and compares the messages with the tables and
files of the dataset."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from PIL import Image as PillowImage
from rclpy.serialization import deserialize_message
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import Reader
from rosidl_runtime_py.utilities import get_message
from sensor_msgs_py.point_cloud2 import read_points

from bevdepth_core.geometry import rigid_from_quaternion
from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.nuscenes.recording import SceneRecording
from bevdepth_core.synthetic.dataset.writing import VERSION
from bevdepth_ros.bags.nuscenes_to_bag import main
from bevdepth_ros.bags.scene_bag import SceneError, Target, write_bag
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.tf_listener import matrix_from_transform
from tests.ros.bags.conftest import SCENES
from tests.ros.bags.tables import Tables
from tests.ros.graph import TIMEOUT_S, wait_until
from tests.ros.launches import DISTRIBUTIONS, assert_group_ends, run

STORAGES = ['mcap', 'sqlite3']


@pytest.fixture(scope='module')
def tables(dataroot: Path) -> Tables:
    return Tables(dataroot, SCENES[0])


@pytest.fixture(scope='module', params=STORAGES)
def bag(
    request, recording: SceneRecording, dataroot: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_bag(recording, Target(dataroot, tmp_path_factory.mktemp('bags'), request.param))


@pytest.fixture(scope='module')
def messages(bag: Path) -> dict[str, list[tuple[int, object]]]:
    """Return the log times and messages of each topic. ROS deserializes the messages."""
    return read(bag)


def read(bag: Path) -> dict[str, list[tuple[int, object]]]:
    found = defaultdict(list)
    with Reader(bag) as reader:
        for connection, log_time, data in reader.messages():
            found[connection.topic].append(
                (log_time, deserialize_message(bytes(data), get_message(connection.msgtype)))
            )
    return found


def matrix(row: dict) -> np.ndarray:
    return rigid_from_quaternion(row['rotation'], row['translation'])


def pose_matrix(pose) -> np.ndarray:
    position, turn = pose.position, pose.orientation
    return rigid_from_quaternion(
        (turn.w, turn.x, turn.y, turn.z), (position.x, position.y, position.z)
    )


def test_the_bag_has_every_image_of_every_camera_with_its_original_bytes_and_time(
    messages, tables: Tables, dataroot: Path
) -> None:
    for camera in CAMERAS:
        found = [
            (log_time, stamp_ns(image), image.header.frame_id, bytes(image.data))
            for log_time, image in messages[f'/{camera}/image_rect_compressed']
        ]
        files = [
            (row['timestamp'] * 1000, (dataroot / row['filename']).read_bytes())
            for row in tables.files(camera)
        ]
        assert found == [(stamp, stamp, camera, data) for stamp, data in files]
        assert len(found) >= 6 * len(tables.samples) - 6


def test_every_image_has_a_camera_info_message_with_the_intrinsics_of_its_camera(
    messages, tables: Tables
) -> None:
    for camera in CAMERAS:
        infos = messages[f'/{camera}/camera_info']
        assert [log_time for log_time, _ in infos] == [
            row['timestamp'] * 1000 for row in tables.files(camera)
        ]
        intrinsics = np.array(tables.channels()[camera]['camera_intrinsic'])
        for log_time, info in infos:
            assert (stamp_ns(info), info.header.frame_id, info.width, info.height) == (
                log_time,
                camera,
                160,
                90,
            )
            assert (info.distortion_model, list(info.d)) == ('plumb_bob', [0.0] * 5)
            np.testing.assert_array_equal(np.reshape(info.k, (3, 3)), intrinsics)
            np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
            np.testing.assert_array_equal(
                np.reshape(info.p, (3, 4)), np.column_stack((intrinsics, np.zeros(3)))
            )


def test_tf_has_every_ego_pose(messages, tables: Tables) -> None:
    expected = {
        row['timestamp'] * 1000: matrix(row)
        for row in (tables.poses[data['ego_pose_token']] for data in tables.data)
    }
    found = {log_time: message.transforms[0] for log_time, message in messages['/tf']}
    assert sorted(found) == sorted(expected)
    assert len(found) == len(messages['/tf'])
    for log_time, transform in found.items():
        assert (stamp_ns(transform), transform.header.frame_id, transform.child_frame_id) == (
            log_time,
            'map',
            'base_link',
        )
        np.testing.assert_allclose(matrix_from_transform(transform), expected[log_time], atol=1e-6)


def test_tf_static_is_the_first_message_and_has_the_pose_of_every_sensor(
    bag: Path, messages, tables: Tables
) -> None:
    with Reader(bag) as reader:
        assert next(reader.messages())[0].topic == '/tf_static'
        latched = [
            c.topic
            for c in reader.connections
            if c.ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL
        ]
    assert latched == ['/tf_static']
    ((_, message),) = messages['/tf_static']
    mounts = {transform.child_frame_id: transform for transform in message.transforms}
    assert set(mounts) == {*CAMERAS, LIDAR} == set(tables.channels())
    for channel, calibration in tables.channels().items():
        assert mounts[channel].header.frame_id == 'base_link'
        np.testing.assert_allclose(
            matrix_from_transform(mounts[channel]), matrix(calibration), atol=1e-6
        )


def test_the_bag_has_every_lidar_sweep_with_its_points(
    messages, tables: Tables, dataroot: Path
) -> None:
    rows = tables.files(LIDAR)
    assert [log_time for log_time, _ in messages[f'/{LIDAR}']] == [
        row['timestamp'] * 1000 for row in rows
    ]
    for (log_time, cloud), row in zip(messages[f'/{LIDAR}'], rows, strict=True):
        assert (stamp_ns(cloud), cloud.header.frame_id, cloud.height, cloud.is_dense) == (
            log_time,
            LIDAR,
            1,
            True,
        )
        points = read_points(cloud)
        expected = np.fromfile(dataroot / row['filename'], np.float32).reshape(-1, 5)
        assert points.dtype['ring'] == np.uint16
        np.testing.assert_array_equal(
            np.column_stack([points[name] for name in ('x', 'y', 'z', 'intensity', 'ring')]),
            expected,
        )


def test_annotation_messages_equal_the_boxes_of_the_dataset(messages, tables: Tables) -> None:
    poses = {
        log_time: matrix_from_transform(message.transforms[0])
        for log_time, message in messages['/tf']
    }
    samples = {row['timestamp'] * 1000: token for token, row in tables.samples.items()}
    assert [log_time for log_time, _ in messages['/annotations']] == sorted(samples)
    for log_time, array in messages['/annotations']:
        assert array.header.frame_id == 'base_link'
        expected = {
            row['instance_token']: row
            for row in tables.annotations
            if row['sample_token'] == samples[log_time]
        }
        expected = {
            name: row
            for name, row in expected.items()
            if category_to_detection_name(tables.categories[name]) is not None
        }
        assert {detection.id for detection in array.detections} == set(expected)
        for detection in array.detections:
            row, size = expected[detection.id], detection.bbox.size
            np.testing.assert_allclose(
                poses[log_time] @ pose_matrix(detection.bbox.center), matrix(row), atol=1e-6
            )
            np.testing.assert_allclose((size.y, size.x, size.z), row['size'], atol=1e-6)
            assert detection.header == array.header
            assert detection.results[0].hypothesis.class_id == category_to_detection_name(
                tables.categories[detection.id]
            )
    assert sum(len(array.detections) for _, array in messages['/annotations']) > 0


def test_annotation_markers_have_the_positions_of_the_dataset_in_the_map_frame(
    messages, tables: Tables
) -> None:
    by_place = {tuple(np.round(row['translation'], 6)): row for row in tables.annotations}
    for (log_time, markers), (_, array) in zip(
        messages['/annotations/markers'], messages['/annotations'], strict=True
    ):
        clear, *cubes = markers.markers
        assert clear.action == clear.DELETEALL
        assert len(cubes) == len(array.detections)
        for cube in cubes:
            assert (stamp_ns(cube), cube.header.frame_id, cube.frame_locked, cube.type) == (
                log_time,
                'map',
                True,
                cube.CUBE,
            )
            row = by_place[
                tuple(
                    np.round((cube.pose.position.x, cube.pose.position.y, cube.pose.position.z), 6)
                )
            ]
            np.testing.assert_allclose(
                (cube.scale.y, cube.scale.x, cube.scale.z), row['size'], atol=1e-6
            )


def test_messages_are_in_order_of_time(bag: Path) -> None:
    with Reader(bag) as reader:
        log_times = [log_time for _, log_time, _ in reader.messages()]
    assert log_times == sorted(log_times)


def test_raw_images_have_the_pixels_of_the_image_files(
    recording: SceneRecording, tables: Tables, dataroot: Path, tmp_path: Path
) -> None:
    found = read(write_bag(recording, Target(dataroot, tmp_path, raw=True)))
    assert not any(topic.endswith('compressed') for topic in found)
    for camera in CAMERAS:
        for (_, image), row in zip(
            found[f'/{camera}/image_rect'], tables.files(camera), strict=True
        ):
            assert (image.encoding, image.step, stamp_ns(image)) == (
                'rgb8',
                3 * 160,
                row['timestamp'] * 1000,
            )
            with PillowImage.open(dataroot / row['filename']) as image_file:
                np.testing.assert_array_equal(
                    np.frombuffer(image.data, np.uint8).reshape(90, 160, 3), np.asarray(image_file)
                )


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """Restore the signal handlers of the test process after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def convert(dataroot: Path, out: Path, *arguments: str) -> None:
    main(['--dataroot', str(dataroot), '--version', VERSION, '--out', str(out), *arguments])


def test_an_unknown_scene_is_rejected_and_the_message_lists_existing_scenes(
    signals_kept, dataroot: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        SystemExit, match=r'has no scene val-001; it has 2 scenes, such as val-0001, val-0002'
    ):
        convert(dataroot, tmp_path / 'bags', '--scene', 'val-001')
    assert not (tmp_path / 'bags').exists()


def test_the_scenes_of_a_split_are_written_and_an_unknown_split_is_rejected(
    signals_kept, dataroot: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r'has the splits synthetic_val \(did you mean'):
        convert(dataroot, tmp_path / 'bags', '--split', 'val')
    assert not (tmp_path / 'bags').exists()
    convert(dataroot, tmp_path / 'bags', '--split', 'synthetic_val', '--key-frames', '--jobs', '1')
    assert sorted(path.name for path in (tmp_path / 'bags').iterdir()) == list(SCENES)


def test_a_scene_with_missing_files_is_skipped_and_the_other_scenes_are_written(
    signals_kept, dataroot: Path, tmp_path: Path
) -> None:
    root = linked_copy(dataroot, tmp_path / 'copy')
    lost = next((root / 'sweeps' / 'CAM_BACK').glob(f'{SCENES[0]}*'))
    lost.unlink()
    with pytest.raises(
        SystemExit,
        match=rf'{SCENES[0]} is left out: 1 files are missing(.|\n)*'
        rf'sweeps/CAM_BACK: 1, such as {lost.name}',
    ):
        convert(root, tmp_path / 'bags', '--all', '--jobs', '1')
    assert [path.name for path in (tmp_path / 'bags').iterdir()] == [SCENES[1]]


def test_a_folder_that_is_not_a_bag_is_not_replaced(
    signals_kept, dataroot: Path, tmp_path: Path
) -> None:
    (tmp_path / SCENES[0]).mkdir()
    (tmp_path / SCENES[0] / 'mine.txt').write_text('keep')
    with pytest.raises(SystemExit, match=f'{SCENES[0]} exists and is not a rosbag2'):
        convert(dataroot, tmp_path, '--all')
    assert (tmp_path / SCENES[0] / 'mine.txt').read_text() == 'keep'
    assert not (tmp_path / SCENES[1]).exists()


@pytest.mark.parametrize('storage', STORAGES)
def test_on_a_full_disk_the_old_bag_is_kept_and_the_partial_bag_is_removed(
    recording: SceneRecording, dataroot: Path, tmp_path: Path, storage: str
) -> None:
    old = write_bag(recording, Target(dataroot, tmp_path, storage))
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            SceneError,
            match=f'{SCENES[0]} was not written to .*; the partial bag was removed',
        ):
            write_bag(recording, Target(dataroot, tmp_path, storage))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [old]
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


def test_the_next_run_removes_the_files_of_a_killed_run(
    recording: SceneRecording, dataroot: Path, tmp_path: Path
) -> None:
    left = tmp_path / f'.{SCENES[0]}.part-abandoned'
    left.mkdir()
    (left / 'half.mcap').write_bytes(b'half')
    write_bag(recording, Target(dataroot, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [SCENES[0]]


def test_scenes_are_written_in_parallel_and_an_interrupted_run_keeps_the_earlier_bags(
    dataroot: Path, tmp_path: Path
) -> None:
    """The second run is interrupted while both scenes are being written."""
    root = linked_copy(dataroot, tmp_path / 'copy')
    out = tmp_path / 'bags'
    main(arguments(root, out))
    assert sorted(path.name for path in out.iterdir()) == list(SCENES)
    first = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    pipes = [
        replace_with_pipe(next(iter(sorted((root / 'sweeps' / 'CAM_BACK').glob(f'{scene}*')))))
        for scene in SCENES
    ]
    run = start(root, out)
    wait_until(lambda: len(list(out.iterdir())) == 4, 'the temporary folders')
    ends = [os.open(pipe, os.O_WRONLY) for pipe in pipes]
    run.send_signal(signal.SIGTERM)
    log = ''
    # The pipes are closed only after the log contains "stopping", because reading a closed pipe
    # would fail.
    while 'stopping' not in log:
        line = run.stderr.readline()
        assert line, log
        log += line
    for end in ends:
        os.close(end)
    assert run.wait(TIMEOUT_S) == 130, run.stderr.read()
    assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == first


def test_the_conversion_ends_when_sigterm_ends_ros2_run(
    dataroot: Path, domain_id: int, tmp_path: Path
) -> None:
    """One image file is a named pipe to which nothing is written, so the conversion waits."""
    root, out = linked_copy(dataroot, tmp_path / 'copy'), tmp_path / 'bags'
    replace_with_pipe(next((root / 'sweeps' / 'CAM_BACK').glob(f'{SCENES[0]}*')))
    words = (*arguments(root, out), '--jobs', '1')
    process = run(DISTRIBUTIONS[0], 'ros2', 'run', 'bevdepth_ros', 'nuscenes_to_bag', *words)
    wait_until(lambda: out.is_dir() and any(out.iterdir()), 'the temporary folder')
    process.terminate()
    assert process.wait(TIMEOUT_S) == -signal.SIGTERM
    assert_group_ends(process.pid)
    assert not any(out.iterdir())


def linked_copy(dataroot: Path, copy: Path) -> Path:
    return Path(shutil.copytree(dataroot, copy, copy_function=os.link))


def replace_with_pipe(path: Path) -> Path:
    """Replace a file by a named pipe. A process that reads the pipe waits until the test opens and
    closes it."""
    path.unlink()
    os.mkfifo(path)
    return path


def arguments(root: Path, out: Path) -> list[str]:
    options = ('--dataroot', root, '--version', VERSION, '--out', out, '--all', '--jobs', 2)
    return list(map(str, options))


def start(root: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, '-m', 'bevdepth_ros.bags.nuscenes_to_bag', *arguments(root, out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_with_the_option_key_frames_the_bag_has_no_sweeps_but_all_poses_and_annotations(
    dataroot: Path, tables: Tables, tmp_path: Path
) -> None:
    arguments = ['--dataroot', dataroot, '--version', VERSION, '--scene', SCENES[0], '--jobs', 1]
    main([*map(str, arguments), '--out', str(tmp_path), '--key-frames'])
    found = read(tmp_path / SCENES[0])
    for camera in CAMERAS:
        expected = [row['timestamp'] * 1000 for row in tables.files(camera) if row['is_key_frame']]
        for topic in ('image_rect_compressed', 'camera_info'):
            assert [stamp for stamp, _ in found[f'/{camera}/{topic}']] == expected
    assert len(found[f'/{LIDAR}']) == len(tables.samples)
    assert len(found['/annotations']) == len(tables.samples)
    poses = {tables.poses[row['ego_pose_token']]['timestamp'] for row in tables.data}
    assert len(found['/tf']) == len(poses)


@pytest.mark.parametrize('kept', ['one key frame', 'none'])
def test_key_frames_without_annotations_are_written(
    dataroot: Path, tables: Tables, tmp_path: Path, kept: str
) -> None:
    root = tmp_path / 'root'
    shutil.copytree(dataroot, root)
    table = root / VERSION / 'sample_annotation.json'
    rows = json.loads(table.read_text())
    samples = sorted(tables.samples)
    removed = samples[:1] if kept == 'one key frame' else samples
    table.write_text(json.dumps([
        row | {'prev': '', 'next': ''} for row in rows if row['sample_token'] not in removed
    ]))  # fmt: skip
    arguments = ['--dataroot', root, '--version', VERSION, '--scene', SCENES[0], '--jobs', 1]
    main([*map(str, arguments), '--out', str(tmp_path / 'bags')])
    found = read(tmp_path / 'bags' / SCENES[0])
    counts = {len(message.detections) for _, message in found['/annotations']}
    assert 0 in counts
    assert (counts == {0}) == (kept == 'none')
    assert len(found['/annotations']) == 2
