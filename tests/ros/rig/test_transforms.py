from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage

from bevdepth_ros.rig import tf_listener
from bevdepth_ros.rig.tf_listener import matrix_from_transform
from bevdepth_ros.rig.transforms import TransformMissingError, Transforms
from tests.ros import messages
from tests.ros.graph import Graph, wait_until

START_NS = 1_531_883_530_000_000_000
MILLISECOND_NS = 1_000_000
CLAMP_S = 0.06


def transform(
    parent: str, child: str, stamp_ns: int, x: float, yaw: float = 0.0
) -> TransformStamped:
    turn = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
    return messages.transform(parent, child, stamp_ns, (x, 0.0, 0.0), turn)


class Tf:
    """Publishes transforms, and waits until ``transforms`` has received them."""

    def __init__(self, graph: Graph):
        self.faults: list[tuple[str, str]] = []
        self.transforms = Transforms(
            graph.node, 10.0, lambda kind, sentence: self.faults.append((kind, sentence))
        )
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publishers = {
            False: graph.node.create_publisher(TFMessage, '/tf', 100),
            True: graph.node.create_publisher(TFMessage, '/tf_static', latched),
        }
        wait_until(
            lambda: all(
                publisher.get_subscription_count() for publisher in self._publishers.values()
            ),
            'tf subscribers',
        )

    def send(self, parent: str, child: str, stamp_ns: int, x: float, static: bool = False) -> None:
        self._publishers[static].publish(
            TFMessage(transforms=[transform(parent, child, stamp_ns, x)])
        )
        wait_until(
            lambda: self.transforms.has_transform(parent.lstrip('/'), child, stamp_ns),
            f'{parent} <- {child}',
        )

    def drive(self) -> None:
        """Publish six poses from START_NS on; the step is 100 ms in time and 1 m in x."""
        for step in range(6):
            self.send('map', 'base_link', START_NS + 100 * step * MILLISECOND_NS, float(step))

    def x_at(self, offset_ms: float) -> float:
        return self.transforms.lookup_at(
            'map', 'base_link', START_NS + round(offset_ms * MILLISECOND_NS), CLAMP_S
        )[0, 3]


@pytest.fixture
def tf(graph: Graph) -> Iterator[Tf]:
    tf = Tf(graph)
    yield tf
    tf.transforms.close()


def test_a_pose_looked_up_in_advance_is_used_once_and_equals_the_pose_of_a_second_lookup(tf: Tf):
    tf.drive()
    stamp_ns = START_NS + 130 * MILLISECOND_NS
    tf.transforms.lookup_early('map', 'base_link', stamp_ns)
    assert list(tf.transforms._early) == [('map', 'base_link', stamp_ns)]
    early = tf.x_at(130)
    assert not tf.transforms._early
    assert early == tf.x_at(130) == pytest.approx(1.3)


def test_poses_looked_up_in_advance_are_dropped_when_the_clock_goes_back(tf: Tf):
    tf.drive()
    stamp_ns = START_NS + 130 * MILLISECOND_NS
    tf.transforms.lookup_early('map', 'base_link', stamp_ns)
    tf.transforms.clock_went_back(START_NS + 10)
    assert not tf.transforms.has_transform('map', 'base_link', stamp_ns)


def test_a_lookup_in_advance_that_finds_no_pose_removes_the_stored_pose(tf: Tf):
    tf.transforms._early['map', 'base_link', START_NS] = np.eye(4)
    tf.transforms.lookup_early('map', 'base_link', START_NS)
    assert not tf.transforms.has_transform('map', 'base_link', START_NS)


def test_the_matrix_of_a_transform_message_maps_points_from_the_child_to_the_parent():
    matrix = matrix_from_transform(transform('base_link', 'camera', 0, 3.0, math.pi / 2))
    assert np.allclose(matrix @ (1, 0, 0, 1), (3, 1, 0, 1))


def test_static_extrinsics_are_found_at_any_time(tf: Tf):
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.7, static=True)
    assert tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] == 1.7
    assert tf.transforms.lookup_at('base_link', 'CAM_FRONT', START_NS - 10**12)[0, 3] == 1.7


