from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from bevdepth_ros.detector.arrival_watch import IN_A_ROW, LEARNED, ArrivalWatch
from bevdepth_ros.rig.synchronizer import ImageSet

CAMERAS = 6
PERIOD_S, EXPOSURE_S, LIMIT_S = 0.1, 0.008, 0.06
START_NS = 1_700_000_000 * 10**9


class Rotations:
    """Sets of six cameras, seen at a rate of a replay, with delays of single cameras."""

    def __init__(self, rate: float = 1.0):
        self.watch = ArrivalWatch(CAMERAS, LIMIT_S)
        self._rate, self._number = rate, 0

    def go_on(
        self, count: int, late_s: dict[int, float] | None = None, missing: Iterable[int] = ()
    ) -> list[dict[int, float]]:
        """Return what the watch says of ``count`` sets in which the images of some cameras come
        late, or are missing."""
        return [self._one(late_s or {}, set(missing)) for _ in range(count)]

    def _one(self, late_s: dict[int, float], missing: set[int]) -> dict[int, float]:
        self._number += 1
        cameras = tuple(camera for camera in range(CAMERAS) if camera not in missing)
        exposed_s = {camera: self._number * PERIOD_S + camera * EXPOSURE_S for camera in cameras}
        stamps = np.array(
            [START_NS + round(exposed_s[camera] * 1e9) for camera in cameras], np.int64
        )
        for camera, stamp in zip(cameras, stamps.tolist(), strict=True):
            self.watch.arrived(
                camera, stamp, exposed_s[camera] / self._rate + late_s.get(camera, 0.0)
            )
        return self.watch.moved_s(ImageSet(cameras, (None,) * len(cameras), stamps, 0.0))


@pytest.mark.parametrize('moved_s', [PERIOD_S, -PERIOD_S])
def test_a_camera_whose_images_arrive_a_period_early_or_late_is_reported_while_it_lasts(
    moved_s: float,
):
    rotations = Rotations()
    assert not any(rotations.go_on(LEARNED))
    told = rotations.go_on(100, {2: -moved_s})
    assert not any(told[: IN_A_ROW - 1])
    assert all(list(one) == [2] for one in told[IN_A_ROW - 1 :])
    assert told[-1][2] == pytest.approx(moved_s, abs=1e-6)
    assert not any(rotations.go_on(LEARNED))


def test_a_camera_that_always_comes_later_and_single_late_images_are_not_told():
    rotations = Rotations()
    for _ in range(20):
        assert not any(rotations.go_on(10, {0: 0.3}))
        assert not any(rotations.go_on(IN_A_ROW - 1, {0: 0.3, 4: 0.2}))


@pytest.mark.parametrize('rate', [0.1, 3.0])
def test_the_speed_of_a_replay_and_a_delay_of_all_are_not_told(rate: float):
    rotations = Rotations(rate)
    assert not any(rotations.go_on(50))
    assert not any(rotations.go_on(50, dict.fromkeys(range(CAMERAS), 1.0)))


def test_a_camera_that_was_away_is_learned_anew():
    rotations = Rotations()
    rotations.go_on(LEARNED)
    rotations.go_on(1, missing=[3])
    assert not any(rotations.go_on(50, {3: 0.2}))


def test_of_two_cameras_nobody_can_say_which_one_moved():
    rotations = Rotations()
    rotations.go_on(LEARNED, missing=range(2, CAMERAS))
    assert not any(rotations.go_on(50, {0: 0.2}, missing=range(2, CAMERAS)))
