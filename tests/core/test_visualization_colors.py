"""The colors of the classes, seen with and without color vision deficiency."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.visualization import class_color
from bevdepth_core.visualization.colors import BACKGROUND, TRUTH

NORMAL = np.eye(3)
PROTANOPIA = (
    (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)  # fmt: skip
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)  # fmt: skip
"""``PROTANOPIA`` and ``DEUTERANOPIA`` simulate the two color vision deficiencies in linear RGB,
with severity 1 (Machado, Oliveira, Fernandes, 2009)."""
MIN_DIFFERENCE = 25.0
"""Smallest allowed distance of two colors in CIE Lab. A distance of 2.3 is just noticeable; the
thin lines in the images need a larger distance."""


def lab(color: tuple[int, int, int], vision: np.ndarray) -> np.ndarray:
    shares = np.array(color) / 255
    light = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    light = np.clip(np.array(vision) @ light, 0, 1)
    seen = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(seen.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2Lab)[0, 0]


@pytest.mark.parametrize('vision', [NORMAL, PROTANOPIA, DEUTERANOPIA])
def test_the_colors_of_two_classes_differ_with_and_without_color_vision_deficiency(vision) -> None:
    colors = {name: lab(class_color(name), vision) for name in NUSCENES_CLASSES}
    colors |= {'truth': lab(TRUTH, vision), 'background': lab(BACKGROUND, vision)}
    for color, other in itertools.combinations(colors, 2):
        difference = np.linalg.norm(colors[color] - colors[other])
        assert difference > MIN_DIFFERENCE, f'{color} and {other} differ by {difference:.0f}'
