"""Track ids while a camera publishes no images, and while a truck hides objects."""

from __future__ import annotations

import numpy as np

from bevdepth_core.tracking import Tracker, Tracks3D
from tests.core.tracking.scenes import CAR, TRUCK, detections, pose

RATE_HZ = 12
FRONT_RAD = 0.6
"""Half the field of view of a front camera, radians."""
NOISE_M, NOISE_MPS = 0.15, 0.4


def follow(
    objects: np.ndarray, velocities: np.ndarray, labels: list[int], seconds: float, is_seen
) -> list[Tracks3D]:
    """Return the tracks of each frame of a drive at 5 m/s along x.

    Args:
        objects: (n, 2) positions of the objects in the world at time 0, meters.
        velocities: (n, 2) velocities of the objects in the world, m/s.
        labels: classes of the objects.
        seconds: length of the drive.
        is_seen: function that returns the (n,) mask of the detected objects. The arguments are the
            time in seconds and the (n, 2) positions of the objects in the ego frame.
    """
    tracker, random, found = Tracker(), np.random.default_rng(3), []
    for frame in range(round(seconds * RATE_HZ)):
        time_s = frame / RATE_HZ
        ego = objects + velocities * time_s - (5 * time_s, 0)
        rows = np.nonzero(is_seen(time_s, ego))[0]
        shown = detections(
            (ego[rows] + random.normal(0, NOISE_M, (len(rows), 2))).tolist(),
            time_s,
            scores=0.6,
            labels=[labels[row] for row in rows],
            velocities=(velocities[rows] + random.normal(0, NOISE_MPS, (len(rows), 2))).tolist(),
        )
        found.append(tracker.update(shown, pose(5 * time_s)))
    return found


def test_all_ids_are_kept_and_published_while_the_front_camera_is_silent_for_half_a_second():
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    cars = 25 * np.column_stack((np.cos(angle), np.sin(angle))) + (10, 0)
    velocities = np.column_stack((np.full(16, 5.0), np.linspace(-1, 1, 16)))

    def is_seen(time_s: float, ego: np.ndarray) -> np.ndarray:
        is_silent = 2.0 <= time_s < 2.5
        return ~(is_silent & (np.abs(np.arctan2(ego[:, 1], ego[:, 0])) < FRONT_RAD))

    frames = follow(cars, velocities, [CAR] * 16, 4.0, is_seen)
    silent = frames[round(2.25 * RATE_HZ)]
    assert 0 < (silent.coasted_s > 0).sum() < 16
    assert {tuple(sorted(frame.ids.tolist())) for frame in frames} == {tuple(range(1, 17))}


def test_two_cars_that_meet_behind_a_truck_keep_their_ids():
    """Each car is hidden for more than 1.2 s. A track without detections is published for only
    1 s.
    """
    objects = np.array([(14.0, 15.0), (13.0, 24.0), (30.0, 22.0)])
    velocities = np.array([(5.0, 0), (10.0, 0), (0.0, 0)])

    def is_seen(time_s: float, ego: np.ndarray) -> np.ndarray:
        bearing = np.arctan2(ego[:, 1], ego[:, 0])
        is_hidden = np.abs(bearing - bearing[0]) < 0.1
        is_hidden[0] = False
        return ~is_hidden

    frames = follow(objects, velocities, [TRUCK, CAR, CAR], 4.0, is_seen)
    first, last = frames[2], frames[-1]
    assert first.ids.tolist() == [1, 2, 3]
    for key in (2, 3):
        seen = [key in frame.ids[frame.detections >= 0] for frame in frames]
        assert seen.count(False) / RATE_HZ > 1.2
    assert sorted(last.ids.tolist()) == [1, 2, 3]
    for key, velocity in zip((2, 3), velocities[1:], strict=True):
        (row,) = np.nonzero(last.ids == key)[0]
        assert last.detections[row] >= 0
        assert np.abs(last.boxes.velocity[row] - velocity).max() < 1
