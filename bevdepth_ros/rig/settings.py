"""Settings of a camera rig: topics and frames of images, calibration and poses.

The detector, the visualizer, the viewer and the renderer use the same settings and can therefore
use the same parameter file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from sensor_msgs.msg import CompressedImage, Image

SettingsT = TypeVar('SettingsT', bound='RigSettings')

LIVE = 'live'
"""The parameter may change at any time. A change takes effect with the next image set."""
INACTIVE = 'inactive'
"""The parameter may change while the node is not active. A change takes effect on the next
activation."""
START = 'start'
"""The parameter is read-only; its value is fixed when the process starts."""
COMMON_PARAMETERS = (
    'use_sim_time',
    'start_type_description_service',
    'qos_overrides',
    'diagnostic_updater',
)
"""First parts of the names of parameters that ROS 2 and its libraries declare in nodes."""


def parameter(
    default: Any,
    description: str,
    *,
    change: str = INACTIVE,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field that also describes a ROS parameter."""
    metadata = {
        'description': description,
        'change': change,
        'low': low,
        'high': high,
        'choices': choices,
    }
    default = tuple(default) if isinstance(default, list) else default
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class CameraSource:
    """Topics, file and frame of one camera; empty strings mean "not given"."""

    name: str
    image_topic: str
    info_topic: str
    info_file: str
    frame: str


IMAGE_TYPES = {'compressed': CompressedImage, 'raw': Image}
"""Maps each value of ``image_transport`` to the message type of the image topics."""


@dataclass(frozen=True)
class RigSettings:
    """Settings that are needed to build a ``Frame`` from messages, checked against each other.

    Raises:
        ValueError: values contradict each other, or a value is not among the choices.
    """

    cameras: tuple[str, ...] = parameter(
        [
            'CAM_FRONT_LEFT',
            'CAM_FRONT',
            'CAM_FRONT_RIGHT',
            'CAM_BACK_LEFT',
            'CAM_BACK',
            'CAM_BACK_RIGHT',
        ],
        'Names of the cameras, at least one. Each name replaces {camera} in the other lists.',
    )
    image_transport: str = parameter(
        'compressed',
        'Type of the image messages. compressed means sensor_msgs/CompressedImage (JPEG, PNG, '
        'TIFF, WebP), raw means sensor_msgs/Image.',
        choices=('compressed', 'raw'),
    )
    image_topics: tuple[str, ...] = parameter(
        ['/{camera}/image_rect_compressed'],
        'Image topics, with the suffix of the transport, such as /compressed: one pattern with '
        '{camera}, or one name per camera.',
    )
    images_rectified: bool = parameter(
        True,
        'If true, images are rectified, and P of CameraInfo is used (K if P is all zeros). If '
        'false, K and D are used.',
    )
    camera_info_topics: tuple[str, ...] = parameter(
        ['/{camera}/camera_info'],
        'CameraInfo topics: one pattern with {camera}, or one name per camera. Not used for '
        'cameras with a file in camera_info_files.',
    )
    camera_info_files: tuple[str, ...] = parameter(
        [''],
        'YAML files of camera_calibration, for cameras without CameraInfo: one pattern with '
        '{camera}, or one file per camera.',
    )
    camera_frames: tuple[str, ...] = parameter(
        [''],
        'Optical frames in tf: one pattern with {camera}, or one frame per camera. If empty, the '
        'frame_id of each image is used.',
    )
    base_frame: str = parameter(
        'base_link',
        'Frame of the detections. It lies on the ground below the rear axle; x points forward, y '
        'left and z up. tf must link it to the cameras.',
    )
    base_frame_height_m: float = parameter(
        0.0,
        'Height of base_frame above the ground, meters; 0 if base_frame is on the ground.',
        low=-2.0,
        high=5.0,
    )
    fixed_frame: str = parameter(
        'map', 'Frame in which ego motion is measured, map or odom. tf must link it to base_frame.'
    )
    odometry_topic: str = parameter(
        '',
        'Topic of nav_msgs/Odometry, for vehicles whose tf does not contain fixed_frame <- '
        'base_frame. The node uses its poses like transforms of tf. If empty, only tf is used.',
    )
    sync_slop_s: float = parameter(
        0.06,
        'Largest time between the first and the last image of an image set, seconds. It must be '
        'shorter than the trigger cycle.',
        low=0.001,
        high=1.0,
    )
    sync_queue_size: int = parameter(
        10, 'Largest number of images per camera that wait for their set.', low=1, high=100
    )
    untriggered_cameras: str = parameter(
        'none',
        'Reaction if cameras are not triggered together, for example because they run freely. '
        'none reports this and publishes no detections. newest uses the newest image of each '
        'camera.',
        choices=('none', 'newest'),
    )
    tf_buffer_s: float = parameter(10.0, 'Length of the tf buffer, seconds.', low=1.0, high=120.0)
    geometry_timeout_s: float = parameter(
        0.1,
        'How long an image set waits for its CameraInfo, extrinsics and ego poses, seconds.',
        change=LIVE,
        low=0.0,
        high=2.0,
    )
    pose_clamp_s: float = parameter(
        0.06,
        'If an image is at most this time, in seconds, before the first or after the last ego '
        'pose in tf, the first or the last pose is used for the image.',
        change=LIVE,
        low=0.0,
        high=0.5,
    )
    min_cameras: int = parameter(
        1,
        'Smallest number of usable cameras. With fewer usable cameras, no detections are '
        'published.',
        change=LIVE,
        low=1,
        high=100,
    )
    max_image_megapixels: float = parameter(
        20.0,
        'Largest image, megapixels. Larger images are rejected before they are decoded.',
        change=LIVE,
        low=0.1,
        high=200.0,
    )
    decode_timeout_s: float = parameter(
        1.0,
        'Longest time to decode the images of a set, seconds. After this time, the set is '
        'processed without the cameras whose images are not decoded.',
        change=LIVE,
        low=0.05,
        high=10.0,
    )

    def __post_init__(self) -> None:
        check_choices(self)
        if (
            not self.cameras
            or not all(self.cameras)
            or len(set(self.cameras)) != len(self.cameras)
        ):
            raise ValueError(
                f'cameras must be one or more different names, got {list(self.cameras)}'
            )
        if self.min_cameras > len(self.cameras):
            raise ValueError(
                f'min_cameras must not exceed the number of cameras ({len(self.cameras)}), got '
                f'{self.min_cameras}'
            )
        for name in ('base_frame', 'fixed_frame'):
            if not getattr(self, name):
                raise ValueError(f'{name} must not be empty')
        check_frames(self.base_frame, self.fixed_frame, *self.camera_frames)
        if self.fixed_frame == self.base_frame:
            raise ValueError(
                f'fixed_frame must not be base_frame ({self.base_frame}), in which the vehicle '
                'never moves'
            )
        topics = [source.image_topic for source in self.camera_sources]
        if not all(topics) or len(set(topics)) != len(topics):
            raise ValueError(f'image_topics must give each camera a different topic, got {topics}')
        for source in self.camera_sources:
            if not (source.info_topic or source.info_file):
                raise ValueError(
                    f'camera {source.name} needs an entry in camera_info_topics or in '
                    'camera_info_files'
                )

    @classmethod
    def from_values(cls: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
        """Return the settings with these values of parameters, by name. All other parameters have
        their defaults.
        """
        converted: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**converted)

    @cached_property
    def camera_sources(self) -> tuple[CameraSource, ...]:
        """One entry per camera, in the order of ``cameras``."""
        columns = [
            self._per_camera(name)
            for name in (
                'image_topics',
                'camera_info_topics',
                'camera_info_files',
                'camera_frames',
            )
        ]
        return tuple(CameraSource(*row) for row in zip(self.cameras, *columns, strict=True))

    def _per_camera(self, name: str) -> list[str]:
        """Return one entry of the list parameter ``name`` per camera; the camera's name replaces
        {camera}.
        """
        entries = getattr(self, name)
        if len(entries) == 1:
            entries = entries * len(self.cameras)
        if len(entries) != len(self.cameras):
            raise ValueError(
                f'{name} must hold one pattern or one entry per camera ({len(self.cameras)}), got '
                f'{len(entries)}'
            )
        return [
            entry.replace('{camera}', camera)
            for entry, camera in zip(entries, self.cameras, strict=True)
        ]