def test_static_transforms_of_a_publisher_that_is_not_latched_are_received(tf: Tf, graph: Graph):
    publisher = graph.node.create_publisher(TFMessage, '/tf_static', 10)
    wait_until(lambda: publisher.get_subscription_count() == 1, 'the volatile subscriber')
    publisher.publish(TFMessage(transforms=[transform('base_link', 'CAM_BACK', START_NS, -1.0)]))
    wait_until(lambda: tf.transforms.has_transform('base_link', 'CAM_BACK'), 'the transform')
    assert tf.transforms.latest('base_link', 'CAM_BACK')[0, 3] == -1.0


def test_a_leading_slash_of_a_frame_name_is_ignored(tf: Tf):
    tf.send('/base_link', '/CAM_FRONT', START_NS, 1.7, static=True)
    for name in ('CAM_FRONT', '/CAM_FRONT'):
        assert tf.transforms.has_transform('base_link', name)
        assert tf.transforms.latest('base_link', name)[0, 3] == 1.7
        assert tf.transforms.lookup_at('base_link', name, START_NS)[0, 3] == 1.7
    tf.send('/map', '/base_link', START_NS, 7.0)
    tf.send('map', 'base_link', START_NS + MILLISECOND_NS, 7.0)
    assert tf.transforms.lookup_at('map', 'base_link', START_NS)[0, 3] == 7.0
    assert tf.faults == []


def test_a_pose_is_interpolated_at_the_stamp(tf: Tf):
    tf.drive()
    assert tf.x_at(250) == pytest.approx(2.5)


@pytest.mark.parametrize(('offset_ms', 'x'), [(-59, 0.0), (559, 5.0)])
def test_a_stamp_less_than_60_ms_before_or_after_all_poses_gets_the_nearest_pose(
    tf: Tf, offset_ms: float, x: float
):
    tf.drive()
    assert tf.x_at(offset_ms) == pytest.approx(x, abs=1e-4)


@pytest.mark.parametrize('offset_ms', [-61, 561])
def test_a_stamp_more_than_60_ms_before_or_after_all_poses_has_no_pose(tf: Tf, offset_ms: float):
    tf.drive()
    with pytest.raises(
        TransformMissingError,
        match='tf has map <- base_link, but not at the stamp, which is ',
    ):
        tf.x_at(offset_ms)


@pytest.mark.parametrize('offset_ms', [-40, 0, 40])
def test_a_single_pose_is_used_for_stamps_shortly_before_and_after_it(tf: Tf, offset_ms: float):
    tf.send('map', 'base_link', START_NS, 7.0)
    assert tf.x_at(offset_ms) == 7.0


def test_the_message_about_a_missing_transform_names_the_missing_frames(tf: Tf):
    with pytest.raises(TransformMissingError, match='nothing was received on /tf and /tf_static'):
        tf.transforms.latest('base_link', 'CAM_FRONT')
    tf.send('base_link', 'CAM_BACK', START_NS, 1.0, static=True)
    with pytest.raises(
        TransformMissingError, match='tf does not contain CAM_FRONT, only CAM_BACK, base_link'
    ):
        tf.transforms.latest('base_link', 'CAM_FRONT')
    tf.send('odom', 'trailer', START_NS, 1.0)
    with pytest.raises(TransformMissingError, match='not part of the same tree'):
        tf.transforms.latest('base_link', 'trailer')


def test_a_missing_frame_is_reported_with_known_names_that_differ_only_in_prefix_or_case(tf: Tf):
    tf.send('robot1/base_link', 'CAM_FRONT', START_NS, 1.0, static=True)
    with pytest.raises(
        TransformMissingError,
        match=r'contain base_link \(did you mean robot1/base_link\?\) and '
        r'cam_front \(did you mean CAM_FRONT\?\), only CAM_FRONT, robot1/base_link$',
    ):
        tf.transforms.latest('base_link', 'cam_front')


