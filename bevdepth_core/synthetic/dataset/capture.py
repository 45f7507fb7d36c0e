"""Records a synthetic drive: writes image and lidar files and returns the objects to annotate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from bevdepth_core.geometry import invert_rigid
from bevdepth_core.nuscenes.classes import LIDAR
from bevdepth_core.nuscenes.table_files import token
from bevdepth_core.synthetic.dataset.maps import map_origin, write_map
from bevdepth_core.synthetic.sensors.lens import Lens
from bevdepth_core.synthetic.sensors.lidar import scan
from bevdepth_core.synthetic.sensors.rig import NUSCENES_RIG, SyntheticRig
from bevdepth_core.synthetic.sensors.schedule import TURN_S, TURNS_PER_KEY_FRAME, Shot, shots
from bevdepth_core.synthetic.sensors.visibility import visible_fractions
from bevdepth_core.synthetic.world.generator import make_scene
from bevdepth_core.synthetic.world.scene import SyntheticScene
from bevdepth_core.types import CameraRig

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Drive:
    """A scene to be recorded, with its own log, calibration and map.

    Attributes:
        name: name of the scene.
        seed: seed of the world and of the calibration.
        start_us: Unix time of the start, microseconds.
        duration_s: duration, seconds.
    """

    name: str
    seed: int
    start_us: int
    duration_s: float

    def stamp_us(self, time_s: float) -> int:
        """Return the Unix time ``time_s`` seconds after the start, in microseconds."""
        return self.start_us + round(time_s * 1e6)

    def camera_rig(self, sensors: Sensors) -> CameraRig:
        """Return the cameras with the calibration of this drive."""
        return sensors.rig.camera_rig(sensors.width, sensors.height, log_seed=self.seed)

    def ego_from_lidar(self, sensors: Sensors) -> np.ndarray:
        """Return the (4, 4) pose of the lidar in the ego frame, with the calibration of this
        drive.
        """
        return sensors.rig.ego_from_lidar(log_seed=self.seed)

    def map_filename(self) -> str:
        """Return the path of the map file, relative to the root of the dataset."""
        return f'maps/{token("map", self.name, self.seed)}.png'

    def filename(self, shot: Shot) -> str:
        """Return the path of the file of a shot, relative to the root of the dataset; file names
        follow the rules of nuScenes.
        """
        folder, ending = (
            'samples' if shot.key_frame else 'sweeps',
            'pcd.bin' if shot.channel == LIDAR else 'jpg',
        )
        stamp_us = self.stamp_us(shot.time_s)
        return f'{folder}/{shot.channel}/{self.name}__{shot.channel}__{stamp_us}.{ending}'


@dataclass(frozen=True)
class Sensors:
    """Sensors with which every drive of a dataset is recorded.

    Attributes:
        width, height: width and height of the images, pixels.
        lidar_beams: number of lidar beams; nuScenes has 32.
        sweeps: whether images and lidar scans between the key frames are recorded.
        rig: mounting poses and intrinsics of cameras and lidar.
        distorted: whether images have lens distortion. If True, the tables contain the
            coefficients of the distortion. Training needs undistorted images.
    """

    width: int = 1600
    height: int = 900
    lidar_beams: int = 32
    sweeps: bool = True
    rig: SyntheticRig = NUSCENES_RIG
    distorted: bool = False


@dataclass(frozen=True)
class KeyFrame:
    """A key frame with the shots since the previous key frame.

    Attributes:
        number: index of the key frame in the drive.
        shots: sorted by channel; the shots of a channel are in order of time.
        world_from_ego: (shots, 4, 4), ego pose at the stamp of each shot; the origin of the world
            frame is the origin of the map.
        classes: n names, one per actor.
        riders: (n,) bool, whether a bicycle or motorcycle has a rider.
        size: (n, 3) length, width, height, meters.
        position: (n, 2) world x and y of the centers, meters.
        heading: (n,) radians.
        speed: (n,) m/s over ground.
        points: (n,) number of lidar points on each actor.
        visible: (n,) share of each actor, 0..1, that is visible in the images of all cameras
            together.
    """

    number: int
    shots: tuple[Shot, ...]
    world_from_ego: np.ndarray
    classes: tuple[str, ...]
    riders: np.ndarray
    size: np.ndarray
    position: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    points: np.ndarray
    visible: np.ndarray


def record(
    root: Path, drive: Drive, sensors: Sensors, key_frames: Sequence[int]
) -> list[KeyFrame]:
    """Write the files of the key frames with the numbers ``key_frames`` to existing folders in
    ``root``. If ``key_frames`` contains 0, write the map, too.

    Raises:
        OSError: a file cannot be written.
    """
    scene = _scene(drive.seed, drive.duration_s)
    if 0 in key_frames:
        write_map(scene.road, root / drive.map_filename())
    return [_record_key_frame(root, scene, drive, sensors, number) for number in key_frames]


@lru_cache(maxsize=2)
def _scene(seed: int, duration_s: float) -> SyntheticScene:
    return make_scene(seed, duration_s)


def _record_key_frame(
    root: Path, scene: SyntheticScene, drive: Drive, sensors: Sensors, number: int
) -> KeyFrame:
    taken = tuple(shots(number, sensors.sweeps, sensors.rig.offsets_s))
    rig = drive.camera_rig(sensors)
    poses = np.array([scene.world_from_ego(shot.time_s) for shot in taken])
    for shot, pose in zip(taken, poses, strict=True):
        path = root / drive.filename(shot)
        if shot.channel == LIDAR:
            points = _write_scan(path, scene, drive, sensors, shot)
        else:
            _write_image(path, scene, rig, sensors, shot, pose)
    start_s = number * TURNS_PER_KEY_FRAME * TURN_S
    poses[:, :2, 3] -= map_origin(scene.road)
    return KeyFrame(
        number,
        taken,
        poses,
        **_states(scene, start_s + sensors.rig.measured_offset_s),
        points=points,
        visible=visible_fractions(
            scene, rig, start_s, sensors.width, sensors.height, sensors.rig.offsets_s
        ),
    )


def _write_image(
    path: Path,
    scene: SyntheticScene,
    rig: CameraRig,
    sensors: Sensors,
    shot: Shot,
    world_from_ego: np.ndarray,
) -> None:
    camera = rig.names.index(shot.channel)
    lens = Lens(
        rig.intrinsics[camera],
        sensors.width,
        sensors.height,
        sensors.rig.cameras[shot.channel].distortion,
    )
    pose = world_from_ego @ rig.ego_from_camera[camera]
    image = lens.render(scene, pose, shot.time_s)
    if not sensors.distorted:
        image = lens.undistorted(image)
    _, encoded = cv2.imencode(
        '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    )
    encoded.tofile(path)


def _write_scan(
    path: Path, scene: SyntheticScene, drive: Drive, sensors: Sensors, shot: Shot
) -> np.ndarray:
    """Write one lidar scan, with the points in the lidar frame at the stamp of the scan. Return
    the (actors,) number of points on each actor.
    """
    mount = drive.ego_from_lidar(sensors)
    moment = shot.turn * TURN_S + sensors.rig.measured_offset_s
    measured = scan(scene, moment, mount, beams=sensors.lidar_beams, seed=drive.seed + shot.turn)
    at_stamp_from_measured = (
        invert_rigid(scene.world_from_ego(shot.time_s) @ mount)
        @ scene.world_from_ego(moment)
        @ mount
    )
    points = measured.points @ at_stamp_from_measured[:3, :3].T + at_stamp_from_measured[:3, 3]
    np.column_stack((points, measured.intensity, measured.ring)).astype(np.float32).tofile(path)
    return np.bincount(measured.actor[measured.actor >= 0], minlength=len(scene.actors))


def _states(scene: SyntheticScene, time_s: float) -> dict:
    """Return class, size and motion of the actors as arrays, named as in ``KeyFrame``."""
    poses = scene.actor_poses(time_s)
    velocities = [scene.actor_velocity(actor, time_s) for actor in scene.actors]
    return {
        'classes': tuple(actor.class_name for actor in scene.actors),
        'riders': np.array([actor.rider for actor in scene.actors], bool),
        'size': np.array([actor.size for actor in scene.actors]).reshape(-1, 3),
        'position': poses[:, :2] - map_origin(scene.road),
        'heading': poses[:, 2],
        'speed': np.linalg.norm(np.reshape(velocities, (-1, 2)), axis=1),
    }
