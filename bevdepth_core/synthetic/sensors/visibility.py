"""Computes the visible fraction of each actor.

Objects are drawn from far to near into a buffer of object numbers. Near objects therefore
overwrite the objects that they hide. The visible fraction is the number of pixels that an actor
has in this buffer, divided by the number of pixels of the actor's complete silhouette. The
complete silhouette is drawn on a larger canvas, because it may extend beyond the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from bevdepth_core.synthetic.sensors.order import visible_objects
from bevdepth_core.synthetic.sensors.placement import Placed, placed_actors, placed_props
from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S
from bevdepth_core.synthetic.sensors.view import SHIFT, View
from bevdepth_core.synthetic.world.scene import SyntheticScene
from bevdepth_core.types import CameraRig

_WIDTH = 400
"""Width of the buffers in which pixels are counted; narrow objects are still a few pixels wide."""
_BORDER = 200
"""Width of a border around the image, pixels. Silhouettes are also drawn in this border."""
_ONE_OUTLINE_PX = 25.0
"""Objects that are narrower than this in the buffer are drawn as one convex hull."""


def visible_fractions(
    scene: SyntheticScene,
    rig: CameraRig,
    time_s: float,
    width: int,
    height: int,
    offsets_s: Mapping[str, float] = EXPOSURE_OFFSET_S,
) -> np.ndarray:
    """Return for each actor how much of its silhouette is visible in the images of all cameras
    together, as an (actors,) array of fractions, 0..1.

    Parts that other objects hide and parts outside of the images are not visible.

    Args:
        scene: the world.
        rig: cameras named as in ``offsets_s``, with intrinsics for images of this size.
        time_s: start of the trigger cycle, seconds since the start of the scene.
        width: width of the images, pixels.
        height: height of the images, pixels.
        offsets_s: seconds between the start of the trigger cycle and the exposure of each camera.
    """
    shares = np.zeros(len(scene.actors))
    scale = _WIDTH / width
    to_small = np.diag((scale, scale, 1.0))
    for name, intrinsics, mount in zip(
        rig.names, rig.intrinsics, rig.ego_from_camera, strict=True
    ):
        moment = time_s + offsets_s[name]
        view = View(
            to_small @ intrinsics,
            scene.world_from_ego(moment) @ mount,
            _WIDTH,
            round(height * scale),
        )
        actors = placed_actors(scene, moment)
        shares += _seen_by(view, actors, [*placed_props(scene), *actors])
    return shares.clip(0, 1)


def _seen_by(view: View, actors: list[Placed], objects: list[Placed]) -> np.ndarray:
    """Return the (actors,) shares of the silhouettes that are visible in one camera image."""
    number_of = {id(placed): number for number, placed in enumerate(actors, start=1)}
    canvas = np.zeros((view.height + 2 * _BORDER, view.width + 2 * _BORDER), np.uint8)
    owners = np.zeros((view.height, view.width), np.int32)
    totals = np.ones(len(actors) + 1)
    for placed in visible_objects(objects, view):
        hulls = _hulls(placed, view)
        if not hulls:
            continue
        window, shown = _windows(hulls, view)
        for hull in hulls:
            cv2.fillPoly(canvas, [hull], 1, shift=SHIFT)
        number = number_of.get(id(placed), 0)  # 0 for props, which only hide actors
        totals[number] = max(cv2.countNonZero(canvas[window]), 1)
        silhouette = canvas[_BORDER:-_BORDER, _BORDER:-_BORDER][shown]
        owners[shown][silhouette > 0] = number
        canvas[window] = 0  # empty again for the next object
    counts = np.bincount(owners.ravel(), minlength=len(actors) + 1)
    return counts[1:] / totals[1:]


def _hulls(placed: Placed, view: View) -> list[np.ndarray]:
    """Return outlines as fixed-point pixels of the image with its border: one outline per solid,
    or a single outline if the object is small or far away.
    """
    shape = placed.shape
    away = np.linalg.norm(placed.position - view.position[:2])
    small = 2 * shape.radius * view.focal < _ONE_OUTLINE_PX * away
    groups = [shape.vertices] if small else shape.corners.reshape(-1, 8, 3)
    outlines = (view.outline_pixels(view.to_camera(placed.to_world(points))) for points in groups)
    return [
        cv2.convexHull(pixels + (_BORDER << SHIFT)) for pixels in outlines if pixels is not None
    ]


def _windows(
    hulls: list[np.ndarray], view: View
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the rows and columns that the hulls cover, first in the image with its border, then
    in the image without border.
    """
    points = np.concatenate(hulls)[:, 0] >> SHIFT
    (x0, y0), (x1, y1) = (points.min(axis=0) - 1).tolist(), (points.max(axis=0) + 2).tolist()
    bordered = (
        _clipped(y0, y1, view.height + 2 * _BORDER),
        _clipped(x0, x1, view.width + 2 * _BORDER),
    )
    return bordered, (
        _clipped(y0 - _BORDER, y1 - _BORDER, view.height),
        _clipped(x0 - _BORDER, x1 - _BORDER, view.width),
    )


def _clipped(start: int, stop: int, size: int) -> slice:
    return slice(min(max(start, 0), size), min(max(stop, 0), size))
