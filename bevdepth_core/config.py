"""Defines the configuration of a model. The defaults are the values of the paper, and
``config/models`` contains one YAML file per preset.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

NUSCENES_CLASSES = (
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
    'pedestrian', 'traffic_cone',
)  # fmt: skip
"""Class names in the order of the official labels."""


# Limits that reject damaged or malicious configs, which would need all memory. Each limit is at
# least ten times the value of any trained model.
MAX_IMAGE_PIXELS = 1 << 24
MAX_FRUSTUM_POINTS = 1 << 24
MAX_CELLS = 1 << 22
MAX_CHANNELS = 1 << 14
MAX_CLASSES = 1000
MAX_CANDIDATES = 100_000
MAX_STEREO_ITERATIONS = 100

IMAGE_MULTIPLE = 32
"""Stride of the ResNet's last stage. Height and width of the network input must be multiples of
this number."""
BEV_STRIDE = 8
"""Stride of the BEV encoder's last stage along x and along y, in cells of the grid."""
STEREO_ENCODER_STRIDE = 16
"""Stride of the image encoder in stereo models. Stereo models convert maps between this stride and
stride 4 with two layers of stride 2."""
CENTER_MARGIN = 10.0
"""How far the center of a box may lie outside the grid by default, in meters; see
``ModelConfig.center_range``."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_finite(name: str, *values: float) -> None:
    _require(all(map(math.isfinite, values)), f'{name} must contain finite numbers, got {values}')


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


def _nearest_multiples(value: int) -> str:
    """Return the valid image sizes below and above ``value`` as text."""
    below = value // IMAGE_MULTIPLE * IMAGE_MULTIPLE
    near = [size for size in (below, below + IMAGE_MULTIPLE) if size > 0]
    return (
        f'the nearest valid sizes are {" and ".join(map(str, near))}' if near else 'use 32 or more'
    )


def _require_channels(section: str, **channels: int) -> None:
    for name, value in channels.items():
        _require(
            0 < value <= MAX_CHANNELS, f'{section}.{name} must be 1 to {MAX_CHANNELS}, got {value}'
        )


@dataclass(frozen=True)
class ImageSpec:
    """Network input image.

    Attributes:
        height: pixels, a multiple of 32, the stride of the ResNet's last stage.
        width: pixels, a multiple of 32, the stride of the ResNet's last stage.
        mean: value that is subtracted from each channel. The official code applies statistics in
            R G B order to channels in B G R order. The defaults do the same, because the official
            weights were trained with this mix.
        std: value that divides each channel, in the order of ``mean``.
    """

    height: int = 256
    width: int = 704
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        for name in ('height', 'width'):
            value = getattr(self, name)
            _require(
                value > 0 and value % IMAGE_MULTIPLE == 0,
                f'image.{name} must be a positive multiple of {IMAGE_MULTIPLE}, got {value}; '
                f'{_nearest_multiples(value)}',
            )
        _require(
            self.height * self.width <= MAX_IMAGE_PIXELS,
            f'image must have at most {MAX_IMAGE_PIXELS} pixels, got {self}',
        )
        _require_finite('image.mean', *self.mean)
        _require_finite('image.std', *self.std)
        _require(min(self.std) > 0, f'image.std must be positive, got {self.std}')


@dataclass(frozen=True)
class DepthBins:
    """Depth hypotheses: ``count`` bins of ``step`` meters from ``start`` to ``stop`` (meters).
    Frustum points lie on the lower edges of the bins.
    """

    start: float = 2.0
    stop: float = 58.0
    step: float = 0.5

    def __post_init__(self) -> None:
        _require_finite('depth_bins', self.start, self.stop, self.step)
        _require(
            (self.stop - self.start) / MAX_FRUSTUM_POINTS < self.step,
            f'depth_bins has too many bins: {self}; raise step or lower stop',
        )
        _require(
            0 < self.start < self.stop and self.step > 0,
            f'depth_bins must have 0 < start < stop and step > 0, got {self}',
        )

    @property
    def count(self) -> int:
        return math.ceil((self.stop - self.start) / self.step - 1e-9)


@dataclass(frozen=True)
class BEVGrid:
    """Bird's-eye-view grid in the ego frame; each axis is (lower bound, upper bound, cell size) in
    meters.
    """

    x: tuple[float, float, float] = (-51.2, 51.2, 0.8)
    y: tuple[float, float, float] = (-51.2, 51.2, 0.8)
    z: tuple[float, float, float] = (-5.0, 3.0, 8.0)

    def __post_init__(self) -> None:
        for name in ('x', 'y', 'z'):
            low, high, cell = getattr(self, name)
            _require_finite(f'grid.{name}', low, high, cell)
            _require(
                low < high and cell > 0,
                f'grid.{name} must be (low, high, cell) with low < high and cell > 0, got '
                f'{getattr(self, name)}',
            )
        _require(
            all((high - low) / MAX_CELLS < cell for low, high, cell in (self.x, self.y, self.z)),
            f'grid has too many cells: {self}; use larger cells or smaller bounds',
        )
        _require(
            min(self.shape) > 0 and math.prod(self.shape) <= MAX_CELLS,
            f'grid must have 1 to {MAX_CELLS} cells, got {self.shape}',
        )
        _require(self.shape[2] == 1, f'grid.z must be a single cell, got {self.shape[2]}')
        for name, count in zip('xyz', self.shape, strict=True):
            low, high, cell = getattr(self, name)
            _require(
                abs(low + count * cell - high) <= 1e-3 * cell,
                f'grid.{name} must contain a whole number of cells, got {(high - low) / cell:.6g} '
                f'from {getattr(self, name)}',
            )

    @property
    def lower(self) -> tuple[float, float, float]:
        return (self.x[0], self.y[0], self.z[0])

    @property
    def cell(self) -> tuple[float, float, float]:
        return (self.x[2], self.y[2], self.z[2])

    @property
    def upper(self) -> tuple[float, float, float]:
        return (self.x[1], self.y[1], self.z[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells along x, y, z."""
        nx, ny, nz = (round((high - low) / cell) for low, high, cell in (self.x, self.y, self.z))
        return nx, ny, nz


