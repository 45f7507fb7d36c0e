"""The node's parameters: each declared once, here, with default, range, meaning and when it may change."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

LIVE = 'live'
"""Takes effect with the next set of images."""
INACTIVE = 'inactive'
"""May change while the node is not active; takes effect on the next activation."""
START = 'start'
"""Read-only: fixed when the process starts."""


def _parameter(default, description: str, *, change: str = INACTIVE, low=None, high=None, choices: tuple[str, ...] = ()):
    metadata = {'description': description, 'change': change, 'low': low, 'high': high, 'choices': choices}
    default = tuple(default) if isinstance(default, list) else default
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class CameraSource:
    """Where one camera's data comes from; empty strings mean "not given"."""

    name: str
    image_topic: str
    info_topic: str
    info_file: str
    frame: str


@dataclass(frozen=True)
class Settings:
    """The values of all parameters, checked together.

    Raises:
        ValueError: values that contradict each other, or a name that is not among the choices.
    """

    cameras: tuple[str, ...] = _parameter(
        ['CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'],
        'Names of the cameras, one or more. A name stands for {camera} in the lists below.',
    )
    image_transport: str = _parameter(
        'compressed', 'compressed: sensor_msgs/CompressedImage (JPEG or PNG). raw: sensor_msgs/Image.', choices=('compressed', 'raw')
    )
    image_topics: tuple[str, ...] = _parameter(
        ['/{camera}/image_rect_compressed'], 'Full image topic names: one pattern with {camera}, or one name per camera.'
    )
    images_rectified: bool = _parameter(
        True, 'Whether images are rectified: then the projection matrix P of CameraInfo holds where it is filled in, otherwise K.'
    )
    image_reliability: str = _parameter(
        'best_effort',
        'Reliability asked of the image publishers; best_effort matches every publisher.',
        choices=('best_effort', 'reliable'),
    )
    image_queue_size: int = _parameter(5, 'Images per camera that DDS keeps until they are taken, newest first.', low=1, high=100)
    camera_info_topics: tuple[str, ...] = _parameter(
        ['/{camera}/camera_info'], 'CameraInfo topics: one pattern with {camera}, or one name per camera. Not used where a file is given.'
    )
    camera_info_files: tuple[str, ...] = _parameter(
        [''], 'Files as camera_calibration writes them, for cameras without CameraInfo: one pattern with {camera}, or one per camera.'
    )
    camera_frames: tuple[str, ...] = _parameter(
        [''], 'Optical frames: one pattern with {camera}, or one per camera. Empty: the frame_id of the image.'
    )
    base_frame: str = _parameter(
        'base_link', 'Frame of the detections: on the ground below the rear axle, x forward, y left, z up. tf must link it to the cameras.'
    )
    fixed_frame: str = _parameter('map', 'Frame in which ego motion is measured, map or odom. tf must link it to base_frame.')
    odometry_topic: str = _parameter('', 'nav_msgs/Odometry that is taken as tf from its frame to its child frame. Empty: tf alone.')
    checkpoint: str = _parameter('', 'Weights: .safetensors of this project or an official .pth or .ckpt.')
    device: str = _parameter('auto', 'cpu, cuda, cuda:<n>, or auto: cuda where there is one.')
    precision: str = _parameter(
        'auto',
        'Arithmetic of the network: fp32, fp16 or bf16, or auto: fp16 on a GPU, fp32 on a CPU, which does nothing else.',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
    )
    cuda_graphs: bool = _parameter(True, 'On a GPU, replay CUDA graphs with images decoded and resized there; otherwise go step by step.')
    sync_slop_s: float = _parameter(
        0.06, 'Largest time within a set, seconds; must stay below the period of a camera.', low=0.001, high=1.0
    )
    sync_queue_size: int = _parameter(10, 'Images per camera that wait for their set.', low=1, high=100)
    tf_buffer_s: float = _parameter(10.0, 'How long tf is remembered, seconds.', low=1.0, high=120.0)
    geometry_timeout_s: float = _parameter(
        0.1, 'How long a set waits for its CameraInfo, extrinsics and ego poses, seconds.', change=LIVE, low=0.0, high=2.0
    )
    pose_clamp_s: float = _parameter(
        0.06,
        'How far an image may lie before or after what tf knows and take the nearest ego pose, seconds.',
        change=LIVE,
        low=0.0,
        high=0.5,
    )
    camera_timeout_s: float = _parameter(
        1.0, 'Silence after which a camera is reported and sets go on without it, seconds of receipt.', change=LIVE, low=0.1, high=60.0
    )
    camera_startup_s: float = _parameter(
        5.0, 'Time that cameras and their calibration have to come after activation, seconds.', low=0.0, high=60.0
    )
    min_cameras: int = _parameter(1, 'With fewer usable cameras nothing is published.', change=LIVE, low=1, high=100)
    score_threshold: float = _parameter(0.1, 'Detections score more than this.', change=LIVE, low=0.0, high=1.0)
    max_image_megapixels: float = _parameter(
        20.0, 'Larger images are refused before they are decoded, million pixels.', change=LIVE, low=0.1, high=200.0
    )
    publish_depth_points: bool = _parameter(
        False, 'Publish ~/depth_points: where the network thinks that what the cameras see is.', change=LIVE
    )
    diagnostics_period_s: float = _parameter(
        1.0, 'Period of /diagnostics, seconds; changes are sent at once.', change=START, low=0.1, high=60.0
    )

    def __post_init__(self) -> None:
        check_choices(vars(self))
        if not self.cameras or not all(self.cameras) or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f'cameras must be one or more different names, got {list(self.cameras)}')
        if self.min_cameras > len(self.cameras):
            raise ValueError(f'min_cameras must not exceed the number of cameras ({len(self.cameras)}), got {self.min_cameras}')
        for name in ('base_frame', 'fixed_frame'):
            if not getattr(self, name):
                raise ValueError(f'{name} must not be empty')
        if self.fixed_frame == self.base_frame:
            raise ValueError(f'fixed_frame must not be base_frame ({self.base_frame}), in which the vehicle never moves')
        topics = [source.image_topic for source in self.camera_sources]
        if not all(topics) or len(set(topics)) != len(topics):
            raise ValueError(f'image_topics must give every camera a topic of its own, got {topics}')
        for source in self.camera_sources:
            if not (source.info_topic or source.info_file):
                raise ValueError(f'camera {source.name} needs an entry in camera_info_topics or in camera_info_files')

    @property
    def camera_sources(self) -> tuple[CameraSource, ...]:
        """One entry per camera, in the order of ``cameras``."""
        columns = [self._per_camera(name) for name in ('image_topics', 'camera_info_topics', 'camera_info_files', 'camera_frames')]
        return tuple(CameraSource(*row) for row in zip(self.cameras, *columns, strict=True))

    def _per_camera(self, name: str) -> list[str]:
        """Return the list parameter ``name`` with one entry per camera, {camera} filled in."""
        entries = getattr(self, name)
        if len(entries) == 1:
            entries = entries * len(self.cameras)
        if len(entries) != len(self.cameras):
            raise ValueError(f'{name} must hold one pattern or one entry per camera ({len(self.cameras)}), got {len(entries)}')
        return [entry.replace('{camera}', camera) for entry, camera in zip(entries, self.cameras, strict=True)]

    @property
    def checkpoint_path(self) -> Path:
        """Path of the weights.

        Raises:
            ValueError: the parameter is empty.
        """
        if not self.checkpoint:
            raise ValueError('parameter checkpoint is empty: give the path of the weights, such as checkpoint:=/path/to/model.safetensors')
        return Path(self.checkpoint).expanduser()


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def descriptor(name: str) -> ParameterDescriptor:
    """Return the ROS description of the parameter ``name``."""
    metadata = FIELDS[name].metadata
    result = ParameterDescriptor(name=name, description=metadata['description'], read_only=metadata['change'] == START)
    result.additional_constraints = f'one of {", ".join(metadata["choices"])}' if metadata['choices'] else ''
    if metadata['low'] is not None:
        if isinstance(FIELDS[name].default, int):
            result.integer_range.append(IntegerRange(from_value=metadata['low'], to_value=metadata['high']))
        else:
            result.floating_point_range.append(FloatingPointRange(from_value=metadata['low'], to_value=metadata['high']))
    return result


