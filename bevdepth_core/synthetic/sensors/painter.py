"""Draws shapes into an image, from far to near."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bevdepth_core.synthetic.sensors.order import boxes_cannot_hide, draw_order
from bevdepth_core.synthetic.sensors.placement import Placed
from bevdepth_core.synthetic.sensors.view import NEAR, View, fill, fixed_point
from bevdepth_core.synthetic.shapes.catalog import Shape
from bevdepth_core.synthetic.shapes.solids import Ball
from bevdepth_core.synthetic.world.scene import Light

_NOMINAL_WIDTH = 1600
"""The details that are large enough to be drawn are selected as if every image had this width in
pixels. Images of all sizes therefore show the same details."""
_MIN_DETAIL_PX = 3.0
_EXACT_ORDER_WITHIN = 30.0
"""Distance up to which the drawing order of the solids of a shape is exact, meters."""
_BALL_SHADES = ((9.0, 1), (36.0, 2), (np.inf, 3))
"""Pairs (largest radius of a ball in pixels, number of circles that are drawn per ball)."""
_LEAF_COUNTS = ((22.0, 0), (50.0, 30), (110.0, 70), (np.inf, 160))
"""Pairs (largest radius of a ball in pixels, number of leaves in each of the two leaf layers)."""


class _Batch:
    """Points, faces and colors of n objects in the view of one camera, computed together.

    Attributes:
        eyes: (n, 3) position of the camera in the frame of each object, meters.
        distance: (n,) distance of each object from the camera, meters.
        transmittance: (n,) share of the light that is not lost in the haze.
        camera_from_local: (n, 3, 3) rotation from the frame of each object to the camera frame.
    """

    def __init__(
        self,
        objects: list[Placed],
        shaded: np.ndarray,
        view: View,
        light: Light,
        min_detail_px: float,
    ) -> None:
        shapes = [placed.shape for placed in objects]
        rotations = np.stack([placed.world_from_local_rotation() for placed in objects])
        offset = view.position - np.array([(*placed.position, 0.0) for placed in objects])
        self.eyes = np.einsum('nij,ni->nj', rotations, offset)
        self.distance = np.linalg.norm(self.eyes, axis=1)
        self.transmittance = np.exp(-self.distance / light.haze_distance)
        self.camera_from_local = view.camera_from_world_rotation @ rotations
        self._place_points(shapes, view)
        self._face_ends = np.cumsum([0, *(len(shape.normals) for shape in shapes)])
        owner = np.repeat(np.arange(len(shapes)), np.diff(self._face_ends))
        min_extent = min_detail_px * np.maximum(self.distance, NEAR) / view.focal
        self._facing = self._is_facing(shapes, owner, min_extent)
        self._colors = self._lit_colors(shapes, owner, rotations, shaded, light)

    def _is_facing(
        self, shapes: list[Shape], owner: np.ndarray, min_extent: np.ndarray
    ) -> np.ndarray:
        """Return a mask of the faces that face the camera, except details that are too small."""
        anchors, normals = _joined(shapes, 'anchors'), _joined(shapes, 'normals')
        towards = self.eyes.astype(np.float32)[owner] - anchors
        towards *= normals
        is_large = _joined(shapes, 'extents') > min_extent[owner]
        return (towards[:, 0] + towards[:, 1] + towards[:, 2] > 0) & (
            ~_joined(shapes, 'details') | is_large
        )

    def _lit_colors(
        self,
        shapes: list[Shape],
        owner: np.ndarray,
        rotations: np.ndarray,
        shaded: np.ndarray,
        light: Light,
    ) -> np.ndarray:
        """Return the colors of all faces under light and haze; 0 for faces that are not drawn."""
        shown = np.flatnonzero(self._facing)
        colors, glows = _joined(shapes, 'colors'), _joined(shapes, 'glows')
        owner, normals = owner[shown], _joined(shapes, 'normals')[shown]
        along, across = rotations[owner, :2, 0], rotations[owner, :2, 1]
        world_normals = np.column_stack(
            (normals[:, :1] * along + normals[:, 1:2] * across, normals[:, 2])
        )
        lit = np.minimum(
            colors[shown]
            * _strength(world_normals, np.where(shaded, 0.15, 1.0)[owner], glows[shown], light),
            255,
        )
        transmittance = self.transmittance[owner][:, None]
        result = np.zeros_like(colors)
        result[shown] = lit * transmittance + np.array(light.horizon) * (1 - transmittance)
        return result

    def _place_points(self, shapes: list[Shape], view: View) -> None:
        self._point_ends = np.cumsum([0, *(len(shape.points) for shape in shapes)])
        placed = [
            (shape.points - eye.astype(np.float32)) @ rotation.T.astype(np.float32)
            for shape, eye, rotation in zip(shapes, self.eyes, self.camera_from_local, strict=True)
        ]
        self._points = np.concatenate(placed)
        depth = np.maximum(self._points[:, 2:], NEAR)
        focal, center = (
            np.diag(view.intrinsics)[:2].astype(np.float32),
            view.intrinsics[:2, 2].astype(np.float32),
        )
        self._pixels = fixed_point(self._points[:, :2] / depth * focal + center)
        self._in_front = [points[:, 2].min() > NEAR for points in placed]

    def drawing_data(
        self, number: int
    ) -> tuple[np.ndarray, np.ndarray | None, list[bool], list[list[float]]]:
        """Return four values for one object: its points in the camera frame, the pixels of these
        points (None if a point is too near), a bool per face that is True if the face is drawn,
        and the color of each face.
        """
        points, faces = (
            slice(*ends[number : number + 2]) for ends in (self._point_ends, self._face_ends)
        )
        pixels = self._pixels[points] if self._in_front[number] else None
        return (
            self._points[points],
            pixels,
            self._facing[faces].tolist(),
            self._colors[faces].tolist(),
        )


def _joined(shapes: list[Shape], name: str) -> np.ndarray:
    return np.concatenate([getattr(shape, name) for shape in shapes])


def _strength(
    normals: np.ndarray, sun_share: np.ndarray, glows: np.ndarray, light: Light
) -> np.ndarray:
    """Return the (f, 3) factors of the surface colors for f faces with (f, 3) world normals."""
    direct = np.clip(normals @ np.array(light.to_sun), 0, 1) * sun_share
    strength = (
        np.array(light.ambient) * (0.95 + 0.1 * normals[:, 2:])
        + np.array(light.sun) * direct[:, None]
    )
    strength[glows] = 1.0
    return strength


def _solid_order(shape: Shape, eye: np.ndarray, distance: float) -> list[int]:
    from_eye = np.linalg.norm(shape.middles - eye, axis=-1)
    if distance > _EXACT_ORDER_WITHIN or shape.solids[-1].ball:
        return np.argsort(-from_eye).tolist()
    return draw_order(boxes_cannot_hide(shape.bounds, eye), from_eye)


class Painter:
    """Draws objects with light and haze into one image.

    Args:
        image: (height, width, 3) uint8 RGB; the painter changes it.
        view: the camera.
        light: light of the scene.
    """

    def __init__(self, image: np.ndarray, view: View, light: Light) -> None:
        self._image, self._view, self._light = image, view, light
        self._nominal = _NOMINAL_WIDTH / view.width
        self._sun_in_camera = view.camera_from_world_rotation @ np.array(light.to_sun)

    def draw(self, objects: list[Placed], shaded: list[bool]) -> None:
        """Draw objects into the image in the given order. Objects for which ``shaded`` is True get
        little direct sunlight.
        """
        if not objects:
            return
        batch = _Batch(
            objects, np.array(shaded), self._view, self._light, _MIN_DETAIL_PX / self._nominal
        )
        for number, placed in enumerate(objects):
            self._draw_object(batch, number, placed.shape, shaded[number])

    def _draw_object(self, batch: _Batch, number: int, shape: Shape, in_shade: bool) -> None:
        points, pixels, facing, colors = batch.drawing_data(number)
        for solid in _solid_order(shape, batch.eyes[number], float(batch.distance[number])):
            ball = shape.solids[solid].ball
            if ball:
                center = batch.camera_from_local[number] @ (ball.center - batch.eyes[number])
                self._draw_ball(ball, center, float(batch.transmittance[number]), in_shade, solid)
            for face, ranges in zip(
                shape.face_ranges[solid], shape.outline_ranges[solid], strict=True
            ):
                if facing[face]:
                    outlines = (
                        [pixels[r] for r in ranges]
                        if pixels is not None
                        else self._cut(points, ranges)
                    )
                    if outlines:
                        fill(self._image, outlines, colors[face])

    def _cut(self, points: np.ndarray, ranges: list[slice]) -> list[np.ndarray]:
        outlines = (self._view.outline_pixels(points[r]) for r in ranges)
        return [outline for outline in outlines if outline is not None]

    def _draw_ball(
        self, ball: Ball, center: np.ndarray, transmittance: float, in_shade: bool, seed: int
    ) -> None:
        if center[2] < NEAR + ball.radius:
            return
        pixel = self._view.project(center[None])[0]
        radius = self._view.focal * ball.radius / center[2]
        if (pixel + radius < 0).any() or (
            pixel - radius > (self._view.width, self._view.height)
        ).any():
            return
        towards_sun = self._sun_in_camera[:2] * (0.0 if in_shade else 0.28 * radius)
        dark, light = (0.62, 1.05) if ball.leafy else (0.8, 1.0)
        shades = [(dark, 1.0, 0.0), ((dark + light) / 2, 0.82, 0.6), (light, 0.55, 1.0)]
        count = next(count for limit, count in _BALL_SHADES if radius * self._nominal <= limit)
        if count == 1:
            shades = [((dark + light) / 2, 1.0, 0.0)]
        for strength, scale, shift in shades[:count]:
            color = self._ball_color(ball, strength, transmittance, in_shade)
            fill(
                self._image,
                [
                    fixed_point(
                        pixel
                        + towards_sun * shift
                        + scale * radius * _round_outline(seed, ball.leafy)
                    )
                ],
                color,
            )
        if ball.leafy:
            self._draw_leaves(ball, pixel, radius, towards_sun, transmittance, in_shade, seed)

    def _draw_leaves(
        self,
        ball: Ball,
        pixel: np.ndarray,
        radius: float,
        towards_sun: np.ndarray,
        transmittance: float,
        in_shade: bool,
        seed: int,
    ) -> None:
        count = next(count for limit, count in _LEAF_COUNTS if radius * self._nominal <= limit)
        for layer, (strength, shift) in enumerate(((0.52, -0.4), (1.2, 0.7))):
            if count:
                leaves = pixel + towards_sun * shift + radius * _leaves(seed + layer, count)
                fill(
                    self._image,
                    list(fixed_point(leaves)),
                    self._ball_color(ball, strength, transmittance, in_shade),
                )

    def _ball_color(
        self, ball: Ball, strength: float, transmittance: float, in_shade: bool
    ) -> list[float]:
        sun = 0.1 if in_shade else 0.75
        light = zip(
            ball.color.tolist(),
            self._light.ambient,
            self._light.sun,
            self._light.horizon,
            strict=True,
        )
        return [
            min(
                part * (ambient + direct * sun) * strength * transmittance
                + haze * (1 - transmittance),
                255.0,
            )
            for part, ambient, direct, haze in light
        ]


@lru_cache(maxsize=64)
def _round_outline(seed: int, ragged: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = 36 if ragged else 20
    angles = np.arange(count) * 2 * np.pi / count
    radius = 1 + rng.uniform(-0.10, 0.08, count) if ragged else np.ones(count)
    return np.stack((np.cos(angles), np.sin(angles)), axis=-1) * radius[:, None]


@lru_cache(maxsize=256)
def _leaves(seed: int, count: int) -> np.ndarray:
    """Return (count, 4, 2) small tilted quadrilaterals, spread evenly over the unit disc except
    near its center.
    """
    rng = np.random.default_rng(seed)
    angles, radii = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.1, 1.0, count) ** 0.5 * 1.02
    centers = np.stack((np.cos(angles), np.sin(angles)), axis=-1) * radii[:, None]
    size = rng.uniform(0.5, 1.2, count) * 0.42 / np.sqrt(count)
    turn = rng.uniform(0, 2 * np.pi, (count, 1)) + np.arange(4) * np.pi / 2
    stretch = np.array((1.0, 0.55, 1.0, 0.55))
    return centers[:, None] + (size[:, None] * stretch)[..., None] * np.stack(
        (np.cos(turn), np.sin(turn)), axis=-1
    )