@dataclass(frozen=True)
class ImageEncoderConfig:
    """ResNet and the neck that joins its four stages at one stride.

    Attributes:
        depth: ResNet depth, 18, 34, 50 or 101.
        neck_channels: channels per branch; the neck returns four times as many.
        width: channels of the stem. The standard ResNet has 64, and its pretrained weights need
            this number.
        stride: input pixels per feature pixel, 4, 8 or 16; official networks have 16.
    """

    depth: int = 50
    neck_channels: int = 128
    width: int = 64
    stride: int = 16

    def __post_init__(self) -> None:
        _require(
            self.depth in (18, 34, 50, 101),
            f'image_encoder.depth must be 18, 34, 50 or 101, got {self.depth}',
        )
        _require_channels('image_encoder', width=self.width, neck_channels=self.neck_channels)
        _require(
            self.stride in (4, 8, 16),
            f'image_encoder.stride must be 4, 8 or 16, got {self.stride}',
        )

    @property
    def first_stage_channels(self) -> int:
        """Channels of the ResNet's first stage, at stride 4."""
        return self.width * (4 if self.depth >= 50 else 1)


@dataclass(frozen=True)
class DepthNetConfig:
    """Camera-aware depth and context network.

    Attributes:
        mid_channels: number of channels of the features inside this network.
        context_channels: number of channels of the context vector; the BEV map of one frame has
            the same number.
        refinement: refine the lifted volume with convolutions over its (width, depth) planes
            ("depth aggregation", ``use_da`` in the official code).
        camera_pixels: the pixels that the intrinsics in the camera vector refer to. ``source``:
            pixels of the source image; the camera vector contains the image augmentation as
            separate numbers, as in the official code. ``network``: pixels of the network input;
            the intrinsics include the image augmentation, so the size of the source images has
            no effect.
    """

    mid_channels: int = 512
    context_channels: int = 80
    refinement: bool = False
    camera_pixels: Literal['source', 'network'] = 'source'

    def __post_init__(self) -> None:
        _require_channels(
            'depth_net', mid_channels=self.mid_channels, context_channels=self.context_channels
        )


