"""Draws shapes far to near."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bevdepth_core.nuscenes.synthetic.order import boxes_cannot_hide, draw_order
from bevdepth_core.nuscenes.synthetic.placement import Placed
from bevdepth_core.nuscenes.synthetic.scene import Light
from bevdepth_core.nuscenes.synthetic.solids import Ball, Shape
from bevdepth_core.nuscenes.synthetic.view import NEAR, View, fill, fixed_point

_NOMINAL_WIDTH = 1600
"""Images of other sizes leave out details as if they were this large, so that all show the same."""
_SMALLEST_DETAIL_PX = 3.0
_EXACT_ORDER_WITHIN = 30.0
_BALL_SHADES = ((4.0, 1), (14.0, 2), (np.inf, 3))
"""(up to this radius in pixels, circles per ball)."""
_LEAF_COUNTS = ((18.0, 0), (50.0, 30), (110.0, 70), (np.inf, 160))
"""(up to this radius in pixels, dapples per ball)."""


class Painter:
    """Draws lit, hazy objects into one picture.

    Args:
        image: (height, width, 3) uint8 RGB, drawn into.
        view: the camera.
        light: of the scene.
    """

    def __init__(self, image: np.ndarray, view: View, light: Light) -> None:
        self._image, self._view, self._light = image, view, light
        self._sun, self._ambient, self._haze = (np.array(value, np.float32) for value in (light.sun, light.ambient, light.horizon))
        self._to_sun = np.array(light.to_sun)
        self._nominal = _NOMINAL_WIDTH / view.width
        self._sun_in_camera = view.camera_from_world_rotation @ self._to_sun

    def draw(self, placed: Placed, in_shade: bool = False) -> None:
        """Draw one object over what is there; ``in_shade`` leaves the direct sun out."""
        shape, view = placed.shape, self._view
        rotation = placed.world_from_local_rotation()
        eye = placed.to_local(view.position)
        camera_from_local = view.camera_from_world_rotation @ rotation
        points = (shape.points - eye) @ camera_from_local.T
        distance = float(np.linalg.norm(eye))
        clear = float(np.exp(-distance / self._light.haze_distance))
        colours = self._lit(shape, rotation, in_shade) * clear + self._haze * (1 - clear)
        facing = ((eye - shape.anchors) * shape.normals).sum(axis=1) > 0
        pixels_per_metre = self._nominal * view.focal / max(distance, NEAR)
        facing &= ~shape.details | (shape.extents * pixels_per_metre > _SMALLEST_DETAIL_PX)
        pixels = fixed_point(view.project(points)) if len(points) and points[:, 2].min() > NEAR else None
        for number in self._solid_order(shape, eye, distance):
            if shape.solids[number].ball:
                center = camera_from_local @ (shape.solids[number].ball.center - eye)
                self._draw_ball(shape.solids[number].ball, center, clear, in_shade, number)
            for face, ranges in zip(shape.face_ranges[number], shape.outline_ranges[number], strict=True):
                if facing[face]:
                    outlines = [pixels[r] for r in ranges] if pixels is not None else self._cut(points, ranges)
                    if outlines:
                        fill(self._image, outlines, colours[face].tolist())

    def _cut(self, points: np.ndarray, ranges: list[slice]) -> list[np.ndarray]:
        outlines = (self._view.outline_pixels(points[r]) for r in ranges)
        return [outline for outline in outlines if outline is not None]

    def _lit(self, shape: Shape, rotation: np.ndarray, in_shade: bool) -> np.ndarray:
        normals = shape.normals @ rotation.T
        direct = np.clip(normals @ self._to_sun, 0, 1)[:, None] * (0.15 if in_shade else 1.0)
        strength = self._ambient * (0.95 + 0.1 * normals[:, 2:]) + self._sun * direct
        strength[shape.glows] = 1.0
        return np.minimum(shape.colours * strength, 255)

    @staticmethod
    def _solid_order(shape: Shape, eye: np.ndarray, distance: float) -> list[int]:
        from_eye = np.linalg.norm(shape.bounds.mean(axis=1) - eye, axis=-1)
        if distance > _EXACT_ORDER_WITHIN or shape.solids[-1].ball:
            return np.argsort(-from_eye).tolist()
        return draw_order(boxes_cannot_hide(shape.bounds, eye), from_eye)

    def _draw_ball(self, ball: Ball, center: np.ndarray, clear: float, in_shade: bool, seed: int) -> None:
        if center[2] < NEAR + ball.radius:
            return
        pixel = self._view.project(center[None])[0]
        radius = self._view.focal * ball.radius / center[2]
        towards_sun = self._sun_in_camera[:2] * (0.0 if in_shade else 0.28 * radius)
        dark, light = (0.62, 1.05) if ball.leafy else (0.8, 1.0)
        shades = [(dark, 1.0, 0.0), ((dark + light) / 2, 0.82, 0.6), (light, 0.55, 1.0)]
        count = next(count for limit, count in _BALL_SHADES if radius * self._nominal <= limit)
        for strength, scale, shift in shades[:count]:
            colour = self._ball_colour(ball, strength, clear, in_shade)
            fill(self._image, [fixed_point(pixel + towards_sun * shift + scale * radius * _round_outline(seed, ball.leafy))], colour)
        if ball.leafy:
            self._draw_leaves(ball, pixel, radius, towards_sun, clear, in_shade, seed)

    def _draw_leaves(self, ball: Ball, pixel, radius: float, towards_sun, clear: float, in_shade: bool, seed: int) -> None:
        count = next(count for limit, count in _LEAF_COUNTS if radius * self._nominal <= limit)
        for layer, (strength, shift) in enumerate(((0.52, -0.4), (1.2, 0.7))):
            if count:
                leaves = pixel + towards_sun * shift + radius * _leaves(seed + layer, count)
                fill(self._image, list(fixed_point(leaves)), self._ball_colour(ball, strength, clear, in_shade))

    def _ball_colour(self, ball: Ball, strength: float, clear: float, in_shade: bool) -> list[float]:
        lit = ball.colour * (self._ambient + self._sun * (0.1 if in_shade else 0.75)) * strength
        return np.minimum(lit * clear + self._haze * (1 - clear), 255).tolist()


@lru_cache(maxsize=64)
def _round_outline(seed: int, ragged: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = 36 if ragged else 20
    angles = np.arange(count) * 2 * np.pi / count
    radius = 1 + rng.uniform(-0.10, 0.08, count) if ragged else np.ones(count)
    return np.stack((np.cos(angles), np.sin(angles)), axis=-1) * radius[:, None]


@lru_cache(maxsize=256)
def _leaves(seed: int, count: int) -> np.ndarray:
    """Return (count, 4, 2) small tilted quadrilaterals spread over the unit disc, denser at its edge."""
    rng = np.random.default_rng(seed)
    angles, radii = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.1, 1.0, count) ** 0.5 * 1.02
    centers = np.stack((np.cos(angles), np.sin(angles)), axis=-1) * radii[:, None]
    size = rng.uniform(0.5, 1.2, count) * 0.42 / np.sqrt(count)
    turn = rng.uniform(0, 2 * np.pi, (count, 1)) + np.arange(4) * np.pi / 2
    stretch = np.array((1.0, 0.55, 1.0, 0.55))
    return centers[:, None] + (size[:, None] * stretch)[..., None] * np.stack((np.cos(turn), np.sin(turn)), axis=-1)
