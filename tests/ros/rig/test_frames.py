"""Tests the conversion of an image set to a frame. The tests store transforms directly, without
tf topics.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from geometry_msgs.msg import TransformStamped
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from tf2_msgs.msg import TFMessage

from bevdepth_ros.bags.recorded_transforms import RecordedTransforms
from bevdepth_ros.rig.frames import BuiltFrame, FrameBuilder
from bevdepth_ros.rig.settings import RigSettings
from bevdepth_ros.rig.synchronizer import ImageSet
from tests.ros import messages
from tests.ros.messages import compressed, encoded
from tests.ros.rig.image_messages import camera_info, raw, smooth

CAMERAS = ('left', 'right')
STAMPS_NS = np.array([2_000_000_000, 2_010_000_000], np.int64)
SIZE = (160, 120)
K = np.array([[128.0, 0, 80], [0, 128, 60], [0, 0, 1]])
P = np.column_stack((K, np.zeros(3)))
LENS = (-0.3, 0.1, 0.0, 0.0, 0.0)


def transform(parent: str, child: str, stamp_ns: int, x: float) -> TransformStamped:
    return messages.transform(parent, child, stamp_ns, (x, 0.0, 0.0))


def filled_transforms() -> RecordedTransforms:
    """Return the transforms of a vehicle that moves at 1 m/s along the x axis of the tf frame map.

    The left camera is 1 m ahead of base_link, and the right camera 2 m.
    """
    transforms = RecordedTransforms(100.0)
    mounts = [
        transform('base_link', f'{name}_optical', 0, x)
        for name, x in zip(CAMERAS, (1.0, 2.0), strict=True)
    ]
    transforms.add(TFMessage(transforms=mounts), static=True)
    poses = [transform('map', 'base_link', second * 10**9, float(second)) for second in (1, 3)]
    transforms.add(TFMessage(transforms=poses), static=False)
    return transforms


def info(**fields) -> CameraInfo:
    return camera_info(**({'k': K, 'p': np.zeros(12), 'size': SIZE} | fields))


def image_set(messages=None, frames=None) -> ImageSet:
    messages = messages or [compressed(encoded(smooth(), 'JPEG')) for _ in CAMERAS]
    for message, frame, name in zip(messages, frames or (None, None), CAMERAS, strict=True):
        message.header.frame_id = f'{name}_optical' if frame is None else frame
    return ImageSet((0, 1), tuple(messages), STAMPS_NS, time.monotonic())


CALIBRATION = info()


def topic_name(topic: str) -> str:
    """Return ``topic``; fail if ``topic`` is empty, as ``resolve_topic_name`` of rclpy does."""
    assert topic
    return topic


class Setup:
    """A frame builder with calibrated cameras and with settings that a test can change."""

    def __init__(self, infos=(CALIBRATION, CALIBRATION), min_width=0, is_over=True, **values):
        values = {'cameras': CAMERAS, 'geometry_timeout_s': 0.0} | values
        self.settings = RigSettings(**values)
        self.builder = FrameBuilder(
            lambda: self.settings, filled_transforms(), lambda: is_over,
            min_width=min_width, topic_name=topic_name,
        )  # fmt: skip
        for name, message in zip(CAMERAS, infos, strict=True):
            if message is not None:
                self.builder.take_info(name, message)

    def build(self, images: ImageSet | None = None) -> BuiltFrame:
        return self.builder.build(images or image_set())


def test_a_frame_has_pixels_calibration_extrinsics_stamps_and_poses():
    built = Setup().build()
    frame = built.frame
    assert frame.rig.names == CAMERAS
    assert np.array_equal(frame.rig.intrinsics, (K, K))
    assert np.allclose(frame.rig.ego_from_camera[:, :3, 3], [(1, 0, 0), (2, 0, 0)])
    assert np.allclose(frame.world_from_ego[:, 0, 3], (2.0, 2.01))
    assert np.array_equal(frame.stamps_ns, STAMPS_NS)
    assert frame.images[0].shape == (120, 160, 3)
    assert (built.faults, built.rejection, built.no_poses, built.warnings) == ({}, None, None, {})


def test_a_camera_whose_driver_removed_the_colors_is_used_and_reported():
    messages = [compressed(encoded(smooth(), 'JPEG')) for _ in CAMERAS]
    messages[1] = compressed(encoded(smooth()[..., 0], 'JPEG'), 'yuv422; jpeg compressed mono8')
    built = Setup().build(image_set(messages))
    assert built.frame.rig.names == CAMERAS
    assert set(built.warnings) == {'right'}
    assert built.warnings['right'].startswith('camera right sends gray images')


def test_camera_frames_override_the_frame_id_of_the_image():
    setup = Setup(camera_frames=('right_optical', 'left_optical'))
    assert np.allclose(setup.build().frame.rig.ego_from_camera[:, 0, 3], (2, 1))


def test_a_camera_whose_image_has_no_frame_id_is_not_used():
    built = Setup().build(image_set(frames=('', None)))
    assert built.frame.rig.names == ('right',)
    assert built.faults['left'].reason == 'no_extrinsics'
    assert 'no frame_id; set camera_frames' in str(built.faults['left'])


def test_a_camera_with_an_unknown_frame_is_not_used():
    built = Setup().build(image_set(frames=('nowhere', None)))
    assert built.frame.rig.names == ('right',)
    assert 'set base_frame or camera_frames' in str(built.faults['left'])


def test_a_camera_with_an_invalid_image_is_not_used():
    messages = [compressed(b'noise'), compressed(encoded(smooth(), 'JPEG'))]
    built = Setup().build(image_set(messages))
    assert built.frame.rig.names == ('right',)
    assert built.faults['left'].reason == 'bad_image'
    assert 'image of left on /left/image_rect_compressed is not a JPEG' in str(
        built.faults['left']
    )


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (None, 'camera right has no CameraInfo: no message was received on /right/camera_info'),
        (
            info(size=(320, 240), k=np.diag((2, 2, 1)) @ K),
            'is 160x120, but its calibration is for 320x240',
        ),
        (info(k=K + np.array([[0, 99, 0], [0, 0, 0], [0, 0, 0]])), 'K has a skew of 99 px'),
    ],
)
def test_a_camera_with_missing_or_invalid_calibration_is_not_used(message, words: str):
    built = Setup((info(), message)).build()
    assert built.frame.rig.names == ('left',)
    assert built.faults['right'].reason == 'no_camera_info'
    assert words in str(built.faults['right'])


def test_a_set_with_fewer_than_min_cameras_is_rejected_with_the_reason_of_the_first_fault():
    setup = Setup((info(), None), min_cameras=2)
    built = setup.build()
    assert built.frame is None
    assert built.rejection == (
        'no_camera_info',
        '1 of 2 cameras can be used (left), min_cameras is 2: no detections are published',
    )
    setup.settings = replace(setup.settings, min_cameras=1)
    assert setup.build().rejection is None


def test_during_startup_every_camera_of_a_set_needs_calibration_but_an_image_may_be_invalid():
    rejection = Setup((info(), None), is_over=False).build().rejection
    assert rejection[0] == 'no_camera_info'
    assert 'waiting for all cameras to start: camera right has no CameraInfo' in rejection[1]
    messages = [compressed(b'noise'), compressed(encoded(smooth(), 'JPEG'))]
    assert Setup(is_over=False).build(image_set(messages)).rejection is None


def test_without_ego_motion_a_frame_is_built_and_the_reason_is_reported():
    built = Setup(fixed_frame='odom').build()
    assert built.frame.world_from_ego is None
    assert (
        'publish this transform or set fixed_frame; without ego motion there are no '
        in built.no_poses
    )


def test_without_odometry_the_message_about_missing_ego_motion_names_the_odometry_topic():
    built = Setup(fixed_frame='odom', odometry_topic='/odom').build()
    assert 'check the publisher of /odom or set fixed_frame; without ego motion' in built.no_poses


def test_a_stamp_after_the_last_pose_gets_this_pose_if_the_difference_is_within_pose_clamp_s():
    stamps = np.array([3_050_000_000])
    assert np.allclose(Setup(pose_clamp_s=0.06).builder.poses(stamps)[0][0, 0, 3], 3.0)
    assert Setup(pose_clamp_s=0.04).builder.poses(stamps)[0] is None


def test_a_changed_calibration_takes_effect_with_the_next_set():
    setup = Setup()
    assert setup.build().frame.rig.intrinsics[0, 0, 0] == 128
    changed = info(k=K * np.array([[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]]))
    setup.builder.take_info('left', changed)
    assert setup.build().frame.rig.intrinsics[:, 0, 0].tolist() == [192, 128]


@pytest.mark.parametrize(
    'changed',
    [
        {'p': np.diag((1.2, 1.2, 1)) @ P},
        {'roi': RegionOfInterest(x_offset=4, width=156, height=120)},
        {'binning_x': 2},
        {'size': (164, 120)},
        {'r': Rotation.from_euler('y', 2, degrees=True).as_matrix().ravel(), 'p': P},
    ],
    ids=['p', 'roi', 'binning', 'size', 'r'],
)
def test_a_change_of_any_field_of_camera_info_takes_effect(changed: dict):
    setup = Setup()
    before = setup.build().frame.rig
    setup.builder.take_info('left', info(**changed))
    built = setup.build()
    assert built.faults or not (
        np.array_equal(built.frame.rig.intrinsics, before.intrinsics)
        and np.array_equal(built.frame.rig.ego_from_camera, before.ego_from_camera)
    )


def test_lens_distortion_is_removed_if_images_are_not_rectified():
    point = np.array([-0.4, 0.25, 1.0])
    spot = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), K, np.array(LENS))[0].ravel()
    pixels = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(pixels, tuple(np.rint(spot).astype(int).tolist()), 4, (255, 255, 255), -1)
    images = image_set([raw('rgb8', pixels, 160), raw('rgb8', pixels, 160)])
    frame = Setup((info(d=LENS), info()), images_rectified=False).build(images).frame
    bright = [np.argwhere(image[..., 0] > 128).mean(0)[::-1] for image in frame.images]
    assert np.linalg.norm(bright[0] - (K @ point)[:2]) < 1
    assert np.linalg.norm(bright[1] - (K @ point)[:2]) > 1.5


def test_images_at_a_reduced_size_have_the_intrinsics_of_that_size():
    frame = Setup(min_width=80).build().frame
    assert frame.images[0].shape == (60, 80, 3)
    assert np.allclose(frame.rig.intrinsics[0], np.diag((0.5, 0.5, 1)) @ K)


def test_r_and_tx_move_the_camera_relative_to_its_tf_frame():
    r = Rotation.from_euler('y', 2, degrees=True).as_matrix()
    p = P + np.array([[0, 0, 0, -128 * 0.5], [0] * 4, [0] * 4])
    rig = Setup((info(), info(p=p, r=r.ravel()))).build().frame.rig
    assert np.allclose(rig.ego_from_camera[1, :3, :3], r.T)
    assert np.allclose(rig.ego_from_camera[1, :3, 3], (2, 0, 0) + r.T @ (0.5, 0, 0))


def test_the_warning_about_a_suspicious_calibration_names_the_camera():
    built = Setup((info(), info(d=LENS))).build()
    assert set(built.warnings) == {'right'}
    assert built.warnings['right'].startswith('camera right may have lens distortion')


def test_two_cameras_with_the_same_tf_frame_are_reported_unless_their_tx_differs():
    images = image_set(frames=('left_optical', 'left_optical'))
    built = Setup().build(images)
    assert 'camera right has the same tf frame as left (left_optical)' in built.warnings['right']
    p = P + np.array([[0, 0, 0, -12.8], [0] * 4, [0] * 4])
    assert Setup((info(p=P), info(p=p))).build(images).warnings == {}


def test_two_cameras_with_the_same_camera_info_topic_are_reported():
    built = Setup(camera_info_topics=('/info', '/info')).build()
    assert 'camera right has the same CameraInfo topic as left (/info)' in built.warnings['right']


def calibration(focal: float) -> dict:
    k = [focal, 0.0, 80.0, 0.0, focal, 60.0, 0.0, 0.0, 1.0]
    return {'image_width': 160, 'image_height': 120, 'camera_matrix': {'data': k}}


def test_a_calibration_file_overrides_camera_info(tmp_path):
    (tmp_path / 'left.yaml').write_text(yaml.safe_dump(calibration(100.0)))
    files = (str(tmp_path / 'left.yaml'), '')
    rig = Setup(camera_info_files=files).build().frame.rig
    assert rig.intrinsics[:, 0, 0].tolist() == [100, 128]


def test_calibration_files_need_no_camera_info_topics(tmp_path):
    path = tmp_path / 'camera.yaml'
    path.write_text(yaml.safe_dump(calibration(100.0)))
    built = Setup(camera_info_files=(str(path), str(path)), camera_info_topics=('',)).build()
    assert built.frame.rig.intrinsics[:, 0, 0].tolist() == [100, 100]


def test_an_invalid_calibration_file_is_rejected_when_the_builder_is_created(tmp_path):
    (tmp_path / 'left.yaml').write_text(yaml.safe_dump(calibration(0.0)))
    with pytest.raises(ValueError, match='is not calibrated'):
        Setup(camera_info_files=(str(tmp_path / 'left.yaml'), ''))


def test_a_set_waits_for_camera_info_that_arrives_before_the_timeout():
    setup = Setup((info(), None), geometry_timeout_s=30.0)
    timer = threading.Timer(0.05, setup.builder.take_info, ('right', info()))
    timer.start()
    assert setup.build().faults == {}


def test_the_wait_for_camera_info_ends_when_the_node_stops():
    setup = Setup((info(), None), geometry_timeout_s=3600.0)
    stopping = threading.Event()
    stopping.set()
    assert setup.builder.build(image_set(), stopping).frame.rig.names == ('left',)


def test_after_a_timeout_later_sets_do_not_wait_for_the_camera_info_that_did_not_arrive():
    setup = Setup((info(), None), geometry_timeout_s=0.01)
    setup.build()
    setup.settings = replace(setup.settings, geometry_timeout_s=3600.0)
    assert setup.build().frame.rig.names == ('left',)


class NoWait(threading.Event):
    """An event that raises AssertionError in ``wait``, so that ``waits`` can detect the call."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError('waited')


