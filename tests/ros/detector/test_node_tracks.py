"""Tests the tracks that the running node publishes.

All trigger cycles have the same images. The network with random weights therefore detects the
same boxes in every cycle, and all objects seem to move with the vehicle.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs_py.point_cloud2 import read_points

from tests.ros.detector.running import Detector
from tests.ros.graph import wait_until


def follow(node: Detector, *times_s: float, cameras: tuple[str, ...] | None = None) -> list[set]:
    """Send one trigger cycle for each time, and return the track ids after each cycle."""
    found = []
    for time_s in times_s:
        objects, tracks = len(node.objects), len(node.tracks)
        node.rig.send_extrinsics()
        node.rig.send_infos(time_s)
        node.rig.send_poses(time_s)
        node.rig.send_images(time_s, cameras)
        wait_until(lambda o=objects: len(node.objects) > o, f'the objects at {time_s} s')
        wait_until(lambda t=tracks: len(node.tracks) > t, f'the tracks at {time_s} s')
        found.append({detection.id for detection in node.tracks[-1].detections})
    return found


def test_tracks_have_stable_ids_covariance_and_the_header_of_the_detections(tracking):
    ids = follow(tracking, 0.0, 0.1, 0.2)
    assert ids[0]
    assert ids[0] <= ids[1] <= ids[2]
    assert all(int(name) > 0 for name in ids[2])
    wait_until(lambda: len(tracking.detections) == 3, 'detections')
    message = tracking.tracks[-1]
    assert message.header == tracking.detections[-1].header
    for one in message.detections:
        covariance = np.reshape(one.results[0].pose.covariance, (6, 6))
        assert (np.diag(covariance)[[0, 1, 2, 5]] > 0).all()
        assert not covariance[3:5].any()
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
    wait_until(
        lambda: tracking.diagnostics.values('tf').get('tracking') == 'on',
        'tracking on in diagnostics',
    )
    assert tracking.diagnostics.values('node')['covariance'] == 'default'


def test_detections_contain_covariance_and_objects_contain_track_ids_and_velocity_variance(
    tracking,
):
    follow(tracking, 0.0, 0.5)
    wait_until(lambda: len(tracking.detections) == 2, 'detections')
    first = tracking.detections[-1].detections[0].results[0].pose.covariance
    assert first[0] > 0
    points = read_points(tracking.objects[-1])
    known = {int(one.id) for one in tracking.tracks[-1].detections}
    assert set(points['track_id'].tolist()) - {0} <= known
    assert points['track_id'].any()
    assert (points['vx_variance'] > 0).all()
    texts = [m.text for m in tracking.markers[-1].markers if m.ns == 'labels']
    assert [' #' in text for text in texts] == [bool(x) for x in points['track_id'].tolist()]


def test_without_ego_poses_no_tracks_are_published_and_the_reason_is_reported(tracking):
    tracking.rig.send_extrinsics()
    tracking.rig.send_infos()
    tracking.rig.send_images(0.0)
    tracking.wait_for_detections(1)
    wait_until(
        lambda: (
            tracking.diagnostics.values('tf')
            .get('tracking', '')
            .startswith('off: tf has no map <- base_link')
        ),
        'the reason why tracking is off',
    )
    assert not tracking.tracks
    assert not read_points(tracking.objects[-1])['track_id'].any()


def test_tracking_can_be_switched_off_and_on_while_the_node_is_active(tracking):
    (before,) = follow(tracking, 0.0)
    assert tracking.set('publish_tracks', False) == ''
    tracking.rig.send_all(0.1)
    tracking.wait_for_detections(2)
    assert len(tracking.tracks) == 1
    assert not read_points(tracking.objects[-1])['track_id'].any()
    wait_until(
        lambda: (
            tracking.diagnostics.values('tf').get('tracking') == 'off: publish_tracks is false'
        ),
        'the reason why tracking is off',
    )
    assert tracking.set('publish_tracks', True) == ''
    (after,) = follow(tracking, 0.2)
    assert before <= after


def test_a_change_of_track_birth_score_takes_effect_while_the_node_is_active(tracking):
    assert tracking.set('track_birth_score', 1.0) == ''
    assert follow(tracking, 0.0) == [set()]
    assert tracking.set('track_birth_score', 0.0) == ''
    assert follow(tracking, 0.1)[0]


def test_when_a_bag_starts_again_the_tracks_end_and_their_ids_are_not_used_again(tracking):
    ids = follow(tracking, 30.0, 30.1, 0.0, 0.1)
    assert ids[2]
    assert not ids[1] & ids[2]
    assert ids[2] <= ids[3]


def test_the_lifetime_of_markers_is_two_frame_intervals_but_at_least_0_2_and_at_most_5_s(tracking):
    follow(tracking, 0.0, 0.4, 0.45, 10.0)
    wait_until(lambda: len(tracking.markers) == 4, 'markers')
    lifetimes = [message.markers[1].lifetime for message in tracking.markers]
    seconds = [one.sec + 1e-9 * one.nanosec for one in lifetimes]
    # The stamp of a set is the mean stamp of its images. This mean changes by a few milliseconds
    # if an image is not decoded in time and therefore is not used.
    np.testing.assert_allclose(seconds, [5.0, 0.8, 0.2, 5.0], atol=0.02)