def test_a_missing_transform_is_reported_even_if_frame_names_contain_yaml_syntax(tf: Tf):
    tf.send('{a: b', '*c', START_NS, 0.0, static=True)
    with pytest.raises(TransformMissingError, match='tf has no map <- base_link'):
        tf.transforms.latest('map', 'base_link')


def test_after_the_clock_goes_back_earlier_poses_are_accepted_and_static_transforms_are_kept(
    tf: Tf,
):
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.7, static=True)
    tf.drive()
    tf.transforms.clock_went_back(START_NS - 60 * 10**9)
    with pytest.raises(TransformMissingError):
        tf.x_at(0)
    tf.send('map', 'base_link', START_NS - 60 * 10**9, 9.0)
    assert tf.transforms.latest('map', 'CAM_FRONT')[0, 3] == pytest.approx(10.7)
    assert not tf.faults


def test_poses_of_a_restarted_bag_are_kept_if_they_arrive_before_the_clock_goes_back(tf: Tf):
    tf.send('map', 'base_link', START_NS + 60 * 10**9, 99.0)
    tf.send('map', 'base_link', START_NS, 7.0)
    tf.transforms.clock_went_back(START_NS)
    assert tf.x_at(0) == 7.0


def test_a_malformed_transform_is_ignored_and_reported(tf: Tf):
    bad = transform('base_link', 'CAM_FRONT', START_NS, math.nan)
    zero = transform('base_link', 'CAM_FRONT', START_NS, 0.0)
    zero.transform.rotation.w = 0.0
    before_time = transform('map', 'odom', START_NS, 0.0)
    before_time.header.stamp.sec = -1
    no_time = transform('map', 'odom', START_NS, 0.0)
    no_time.header.stamp.sec, no_time.header.stamp.nanosec = 2**31 - 1, 2**32 - 1
    tf._publishers[False].publish(
        TFMessage(
            transforms=[
                bad,
                zero,
                transform('', '', START_NS, 0.0),
                transform('a', 'a', START_NS, 0.0),
                before_time,
                no_time,
            ]
        )
    )
    tf.send('map', 'base_link', START_NS, 1.0)
    assert not tf.transforms.has_transform('base_link', 'CAM_FRONT')
    assert [kind for kind, _ in tf.faults] == ['bad_tf'] * 6
    assert (
        tf.faults[0][1] == "the transform 'base_link' <- 'CAM_FRONT' is invalid: "
        'its translation is not finite, or above 1e+09 m'
    )


def test_one_pose_with_a_future_stamp_does_not_block_current_poses(tf: Tf):
    tf.send('map', 'base_link', START_NS + 3600 * 10**9, 99.0)
    tf.drive()
    assert tf.x_at(250) == pytest.approx(2.5)
    assert [kind for kind, _ in tf.faults] == ['tf_jump']


def test_a_frame_with_two_parents_is_rejected_and_both_parents_are_reported(tf: Tf):
    tf.drive()
    tf.send('odom', 'base_link', START_NS, 0.0)
    with pytest.raises(
        TransformMissingError, match='tf frame base_link has several parents: map, odom'
    ):
        tf.x_at(250)


def test_new_frames_beyond_the_limit_are_rejected_and_known_frames_are_still_updated(
    tf: Tf, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tf_listener, 'MAX_FRAMES', 4)
    tf.send('map', 'base_link', START_NS, 1.0)
    for number in range(10):
        tf._publishers[False].publish(
            TFMessage(transforms=[transform('map', f'tag_{number}', START_NS, 0.0)])
        )
    tf.send('map', 'base_link', START_NS + 10**8, 2.0)
    assert tf.transforms.has_transform('map', 'tag_1')
    assert not tf.transforms.has_transform('map', 'tag_2')
    assert len(tf.faults) == 8
    assert 'the limit of 4 tf frames is reached' in tf.faults[0][1]


def test_old_transforms_of_an_unrelated_frame_are_dropped_and_other_frames_do_not_change(tf: Tf):
    tf.drive()
    assert tf.x_at(250) == pytest.approx(2.5)
    tf.send('base_link', 'wheel', START_NS + 10**9, 1.0)
    tf._publishers[False].publish(
        TFMessage(transforms=[transform('base_link', 'wheel', START_NS, 2.0)])
    )
    tf.send('map', 'base_link', START_NS + 600 * MILLISECOND_NS, 6.0)
    assert tf.x_at(250) == pytest.approx(2.5)
    assert tf.transforms.latest('base_link', 'wheel')[0, 3] == 1.0
    assert not tf.faults