def declare(node: Node) -> None:
    """Declare every parameter on ``node``, which must be made with ``automatically_declare_parameters_from_overrides``.

    Whole numbers are taken for real ones; a name that is no parameter is logged with the nearest one that is.

    Raises:
        ValueError: a value of the wrong type.
        rclpy.exceptions.InvalidParameterValueException: a value out of range.
    """
    given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix('').items()}
    for name, field in FIELDS.items():
        value = _as_declared(name, given.pop(name, field.default))
        if node.has_parameter(name):
            node.undeclare_parameter(name)
        node.declare_parameter(name, value, descriptor(name), ignore_override=True)
    for name in given:
        if not name.startswith(_FOREIGN):
            nearest = difflib.get_close_matches(name, FIELDS, 1)
            hint = f'; did you mean {nearest[0]}?' if nearest else ''
            node.get_logger().warning(f'parameter {name} is unknown and has no effect{hint}')


_FOREIGN = ('use_sim_time', 'start_type_description_service', 'qos_overrides')
"""Parameters of every ROS node."""


def _as_declared(name: str, value):
    """Return ``value`` in the type of the parameter's default."""
    default = FIELDS[name].default
    if isinstance(default, float) and type(value) is int:
        return float(value)
    expected = list if isinstance(default, tuple) else type(default)
    value = list(value) if isinstance(value, tuple) else value
    if type(value) is not expected or (expected is list and not all(isinstance(entry, str) for entry in value)):
        kind = 'a list of strings' if expected is list else f'of type {expected.__name__}'
        raise ValueError(f'parameter {name} must be {kind}, got {value!r}')
    return value


def read(node: Node, changed: dict | None = None) -> Settings:
    """Return the settings of ``node``, with the values of ``changed`` in place of the present ones.

    Raises:
        ValueError: the values contradict each other.
    """
    values = {name: node.get_parameter(name).value for name in FIELDS} | (changed or {})
    return Settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def check_choices(values: dict) -> None:
    """Raise ValueError when one of ``values``, by name, is not among the parameter's choices."""
    for name, value in values.items():
        choices = FIELDS[name].metadata['choices']
        if choices and value not in choices:
            raise ValueError(f'{name} must be one of {", ".join(choices)}, got {value!r}')


def check_live(names) -> None:
    """Raise ValueError when one of ``names`` cannot change while the node is active."""
    fixed = [name for name in names if FIELDS[name].metadata['change'] != LIVE]
    if fixed:
        raise ValueError(f'{", ".join(fixed)} cannot change while the node is active: deactivate it, set, activate')