def waits(setup: Setup, images: ImageSet | None = None) -> bool:
    """Return True if the builder waits for calibration, extrinsics or poses of the set."""
    try:
        setup.builder.build(images or image_set(), NoWait())
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(
    ('stamps_s', 'is_waiting'),
    [((2.0, 2.5), False), ((2.0, 3.05), True), ((0.95, 2.0), False), ((1.0, 3.0), False)],
)
def test_a_set_waits_for_poses_only_if_a_stamp_is_later_than_the_newest_pose(
    stamps_s, is_waiting: bool
):
    setup = Setup(geometry_timeout_s=3600.0, pose_clamp_s=0.0)
    images = replace(image_set(), stamps_ns=np.array(stamps_s) * 1e9)
    images = replace(images, stamps_ns=images.stamps_ns.astype(np.int64))
    assert waits(setup, images) == is_waiting


def test_if_poses_do_not_arrive_in_time_no_set_waits_for_poses_in_the_next_second(
    monkeypatch: pytest.MonkeyPatch,
):
    now_s = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now_s[0])
    setup = Setup(fixed_frame='odom', geometry_timeout_s=0.0)
    setup.build()
    setup.settings = replace(setup.settings, geometry_timeout_s=3600.0)
    now_s[0] += 0.9
    assert not waits(setup)
    now_s[0] += 0.2
    assert waits(setup)


def test_the_durations_of_decoding_and_geometry_are_reported():
    seconds = Setup().build().seconds
    assert set(seconds) == {'decoding', 'geometry'}
    assert all(0 <= value < 60 for value in seconds.values())


@pytest.mark.parametrize(('megapixels', 'cameras'), [(0.0192, CAMERAS), (0.0191, None)])
def test_images_above_max_image_megapixels_are_not_used(megapixels: float, cameras):
    built = Setup(max_image_megapixels=megapixels).build()
    assert (built.frame and built.frame.rig.names) == cameras
    for fault in built.faults.values():
        assert 'is 160x120, more than 0.0191 megapixels; raise max_image_megapixels' in str(fault)
