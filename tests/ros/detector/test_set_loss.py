from __future__ import annotations

import pytest

from bevdepth_ros.detector import set_loss
from bevdepth_ros.detector.set_loss import Loss, SetLoss


class Windows:
    """Passes the image counts of two cameras to ``SetLoss`` in simulated time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.loss = 100.0, SetLoss()
        monkeypatch.setattr(set_loss.time, 'monotonic', lambda: self.now_s)

    def check_after_pause(
        self, a: int, b: int, sets: int, after_s: float = 5.0, cycle_s: float = 0.1
    ) -> Loss | None:
        """Call ``SetLoss.check`` after ``after_s`` seconds. ``a`` and ``b`` are the numbers of
        images that the two cameras have sent since the start, and ``sets`` is the number of sets
        since the start.
        """
        self.now_s += after_s
        return self.loss.check({'a': a, 'b': b}, sets, 0, cycle_s)


@pytest.mark.parametrize(('sets', 'is_lossy'), [(50, False), (40, False), (39, True)])
def test_a_loss_is_reported_if_fewer_than_80_percent_of_the_possible_sets_are_formed(
    monkeypatch: pytest.MonkeyPatch, sets: int, is_lossy: bool
):
    windows = Windows(monkeypatch)
    windows.check_after_pause(100, 100, 7)
    assert (windows.check_after_pause(150, 150, 7 + sets) is not None) == is_lossy


def test_a_loss_is_reported_until_a_window_without_a_loss_ends(monkeypatch: pytest.MonkeyPatch):
    windows = Windows(monkeypatch)
    windows.check_after_pause(0, 0, 0)
    assert windows.check_after_pause(50, 50, 10) is not None
    assert windows.check_after_pause(90, 90, 50, after_s=4.9) is not None
    assert windows.check_after_pause(100, 100, 60, after_s=0.1) is None


def test_a_new_window_begins_when_a_camera_is_no_longer_used(monkeypatch: pytest.MonkeyPatch):
    windows = Windows(monkeypatch)
    windows.check_after_pause(0, 0, 0)
    windows.loss.check({'a': 40}, 0, 0, 0.1)
    windows.now_s += 4.9
    assert windows.loss.check({'a': 90}, 10, 0, 0.1) is None


def test_sets_that_are_lost_while_the_rate_changes_once_are_not_reported(
    monkeypatch: pytest.MonkeyPatch,
):
    windows = Windows(monkeypatch)
    windows.check_after_pause(0, 0, 0, cycle_s=0.017)
    windows.check_after_pause(60, 60, 20, after_s=1.0, cycle_s=0.1)
    assert windows.check_after_pause(100, 100, 60, after_s=4.0) is None
    assert windows.check_after_pause(110, 110, 70, after_s=1.0) is None


def test_a_loss_is_reported_even_if_the_rate_changes_continuously(monkeypatch: pytest.MonkeyPatch):
    windows = Windows(monkeypatch)
    windows.check_after_pause(0, 0, 0, cycle_s=0.05)
    losses = [
        windows.check_after_pause(
            count, count, count // 3, after_s=1.0, cycle_s=0.05 + 0.05 * (count % 4 // 2)
        )
        for count in range(10, 130, 10)
    ]
    assert any(losses)


@pytest.mark.parametrize(('images', 'is_lossy'), [(9, False), (10, True)])
def test_no_loss_is_reported_for_fewer_than_ten_images(
    monkeypatch: pytest.MonkeyPatch, images: int, is_lossy: bool
):
    windows = Windows(monkeypatch)
    windows.check_after_pause(0, 0, 0)
    assert (windows.check_after_pause(images, images, 0) is not None) == is_lossy


@pytest.mark.parametrize(
    ('images', 'too_wide', 'jitter_s', 'words'),
    [
        ({'a': 50, 'b': 25}, 0, 0.0, '30 of 50 image sets were lost in 5 s: b sent 25 images'),
        ({'a': 50, 'b': 50}, 7, 0.0, '7 sets did not fit into sync_slop_s (0.06 s)'),
        ({'a': 50, 'b': 50}, 0, 0.02, 'the stamps of a jitter by 0.020 s'),
        ({'a': 50, 'b': 50}, 0, 0.006, 'were lost or arrived too late'),
    ],
)
def test_the_cause_of_a_loss_is_named(
    images: dict[str, int], too_wide: int, jitter_s: float, words: str
):
    loss = Loss(20, too_wide, images)
    assert words in loss.sentence({'a': jitter_s, 'b': 0.0}, 0.1, 0.06)


def test_images_and_sets_that_were_counted_before_the_window_are_subtracted(
    monkeypatch: pytest.MonkeyPatch,
):
    windows = Windows(monkeypatch)
    windows.loss.check({'a': 100, 'b': 100}, 70, 9, 0.1)
    windows.now_s += 5
    loss = windows.loss.check({'a': 150, 'b': 149}, 90, 12, 0.1)
    assert loss == Loss(20, 3, {'a': 50, 'b': 49})


def test_the_report_of_a_loss_ends_when_a_camera_is_no_longer_used(
    monkeypatch: pytest.MonkeyPatch,
):
    windows = Windows(monkeypatch)
    windows.check_after_pause(0, 0, 0)
    assert windows.check_after_pause(50, 50, 10) is not None
    assert windows.loss.check({'a': 51}, 10, 0, 0.1) is None


@pytest.mark.parametrize(
    ('b_images', 'jitter_s', 'words'),
    [
        (40, 0.0, 'were lost or arrived too late'),
        (39, 0.0, 'b sent 39 images, other cameras up to 50'),
        (50, 0.0064, 'jitter by 0.006 s'),
        (50, float('inf'), 'were lost or arrived too late'),
    ],
)
def test_missing_images_or_jitter_are_named_as_cause_only_above_a_limit(
    b_images: int, jitter_s: float, words: str
):
    loss = Loss(20, 0, {'a': 50, 'b': b_images})
    assert words in loss.sentence({'a': 0.0, 'b': jitter_s}, 0.1, 0.06)
