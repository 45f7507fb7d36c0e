"""Compensates the tone mapping of the page. The browser then shows the wanted colors.

three.js applies an ACES tone mapping, after which the colors of the classes look alike. For each
wanted color, the functions return the input color whose color after the mapping is nearest to the
wanted color.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_STEPS = 33
_EXPOSURE = 1 / 0.6
_ACES_INPUT = np.array(
    ((0.59719, 0.35458, 0.04823), (0.07600, 0.90834, 0.01566), (0.02840, 0.13383, 0.83777))
)
_ACES_OUTPUT = np.array(
    ((1.60475, -0.53108, -0.07367), (-0.10208, 1.10813, -0.00605), (-0.00327, -0.07276, 1.07602))
)


def line_color(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the RGB to send for lines and arrows; the page treats their colors as linear light,
    not as sRGB.
    """
    red, green, blue = (255 * _light(np.array(browser_color(color)))).round().astype(int).tolist()
    return red, green, blue


@cache
def browser_color(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the RGB to send so that the browser shows ``color``."""
    sent, seen = _table()
    nearest = np.square(seen - np.array(color)).sum(axis=-1).argmin()
    red, green, blue = sent[nearest].round().astype(int).tolist()
    return red, green, blue


def shown(colors: np.ndarray) -> np.ndarray:
    """Return the (..., 3) RGB that the page shows for the RGB ``colors``; all values are 0
    to 255.
    """
    film = _EXPOSURE * _light(colors) @ _ACES_INPUT.T
    film = (film * (film + 0.0245786) - 0.000090537) / (
        film * (0.983729 * film + 0.4329510) + 0.238081
    )
    light = np.clip(film @ _ACES_OUTPUT.T, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _light(colors: np.ndarray) -> np.ndarray:
    """Convert sRGB colors with values 0 to 255 to linear light with values 0 to 1."""
    shares = colors / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, 3) colors of a grid in the RGB cube, and the (n, 3) colors that the page
    shows for the colors of the grid.
    """
    steps = np.linspace(0, 255, _STEPS)
    sent = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    return sent, shown(sent)
