"""Changes the rig randomly for training: focal lengths, pitch, mounting height, set of cameras.

The image of a changed camera is warped. If only the focal length or the pitch changes, the warp is
exact, because the camera does not move. If the height changes, the warp is exact for points on the
ground and on the horizon. For points above the ground, the warp is an approximation: an object is
stretched or compressed vertically by the ratio of the heights, instead of being shifted. Lidar
depth and boxes use the exact geometry of the changed camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bevdepth_core.geometry import quaternion_from_rotation
from bevdepth_core.nuscenes.records import Pose, SampleRecord, SensorRecord

LOWEST_HEIGHT = 0.3
"""A change of the rig does not lower a camera below this height, meters. The height of a camera
that is already lower is not changed."""


@dataclass(frozen=True)
class CameraChange:
    """Change of one camera.

    Attributes:
        focal: factor of both focal lengths.
        pitch_deg: rotation about the camera's own x axis, downwards, degrees.
        height: change of the mounting height, upwards, meters; the ground is the plane z = 0 of
            the ego frame.
    """

    focal: float = 1.0
    pitch_deg: float = 0.0
    height: float = 0.0

    def applied(self, camera: SensorRecord) -> SensorRecord:
        """Return the record of the changed camera."""
        pose = camera.ego_from_sensor
        rotation = pose.matrix()[:3, :3] @ self._turn()
        translation = pose.translation + np.array((0, 0, self._rise(camera)))
        return replace(
            camera,
            intrinsics=self._intrinsics(camera),
            ego_from_sensor=Pose(np.array(quaternion_from_rotation(rotation)), translation),
        )

    def homography(self, camera: SensorRecord) -> np.ndarray:
        """Return the (3, 3) homography from pixels of ``camera`` to pixels of the changed camera.

        If the camera rises from height h to h + d, the z component of the direction to each point
        on the ground is multiplied by (h + d) / h. The horizon does not move.
        """
        rotation = camera.ego_from_sensor.matrix()[:3, :3]
        rise = self._rise(camera)
        stretch = np.diag((1.0, 1.0, 1 + rise / camera.ego_from_sensor.translation[2]))
        turned = (rotation @ self._turn()).T
        to_ray = np.linalg.inv(camera.intrinsics)
        return self._intrinsics(camera) @ turned @ stretch @ rotation @ to_ray

    def _turn(self) -> np.ndarray:
        angle = np.deg2rad(-self.pitch_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array(((1, 0, 0), (0, cos, -sin), (0, sin, cos)))

    def _rise(self, camera: SensorRecord) -> float:
        height = float(camera.ego_from_sensor.translation[2])
        return max(height + self.height, LOWEST_HEIGHT) - height if height > LOWEST_HEIGHT else 0.0

    def _intrinsics(self, camera: SensorRecord) -> np.ndarray:
        return camera.intrinsics * np.array(((self.focal, self.focal, 1),) * 2 + ((1, 1, 1),))


@dataclass(frozen=True)
class RigChange:
    """Change of all cameras of a sample.

    Attributes:
        cameras: change of each camera.
        order: indices of all cameras in their new order. A batch with fewer cameras uses the first
            cameras of this order.
        camera_count: number of cameras that the batch of this sample should have.
    """

    cameras: tuple[CameraChange, ...]
    order: tuple[int, ...]
    camera_count: int

    def applied(self, record: SampleRecord) -> SampleRecord:
        """Return the record with changed cameras in the new order."""
        changed = [
            change.applied(camera)
            for change, camera in zip(self.cameras, record.cameras, strict=True)
        ]
        return replace(record, cameras=self.ordered(changed))

    def homographies(self, record: SampleRecord) -> tuple[np.ndarray, ...]:
        """Return the homography of each camera in the new order."""
        pairs = zip(self.cameras, record.cameras, strict=True)
        return self.ordered([change.homography(camera) for change, camera in pairs])

    def ordered(self, values: Sequence) -> tuple:
        """Return one value per camera in the new order."""
        return tuple(values[number] for number in self.order)


@dataclass(frozen=True)
class RigAugmentation:
    """Ranges from which a RigChange is sampled. The defaults are for weights that are used on many
    rigs.

    Attributes:
        focal: lowest and highest factor of the focal lengths. The factor of each camera is sampled
            separately.
        pitch_deg: lowest and highest rotation downwards, degrees. The rotation of each camera is
            sampled separately.
        height: lowest and highest change of the mounting height, meters; all cameras of a sample
            get the same change.
        min_cameras: smallest number of cameras of a batch. Each sample uses a random selection of
            its cameras. Null: all cameras are used.
    """

    focal: tuple[float, float] = (0.8, 1.25)
    pitch_deg: tuple[float, float] = (-3.0, 3.0)
    height: tuple[float, float] = (-0.4, 0.4)
    min_cameras: int | None = None

    def __post_init__(self) -> None:
        for name in ('focal', 'pitch_deg', 'height'):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(
                    f'augmentation.rig.{name} must be [lowest, highest], got [{low}, {high}]'
                )
        if self.focal[0] <= 0:
            raise ValueError(
                f'augmentation.rig.focal must be positive factors, got {list(self.focal)}'
            )
        if self.min_cameras is not None and self.min_cameras < 1:
            raise ValueError(
                'augmentation.rig.min_cameras must be at least 1, or null to use all cameras, got '
                f'{self.min_cameras}'
            )

    def draw(self, rng: np.random.Generator, cameras: int) -> RigChange:
        """Return a random change of a rig with ``cameras`` cameras."""
        height = rng.uniform(*self.height)
        changes = tuple(
            CameraChange(rng.uniform(*self.focal), rng.uniform(*self.pitch_deg), height)
            for _ in range(cameras)
        )
        if self.min_cameras is None:
            return RigChange(changes, tuple(range(cameras)), cameras)
        lowest = min(self.min_cameras, cameras)
        count = int(rng.integers(lowest, cameras + 1))
        return RigChange(changes, tuple(rng.permutation(cameras).tolist()), count)
