"""Tests the tone mapping of three.js and the colors that compensate this tone mapping."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.visualization import class_color
from bevdepth_ros.viewer.colors import browser_color, line_color, shown


def aces(linear: float) -> float:
    """Return the brightness of the gray that three.js displays for a gray of brightness
    ``linear``. Both are linear, that is, before gamma encoding.

    The exposure is 1.
    """
    film = linear / 0.6
    return (film * (film + 0.0245786) - 0.000090537) / (
        film * (0.983729 * film + 0.4329510) + 0.238081
    )


@pytest.mark.parametrize('gray', [0, 8, 20, 40, 64, 128, 200, 255])
def test_gray_is_displayed_as_gray_and_follows_the_aces_curve(gray: int) -> None:
    seen = shown(np.full(3, float(gray)))
    share = gray / 255
    light = share / 12.92 if share < 0.04 else ((share + 0.055) / 1.055) ** 2.4
    curve = max(0.0, aces(light))
    expected = 255 * (12.92 * curve if curve < 0.003 else 1.055 * curve ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(seen, expected, atol=0.01)


def test_saturated_colors_are_displayed_with_less_saturation() -> None:
    seen = shown(255.0 * np.eye(3))
    np.testing.assert_allclose(
        seen, [(250.2, 16.3, 20.3), (147.4, 227.8, 88.8), (0, 0, 227.6)], atol=0.05
    )


def test_a_class_has_nearly_the_same_color_in_the_browser_and_in_rendered_images() -> None:
    for name in NUSCENES_CLASSES:
        wanted = class_color(name)
        seen = shown(np.array(browser_color(wanted), float))
        assert np.abs(seen - wanted).max() < 50
        nearest = min(NUSCENES_CLASSES, key=lambda other: np.abs(seen - class_color(other)).sum())
        assert nearest == name


def test_browser_color_is_the_level_of_33_per_channel_that_is_displayed_most_similarly() -> None:
    sent = browser_color((140, 140, 140))
    assert sent == (128, 128, 128)  # 128 is one of the 33 levels, and is displayed as 140.7
    assert browser_color((0, 0, 0)) == (0, 0, 0)
    step = 255 / 32
    for name in NUSCENES_CLASSES:
        places = np.array(browser_color(class_color(name))) / step
        assert np.abs(places - places.round()).max() * step <= 0.5


def test_line_colors_are_the_browser_colors_in_linear_light() -> None:
    for name in NUSCENES_CLASSES:
        shares = np.array(browser_color(class_color(name))) / 255
        light = np.where(shares < 0.04, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        assert line_color(class_color(name)) == tuple((255 * light).round().astype(int).tolist())
