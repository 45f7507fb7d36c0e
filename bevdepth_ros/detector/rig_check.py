"""Compares the camera rig with the rig of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bevdepth_core.config import ImageSpec
from bevdepth_core.preprocess import ImageTransform
from bevdepth_core.types import CameraRig


@dataclass(frozen=True)
class TrainingRig:
    """The rig of the training images. The default values describe the nuScenes rig. The bundled
    weights were trained on synthetic drives with a similar rig.

    Attributes:
        size: width and height of the images, pixels.
        focal_px: shortest and longest focal length in the training images, pixels.
        height_m: height of the lowest and of the highest camera above the ground, meters.
        yaw_deg: viewing directions of the cameras, degrees, positive to the left of straight
            ahead.
    """

    size: tuple[int, int] = (1600, 900)
    focal_px: tuple[float, float] = (796.0, 1273.0)
    height_m: tuple[float, float] = (1.48, 1.61)
    yaw_deg: tuple[float, ...] = (55.0, 0.0, -56.0, 108.0, 180.0, -111.0)


FOCAL_FACTOR = 1.3
"""A focal length is reported if it is longer than the longest training focal length times this
factor, or shorter than the shortest training focal length divided by this factor."""
HEIGHT_MARGIN_M = 0.3
YAW_MARGIN_DEG = 30.0
TILT_LIMIT_DEG = 15.0
"""Largest tilt of a camera that is not reported, degrees. The tilt of the training cameras is at
most one degree."""


def unlike_training(
    rig: CameraRig,
    sizes: Sequence[tuple[int, int]],
    spec: ImageSpec,
    training: TrainingRig | None = None,
) -> list[str]:
    """Return one clause for each large difference between ``rig`` and the training rig. The clause
    contains the values of both rigs.

    Args:
        rig: the cameras.
        sizes: (width, height) of each camera's images, pixels.
        spec: specification of the network's input image.
        training: rig of the images on which the weights were trained; None for nuScenes.
    """
    training = training or TrainingRig()
    clauses = []
    for camera, (name, size) in enumerate(zip(rig.names, sizes, strict=True)):
        clauses += _focal(name, rig.intrinsics[camera, 0, 0], size, spec, training)
        clauses += _mount(name, rig.ego_from_camera[camera], training)
    return clauses


def _focal(
    name: str, focal_px: float, size: tuple[int, int], spec: ImageSpec, training: TrainingRig
) -> list[str]:
    """Compare focal lengths in pixels of the network's input images. In these pixels, a focal
    length does not depend on the size of the camera's images.
    """
    focal = focal_px * ImageTransform.for_inference(*size, spec).scale
    shortest, longest = (
        value * ImageTransform.for_inference(*training.size, spec).scale
        for value in training.focal_px
    )
    if shortest / FOCAL_FACTOR <= focal <= longest * FOCAL_FACTOR:
        return []
    return [
        f'{name} has a focal length of {focal:.0f} px in the network input, training had '
        f'{shortest:.0f} to {longest:.0f}'
    ]


def _mount(name: str, ego_from_camera: np.ndarray, training: TrainingRig) -> list[str]:
    clauses = []
    lowest, highest = training.height_m
    height = ego_from_camera[2, 3]
    if not lowest - HEIGHT_MARGIN_M <= height <= highest + HEIGHT_MARGIN_M:
        clauses.append(
            f'{name} is {height:.2f} m above the ground, training had {lowest:.2f} to '
            f'{highest:.2f}'
        )
    forward, down = ego_from_camera[:3, 2], ego_from_camera[:3, 1]
    tilt = np.degrees(np.arccos(np.clip(-down[2], -1, 1)))
    if tilt > TILT_LIMIT_DEG:
        return [*clauses, f'{name} is tilted by {tilt:.0f} degrees, training had 0 to 1']
    yaw = np.degrees(np.arctan2(forward[1], forward[0]))
    gaps = [abs((yaw - other + 180) % 360 - 180) for other in training.yaw_deg]
    if min(gaps) > YAW_MARGIN_DEG:
        nearest = training.yaw_deg[int(np.argmin(gaps))]
        clauses.append(
            f'{name} faces {yaw:.0f} degrees, the nearest training camera faced {nearest:.0f}'
        )
    return clauses


class RigCheck:
    """Compares each camera with the training rig when the camera is used for the first time, and
    again when its calibration changes.
    """

    def __init__(self, spec: ImageSpec):
        """Store ``spec``, the specification of the network's input image."""
        self._spec = spec
        self._last_rig: CameraRig | None = None
        self._seen: dict[str, bytes] = {}
        self._clauses: dict[str, list[str]] = {}

    def changed_warning(self, rig: CameraRig, sizes: Sequence[tuple[int, int]]) -> str | None:
        """Return a warning about all cameras that were compared so far, or an empty string if no
        camera differs. Return None if the warning is the same as in the last call.
        """
        if rig is self._last_rig:
            return None
        self._last_rig = rig
        before = dict(self._clauses)
        for camera, name in enumerate(rig.names):
            noticeable = (
                rig.intrinsics[camera].round(-1).tobytes()
                + rig.ego_from_camera[camera].round(1).tobytes()
            )
            if self._seen.get(name) != noticeable:
                self._seen[name] = noticeable
                single = CameraRig(
                    (name,),
                    rig.intrinsics[camera : camera + 1],
                    rig.ego_from_camera[camera : camera + 1],
                )
                self._clauses[name] = unlike_training(
                    single, sizes[camera : camera + 1], self._spec
                )
        if self._clauses == before:
            return None
        clauses = '; '.join(clause for found in self._clauses.values() for clause in found)
        if not clauses:
            return ''
        remedy = '; if base_frame is not on the ground, set base_frame_height_m'
        return (
            'the cameras differ from the cameras of the training images, so boxes may be '
            f'wrong: {clauses}{remedy if " m above " in clauses else ""}'
        )
