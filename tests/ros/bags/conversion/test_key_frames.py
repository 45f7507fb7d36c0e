from __future__ import annotations

import numpy as np

from bevdepth_ros.bags.conversion.key_frames import complete_times, nearest, select

MS = 1_000_000


def test_key_frames_are_half_a_second_apart_and_a_gap_starts_a_new_scene() -> None:
    steady = np.arange(0, 2000, 99) * MS
    [scene] = select(steady)
    gaps = np.diff(steady[scene]) / MS
    assert ((gaps >= 400) & (gaps <= 600)).all()
    assert scene == [0, 5, 10, 15, 20]
    assert select(np.array([0, 400, 1000]) * MS) == [[0, 1, 2]]
    assert select(np.array([0, 399, 1000]) * MS) == [[0], [2]]
    assert select(np.array([0, 20, 601]) * MS) == [[0], [2]]
    assert select(np.array([], np.int64)) == []


def test_the_nearest_stamps_are_chosen_and_times_with_a_missing_sensor_are_left_out() -> None:
    stamps = np.array([0, 100, 200])
    assert nearest(stamps, np.array([-5, 49, 51, 160, 900])).tolist() == [0, 0, 1, 2, 2]
    assert nearest(stamps[:1], np.array([7])).tolist() == [0]
    times, chosen = complete_times(np.array([0, 60, 200]), [stamps, np.array([0, 210])], 10)
    assert (times.tolist(), chosen.tolist()) == ([0, 200], [[0, 0], [2, 1]])


def test_if_two_stamps_are_equally_near_the_earlier_one_is_chosen() -> None:
    assert nearest(np.array([0, 100]), np.array([50])).tolist() == [0]


def test_a_measurement_at_exactly_the_largest_time_difference_is_used() -> None:
    sensors = [np.array([10]), np.array([-10, 500])]
    times, chosen = complete_times(np.array([0, 100]), sensors, 10)
    assert (times.tolist(), chosen.tolist()) == ([0], [[0, 0]])
    assert complete_times(np.array([0, 100]), sensors, 9)[0].tolist() == []


def test_no_time_is_complete_if_a_sensor_has_no_measurements() -> None:
    empty = np.array([], np.int64)
    times, chosen = complete_times(np.array([0, 100]), [np.array([0, 100]), empty], 10)
    assert (len(times), chosen.shape) == (0, (0, 2))


def test_the_next_key_frame_is_the_stamp_nearest_to_half_a_second_after_the_last_one() -> None:
    assert select(np.array([0, 410, 480, 530, 600]) * MS) == [[0, 2]]
    assert select(np.array([0, 600, 1200]) * MS) == [[0, 1, 2]]
    assert select(np.array([0, 600, 1201]) * MS) == [[0, 1], [2]]
