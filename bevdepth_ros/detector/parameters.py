"""Declares the parameters of the node. A declaration contains the default, the range, the
description, and the states in which the parameter may change.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node

from bevdepth_core.inference import MAX_PAST_FRAME_SPACING_NS, PAST_FRAME_SPACING_NS
from bevdepth_core.tracking import TrackerConfig
from bevdepth_ros.detections.region import EXAMPLE, parse_region
from bevdepth_ros.detections.selection import (
    Selection,
    class_thresholds,
    parse_classes,
    parse_name_map,
    parse_thresholds,
)
from bevdepth_ros.rig.settings import (
    COMMON_PARAMETERS,
    LIVE,
    START,
    RigSettings,
    check_choice,
    check_frames,
    descriptor,
    parameter,
)


@dataclass(frozen=True)
class Settings(RigSettings):
    """The values of all parameters, checked against each other.

    Raises:
        ValueError: values contradict each other, or a value is not among the choices.
    """

    image_reliability: str = parameter(
        'best_effort',
        'Reliability QoS of the image subscriptions; best_effort receives from every publisher.',
        choices=('best_effort', 'reliable'),
    )
    image_queue_size: int = parameter(
        5, 'Images per camera that DDS queues for the node.', low=1, high=100
    )
    checkpoint: str = parameter(
        '',
        'Weights: a .safetensors file of this project, an official .pth or .ckpt file, or a name '
        'that `ros2 run bevdepth_ros weights list` shows.',
    )
    device: str = parameter(
        'auto',
        'Device of the network: cpu, cuda, cuda:<n> or auto. auto selects cuda if it is '
        'available, otherwise cpu. With the runtime onnx, auto selects cpu.',
    )
    precision: str = parameter(
        'auto',
        'Precision of the network: fp32, fp16, bf16 or auto. auto selects fp16 on a GPU and fp32 '
        'on a CPU. A CPU supports only fp32.',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
    )
    cuda_graphs: bool = parameter(
        True,
        'If true and the device is a GPU, the GPU decodes and resizes images and replays CUDA '
        'graphs. If false, the network runs without CUDA graphs, which takes about ten times as '
        'long.',
    )
    runtime: str = parameter(
        'torch',
        'Runtime of the network: torch, or onnx (ONNX Runtime on the CPU, with onnx_folder).',
        choices=('torch', 'onnx'),
    )
    onnx_folder: str = parameter(
        '', 'Folder that bevdepth_core.export wrote from the checkpoint, for the runtime onnx.'
    )
    cpu_threads: int = parameter(
        0,
        'Number of CPU threads of the network. 0 selects half of the cores, or both cores of a '
        'machine with two cores.',
        low=0,
        high=256,
    )
    past_frame_spacing_s: float = parameter(
        1e-9 * PAST_FRAME_SPACING_NS,
        'Smallest time between two frames that are stored as past frames, seconds. A larger value '
        'saves memory with stereo models and depth refinement, whose past frames are large.',
        low=0.0,
        high=1e-9 * MAX_PAST_FRAME_SPACING_NS,
    )
    camera_timeout_s: float = parameter(
        1.0,
        'A camera that sends no image for this time, in seconds, is reported, and is excluded '
        'until its images arrive again.',
        change=LIVE,
        low=0.1,
        high=60.0,
    )
    camera_startup_s: float = parameter(
        5.0,
        'After activation, how long detection waits for the images, CameraInfo and extrinsics of '
        'all cameras, seconds.',
        low=0.0,
        high=60.0,
    )
    score_threshold: float = parameter(
        0.1,
        'Only detections with a higher score are published. class_score_thresholds takes '
        'precedence.',
        change=LIVE,
        low=0.0,
        high=1.0,
    )
    class_score_thresholds: tuple[str, ...] = parameter(
        [''],
        'Score thresholds of single classes, such as pedestrian=0.2. They replace score_threshold '
        'for these classes. If empty, score_threshold applies to all classes.',
        change=LIVE,
    )
    classes: tuple[str, ...] = parameter(
        [''],
        'Classes of the detector that are published. If empty, all are published.',
        change=LIVE,
    )
    class_name_map: tuple[str, ...] = parameter(
        [''],
        'Published names of classes of the detector, such as car=CAR. If empty, the names of the '
        'detector are published.',
        change=LIVE,
    )
    max_range_m: float = parameter(
        0.0,
        'Only objects with at most this horizontal distance from base_frame are published, '
        'meters. 0 means no limit.',
        change=LIVE,
        low=0.0,
        high=1000.0,
    )
    region_of_interest: str = parameter(
        '',
        'Only objects inside this polygon in base_frame are published, such as '
        f'"{EXAMPLE}", meters. If empty, there is no limit.',
        change=LIVE,
    )
    output_frame: str = parameter(
        '',
        'tf frame of the published objects: base_frame, or a frame that tf links to base_frame, '
        'such as odom or map. If empty, it is base_frame.',
        change=LIVE,
    )
    max_rate_hz: float = parameter(
        0.0,
        'Largest number of published results per second, measured by their stamps. All results '
        'are tracked. 0 means no limit.',
        change=LIVE,
        low=0.0,
        high=100.0,
    )
    publish_tracks: bool = parameter(
        True,
        'If true, the node tracks the detections, publishes ~/tracks, and writes track ids into '
        '~/objects and ~/markers.',
        change=LIVE,
    )
    track_birth_score: float = parameter(
        0.2,
        'Lowest score of a detection that starts a track; detections with a lower score can only '
        'continue tracks.',
        change=LIVE,
        low=0.0,
        high=1.0,
    )
    track_min_hits: int = parameter(
        2,
        'Number of detections after which a track is published. A single detection with a score '
        'of at least 0.5 is also enough.',
        change=LIVE,
        low=1,
        high=100,
    )
    track_coast_s: float = parameter(
        1.0,
        'How long a track without detections is published at its predicted position, seconds.',
        change=LIVE,
        low=0.01,
        high=10.0,
    )
    track_min_age_s: float = parameter(
        0.0,
        'Only tracks whose first detection is at least this long ago are published, seconds.',
        change=LIVE,
        low=0.0,
        high=10.0,
    )
    publish_depth_points: bool = parameter(
        False,
        'If true, the node publishes the predicted depth as a colored point cloud on '
        '~/depth_points.',
        change=LIVE,
    )
    diagnostics_period_s: float = parameter(
        1.0,
        'Period of /diagnostics, seconds. Changed problems are published earlier, within about '
        '0.25 s.',
        change=START,
        low=0.1,
        high=60.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_formats(vars(self))
        check_frames(self.output_frame)

    @property
    def lowest_threshold(self) -> float:
        """Lowest of the score thresholds."""
        class_values = parse_thresholds(self.class_score_thresholds)
        return min([self.score_threshold, *class_values.values()])

    def selection(self, class_names: tuple[str, ...]) -> Selection:
        """Return the filters of the outputs for a detector with these classes.

        Raises:
            ValueError: the detector does not have a class that a parameter names.
        """
        return _selection(self, class_names)

    @property
    def tracker_config(self) -> TrackerConfig:
        """Configuration of the tracker."""
        default = TrackerConfig()
        return TrackerConfig(
            birth_score=self.track_birth_score,
            min_hits=self.track_min_hits,
            coast_s=self.track_coast_s,
            keep_s=max(default.keep_s, self.track_coast_s),
        )

    @property
    def exported_network(self) -> Path | None:
        """Folder of the exported network to run; None for the runtime torch.

        Raises:
            ValueError: the runtime is onnx and onnx_folder is empty.
        """
        if self.runtime != 'onnx':
            return None
        if not self.onnx_folder:
            raise ValueError(
                'runtime is onnx, but onnx_folder is empty: set it to the folder that '
                '`python -m bevdepth_core.export CHECKPOINT --out FOLDER` wrote'
            )
        return Path(self.onnx_folder).expanduser()

    @property
    def checkpoint_path(self) -> Path:
        """Path of the weights.

        Raises:
            ValueError: the parameter is empty.
        """
        if not self.checkpoint:
            raise ValueError(
                'parameter checkpoint is empty: give the path or the name of weights, such as '
                'checkpoint:=/path/to/model.safetensors or checkpoint:=small'
            )
        return Path(self.checkpoint).expanduser()


@functools.lru_cache(maxsize=4)
def _selection(settings: Settings, class_names: tuple[str, ...]) -> Selection:
    class_values = parse_thresholds(settings.class_score_thresholds, class_names)
    published = parse_classes(settings.classes, class_names)
    name_map = parse_name_map(settings.class_name_map, class_names)
    return Selection(
        names=tuple(name_map.get(name, name) for name in class_names),
        thresholds=class_thresholds(
            class_names, settings.score_threshold, class_values, published
        ),
        max_range_m=settings.max_range_m,
        region=parse_region(settings.region_of_interest),
        min_age_s=settings.track_min_age_s,
    )


_PARSERS: dict[str, Callable[[Any], object]] = {
    'class_score_thresholds': parse_thresholds,
    'classes': parse_classes,
    'class_name_map': parse_name_map,
    'region_of_interest': parse_region,
}


def check_formats(values: Mapping[str, Any]) -> None:
    """Raise ValueError if a value has an invalid format; ``values`` maps names of parameters to
    their values.
    """
    for name in values.keys() & _PARSERS.keys():
        _PARSERS[name](values[name])


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def declare(node: Node) -> None:
    """Declare every parameter on ``node``, which must be created with
    ``automatically_declare_parameters_from_overrides``.

    Integers are accepted for floating-point parameters. A parameter with an unknown name is logged
    together with the most similar known name.

    Raises:
        ValueError: a value has the wrong type.
        rclpy.exceptions.InvalidParameterValueException: a value is out of range.
    """
    given = {
        name: parameter.value for name, parameter in node.get_parameters_by_prefix('').items()
    }
    for name, field in FIELDS.items():
        value = _as_declared(name, given.pop(name, field.default))
        if node.has_parameter(name):
            node.undeclare_parameter(name)
        node.declare_parameter(name, value, descriptor(field), ignore_override=True)
    for name in given:
        if not name.startswith(COMMON_PARAMETERS):
            nearest = difflib.get_close_matches(name, FIELDS, 1)
            hint = f' (did you mean {nearest[0]}?)' if nearest else ''
            node.get_logger().warning(f'parameter {name} is unknown and has no effect{hint}')


def _as_declared(name: str, value: Any) -> Any:
    """Return ``value``, converted to the type of the parameter's default.

    Raises:
        ValueError: the value has another type.
    """
    default: Any = FIELDS[name].default
    if isinstance(default, float) and type(value) is int:
        return float(value)
    expected = list if isinstance(default, tuple) else type(default)
    value = list(value) if isinstance(value, tuple) else value
    if type(value) is not expected or (
        expected is list and not all(isinstance(entry, str) for entry in value)
    ):
        kind = 'a list of strings' if expected is list else f'of type {expected.__name__}'
        raise ValueError(f'parameter {name} must be {kind}, got {value!r}')
    return value


def read(node: Node, changed: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of ``node``, with absolute names of topics. The values in ``changed``
    replace the values that the node has for these parameters.

    Raises:
        ValueError: the values contradict each other.
    """
    values = {name: node.get_parameter(name).value for name in FIELDS} | dict(changed or {})
    for name in ('image_topics', 'camera_info_topics'):
        values[name] = [_absolute(node, topic) for topic in values[name]]
    values['odometry_topic'] = _absolute(node, values['odometry_topic'])
    settings = Settings.from_values(values)
    topics = [node.resolve_topic_name(source.image_topic) for source in settings.camera_sources]
    if len(set(topics)) != len(topics):
        raise ValueError(f'after remappings, two cameras have the same image topic: {topics}')
    return settings


def _absolute(node: Node, topic: str) -> str:
    """Return the absolute name of a topic or of a pattern with {camera}. The corresponding
    function of rclpy rejects such a pattern.
    """
    if topic.startswith('~'):
        return f'{node.get_fully_qualified_name()}{topic[1:]}'
    is_relative = topic and not topic.startswith('/')
    return f'{node.get_namespace().rstrip("/")}/{topic}' if is_relative else topic


def check_choices(values: Mapping[str, Any]) -> None:
    """Raise ValueError if a value is not among the choices of its parameter; ``values`` maps names
    of parameters to their values.
    """
    for name, value in values.items():
        check_choice(FIELDS[name], value)


def check_live(names: Iterable[str]) -> None:
    """Raise ValueError if one of ``names`` cannot change while the node is active."""
    fixed = [name for name in names if FIELDS[name].metadata['change'] != LIVE]
    if fixed:
        raise ValueError(
            f'{", ".join(fixed)} cannot change while the node is active: deactivate the node, '
            'set the parameter, activate the node'
        )