@dataclass(frozen=True)
class StereoConfig:
    """Depth estimation that compares two frames. The defaults are the values of BEVStereo (arXiv
    2209.10248) and of every official experiment.

    The depth is divided into consecutive ranges. Each pixel at stride 4 has one depth hypothesis
    per range: a mean, a spread and a score.

    Attributes:
        range_bounds: bounds of consecutive ranges, meters, from the start of the depth bins to
            their stop.
        iterations: number of refinements of each hypothesis.
        groups: number of groups of feature channels. For each group, the products of its channels
            are averaged into one channel of the cost volume.
        clamp_mean: limit the refined mean to its range. The released weights were trained with
            this limit, so official files are loaded with True. The later official code (commit
            d78c7b5) has no limit.
    """

    range_bounds: tuple[float, ...] = (2.0, 8.0, 16.0, 28.0, 58.0)
    iterations: int = 3
    groups: int = 8
    clamp_mean: bool = False

    def __post_init__(self) -> None:
        _require_finite('stereo.range_bounds', *self.range_bounds)
        _require(
            len(self.range_bounds) >= 2
            and all(low < high for low, high in itertools.pairwise(self.range_bounds)),
            f'stereo.range_bounds must contain two or more ascending depths, got '
            f'{self.range_bounds}',
        )
        _require(
            0 < self.iterations <= MAX_STEREO_ITERATIONS,
            f'stereo.iterations must be 1 to {MAX_STEREO_ITERATIONS}, got {self.iterations}',
        )
        _require_channels('stereo', groups=self.groups)


@dataclass(frozen=True)
class BEVEncoderConfig:
    """Residual trunk and neck on the BEV grid.

    Attributes:
        base_channels: channels of the first of three stages; each later stage has twice as many
            as the stage before.
        neck_channels: channels per neck branch; the neck returns four times as many.
    """

    base_channels: int = 160
    neck_channels: int = 64

    def __post_init__(self) -> None:
        _require_channels(
            'bev_encoder', base_channels=self.base_channels, neck_channels=self.neck_channels
        )


@dataclass(frozen=True)
class HeadTask:
    """Classes that share one set of head maps and one NMS.

    Attributes:
        classes: class names. The label of a class is its index in the classes of all tasks,
            concatenated in order of the tasks.
        nms_distance_squared: a box is dropped if the squared distance of its center to the center
            of a box with a better score is at most this value, in square meters. The official code
            compares its thresholds with squared distances, although their values look like radii.
    """

    classes: tuple[str, ...]
    nms_distance_squared: float


def _official_tasks() -> tuple[HeadTask, ...]:
    return (
        HeadTask(('car',), 4.0),
        HeadTask(('truck', 'construction_vehicle'), 12.0),
        HeadTask(('bus', 'trailer'), 10.0),
        HeadTask(('barrier',), 1.0),
        HeadTask(('motorcycle', 'bicycle'), 0.85),
        HeadTask(('pedestrian', 'traffic_cone'), 0.175),
    )


@dataclass(frozen=True)
class HeadConfig:
    """Center head.

    Attributes:
        channels: channels of the shared convolution and of the small network of each map.
        tasks: groups of classes; each group has separate head maps.
    """

    channels: int = 64
    tasks: tuple[HeadTask, ...] = field(default_factory=_official_tasks)

    def __post_init__(self) -> None:
        _require_channels('head', channels=self.channels)
        names = [name for task in self.tasks for name in task.classes]
        _require(
            0 < len(names) <= MAX_CLASSES and all(task.classes for task in self.tasks),
            f'head.tasks must contain 1 to {MAX_CLASSES} classes',
        )
        twice = sorted({name for name in names if names.count(name) > 1})
        _require(
            not twice,
            f'head.tasks must contain each class once, but repeats {twice}',
        )
        for task in self.tasks:
            _require_finite('head.tasks.nms_distance_squared', task.nms_distance_squared)


@dataclass(frozen=True)
class ScaleNMSConfig:
    """Drops a box if its scaled footprint overlaps too much with the scaled footprint of another
    box. Only boxes of the same task with a better score can cause this.

    Attributes:
        factors: scale of length and width per class, in the order of the class names. The
            defaults are the values of BEVDet for the ten classes of nuScenes.
        max_overlap: largest intersection over union that two scaled footprints may have.
    """

    factors: tuple[float, ...] = (1.0, 0.7, 0.7, 0.4, 0.55, 1.1, 1.0, 1.0, 4.5, 9.0)
    max_overlap: float = 0.2

    def __post_init__(self) -> None:
        _require_finite('decode.scale_nms.factors', *self.factors)
        _require(
            all(factor > 0 for factor in self.factors),
            f'decode.scale_nms.factors must be positive, got {self.factors}',
        )
        _require(
            0 <= self.max_overlap <= 1,
            f'decode.scale_nms.max_overlap must lie in 0 to 1, got {self.max_overlap}',
        )


