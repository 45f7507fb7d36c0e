"""Writes a synthetic drive to bags with the topic layouts of this project and of other nuScenes
converters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image as PillowImage

from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.recording import SceneRecording
from bevdepth_core.types import CameraRig, Frame
from bevdepth_ros.bags import messages as messages
from bevdepth_ros.bags.scene_bag import Target, write_bag
from bevdepth_ros.bags.writer import BagWriter

SETS = range(0, 13, 2)
"""Numbers of the image sets that every bag contains. The drive has an image set every 1/12 s, and
the image set of the first key frame has the number 0. The last four of these image sets have a
past frame half a second earlier."""
SETS_PER_KEY_FRAME = 6
LIVE_STEP_NS = 15_000_000
"""Time between two images of a set in the bag of a driver that publishes images one after the
other."""


@dataclass(frozen=True)
class Shot:
    """One image: its camera, time, pixels, calibration and the ego pose at this time."""

    camera: str
    stamp_ns: int
    pixels: np.ndarray
    jpeg: bytes
    intrinsics: np.ndarray
    world_from_ego: np.ndarray


@dataclass(frozen=True)
class Drive:
    """A scene with three key frames.

    Attributes:
        recording: the scene.
        dataroot: folder of the dataset with the files of the scene.
    """

    recording: SceneRecording
    dataroot: Path

    def shots(self, number: int) -> list[Shot]:
        """Return the six images of the image set with this number."""
        streams = {stream.channel: stream for stream in self.recording.streams}
        return [self._shot(streams[camera], number) for camera in CAMERAS]

    def all_shots(self) -> list[Shot]:
        """Return the images of all image sets in ``SETS``."""
        return [shot for number in SETS for shot in self.shots(number)]

    def frame(self, shots: list[Shot]) -> Frame:
        """Return the images of one image set as input for the detector."""
        rig = CameraRig(
            CAMERAS,
            np.stack([shot.intrinsics for shot in shots]),
            np.stack([self.mounts[camera] for camera in CAMERAS]),
        )
        poses = np.stack([shot.world_from_ego for shot in shots])
        return Frame(
            tuple(shot.pixels for shot in shots),
            rig,
            np.array([shot.stamp_ns for shot in shots]),
            poses,
        )

    @property
    def mounts(self) -> dict[str, np.ndarray]:
        """Return the extrinsics of the sensors."""
        return self.recording.mounts

    def pose_at(self, stamp_ns: int) -> np.ndarray:
        """Return the recorded ego pose whose stamp is nearest to ``stamp_ns``."""
        return self.recording.poses[
            int(np.abs(self.recording.pose_stamps_ns - stamp_ns).argmin())
        ].matrix()

    def _shot(self, stream, number: int) -> Shot:
        first = next(
            index for index, name in enumerate(stream.filenames) if name.startswith('samples/')
        )
        index = first + number
        path, stamp_ns = self.dataroot / stream.filenames[index], int(stream.stamps_ns[index])
        with PillowImage.open(path) as image_file:
            pixels = np.asarray(image_file.convert('RGB'))
        return Shot(
            stream.channel,
            stamp_ns,
            pixels,
            path.read_bytes(),
            stream.intrinsics,
            self.pose_at(stamp_ns),
        )


@dataclass(frozen=True)
class Layout:
    """A topic layout of bags.

    Attributes:
        preset: the camera preset for this layout.
        write: writes a bag with at least the image sets ``SETS`` of a drive.
        mount_frame: pattern of the names of the camera frames if the bag has no extrinsics;
            otherwise empty.
        exact: True if the bag has the exposure time of every image and the ego pose at this time.
            If False, results with a past frame may differ from the results for the dataset.
    """

    preset: str
    write: Callable[[Drive, Path], None]
    mount_frame: str = ''
    exact: bool = True


def _own(raw: bool) -> Callable[[Drive, Path], None]:
    def write(drive: Drive, path: Path) -> None:
        write_bag(drive.recording, Target(drive.dataroot, path.parent, raw=raw)).rename(path)

    return write


def _write_2hz_tf(drive: Drive, path: Path) -> None:
    """Write ego poses and extrinsics to /tf, only at the lidar stamps of key frames. The log time
    of key frame images is the lidar stamp, and the matrix R of CameraInfo is singular."""
    with BagWriter(path, 'mcap') as bag:
        for number in SETS:
            key_frame, sweep = divmod(number, SETS_PER_KEY_FRAME)
            moment = drive.recording.moments[key_frame]
            log_ns = moment.stamp_ns
            if sweep == 0:
                ego = messages.transform(
                    log_ns, 'map', 'base_link', moment.world_from_ego.matrix()
                )
                sensors = [
                    messages.transform(log_ns, 'base_link', name, mount)
                    for name, mount in drive.mounts.items()
                ]
                _write_tf(bag, log_ns, [ego, *sensors])
            for shot in drive.shots(number):
                _write_compressed(bag, shot, shot.stamp_ns if sweep else log_ns)


def _write_compressed(bag: BagWriter, shot: Shot, log_ns: int) -> None:
    image = messages.compressed_image(shot.stamp_ns, shot.camera, shot.jpeg)
    bag.write(
        f'/{shot.camera}/image_rect_compressed', 'sensor_msgs/msg/CompressedImage', log_ns, image
    )
    info = messages.camera_info(shot.stamp_ns, shot.camera, shot.intrinsics, 160, 90)
    info.d, info.distortion_model, info.r[8] = np.zeros(0), '', 0.0
    bag.write(f'/{shot.camera}/camera_info', 'sensor_msgs/msg/CameraInfo', log_ns, info)


def _write_odometry(drive: Drive, path: Path) -> None:
    """Write raw images, no tf, and odometry at the stamp of every image."""
    with BagWriter(path) as bag:
        for shot in drive.all_shots():
            camera = shot.camera.lower()
            _write_odometry_message(bag, '/nuscenes/odom', 'map', shot)
            _write_raw(bag, f'/nuscenes/{camera}/image_raw', f'{camera}_link', shot.stamp_ns, shot)
            info = messages.camera_info(shot.stamp_ns, f'{camera}_link', shot.intrinsics, 160, 90)
            info.d, info.distortion_model = np.zeros(0), ''
            bag.write(
                f'/nuscenes/{camera}/camera_info',
                'sensor_msgs/msg/CameraInfo',
                shot.stamp_ns,
                info,
            )


def _write_live(drive: Drive, path: Path) -> None:
    """Write the images of a set one after the other, stamped with the time of publication. Before
    each image, write the extrinsics of its camera to /tf. After the last image of the set, write
    the ego pose to /tf."""
    with BagWriter(path) as bag:
        for shots in (drive.shots(number) for number in SETS):
            begin_ns = min(shot.stamp_ns for shot in shots)
            for index, shot in enumerate(shots):
                now_ns = begin_ns + index * LIVE_STEP_NS
                _write_tf(
                    bag,
                    now_ns,
                    [
                        messages.transform(
                            now_ns, 'base_link', shot.camera, drive.mounts[shot.camera]
                        )
                    ],
                )
                _write_raw(bag, f'/nuscenes/{shot.camera}/image', shot.camera, now_ns, shot)
                info = messages.camera_info(now_ns, shot.camera, shot.intrinsics, 160, 90)
                bag.write(
                    f'/nuscenes/{shot.camera}/camera_info',
                    'sensor_msgs/msg/CameraInfo',
                    now_ns,
                    info,
                )
            after_ns = begin_ns + len(shots) * LIVE_STEP_NS
            _write_tf(
                bag,
                after_ns,
                [
                    messages.transform(
                        after_ns,
                        'world',
                        'base_link',
                        drive.pose_at(after_ns),
                    )
                ],
            )


def _write_no_info(drive: Drive, path: Path) -> None:
    """Write raw images whose headers have no stamp and no frame, and write no CameraInfo. Write tf
    and odometry at the exposure time of every image."""
    with BagWriter(path) as bag:
        for shot in drive.all_shots():
            camera, stamp_ns = shot.camera.lower(), shot.stamp_ns
            ego = messages.transform(stamp_ns, 'odom', 'base_link', shot.world_from_ego)
            still = [
                messages.transform(stamp_ns, 'base_link', name.lower(), mount)
                for name, mount in drive.mounts.items()
            ]
            _write_tf(
                bag,
                stamp_ns,
                [ego, *still, messages.transform(stamp_ns, 'map', 'odom', np.eye(4))],
            )
            _write_odometry_message(bag, '/odom', 'odom', shot)
            image = messages.raw_image(0, '', shot.pixels[..., ::-1], 'bgr8')
            bag.write(f'/{camera}/raw', 'sensor_msgs/msg/Image', stamp_ns, image)


def write_calibration_files(drive: Drive, folder: Path) -> None:
    """Write a file <camera>.yaml for each camera, in the format of the ROS package
    camera_calibration."""
    for shot in drive.shots(0):
        projection = np.column_stack((shot.intrinsics, np.zeros(3)))
        content = {
            'image_width': 160,
            'image_height': 90,
            'camera_name': shot.camera.lower(),
            'camera_matrix': {'rows': 3, 'cols': 3, 'data': shot.intrinsics.ravel().tolist()},
            'distortion_model': 'plumb_bob',
            'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.0] * 5},
            'projection_matrix': {'rows': 3, 'cols': 4, 'data': projection.ravel().tolist()},
        }
        (folder / f'{shot.camera.lower()}.yaml').write_text(yaml.safe_dump(content))


def _write_tf(bag: BagWriter, log_ns: int, transforms: list) -> None:
    bag.write(
        '/tf',
        'tf2_msgs/msg/TFMessage',
        log_ns,
        messages.message('tf2_msgs/msg/TFMessage', transforms=transforms),
    )


def _write_raw(bag: BagWriter, topic: str, frame: str, stamp_ns: int, shot: Shot) -> None:
    image = messages.raw_image(stamp_ns, frame, shot.pixels[..., ::-1], 'bgr8')
    bag.write(topic, 'sensor_msgs/msg/Image', stamp_ns, image)


def _write_odometry_message(bag: BagWriter, topic: str, frame: str, shot: Shot) -> None:
    pose = messages.transform(shot.stamp_ns, frame, 'base_link', shot.world_from_ego)
    moved, turned = pose.transform.translation, pose.transform.rotation
    where = messages.pose((moved.x, moved.y, moved.z), (turned.w, turned.x, turned.y, turned.z))
    still = messages.message(
        'geometry_msgs/msg/Twist',
        linear=messages.vector('Vector3', (0, 0, 0)),
        angular=messages.vector('Vector3', (0, 0, 0)),
    )
    odometry = messages.message(
        'nav_msgs/msg/Odometry',
        header=pose.header,
        child_frame_id='base_link',
        pose=messages.message(
            'geometry_msgs/msg/PoseWithCovariance', pose=where, covariance=np.zeros(36)
        ),
        twist=messages.message(
            'geometry_msgs/msg/TwistWithCovariance', twist=still, covariance=np.zeros(36)
        ),
    )
    bag.write(topic, 'nav_msgs/msg/Odometry', shot.stamp_ns, odometry)


LAYOUTS = (
    Layout('nuscenes', _own(raw=False)),
    Layout('nuscenes_image_rect', _own(raw=True)),
    Layout('nuscenes_2hz_tf', _write_2hz_tf, exact=False),
    Layout('nuscenes_raw', _write_odometry, mount_frame='{camera}_link'),
    Layout('nuscenes_bridge', _write_live, exact=False),
    Layout('nuscenes_no_info', _write_no_info),
)
