"""Finds weights by name: the bundled weights, and official weights in the cache of the user.

This package only finds files; ``bevdepth_core.downloads`` downloads them.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

BUNDLED = Path(__file__).parent
"""Folder of the bundled weights."""
SUFFIX = '.safetensors'
SUFFIXES = (SUFFIX, '.pth', '.ckpt')
COMMAND = 'ros2 run bevdepth_ros weights download'


class WeightsError(ValueError):
    """There are no weights with this name or path; the message contains the remedy."""


RELEASE = 'v0.0.2'
"""Release of the weights in the repositories of BEVDepth and of BEVStereo."""


@dataclass(frozen=True)
class OfficialWeights:
    """A checkpoint that the authors of BEVDepth or BEVStereo published.

    Attributes:
        name: short name, such as ``2key_da_ema``.
        file: name of the file in the release.
        description: properties in which this checkpoint differs from the other checkpoints.
        repository: the GitHub repository of the release.
    """

    name: str
    file: str
    description: str
    repository: str = 'Megvii-BaseDetection/BEVDepth'

    @property
    def release(self) -> str:
        """URL of the release that contains the file."""
        return f'https://github.com/{self.repository}/releases/download/{RELEASE}'

    @property
    def origin(self) -> str:
        """Repository, release and file as text."""
        return f'{self.repository}, release {RELEASE}, {self.file}'


_STEREO = 'Megvii-BaseDetection/BEVStereo'
OFFICIAL = {
    weights.name: weights
    for weights in (
        OfficialWeights(
            '2key',
            'bev_depth_lss_r50_256x704_128x128_24e_2key.pth',
            'two key frames, 24 epochs',
        ),
        OfficialWeights(
            '2key_ema',
            'bev_depth_lss_r50_256x704_128x128_24e_2key_ema.pth',
            'two key frames, 24 epochs, averaged weights',
        ),
        OfficialWeights(
            '2key_da',
            'bev_depth_lss_r50_256x704_128x128_20e_cbgs_2key_da.pth',
            'two key frames, depth aggregation, 20 epochs, class-balanced',
        ),
        OfficialWeights(
            '2key_da_ema',
            'bev_depth_lss_r50_256x704_128x128_20e_cbgs_2key_da_ema.pth',
            'two key frames, depth aggregation, 20 epochs, class-balanced, averaged weights',
        ),
        OfficialWeights(
            'stereo_2key',
            'bev_stereo_lss_r50_256x704_128x128_24e_2key.pth',
            'BEVStereo, two key frames, 24 epochs',
            _STEREO,
        ),
        OfficialWeights(
            'stereo_2key_ema',
            'bev_stereo_lss_r50_256x704_128x128_24e_2key_ema.pth',
            'BEVStereo, two key frames, 24 epochs, averaged weights',
            _STEREO,
        ),
        OfficialWeights(
            'stereo_2key_da',
            'bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da.pth',
            'BEVStereo, two key frames, depth aggregation, 20 epochs, class-balanced',
            _STEREO,
        ),
        OfficialWeights(
            'stereo_2key_da_ema',
            'bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da_ema.pth',
            'BEVStereo, two key frames, depth aggregation, 20 epochs, class-balanced, averaged '
            'weights',
            _STEREO,
        ),
    )
}
"""Official weights by short name. All their networks have a ResNet-50 and process images of
256x704 pixels."""


def cache_folder() -> Path:
    """Return the folder of downloaded weights, below ``XDG_CACHE_HOME`` (default ~/.cache)."""
    requested = Path(os.environ.get('XDG_CACHE_HOME', ''))
    base = requested if requested.is_absolute() else Path.home() / '.cache'
    return base / 'bevdepth' / 'weights'


def bundled_names() -> list[str]:
    """Return the names of the bundled weights."""
    return sorted(path.stem for path in BUNDLED.glob(f'*{SUFFIX}'))


def locate(path: str | Path) -> Path:
    """Return the path of a file of weights.

    Args:
        path: path of the file, or name of bundled or official weights. A ``path`` without folder
            and suffix is a name, unless a file with this path exists.

    Raises:
        WeightsError: there is no such file or name, or the weights have not been downloaded.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.suffix or path.name != str(path):
        raise WeightsError(f'{path}: no such checkpoint file{_similar_file(path)}')
    return _named(path.name)


def _similar_file(path: Path) -> str:
    """Return the last part of the message about a missing file, which suggests a remedy."""
    if not path.parent.is_dir():
        return f'; the folder {path.parent} does not exist'
    files = [entry for entry in path.parent.iterdir() if entry.suffix in SUFFIXES]
    stems = {entry.stem: entry for entry in files if entry.is_file()}
    nearest = difflib.get_close_matches(path.stem, stems, 1)
    if nearest:
        return f' (did you mean {stems[nearest[0]]}?)'
    return f'; give the path of a file, or one of {", ".join([*bundled_names(), *OFFICIAL])}'


def _named(name: str) -> Path:
    for folder in (BUNDLED, cache_folder()):
        file = folder / f'{name}{SUFFIX}'
        if file.is_file():
            return file
    if name in OFFICIAL:
        raise WeightsError(f'{name}: these weights are not downloaded; run `{COMMAND} {name}`')
    names = [*bundled_names(), *OFFICIAL]
    nearest = difflib.get_close_matches(name, names, 1)
    hint = f' (did you mean {nearest[0]}?)' if nearest else f'; known names: {", ".join(names)}'
    raise WeightsError(f'{name}: neither a checkpoint file nor a name of weights{hint}')
