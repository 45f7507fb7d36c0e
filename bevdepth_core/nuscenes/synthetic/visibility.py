"""How much of each actor the cameras see."""

from __future__ import annotations

import cv2
import numpy as np

from bevdepth_core.nuscenes.synthetic.order import visible_objects
from bevdepth_core.nuscenes.synthetic.placement import Placed, placed_actors, placed_props
from bevdepth_core.nuscenes.synthetic.rig import EXPOSURE_OFFSET_S
from bevdepth_core.nuscenes.synthetic.scene import Scene
from bevdepth_core.nuscenes.synthetic.view import SHIFT, View
from bevdepth_core.types import CameraRig

_WIDTH = 400
"""Pixels of the buffers that are counted; narrow things are still a few pixels wide."""
_BORDER = 200
"""Pixels around the image in which silhouettes go on."""


def visible_fractions(scene: Scene, rig: CameraRig, time_s: float, width: int, height: int) -> np.ndarray:
    """Return (actors,) shares, 0..1, of each actor's own silhouette that the cameras together see.

    What other objects hide and what lies outside of the images is not seen.

    Args:
        scene: the world.
        rig: cameras named as in ``EXPOSURE_OFFSET_S``, with intrinsics for images of this size.
        time_s: start of the rotation; each camera looks at its own moment.
        width: pixels.
        height: pixels.
    """
    shares = np.zeros(len(scene.actors))
    scale = _WIDTH / width
    to_small = np.diag((scale, scale, 1.0))
    for name, intrinsics, mount in zip(rig.names, rig.intrinsics, rig.ego_from_camera, strict=True):
        moment = time_s + EXPOSURE_OFFSET_S[name]
        view = View(to_small @ intrinsics, scene.world_from_ego(moment) @ mount, _WIDTH, round(height * scale))
        actors = placed_actors(scene, moment)
        shares += _seen_by(view, actors, [*placed_props(scene), *actors])
    return shares.clip(0, 1)


def _seen_by(view: View, actors: list[Placed], objects: list[Placed]) -> np.ndarray:
    """Return (actors,) shares of silhouettes that one camera sees."""
    number_of = {id(placed): number for number, placed in enumerate(actors, start=1)}
    whole = np.zeros((view.height + 2 * _BORDER, view.width + 2 * _BORDER), np.uint8)
    owners = np.zeros((view.height, view.width), np.int32)
    inside = slice(_BORDER, _BORDER + view.height), slice(_BORDER, _BORDER + view.width)
    totals = np.ones(len(actors) + 1)
    for placed in visible_objects(objects, view):
        number = number_of.get(id(placed), 0)
        hulls = _hulls(placed, view)
        if not hulls:
            continue
        window = _window(hulls, whole.shape)
        for hull in hulls:
            cv2.fillPoly(whole, [hull], 1, shift=SHIFT)
        totals[number] = max(cv2.countNonZero(whole[window]), 1)
        owners[whole[inside] > 0] = number
        whole[window] = 0
    counts = np.bincount(owners.ravel(), minlength=len(actors) + 1)
    return counts[1:] / totals[1:]


def _hulls(placed: Placed, view: View) -> list[np.ndarray]:
    """Return the outlines of an object's solids as fixed-point pixels of the bordered image."""
    shape = placed.shape
    world = shape.corners.reshape(-1, 8, 3) @ placed.world_from_local_rotation().T + (*placed.position, 0.0)
    hulls = []
    for points in view.to_camera(world):
        pixels = view.outline_pixels(points)
        if pixels is not None:
            hulls.append(cv2.convexHull(pixels + (_BORDER << SHIFT)))
    return hulls


def _window(hulls: list[np.ndarray], shape: tuple[int, int]) -> tuple[slice, slice]:
    points = np.concatenate(hulls)[:, 0] >> SHIFT
    low, high = np.clip(points.min(axis=0) - 1, 0, None), np.clip(points.max(axis=0) + 2, 0, shape[::-1])
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