def check_frames(*frames: str) -> None:
    """Raise ValueError if the name of a tf frame begins with a slash. ROS 1 allowed such names,
    but tf2 rejects them.
    """
    for frame in frames:
        if frame.startswith('/'):
            raise ValueError(f'frame {frame} must not begin with a slash: write {frame[1:]}')


def check_choices(settings: RigSettings) -> None:
    """Raise ValueError if a value of ``settings`` is not among the choices of its field."""
    for field in dataclasses.fields(settings):
        check_choice(field, getattr(settings, field.name))


def check_choice(field: dataclasses.Field, value: object) -> None:
    """Raise ValueError if ``value`` is not among the choices of ``field``."""
    choices = field.metadata['choices']
    if choices and value not in choices:
        raise ValueError(f'{field.name} must be one of {", ".join(choices)}, got {value!r}')


def check_range(field: dataclasses.Field, value: Any) -> None:
    """Raise ValueError if ``value`` is outside the range of its parameter.

    rclpy checks the ranges of the parameters of a node. Programs without a node may use settings
    outside of the ranges.
    """
    low, high = field.metadata['low'], field.metadata['high']
    if low is not None and not low <= value <= high:
        raise ValueError(f'{field.name} must lie in {low:g} to {high:g}, got {value:g}')


def descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    """Return the ROS description of the parameter that ``field`` of a settings class declares."""
    metadata = field.metadata
    result = ParameterDescriptor(
        name=field.name, description=metadata['description'], read_only=metadata['change'] == START
    )
    result.additional_constraints = (
        f'one of {", ".join(metadata["choices"])}' if metadata['choices'] else ''
    )
    if metadata['low'] is not None:
        if isinstance(field.default, int):
            result.integer_range.append(
                IntegerRange(from_value=metadata['low'], to_value=metadata['high'])
            )
        else:
            result.floating_point_range.append(
                FloatingPointRange(from_value=metadata['low'], to_value=metadata['high'])
            )
    return result
