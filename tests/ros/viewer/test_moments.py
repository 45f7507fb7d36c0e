"""Tests the class ``Moment``, the content of the page at one time, and the history of moments."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.synthetic import nuscenes_like_rig
from bevdepth_core.types import Boxes3D, Detections3D, Frame
from bevdepth_ros.rendering.scene import SHOWN_SCORE, Scene
from bevdepth_ros.viewer.moments import PANEL_SIZE, Moment, MomentHistory, moment_of

MS = 1_000_000


def history(seconds: float, *times_ms: int) -> MomentHistory:
    result = MomentHistory(seconds)
    for time_ms in times_ms:
        result.add(Moment(time_ms * MS, None, None, {}, str(time_ms)))
    return result


def at(moments: MomentHistory, seconds_back: float) -> str | None:
    found = moments.at(seconds_back)
    return None if found is None else found.figures


def test_moments_older_than_the_length_of_the_history_are_removed() -> None:
    assert len(history(2.0, *range(0, 3100, 100))) == 21
    assert at(history(2.0, 999, 1000, 3000), 9.0) == '1000'


@pytest.mark.parametrize(
    ('seconds_back', 'time'), [(0.0, '3000'), (0.04, '3000'), (0.06, '2900'), (0.52, '2500')]
)
def test_the_history_returns_the_moment_that_is_nearest_to_the_requested_time(
    seconds_back: float, time: str
) -> None:
    assert at(history(2.0, *range(0, 3100, 100)), seconds_back) == time


def test_a_moment_older_than_the_newest_moment_clears_the_history() -> None:
    assert at(history(2.0), 0.0) is None
    moments = history(2.0, 0, 100, 100)
    assert len(moments) == 3
    moments.add(Moment(99 * MS, None, None, {}, 'again'))
    assert (len(moments), at(moments, 5.0)) == (1, 'again')


def scene(score: float | None, size: tuple[int, int] = (320, 180)) -> Scene:
    rig = nuscenes_like_rig(*size)
    images = tuple(np.full((size[1], size[0], 3), (200, 40, 40), np.uint8) for _ in rig.names)
    frame = Frame(images, rig, np.full(len(images), 10**9), None)
    box = Boxes3D([(14, 0.2, 1.6)], [(11, 2.9, 3.4)], [0], [(5, 0)])
    found = Detections3D(box, [score or 0], [0], NUSCENES_CLASSES, 10**9, 0)
    return Scene(frame, None if score is None else found, None, None)


def panel(score: float | None) -> bytes:
    return moment_of(scene(score), '').panels['CAM_FRONT']


def test_camera_images_show_only_boxes_above_the_default_score() -> None:
    assert panel(None) == panel(SHOWN_SCORE - 0.01) != panel(SHOWN_SCORE + 0.01)


def test_a_moment_has_the_stamp_the_figures_and_all_detections_of_its_scene() -> None:
    moment = moment_of(scene(0.1), '12 ms')
    assert (moment.stamp_ns, moment.figures) == (10**9, '12 ms')
    assert len(moment.detections) == 1
    assert moment.ground_truth is None
    assert set(moment.panels) == set(nuscenes_like_rig().names)
    assert moment_of(scene(None), '').detections is None


def test_panels_are_color_jpeg_files_of_limited_size() -> None:
    image = Image.open(io.BytesIO(moment_of(scene(None, (1600, 900)), '').panels['CAM_BACK']))
    assert (image.format, image.size) == ('JPEG', PANEL_SIZE)
    red, green, blue = np.asarray(image)[250:350].reshape(-1, 3).mean(0)
    assert red > 3 * green
    assert green == pytest.approx(blue, abs=10)
