"""Tests the tf listener. The tests pass messages directly to its callbacks and replace its
monotonic clock.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer

from bevdepth_ros.rig import tf_listener
from bevdepth_ros.rig.tf_listener import (
    BACKWARDS_NS,
    MAX_CHAIN,
    MAX_NAME_LENGTH,
    CheckedTransformListener,
    matrix_from_transform,
    transform_from_odometry,
)
from tests.ros.graph import Graph

START_S = 1000.0


def transform(parent: str, child: str, stamp_s: float, x: float = 0.0) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(nanoseconds=round(stamp_s * 1e9)).to_msg()
    message.transform.translation.x, message.transform.rotation.w = x, 1.0
    return message


class Tf:
    """A tf listener without publishers. ``now_s`` is the time of its monotonic clock."""

    def __init__(self, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.faults = 500.0, list[tuple[str, str]]()
        monkeypatch.setattr(tf_listener, 'monotonic', lambda: self.now_s)
        self.buffer = Buffer()
        self.listener = CheckedTransformListener(
            self.buffer, graph.node, lambda *fault: self.faults.append(fault)
        )

    def send(self, parent: str, child: str, *stamps_s: float, x: float = 0.0) -> None:
        for stamp_s in stamps_s:
            self.listener.callback(TFMessage(transforms=[transform(parent, child, stamp_s, x)]))

    def send_static(self, parent: str, child: str) -> None:
        message = TFMessage(transforms=[transform(parent, child, START_S)])
        self.listener.static_callback(message)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.faults]

    def has_transform(self, parent: str, child: str, stamp_s: float) -> bool:
        return self.buffer.can_transform(parent, child, Time(nanoseconds=round(stamp_s * 1e9)))


@pytest.fixture
def tf(module_graph: Graph, monkeypatch: pytest.MonkeyPatch):
    tf = Tf(module_graph, monkeypatch)
    yield tf
    tf.listener.unregister()


def test_odometry_is_converted_to_a_transform_with_the_same_frames_stamp_and_pose():
    message = Odometry(child_frame_id='base_link')
    message.header.frame_id = 'odom'
    message.header.stamp.sec = 7
    position, rotation = message.pose.pose.position, message.pose.pose.orientation
    position.x, position.y, position.z = 1.0, 2.0, 3.0
    rotation.z, rotation.w = math.sin(0.2), math.cos(0.2)
    found = transform_from_odometry(message)
    assert (found.header, found.child_frame_id) == (message.header, 'base_link')
    expected = [math.cos(0.4), math.sin(0.4), 0]
    matrix = matrix_from_transform(found)
    assert np.allclose(matrix[:3, 0], expected)
    assert matrix[:3, 3].tolist() == [1, 2, 3]


def test_odometry_is_stored_like_a_transform(tf: Tf):
    message = Odometry(child_frame_id='base_link')
    message.header.frame_id, message.header.stamp.sec = 'odom', 7
    message.pose.pose.orientation.w = 1.0
    tf.listener.take_odometry(message)
    assert tf.has_transform('odom', 'base_link', 7.0)
    message.pose.pose.orientation.w = 0.0
    tf.listener.take_odometry(message)
    assert tf.kinds() == ['bad_tf']


@pytest.mark.parametrize(('late_s', 'kinds'), [(0.25, []), (0.251, ['tf_jump'])])
def test_a_late_transform_is_stored_and_is_a_time_jump_if_over_250_ms_older_than_the_newest(
    tf: Tf, late_s, kinds
):
    tf.send('map', 'base_link', START_S, START_S - 0.2, START_S - late_s)
    assert tf.kinds() == kinds
    assert tf.has_transform('map', 'base_link', START_S - late_s)
    assert tf.has_transform('map', 'base_link', START_S) == (not kinds)


def test_a_frame_whose_stamps_jump_back_and_forward_has_a_conflict_for_one_second(tf: Tf):
    tf.send('map', 'base_link', START_S, START_S - 50)
    assert tf.listener.conflict('base_link') is None
    tf.now_s += 0.9
    tf.send('map', 'base_link', START_S + 0.1)
    assert 'stamps of tf frame base_link jump back and forward' in tf.listener.conflict(
        'base_link'
    )
    assert tf.listener.conflict('map') is None
    tf.now_s += 1.1
    assert tf.listener.conflict('base_link') is None


def test_a_restarted_replay_that_passes_the_last_stamp_of_the_first_replay_is_no_conflict(
    tf: Tf,
):
    tf.send('map', 'base_link', START_S, START_S - 50)
    tf.now_s += 1.1
    tf.send('map', 'base_link', START_S + 0.1)
    assert tf.listener.conflict('base_link') is None


def test_two_parents_are_a_conflict_until_one_parent_is_silent_for_one_second(tf: Tf):
    tf.send('map', 'base_link', START_S)
    tf.now_s += 0.9
    tf.send('odom', 'base_link', START_S)
    assert 'has several parents: map, odom' in tf.listener.conflict('base_link')
    tf.now_s += 0.2
    assert tf.listener.conflict('base_link') is None


def test_a_static_and_a_moving_parent_are_reported_as_a_conflict(tf: Tf):
    tf.send_static('map', 'base_link')
    assert tf.listener.conflict('base_link') is None
    tf.send('odom', 'base_link', START_S)
    assert 'has several parents: map, odom' in tf.listener.conflict('base_link')
    tf.now_s += 1.1
    assert tf.listener.conflict('base_link') is None


def test_the_four_newest_parents_of_a_frame_are_stored(tf: Tf):
    for number in (5, 4, 3, 2, 1):
        tf.now_s += 0.1
        tf.send(f'parent_{number}', 'base_link', START_S)
    names = ', '.join(f'parent_{number}' for number in (1, 2, 3, 4))
    assert f'several parents: {names};' in tf.listener.conflict('base_link')


def test_the_chain_of_frames_follows_the_newest_parents_and_ends_at_the_target(tf: Tf):
    tf.send_static('mast', 'camera')
    tf.send('old', 'mast', START_S)
    tf.now_s += 0.1
    tf.send('base_link', 'mast', START_S)
    tf.send('map', 'base_link', START_S)
    assert tf.listener.chain('base_link', 'camera') == ['camera', 'mast']
    assert tf.listener.chain('map', 'camera') == ['camera', 'mast', 'base_link']
    assert tf.listener.chain('elsewhere', 'mast') == ['mast', 'base_link', 'map']
    assert tf.listener.chain('camera', 'camera') == []


def test_the_length_of_a_chain_is_limited_if_frames_form_a_loop(tf: Tf):
    tf.send_static('a', 'b')
    tf.send_static('b', 'a')
    assert len(tf.listener.chain('map', 'a')) == MAX_CHAIN == 20


def test_a_chain_is_static_if_all_its_transforms_are_static(tf: Tf):
    tf.send_static('mast', 'camera')
    tf.send_static('base_link', 'mast')
    tf.send('map', 'base_link', START_S)
    assert tf.listener.is_static('base_link', 'camera')
    assert not tf.listener.is_static('map', 'camera')
    assert not tf.listener.is_static('elsewhere', 'camera')
    assert not tf.listener.is_static('camera', 'camera')
    version = tf.listener.mounts_version
    tf.send('map', 'base_link', START_S + 1)
    assert tf.listener.mounts_version == version
    tf.send('base_link', 'mast', START_S)
    assert not tf.listener.is_static('base_link', 'camera')
    assert tf.listener.mounts_version > version


def test_the_first_conflict_of_a_chain_is_returned(tf: Tf):
    tf.send_static('base_link', 'camera')
    tf.send('map', 'base_link', START_S)
    assert tf.listener.conflict_between('map', 'camera', is_ego=False) is None
    tf.send('odom', 'base_link', START_S)
    assert 'frame base_link has' in tf.listener.conflict_between('map', 'camera', is_ego=False)


@pytest.mark.parametrize(('silence_s', 'count'), [(1.9, 0), (2.1, 1)])
def test_a_needed_frame_is_reported_as_stale_if_no_transform_arrives_for_two_seconds(
    tf: Tf, monkeypatch, silence_s, count
):
    tf.send('base_link', 'camera', START_S)
    tf.send('base_link', 'wheel', START_S)
    tf.listener.conflict_between('base_link', 'camera', is_ego=False)
    # The ROS clock jumps far ahead. The jump must have no effect, because the listener measures
    # the silence on the monotonic clock and on the ROS clock, and uses the shorter time.
    later = SimpleNamespace(now=lambda: Time(seconds=4_000_000_000))
    monkeypatch.setattr(tf.listener, '_clock', later)
    tf.now_s += silence_s
    stale = tf.listener.stale(2.0)
    assert list(stale) == ['camera'] * count
    assert all('base_link <- camera has not arrived for 2.1 s' in text for text in stale.values())


@pytest.mark.parametrize(('ahead_ns', 'is_kept'), [(0, True), (1, False)])
def test_moving_transforms_are_dropped_if_a_stamp_is_more_than_250_ms_later_than_the_clock(
    tf: Tf, ahead_ns: int, is_kept: bool
):
    tf.send_static('base_link', 'camera')
    tf.send('map', 'base_link', START_S)
    tf.listener.drop_later_than(round(START_S * 1e9) - BACKWARDS_NS - ahead_ns)
    assert tf.has_transform('map', 'base_link', START_S) == is_kept
    assert tf.has_transform('base_link', 'camera', START_S)
    tf.send('map', 'base_link', START_S - 50)
    assert tf.kinds() == (['tf_jump'] if is_kept else [])


def follow(tf: Tf) -> None:
    """Send map <- base_link and base_link <- wheel, and look up both transforms, so that both
    count as needed. The lookup of map <- base_link is a lookup of ego motion.
    """
    tf.send('map', 'base_link', START_S)
    tf.send('base_link', 'wheel', START_S)
    tf.listener.conflict_between('map', 'base_link', is_ego=True)
    tf.listener.conflict_between('base_link', 'wheel', is_ego=False)


def test_a_needed_frame_that_has_only_old_stamps_for_one_second_is_reported_as_a_time_jump(tf: Tf):
    follow(tf)
    tf.send('base_link', 'wheel', START_S - 50)
    tf.now_s += 0.9
    tf.send('base_link', 'wheel', START_S - 49)
    assert not tf.faults
    assert tf.has_transform('map', 'base_link', START_S)
    tf.now_s += 0.2
    tf.send('base_link', 'wheel', START_S - 48)
    assert tf.kinds() == ['tf_jump']
    assert tf.has_transform('base_link', 'wheel', START_S - 48)
    assert not tf.has_transform('map', 'base_link', START_S)


def test_old_stamps_are_not_reported_as_a_time_jump_if_a_newer_stamp_arrives_between_them(tf: Tf):
    follow(tf)
    tf.send('base_link', 'wheel', START_S - 50)
    tf.now_s += 0.9
    tf.send('base_link', 'wheel', START_S + 0.1)
    tf.now_s += 0.2
    tf.send('base_link', 'wheel', START_S - 49)
    assert not tf.faults


def test_old_stamps_of_a_frame_that_is_not_needed_are_dropped(tf: Tf):
    follow(tf)
    tf.send('base_link', 'door', START_S, START_S - 50)
    tf.now_s += 1.1
    tf.send('base_link', 'door', START_S - 49)
    assert not tf.faults
    assert not tf.has_transform('base_link', 'door', START_S - 49)


def moved(**places: float) -> TransformStamped:
    message = transform('map', 'base_link', START_S)
    for axis, value in places.items():
        setattr(message.transform.translation, axis, value)
    return message


def stamped(sec: int, nanosec: int = 0) -> TransformStamped:
    message = transform('map', 'base_link', START_S)
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    return message


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (moved(x=1.1e9), 'above 1e'),
        (moved(y=-1.1e9), 'above 1e'),
        (moved(z=math.inf), 'not finite'),
        (transform('', 'base_link', 0), 'different, non-empty names'),
        (transform('map', '', 0), 'different, non-empty names'),
        (transform('map', 'map', 0), 'different, non-empty names'),
        (transform('m' * (MAX_NAME_LENGTH + 1), 'base_link', 0), 'more than 255 characters'),
        (transform('map', 'b' * (MAX_NAME_LENGTH + 1), 0), 'more than 255 characters'),
        (stamped(-1), 'before the year 1970'),
        (stamped(1, 10**9), 'nanosec of its stamp'),
    ],
)
def test_an_invalid_transform_is_rejected_with_the_reason(tf: Tf, message, words: str):
    tf.listener.callback(TFMessage(transforms=[message, transform('a', 'b', START_S)]))
    ((kind, sentence),) = tf.faults
    assert kind == 'bad_tf'
    assert words in sentence
    assert len(sentence) < 250
    assert tf.has_transform('a', 'b', START_S)


@pytest.mark.parametrize(
    'message',
    [
        moved(x=0.9e9, y=-0.9e9),
        stamped(0),
        stamped(1, 999_999_999),
        transform('m' * MAX_NAME_LENGTH, 'b' * MAX_NAME_LENGTH, START_S),
    ],
)
def test_a_transform_with_unusual_but_allowed_values_is_accepted(
    tf: Tf, message: TransformStamped
):
    tf.listener.callback(TFMessage(transforms=[message]))
    assert not tf.faults