@dataclass(frozen=True)
class SizeAwareNMSConfig:
    """Drops a box if its scaled rectangle touches the scaled rectangle of another box. Only boxes
    of the same task with a better score can cause this. The rectangle of a box encloses its
    footprint, and the sides of the rectangle are parallel to the x and y axes.

    Attributes:
        factors: scale of the rectangles, one number per task. The defaults are the values of the
            official BEVStereo experiments.
    """

    factors: tuple[float, ...] = (0.6, 0.4, 0.4, 0.7, 0.8, 0.9)

    def __post_init__(self) -> None:
        _require_finite('decode.size_aware_nms.factors', *self.factors)
        _require(
            all(factor > 0 for factor in self.factors),
            f'decode.size_aware_nms.factors must be positive, got {self.factors}',
        )


@dataclass(frozen=True)
class DecodeConfig:
    """How boxes are decoded from head maps.

    Attributes:
        score_threshold: boxes must score more than this.
        candidates: largest number of boxes of a task before NMS. They are decoded at the highest
            values of the heatmap. The compiled kernels accept at most 5,461, or 2,891 with
            size-aware NMS.
        boxes_per_task: largest number of boxes of a task after NMS.
        center_range: lower bounds x, y, z, then upper bounds of box centers, meters, inclusive;
            null for the default of ``ModelConfig.center_range``.
        scale_nms: a second suppression after circle NMS; null for none, as in the official code.
        size_aware_nms: size-aware NMS, as in the official BEVStereo experiments; null for circle
            NMS.
    """

    score_threshold: float = 0.1
    candidates: int = 500
    boxes_per_task: int = 83
    center_range: tuple[float, float, float, float, float, float] | None = None
    scale_nms: ScaleNMSConfig | None = None
    size_aware_nms: SizeAwareNMSConfig | None = None

    def __post_init__(self) -> None:
        for name in ('candidates', 'boxes_per_task'):
            value = getattr(self, name)
            _require(
                0 < value <= MAX_CANDIDATES,
                f'decode.{name} must be 1 to {MAX_CANDIDATES}, got {value}',
            )
        _require_finite('decode.score_threshold', self.score_threshold)
        _require_finite('decode.center_range', *(self.center_range or ()))


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of a BEVDepth model, or of a BEVStereo model if ``stereo`` is set. The
    defaults describe a ResNet-50, images of 256x704 pixels and two key frames.
    """

    image: ImageSpec = field(default_factory=ImageSpec)
    depth_bins: DepthBins = field(default_factory=DepthBins)
    grid: BEVGrid = field(default_factory=BEVGrid)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    depth_net: DepthNetConfig = field(default_factory=DepthNetConfig)
    bev_encoder: BEVEncoderConfig = field(default_factory=BEVEncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    key_frames: int = 2
    stereo: StereoConfig | None = None

    def __post_init__(self) -> None:
        _require(self.key_frames in (1, 2), f'key_frames must be 1 or 2, got {self.key_frames}')
        points = (
            self.depth_bins.count
            * self.image.height
            * self.image.width
            // self.image_encoder.stride**2
        )
        _require(
            points <= MAX_FRUSTUM_POINTS,
            f'depth bins and image give {points} points per camera, more than '
            f'{MAX_FRUSTUM_POINTS}: use fewer depth bins or a smaller image',
        )
        for name, count in zip('xy', self.grid.shape, strict=False):
            _require(
                count % BEV_STRIDE == 0,
                f'grid.{name} must contain a multiple of {BEV_STRIDE} cells for the BEV encoder, '
                f'got {count}: change its bounds or its cell size',
            )
        self._require_consistent_decoding()
        if self.stereo is not None:
            self._require_consistent_stereo(self.stereo)

    def _require_consistent_stereo(self, stereo: StereoConfig) -> None:
        _require(self.key_frames == 2, f'stereo needs key_frames 2, got {self.key_frames}')
        _require(
            self.image_encoder.stride == STEREO_ENCODER_STRIDE,
            f'stereo needs image_encoder.stride {STEREO_ENCODER_STRIDE}, got '
            f'{self.image_encoder.stride}',
        )
        bounds, bins = stereo.range_bounds, self.depth_bins
        _require(
            (bounds[0], bounds[-1]) == (bins.start, bins.stop)
            and all(_is_whole((bound - bins.start) / bins.step) for bound in bounds),
            f'stereo.range_bounds must lie on depth bins and reach from {bins.start:g} to '
            f'{bins.stop:g} m, got {bounds}',
        )
        channels = self.image_encoder.first_stage_channels
        _require(
            channels % stereo.groups == 0,
            f'stereo.groups must divide the {channels} channels of the first image stage, got '
            f'{stereo.groups}',
        )

    def _require_consistent_decoding(self) -> None:
        if self.decode.center_range == self._default_center_range():
            # Older files store the default as numbers.
            object.__setattr__(self, 'decode', dataclasses.replace(self.decode, center_range=None))
        lower, upper = self.center_range[:3], self.center_range[3:]
        for axis, name in enumerate('xyz'):
            low, high = self.grid.lower[axis], self.grid.upper[axis]
            _require(
                lower[axis] <= low and high <= upper[axis],
                f'decode.center_range drops boxes inside the grid: the range allows {name} from '
                f'{lower[axis]:g} to {upper[axis]:g} m, the grid reaches from {low:g} to {high:g} '
                'm; set decode.center_range to null, then the range follows the grid',
            )
        scale_nms = self.decode.scale_nms
        _require(
            scale_nms is None or len(scale_nms.factors) == len(self.class_names),
            'decode.scale_nms.factors must contain one number for each of the '
            f'{len(self.class_names)} classes {", ".join(self.class_names)}',
        )
        size_aware_nms = self.decode.size_aware_nms
        _require(
            size_aware_nms is None or len(size_aware_nms.factors) == len(self.head.tasks),
            'decode.size_aware_nms.factors must contain one number for each of the '
            f'{len(self.head.tasks)} tasks',
        )

    @property
    def center_range(self) -> tuple[float, float, float, float, float, float]:
        """Bounds of box centers in meters: lower x, y, z, then upper x, y, z. If ``decode`` does
        not set them, x and y may exceed the grid by ``CENTER_MARGIN``. The default bounds of z
        cover the grid and at least ``CENTER_MARGIN`` above and below the ground (z = 0).
        """
        return self.decode.center_range or self._default_center_range()

    def _default_center_range(self) -> tuple[float, float, float, float, float, float]:
        (x, y, z), (far_x, far_y, far_z) = self.grid.lower, self.grid.upper
        margin = CENTER_MARGIN
        return (
            x - margin,
            y - margin,
            min(-margin, z),
            far_x + margin,
            far_y + margin,
            max(margin, far_z),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(name for task in self.head.tasks for name in task.classes)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument('--model', type=ModelConfig, default=ModelConfig())
    return parser


def model_config_from_dict(values: dict) -> ModelConfig:
    """Return the config that ``values`` describes; missing keys get the defaults.

    Raises:
        ValueError: a key is unknown, or a value has a wrong type or is invalid; the message names
            the key.
    """
    if not isinstance(values, dict):
        raise ValueError(f'a model config must be a mapping, got {type(values).__name__}')
    parser = _parser()
    keys = {field.name for field in dataclasses.fields(ModelConfig)}
    _require(
        values.keys() <= keys,
        f'model config: unknown key {", ".join(sorted(map(str, values.keys() - keys)))}',
    )
    try:
        return parser.instantiate(parser.parse_object({'model': values})).model
    except (
        ArgumentError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        RecursionError,
    ) as error:
        raise ValueError(f'model config: {error}') from error


def model_config_to_dict(config: ModelConfig) -> dict:
    """Return all values of ``config`` as plain lists, dicts and numbers."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def load_model_config(path: str | Path) -> ModelConfig:
    """Read a model preset.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a YAML mapping, or ``model_config_from_dict`` rejects it.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(f'{path}: not YAML ({error})') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path}: a model config must be a YAML mapping')
    return model_config_from_dict(values)


def save_model_config(config: ModelConfig, path: str | Path) -> None:
    """Write all values of ``config`` to a YAML file."""
    Path(path).write_text(
        yaml.safe_dump(
            model_config_to_dict(config), sort_keys=False, default_flow_style=None, width=120
        )
    )