def test_if_the_stamps_of_the_ego_frame_go_back_all_moving_frames_are_cleared(tf: Tf):
    tf.drive()
    assert tf.x_at(250) == pytest.approx(2.5)
    tf.send('map', 'base_link', START_NS - 10**9, 9.0)
    with pytest.raises(TransformMissingError):
        tf.x_at(250)
    assert [kind for kind, _ in tf.faults] == ['tf_jump']


def test_a_camera_whose_moving_transform_is_no_longer_published_is_reported_by_name(tf: Tf):
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.0)
    tf.transforms.latest('base_link', 'CAM_FRONT')
    assert tf.transforms.stale(60.0) == {}
    assert list(tf.transforms.stale(0.0)) == ['CAM_FRONT']
    assert 'base_link <- CAM_FRONT has not arrived for' in tf.transforms.stale(0.0)['CAM_FRONT']


def test_the_transform_of_the_ego_motion_can_be_excluded_from_the_stale_transforms(tf: Tf):
    tf.drive()
    tf.x_at(250)
    assert list(tf.transforms.stale(0.0)) == ['base_link']
    assert tf.transforms.stale(0.0, ('map', 'base_link')) == {}
    assert list(tf.transforms.stale(0.0, ('odom', 'base_link'))) == ['base_link']


def test_with_use_sim_time_a_frame_becomes_stale_only_if_the_clock_of_the_replay_advances(
    graph: Graph, tf: Tf
):
    publisher = graph.node.create_publisher(Clock, '/clock', 10)
    graph.node.set_parameters([Parameter('use_sim_time', value=True)])

    def set_clock(seconds: int) -> None:
        message = Clock(clock=Time(seconds=seconds).to_msg())

        def is_set() -> bool:
            publisher.publish(message)
            return graph.node.get_clock().now().nanoseconds == seconds * 10**9

        wait_until(is_set, 'the clock')

    set_clock(1000)
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.0)
    tf.transforms.latest('base_link', 'CAM_FRONT')
    assert tf.transforms.stale(0.0) == {}
    set_clock(1001)
    assert list(tf.transforms.stale(0.0)) == ['CAM_FRONT']


def test_static_and_unused_frames_are_never_stale(tf: Tf):
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.0, static=True)
    tf.send('base_link', 'wheel', START_NS, 1.0)
    tf.transforms.latest('base_link', 'CAM_FRONT')
    assert tf.transforms.stale(0.0) == {}


def test_odometry_of_a_frame_that_is_not_linked_to_the_base_frame_is_reported(graph: Graph):
    faults: list[tuple[str, str]] = []
    transforms = Transforms(
        graph.node, 10.0, lambda *fault: faults.append(fault), '/odometry', 'base_link'
    )
    publisher = graph.node.create_publisher(Odometry, '/odometry', 10)
    wait_until(publisher.get_subscription_count, 'the subscription')
    message = Odometry(child_frame_id='footprint')
    message.header.frame_id = 'odom'
    message.pose.pose.orientation.w = 1.0
    publisher.publish(message)
    wait_until(lambda: bool(faults), 'the report')
    transforms.close()
    assert faults[0][0] == 'odometry_frame'
    assert "/odometry has the child frame 'footprint'" in faults[0][1]


def test_camera_extrinsics_that_are_published_again_replace_the_earlier_extrinsics(tf: Tf) -> None:
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.0, static=True)
    assert tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] == 1.0
    assert tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] == 1.0
    tf.send('base_link', 'CAM_FRONT', START_NS, 2.0, static=True)
    wait_until(
        lambda: tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] == 2.0, 'the new mount'
    )


