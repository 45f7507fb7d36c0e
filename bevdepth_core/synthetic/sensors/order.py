"""Finds the visible objects of an image and the order in which the painter must draw them.

The painter has no depth buffer. It draws complete objects over each other, so an object must be
drawn after all objects that it hides. Distance alone does not give this order: a long truck
whose center is far away can hide a near car. So the order follows from pairs of objects. If a
straight line separates two convex footprints, only the object on the camera's side of the line
can hide the other object.

The footprint of an object is the lower side of its bounding box, seen from above. The eye is the
position of the camera. The covers of an object are its large solids, except balls.
"""

from __future__ import annotations

import cv2
import numpy as np

from bevdepth_core.synthetic.sensors.placement import Placed
from bevdepth_core.synthetic.sensors.view import NEAR, SHIFT, View, fixed_point

_FAR = 170.0
"""Objects whose position is at least this far ahead of the camera are not drawn, meters."""
_COVER_WIDTH = 200
"""Width in pixels of the mask with which hidden objects are found."""
_MIN_COVER = 100
"""The test for hidden objects draws an object into the mask only if the bounding rectangle of the
object has more pixels than this. Smaller objects hide no other object in this test."""


def draw_order(cannot_hide: np.ndarray, distance: np.ndarray) -> list[int]:
    """Return a drawing order, in which an object comes after each object that it may hide. If this
    rule gives no order for two objects, or contradicts itself, the farther object comes first.

    Args:
        cannot_hide: (n, n) bool, [i, j] is True if object i certainly hides no part of object j.
        distance: (n,) distances from the camera, meters.
    """
    # i must be drawn after j if i may hide j and j cannot hide i. If two objects may hide each
    # other (overlapping footprints), only their distances determine their order.
    must_follow = ~cannot_hide & cannot_hide.T
    np.fill_diagonal(must_follow, False)
    waiting_for = must_follow.sum(axis=1).astype(np.float64)
    farness = distance.astype(np.float64).copy()
    order = []
    for _ in range(len(distance)):
        # Choose the farthest object that waits for no other object. If constraints form a cycle,
        # every object waits; then choose the farthest of all remaining objects.
        chosen = int(np.lexsort((-farness, waiting_for > 0))[0])
        order.append(chosen)
        waiting_for -= must_follow[:, chosen]
        waiting_for[chosen], farness[chosen] = np.inf, -np.inf
    return order


def visible_objects(objects: list[Placed], view: View) -> list[Placed]:
    """Return the objects that may be visible in the image, in drawing order."""
    near = _near_the_image(objects, view)
    if not near:
        return []
    corners = view.to_camera(np.stack([placed.corners for placed in near]))
    across, depth = corners @ view.intrinsics[0], corners[..., 2]
    outside = (
        (depth < NEAR).all(axis=1)
        | (across < 0).all(axis=1)
        | (across > view.width * depth).all(axis=1)
    )
    inside = np.flatnonzero(~outside)
    if not len(inside):
        return []
    footprints = np.stack([near[i].footprint for i in inside])
    distance = np.linalg.norm(footprints.mean(axis=1) - view.position[:2], axis=-1)
    order = inside[draw_order(footprints_cannot_hide(footprints, view.position[:2]), distance)]
    return [near[i] for i in _not_hidden([near[i] for i in order], corners[order], order, view)]


