"""Draws lines, dashed lines, arrows, tints and text. Lines are antialiased and have a precision of
an eighth of a pixel. Functions with a parameter ``canvas`` change the image ``canvas`` in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bevdepth_core.visualization.colors import TEXT

Color = tuple[int, int, int]

TRACK_ID_PX = 11
"""Font size of track ids, pixels."""
SHIFT = 3
"""Fractional bits of OpenCV's fixed-point coordinates."""
_DASH_PX, _DASH_GAP_PX = 5, 4
_TINT_ALPHA = 0.28


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Return pixel coordinates as integers with ``SHIFT`` fractional bits, for OpenCV."""
    return np.rint(pixels * (1 << SHIFT)).astype(np.int32)


def draw_lines(
    canvas: np.ndarray,
    lines: np.ndarray,
    color: Color,
    thickness: int = 1,
    *,
    closed: bool = False,
) -> None:
    """Draw n lines through the points ``lines`` (n, points, 2), pixels."""
    if len(lines):
        points = list(fixed_point(lines))
        cv2.polylines(canvas, points, closed, color, thickness, cv2.LINE_AA, SHIFT)


def draw_dashed(
    canvas: np.ndarray, segments: np.ndarray, color: Color, thickness: int = 1
) -> None:
    """Draw dashed lines between the end points ``segments`` (n, 2, 2), pixels."""
    dashes = []
    for start, stop in segments:
        length = max(float(np.linalg.norm(stop - start)), 1e-6)
        begins = np.arange(0, length, _DASH_PX + _DASH_GAP_PX)
        ends = np.minimum(begins + _DASH_PX, length)
        dashes.append(
            start + np.stack((begins, ends), axis=1)[..., None] * ((stop - start) / length)
        )
    if dashes:
        draw_lines(canvas, np.concatenate(dashes), color, thickness)


def draw_arrow(canvas: np.ndarray, start: np.ndarray, stop: np.ndarray, color: Color) -> None:
    """Draw an arrow from ``start`` (2,) to ``stop`` (2,), pixels."""
    tip = min(0.5, 5 / max(float(np.linalg.norm(stop - start)), 1.0))
    cv2.arrowedLine(
        canvas,
        fixed_point(start).tolist(),
        fixed_point(stop).tolist(),
        color,
        1,
        cv2.LINE_AA,
        SHIFT,
        tip,
    )


def tint(canvas: np.ndarray, outline: np.ndarray, color: Color) -> None:
    """Blend ``color`` into the inside of the convex polygon ``outline`` (n, 2), pixels."""
    height, width = canvas.shape[:2]
    left, top = np.clip(np.floor(outline.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(outline.max(axis=0)), 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    part = canvas[top:bottom, left:right]
    tinted = part.copy()
    cv2.fillConvexPoly(tinted, fixed_point(outline - (left, top)), color, cv2.LINE_AA, SHIFT)
    cv2.addWeighted(tinted, _TINT_ALPHA, part, 1 - _TINT_ALPHA, 0, dst=part)


def paste(canvas: np.ndarray, panel: np.ndarray, x: int, y: int) -> None:
    """Copy the image ``panel`` into ``canvas``, with the upper left corner at (x, y), pixels."""
    height, width = panel.shape[:2]
    canvas[y : y + height, x : x + width] = panel


def draw_text(
    canvas: np.ndarray,
    text: str,
    position: Sequence[float] | np.ndarray,
    size: int,
    color: Sequence[int] = TEXT,
    *,
    align_right: bool = False,
    shadow: bool = False,
) -> int:
    """Draw one line of text and return its width in pixels.

    Args:
        canvas: (height, width, 3) uint8, changed in place.
        text: the line; may be empty.
        position: x and y of the upper left corner, or of the upper right corner if
            ``align_right`` is True, pixels.
        size: size of the font, pixels.
        color: RGB.
        align_right: True if the text ends at ``position``, False if it starts at ``position``.
        shadow: True to darken the background of the text, for text on images.
    """
    if not text:
        return 0
    cover, halo = _text_masks(text, size)
    height, width = cover.shape[:2]
    x, y = round(position[0]) - (width if align_right else 0), round(position[1])
    left, top = max(x, 0), max(y, 0)
    part = canvas[top : max(y + height, 0), left : max(x + width, 0)]
    cover, halo = (
        mask[top - y :, left - x :][: part.shape[0], : part.shape[1]] for mask in (cover, halo)
    )
    behind = part * (1 - 0.75 * halo) if shadow else part
    part[:] = (behind * (1 - cover) + np.array(color) * cover).astype(np.uint8)
    return width


@lru_cache(maxsize=512)
def _text_masks(text: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two (height, width, 1) float32 masks for a line of text, with values from 0 to 1: how
    much the text covers each pixel, and how much the shadow covers it.
    """
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    image = Image.new('L', (round(right - left) + 3, round(size * 1.35)))
    ImageDraw.Draw(image).text((1 - left, 0), text, fill=255, font=font)
    cover = np.asarray(image, np.float32) / 255
    halo = cv2.GaussianBlur(cv2.dilate(cover, np.ones((3, 3))), (0, 0), 1.5)
    return cover[..., None], np.minimum(halo, 1)[..., None]