def test_the_extrinsics_of_a_camera_on_a_moving_frame_change_with_this_frame(tf: Tf) -> None:
    tf.send('base_link', 'mast', START_NS, 1.0, static=True)
    tf.send('mast', 'CAM_FRONT', START_NS, 1.0, static=True)
    assert tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] == 2.0
    tf.send('base_link', 'pan_tilt', START_NS, 5.0)
    tf.send('pan_tilt', 'CAM_BACK', START_NS, 1.0, static=True)
    assert tf.transforms.latest('base_link', 'CAM_BACK')[0, 3] == 6.0
    tf.send('base_link', 'pan_tilt', START_NS + 50 * MILLISECOND_NS, 7.0)
    wait_until(
        lambda: tf.transforms.latest('base_link', 'CAM_BACK')[0, 3] == 8.0, 'the moved frame'
    )


def test_changing_a_returned_matrix_does_not_change_the_stored_matrix(tf: Tf) -> None:
    tf.send('base_link', 'CAM_FRONT', START_NS, 1.0, static=True)
    tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] = 99.0
    tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] = 99.0
    assert tf.transforms.latest('base_link', 'CAM_FRONT')[0, 3] == 1.0


def test_the_message_about_a_missing_frame_shortens_a_long_list_of_known_frames(tf: Tf):
    frames = [transform('base_link', f'tag_{number:02}', START_NS, 0.0) for number in range(24)]
    tf._publishers[True].publish(TFMessage(transforms=frames))
    wait_until(lambda: tf.transforms.has_transform('base_link', 'tag_23'), 'the frames')
    with pytest.raises(TransformMissingError, match=r'tag_00, .*, tag_18 and 5 others'):
        tf.transforms.latest('base_link', 'CAM_FRONT')


def test_after_closing_there_are_no_subscriptions(graph: Graph):
    before = {subscription.topic_name for subscription in graph.node.subscriptions}
    transforms = Transforms(graph.node, 10.0, lambda *fault: None, '/odometry', 'base_link')
    topics = {subscription.topic_name for subscription in graph.node.subscriptions}
    assert topics - before == {'/tf', '/tf_static', '/odometry'}
    transforms.close()
    assert {subscription.topic_name for subscription in graph.node.subscriptions} == before


def odometry(child: str) -> Odometry:
    message = Odometry(child_frame_id=child)
    message.header.frame_id = 'odom'
    message.header.stamp = Time(nanoseconds=START_NS).to_msg()
    message.pose.pose.orientation.w = 1.0
    return message


@pytest.mark.parametrize(
    ('base', 'child', 'count'),
    [
        ('base_link', 'base_link', 0),
        ('base_link', 'linked', 0),
        ('base_link', 'other', 1),
        ('', 'other', 0),
    ],
)
def test_odometry_is_always_used_and_is_reported_if_its_frame_is_not_linked_to_the_base_frame(
    graph: Graph, base: str, child: str, count: int
):
    faults: list[str] = []
    transforms = Transforms(
        graph.node, 10.0, lambda kind, sentence: faults.append(kind), '/odometry', base
    )
    link = TFMessage(transforms=[transform('linked', 'base_link', START_NS, 1.0)])
    transforms._listener.static_callback(link)
    transforms._take_odometry(odometry(child))
    assert faults == ['odometry_frame'] * count
    assert transforms.has_transform('odom', child, START_NS)
    transforms.close()


@pytest.mark.parametrize(
    ('offset_ms', 'distance'), [(-61, '0.561 s before'), (561, '0.061 s after')]
)
def test_the_message_about_a_missing_pose_has_the_time_from_the_newest_pose_to_the_stamp(
    tf: Tf, offset_ms: float, distance: str
):
    tf.drive()
    with pytest.raises(
        TransformMissingError, match=f'not at the stamp, which is {distance} the newest transform'
    ):
        tf.x_at(offset_ms)


def test_a_frame_with_a_name_of_more_than_255_characters_is_reported_as_missing(tf: Tf):
    name = 'x' * 256
    assert not tf.transforms.has_transform('base_link', name)
    with pytest.raises(TransformMissingError, match='has at most 255 characters') as caught:
        tf.transforms.latest('base_link', name)
    assert len(str(caught.value)) < 200