def _not_hidden(
    ordered: list[Placed], corners: np.ndarray, indices: np.ndarray, view: View
) -> list[int]:
    """Return the ``indices`` of the objects that may be visible. Objects are dropped if their
    bounding box lies outside of the image, or if covers of objects that are drawn later hide the
    bounding box completely.

    The test uses a small mask and is conservative: it may keep a hidden object, but it never drops
    an object that is clearly visible.

    Args:
        ordered: objects in drawing order.
        corners: (n, 8, 3) corners of the bounding boxes of the objects, camera frame.
        indices: (n,) indices of the objects.
        view: the camera.
    """
    small = view.resized(_COVER_WIDTH)
    covered = np.zeros((small.height, small.width), np.uint8)
    kept = []
    for placed, box, index in zip(reversed(ordered), corners[::-1], indices[::-1], strict=True):
        # A box that crosses the near plane cannot be projected, and is kept.
        if box[:, 2].min() > NEAR:
            pixels = small.project(box)
            (x0, y0), (x1, y1) = (
                np.floor(pixels.min(axis=0)).astype(int),
                np.ceil(pixels.max(axis=0)).astype(int) + 1,
            )
            window = covered[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
            if window.size == 0 or window.all():
                continue
            if window.size > _MIN_COVER:
                _cover(covered, placed, small)
        kept.append(index)
    return kept[::-1]


def _cover(covered: np.ndarray, placed: Placed, view: View) -> None:
    """Mark in ``covered`` the pixels that the large solids of an object cover completely."""
    for points in placed.shape.covers:
        camera = view.to_camera(placed.to_world(points))
        mask = np.zeros_like(covered)
        cv2.fillConvexPoly(mask, cv2.convexHull(fixed_point(view.project(camera))), 1, shift=SHIFT)
        # Erosion drops the border pixels, which the solid covers only in part.
        np.maximum(covered, cv2.erode(mask, np.ones((3, 3), np.uint8)), out=covered)


def _near_the_image(objects: list[Placed], view: View) -> list[Placed]:
    """Return the objects whose bounding cylinder is inside or slightly outside the field of view,
    and whose position is less than ``_FAR`` ahead of the camera.
    """
    offset = np.array([placed.position for placed in objects]).reshape(-1, 2) - view.position[:2]
    radius = np.array([placed.shape.radius for placed in objects])
    forward = view.world_from_camera[:2, 2] / np.linalg.norm(view.world_from_camera[:2, 2])
    ahead, aside = offset @ forward, np.abs(offset @ (-forward[1], forward[0]))
    widest = max(view.intrinsics[0, 2], view.width - view.intrinsics[0, 2]) / view.focal
    inside = (
        (ahead > -radius)
        & (ahead < _FAR)
        & (aside < (ahead + radius) * 1.1 * widest + 1.5 * radius)
    )
    return [objects[i] for i in np.flatnonzero(inside)]


def footprints_cannot_hide(footprints: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Return an (n, n) mask that is True at [i, j] if i cannot hide j: a line along an edge of
    footprint i or j separates the two footprints, and the eye is on j's side of the line.
    """
    # Separating axes: the normal of each edge of i, pointing outwards (footprints are
    # counter-clockwise). i and j are separated if all of j lies beyond such an edge of i.
    edges = np.roll(footprints, -1, axis=1) - footprints
    outward = np.stack((edges[..., 1], -edges[..., 0]), axis=-1)
    offset = (outward * footprints).sum(axis=-1)
    reach = (
        (outward.reshape(-1, 2) @ footprints.reshape(-1, 2).T)
        .reshape(len(footprints), 4, -1, 4)
        .min(axis=-1)
    )
    beyond = (reach >= offset[:, :, None] - 1e-6).transpose(0, 2, 1)
    # If the eye is also beyond that edge, j and the eye are on one side of the line through the
    # edge and i is on the other side, so i cannot hide j (separated_eye_there). If the eye is on
    # the side of i, j cannot hide i (separated_eye_here). The second mask is True at [i, j] if j
    # cannot hide i, so it is transposed below.
    eye_beyond = outward @ eye >= offset
    separated_eye_there = (beyond & eye_beyond[:, None]).any(axis=-1)
    separated_eye_here = (beyond & ~eye_beyond[:, None]).any(axis=-1)
    return separated_eye_there | separated_eye_here.T


def boxes_cannot_hide(bounds: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Return an (n, n) mask that is True at [i, j] if box i cannot hide box j: a plane parallel to
    a side of the boxes separates the two boxes, and the eye is on j's side of the plane.

    Args:
        bounds: (n, 2, 3) lower and upper corners of axis-aligned boxes.
        eye: (3,) position of the camera in the frame of the boxes.
    """
    low, high = bounds[:, 0], bounds[:, 1]
    i_below_j = high[:, None] <= low[None] + 1e-3
    i_above_j = low[:, None] >= high[None] - 1e-3
    return ((i_below_j & (eye >= low[None])) | (i_above_j & (eye <= high[None]))).any(axis=-1)
