"""Reads the cameras and the lidar of a synthetic vehicle from a YAML file; config/rigs has
examples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bevdepth_core.nuscenes.classes import LIDAR
from bevdepth_core.nuscenes.suggestions import did_you_mean
from bevdepth_core.synthetic.sensors.lens import Lens
from bevdepth_core.synthetic.sensors.rig import CameraMount, LidarMount, SyntheticRig
from bevdepth_core.synthetic.sensors.schedule import TURN_S

SIZE_RANGE = (16, 8192)
"""Allowed width and height of images, pixels."""
POSITION_RANGE = (-20.0, 20.0)
"""Allowed values of each coordinate of a sensor in the ego frame, meters."""
HEIGHT_RANGE = (0.2, 10.0)
"""Allowed height of a sensor above the ground, meters."""
FIELD_OF_VIEW_RANGE = (5.0, 150.0)
"""Allowed horizontal field of view, degrees; a pinhole model with distortion cannot describe wider
lenses."""
DISTORTION_COUNTS = (0, 4, 5, 8)
_NAME = re.compile(r'[A-Za-z]\w*')


class RigFileError(ValueError):
    """A rig file is invalid; the message names the key and the remedy."""


def read_rig(path: str | Path) -> SyntheticRig:
    """Return the rig that a file describes.

    Raises:
        RigFileError: the file cannot be read, or a key is missing, unknown or has an invalid
            value.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise RigFileError(f'{path} cannot be read: {error}') from error
    section = _Section(str(path), '', content, ('image_size', 'cameras', 'lidar'))
    width, height = section.numbers('image_size', 2, SIZE_RANGE)
    if (width, height) != (round(width), round(height)):
        raise section.error('image_size', 'must be two whole numbers, width and height in pixels')
    size = (round(width), round(height))
    cameras = section.value('cameras')
    if not isinstance(cameras, dict) or not cameras:
        raise section.error('cameras', 'must have a section for at least one camera')
    mounts = {name: _camera(section, name, values, size) for name, values in cameras.items()}
    return SyntheticRig(size, mounts, _lidar(section))


@dataclass(frozen=True)
class _Section:
    """The values of one section of the file, and messages about them."""

    path: str
    name: str
    values: Any
    keys: Sequence[str]

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            raise self.error('', f'must contain "key: value" lines; keys: {", ".join(self.keys)}')
        for key in self.values:
            if key not in self.keys:
                near = did_you_mean(str(key), self.keys)
                keys = ', '.join(self.keys)
                raise self.error(str(key), f'is unknown{near}; the keys are {keys}')

    def error(self, key: str, fault: str) -> RigFileError:
        full = '.'.join(part for part in (self.name, key) if part)
        return RigFileError(f'{self.path}: {full or "the file"} {fault}')

    def value(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(key, 'is missing: add it')
        return self.values[key]

    def numbers(self, key: str, count: int, limits: tuple[float, float]) -> tuple[float, ...]:
        values = self.value(key)
        if not isinstance(values, list) or len(values) != count:
            raise self.error(key, f'must be a list of {count} numbers, but is {values!r}')
        return tuple(self._checked(key, value, limits, 'has') for value in values)

    def number(self, key: str, limits: tuple[float, float]) -> float:
        return self._checked(key, self.value(key), limits, 'is')

    def _checked(self, key: str, value: object, limits: tuple[float, float], verb: str) -> float:
        lowest, highest = limits
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not lowest <= value <= highest
        ):
            raise self.error(
                key, f'must be between {lowest:g} and {highest:g}, but {verb} {value!r}'
            )
        return float(value)


def _mount(section: _Section) -> tuple[tuple, tuple]:
    position = section.numbers('position', 3, POSITION_RANGE)
    lowest, highest = HEIGHT_RANGE
    if not lowest <= position[2] <= highest:
        raise section.error(
            'position',
            f'must have a height (its third number) between {lowest:g} and {highest:g} m, '
            f'but has {position[2]:g}',
        )
    return position, section.numbers('angles', 3, (-360.0, 360.0))


def _camera(
    document: _Section, name: object, values: Mapping, size: tuple[int, int]
) -> CameraMount:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == LIDAR:
        raise document.error(
            f'cameras.{name}',
            f'is not a valid camera name: begin with a letter, then use letters, digits and _; '
            f'{LIDAR} is reserved',
        )
    keys = (
        'position', 'angles', 'field_of_view', 'focal', 'center', 'offset_s', 'distortion',
    )  # fmt: skip
    section = _Section(document.path, f'cameras.{name}', values, keys)
    position, angles = _mount(section)
    middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
    has_center, has_offset = (key in section.values for key in ('center', 'offset_s'))
    camera = CameraMount(
        position,
        angles,
        _focal(section, size[0]),
        section.numbers('center', 2, (0, max(size))) if has_center else middle,  # type: ignore[arg-type]
        section.number('offset_s', (0.0, TURN_S * 0.9)) if has_offset else 0.0,
        _distortion(section),
    )
    _require_invertible(section, camera, size)
    return camera


def _focal(section: _Section, width: int) -> float:
    if ('focal' in section.values) == ('field_of_view' in section.values):
        raise section.error(
            'field_of_view',
            'or focal must be given, but not both: the horizontal field of view of the '
            'undistorted image in degrees, or the focal length in pixels',
        )
    narrow, wide = (
        width / 2 / math.tan(math.radians(degrees) / 2) for degrees in FIELD_OF_VIEW_RANGE
    )
    if 'focal' in section.values:
        return section.number('focal', (wide, narrow))
    degrees = section.number('field_of_view', FIELD_OF_VIEW_RANGE)
    return width / 2 / math.tan(math.radians(degrees) / 2)


def _distortion(section: _Section) -> tuple[float, ...]:
    values = section.values.get('distortion', [])
    if not isinstance(values, list) or len(values) not in DISTORTION_COUNTS:
        *counts, last = map(str, DISTORTION_COUNTS[1:])
        raise section.error(
            'distortion',
            f'must be a list of {", ".join(counts)} or {last} coefficients (OpenCV), '
            f'but is {values!r}',
        )
    return section.numbers('distortion', len(values), (-100.0, 100.0)) if values else ()


def _require_invertible(section: _Section, camera: CameraMount, size: tuple[int, int]) -> None:
    x, y = camera.center
    matrix = np.array(((camera.focal, 0, x), (0, camera.focal, y), (0, 0, 1)))
    if any(camera.distortion):
        try:
            Lens(matrix, *size, camera.distortion).require_invertible()
        except ValueError as error:
            raise section.error('distortion', f'is invalid: {error}') from error


def _lidar(document: _Section) -> LidarMount:
    section = _Section(
        document.path,
        'lidar',
        document.value('lidar'),
        ('position', 'angles', 'beams'),
    )
    beams = section.number('beams', (2, 256)) if 'beams' in section.values else 32
    if beams != round(beams):
        raise section.error('beams', 'must be a whole number')
    return LidarMount(*_mount(section), round(beams))
