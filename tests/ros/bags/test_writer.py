"""Writes bags without ROS, reads them with ROS, and compares the content."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from ament_index_python.packages import get_package_share_directory
from rclpy.serialization import deserialize_message
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosidl_runtime_py.utilities import get_message

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.geometry import rigid_from_quaternion
from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.synthetic import make_scene, nuscenes_like_rig
from bevdepth_ros.bags.writer import BagWriter, camera_info_topic, image_topic
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.tf_listener import matrix_from_transform
from tests.ros.sample_bag import write_sample_bag
from tests.sample import sample_infos, synthetic_sample

START_NS = 1_700_000_000_123_456_789
RIG = nuscenes_like_rig()
STORAGES = ['sqlite3', 'mcap']


def write_small_bag(path: Path, storage: str = 'sqlite3') -> None:
    """Write two image sets. Each has ground truth at the mean stamp of its images."""
    scene = make_scene(0)
    with BagWriter(path, storage) as bag:
        bag.write_static_transforms(RIG, START_NS)
        for number in range(2):
            stamps = START_NS + number * 500_000_000 + np.arange(6) * 8_000_000
            poses = np.stack(
                [scene.world_from_ego((stamp - START_NS) * 1e-9) for stamp in stamps.tolist()]
            )
            bag.write_frame(
                RIG, stamps, poses, [fake_jpeg(number, index) for index in range(6)], (1600, 900)
            )
            bag.write_ground_truth(
                int(stamps.mean()), *scene.ground_truth(0.5 * number), NUSCENES_CLASSES
            )


def fake_jpeg(number: int, camera: int) -> bytes:
    """Return bytes that differ for each image, between the start marker and the end marker of a
    JPEG file."""
    return b'\xff\xd8' + bytes([number, camera]) * (100 + camera) + b'\xff\xd9'


def read(path: Path) -> list[tuple[str, int, object]]:
    """Return topic, log time and message of all messages in the order of the bag. ROS deserializes
    the messages."""
    with Reader(path) as reader:
        return [
            (c.topic, log_time_ns, deserialize_message(bytes(data), get_message(c.msgtype)))
            for c, log_time_ns, data in reader.messages()
        ]


def first(messages: list, topic: str):
    return next(message for name, _, message in messages if name == topic)


@pytest.mark.parametrize('storage', STORAGES)
def test_ros_reads_every_message_in_order_of_time_with_its_stamp_as_log_time(
    tmp_path: Path, storage: str
) -> None:
    write_small_bag(tmp_path / 'bag', storage)
    messages = read(tmp_path / 'bag')
    log_times = [log_time for _, log_time, _ in messages]
    assert len(messages) == 1 + 2 * (3 * 6 + 2)
    assert log_times == sorted(log_times)
    for _, log_time, message in messages:
        for part in (
            getattr(message, 'transforms', None) or getattr(message, 'markers', None) or [message]
        ):
            assert stamp_ns(part) == log_time


@pytest.mark.parametrize('storage', STORAGES)
def test_images_are_the_unchanged_bytes_of_the_files(tmp_path: Path, storage: str) -> None:
    write_small_bag(tmp_path / 'bag', storage)
    messages = read(tmp_path / 'bag')
    for index, name in enumerate(RIG.names):
        images = [message for topic, _, message in messages if topic == image_topic(name)]
        assert [bytes(image.data) for image in images] == [
            fake_jpeg(number, index) for number in range(2)
        ]
        assert {(image.header.frame_id, image.format) for image in images} == {(name, 'jpeg')}


def test_camera_info_has_the_intrinsics_the_image_size_and_the_frame_of_its_camera(
    tmp_path: Path,
) -> None:
    write_small_bag(tmp_path / 'bag')
    for index, name in enumerate(RIG.names):
        info = first(read(tmp_path / 'bag'), camera_info_topic(name))
        assert (info.width, info.height, info.distortion_model, info.header.frame_id) == (
            1600,
            900,
            'plumb_bob',
            name,
        )
        np.testing.assert_array_equal(np.reshape(info.k, (3, 3)), RIG.intrinsics[index])
        np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
        np.testing.assert_array_equal(
            np.reshape(info.p, (3, 4)), np.column_stack((RIG.intrinsics[index], np.zeros(3)))
        )
        assert list(info.d) == [0.0] * 5


def test_the_written_transforms_equal_the_poses(tmp_path: Path) -> None:
    write_small_bag(tmp_path / 'bag')
    messages, scene = read(tmp_path / 'bag'), make_scene(0)
    static = first(messages, '/tf_static').transforms
    assert [(t.header.frame_id, t.child_frame_id) for t in static] == [
        ('base_link', name) for name in RIG.names
    ]
    np.testing.assert_allclose(
        [matrix_from_transform(t) for t in static], RIG.ego_from_camera, atol=1e-9
    )
    moving = [message.transforms[0] for topic, _, message in messages if topic == '/tf']
    assert {(t.header.frame_id, t.child_frame_id) for t in moving} == {('map', 'base_link')}
    for transform in moving:
        expected = scene.world_from_ego((stamp_ns(transform) - START_NS) * 1e-9)
        np.testing.assert_allclose(matrix_from_transform(transform), expected, atol=1e-9)


def test_the_written_annotations_equal_the_boxes(tmp_path: Path) -> None:
    write_small_bag(tmp_path / 'bag')
    boxes, labels = make_scene(0).ground_truth(0.0)
    array = first(read(tmp_path / 'bag'), '/annotations')
    assert array.header.frame_id == 'base_link'
    assert len(array.detections) == len(boxes) > 0
    for detection, center, size, yaw, label in zip(
        array.detections, boxes.center, boxes.size, boxes.yaw, labels, strict=True
    ):
        position, extent, turn = (
            detection.bbox.center.position,
            detection.bbox.size,
            detection.bbox.center.orientation,
        )
        np.testing.assert_allclose(
            (position.x, position.y, position.z, extent.x, extent.y, extent.z),
            (*center, *size),
            rtol=1e-6,
        )
        assert (2 * np.arctan2(turn.z, turn.w) - yaw + np.pi) % (2 * np.pi) == pytest.approx(
            np.pi, abs=1e-5
        )
        assert detection.header == array.header
        assert detection.results[0].hypothesis.class_id == NUSCENES_CLASSES[label]


@pytest.mark.parametrize('storage', STORAGES)
def test_only_static_transforms_are_latched(tmp_path: Path, storage: str) -> None:
    write_small_bag(tmp_path / 'bag', storage)
    with Reader(tmp_path / 'bag') as reader:
        offered = {
            connection.topic: connection.ext.offered_qos_profiles
            for connection in reader.connections
        }
    assert len(offered) == 4 + 2 * 6
    for topic, (qos,) in offered.items():
        assert qos.reliability == QosReliability.RELIABLE
        assert qos.durability == (
            QosDurability.TRANSIENT_LOCAL if topic == '/tf_static' else QosDurability.VOLATILE
        )


@pytest.mark.parametrize('storage', STORAGES)
def test_humble_can_read_the_metadata(tmp_path: Path, storage: str) -> None:
    """In the metadata, Humble expects the quality of service as a string. Humble rejects version
    9 of the metadata, in which the quality of service is a sequence."""
    write_small_bag(tmp_path / 'bag', storage)
    metadata = yaml.safe_load((tmp_path / 'bag' / 'metadata.yaml').read_text())[
        'rosbag2_bagfile_information'
    ]
    assert metadata['version'] <= 8
    assert metadata['storage_identifier'] == storage
    assert all((tmp_path / 'bag' / name).is_file() for name in metadata['relative_file_paths'])
    for topic in metadata['topics_with_message_count']:
        assert isinstance(topic['topic_metadata']['offered_qos_profiles'], str)


def test_type_hashes_equal_the_hashes_of_the_installed_ros_but_humble_has_no_hashes(
    tmp_path: Path,
) -> None:
    write_small_bag(tmp_path / 'bag')
    with Reader(tmp_path / 'bag') as reader:
        written = {connection.msgtype: connection.digest for connection in reader.connections}
    assert 'vision_msgs/msg/Detection3DArray' in written
    for message_type, digest in written.items():
        package, _, name = message_type.split('/')
        description = Path(get_package_share_directory(package)) / 'msg' / f'{name}.json'
        if os.environ['ROS_DISTRO'] == 'humble':
            assert description.with_suffix('.msg').is_file() and not description.exists()
        else:
            known = {
                entry['type_name']: entry['hash_string']
                for entry in json.loads(description.read_text())['type_hashes']
            }
            assert digest == known[message_type]


def test_late_messages_are_sorted_by_time_and_very_late_messages_are_rejected(
    tmp_path: Path,
) -> None:
    pose = np.eye(4)
    with BagWriter(tmp_path / 'bag') as bag:
        for offset_ns in (0, 900_000_000, 400_000_000, 2_000_000_000):
            bag.write_ego_pose(START_NS + offset_ns, pose)
        with pytest.raises(ValueError, match='more than a second'):
            bag.write_ego_pose(START_NS + 100_000_000, pose)
    assert [log_time - START_NS for _, log_time, _ in read(tmp_path / 'bag')] == [
        0,
        400_000_000,
        900_000_000,
        2_000_000_000,
    ]


def begin_a_bag_and_fail(target: Path, error: type[BaseException]) -> None:
    with BagWriter(target) as bag:
        bag.write_static_transforms(RIG, START_NS)
        raise error


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, ValueError, OSError])
def test_after_an_exception_no_new_file_remains_and_the_existing_bag_is_unchanged(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / 'bag'
    with pytest.raises(error):
        begin_a_bag_and_fail(target, error)
    assert list(tmp_path.iterdir()) == []
    write_small_bag(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(error):
        begin_a_bag_and_fail(target, error)
    assert list(tmp_path.iterdir()) == [target]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_bag_folder_is_created_only_when_the_bag_is_complete_and_replaces_an_older_bag(
    tmp_path: Path,
) -> None:
    target = tmp_path / 'somewhere' / 'bag'
    with BagWriter(target) as bag:
        bag.write_static_transforms(RIG, START_NS)
        assert not target.exists()
    write_small_bag(target, 'mcap')
    assert sorted(path.name for path in target.iterdir()) == ['bag.mcap', 'metadata.yaml']
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_that_contains_files_other_than_a_bag_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / 'holiday').mkdir()
    (tmp_path / 'holiday' / 'beach.jpg').write_bytes(b'sun')
    write_small_bag(tmp_path / 'mixed')
    (tmp_path / 'mixed' / 'notes.txt').write_text('mine')
    for name in ('holiday', 'mixed'):
        with (
            pytest.raises(FileExistsError, match=f'{name} exists and is not a rosbag2'),
            BagWriter(tmp_path / name),
        ):
            pass
    assert (tmp_path / 'holiday' / 'beach.jpg').read_bytes() == b'sun'
    assert (tmp_path / 'mixed' / 'notes.txt').read_text() == 'mine'


def test_the_error_about_an_unknown_storage_lists_the_valid_storages(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sqlite3, mcap, got 'zip'"):
        BagWriter(tmp_path / 'bag', 'zip')


@pytest.mark.parametrize(('infos_name', 'sets'), [('infos.json', 1), ('infos_2frames.json', 2)])
def test_a_sample_becomes_a_bag_with_unchanged_jpegs_stamps_and_poses(
    tmp_path: Path, infos_name: str, sets: int
) -> None:
    sample = synthetic_sample()
    infos = sample_infos(sample, infos_name)
    path = write_sample_bag(sample, tmp_path / 'bag', infos_name)
    messages = read(path)
    poses = {
        log_time: matrix_from_transform(message.transforms[0])
        for topic, log_time, message in messages
        if topic == '/tf'
    }
    assert len(infos) == sets
    for camera in CAMERAS:
        images = [
            (log_time, bytes(message.data))
            for topic, log_time, message in messages
            if topic == image_topic(camera)
        ]
        recorded = sorted(
            (info['cam_infos'][camera] for info in infos), key=lambda entry: entry['timestamp']
        )
        files = [
            (
                entry['timestamp'] * 1000,
                (sample / entry['filename']).read_bytes(),
            )
            for entry in recorded
        ]
        assert images == files
        for entry in recorded:
            expected = rigid_from_quaternion(
                entry['ego_pose']['rotation'], entry['ego_pose']['translation']
            )
            np.testing.assert_allclose(poses[entry['timestamp'] * 1000], expected, atol=1e-9)
