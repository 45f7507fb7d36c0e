"""Reads the recorded numbers of the official code, and computes the deterministic weights with
which the official code computed these numbers.

tests/data contains the numbers that were computed without images of nuScenes. All other numbers
are in the reference folder; only tests/golden, tests/gpu and tests/benchmarks need this folder.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path

import numpy as np
import torch

from bevdepth_core.config import load_model_config
from bevdepth_core.model import BEVDepth
from bevdepth_core.official_layout import FRUSTUM_AXES, to_official_name

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / 'tests' / 'data'
PRESETS = {
    '1key': 'r50_256x704_1key',
    '2key': 'r50_256x704_2key',
    '2key_da': 'r50_256x704_2key_da',
    'stereo_2key': 'stereo_r50_256x704_2key',
    'stereo_2key_da': 'stereo_r50_256x704_2key_da',
    'stereo_key4': 'stereo_r50_256x704_key4',
}

_TRANSPOSED = re.compile(
    r'backbone\.img_neck\.deblocks\.[23]\.0\.weight|head\.neck\.deblocks\.\d\.0\.weight'
    r'|mu_sigma_range_net\.[14]\.weight'
)
_LAST_NORM = re.compile(
    r'img_backbone\.layer\d\.\d+\.bn3|trunk\.layer\d\.\d+\.bn2|depth_conv\.[012]\.bn2'
    r'|depth_feat_conv\.[01]\.bn2|mu_sigma_range_net\.0\.bn2|mono_depth_net\.0\.bn2'
    r'|mask_net\.[34]\.bn2'
)
_CAMERA_MEAN = np.array(
    [1250, 1250, 800, 475, 0.45, 0, 0, 0, 0.45, -140, 1, 0, 0, 1, 1] + [0] * 12
)
_CAMERA_VARIANCE = np.array([4e4, 4e4, 1e3, 1e3, 0.1, 0.1, 1e4, 0.1, 0.1, 1e4] + [1] * 17)
_EXCEPTIONS = (
    (
        r'backbone\.depth_net\.bn\.running_mean',
        lambda u, v: _CAMERA_MEAN + 0.1 * u * np.sqrt(_CAMERA_VARIANCE),
    ),
    (r'backbone\.depth_net\.bn\.running_var', lambda u, v: _CAMERA_VARIANCE * (1 + 0.5 * u)),
    (r'depth_conv\.5\.weight$', lambda u, v: 0.3 * v),
    (r'context_conv\.weight$', lambda u, v: 0.25 * v),
    (r'conv_offset\.weight$', lambda u, v: 0.25 * v),
    (r'conv_offset\.bias$', lambda u, v: 0.5 * u),
    (r'depth_aggregation_net\.reduce_conv\.1\.running_mean$', lambda u, v: 0.01 * u),
    (r'depth_aggregation_net\.reduce_conv\.1\.running_var$', lambda u, v: 0.0025 * (1 + 0.5 * u)),
    (r'depth_aggregation_net\.out_conv\.0\.weight$', lambda u, v: 0.02 * v),
    (r'depth_aggregation_net\.out_conv\.0\.bias$', lambda u, v: 0.01 * u),
    (r'trunk\.conv1\.weight$', lambda u, v: 0.5 * v),
    (r'task_heads\.\d\.(reg|height|rot|vel)\.1\.weight$', lambda u, v: 0.4 * v),
    (r'task_heads\.\d\.dim\.1\.weight$', lambda u, v: 0.2 * v),
    (r'task_heads\.\d\.heatmap\.1\.weight$', lambda u, v: 0.5 * v),
    (r'task_heads\.\d\.heatmap\.1\.bias$', lambda u, v: -3.5 + 0.1 * u),
    (r'task_heads\.\d\.dim\.1\.bias$', lambda u, v: 0.5 + 0.1 * u),
)
_STEREO_EXCEPTIONS = (
    *(entry for entry in _EXCEPTIONS if 'context_conv' not in entry[0]),
    (r'context_conv\.weight$', lambda u, v: 0.5 * v),
    (r'mono_depth_net\.1\.weight$', lambda u, v: 0.6 * v),
    (r'mu_sigma_range_net\.7\.weight$', lambda u, v: 0.12 * v),
    (r'similarity_net\.2\.weight$', lambda u, v: 2 * v),
    (r'depth_downsample_net\.0\.weight$', lambda u, v: 12 * v),
    (r'depth_downsample_net\.6\.weight$', lambda u, v: 2 * v),
    (r'mask_net\.5\.bias$', lambda u, v: 1 + 0.1 * u),
)
_CONSTRUCTED = (*FRUSTUM_AXES, 'stereo.candidate_factors', 'stereo.bin_numbers')
"""Buffers whose values follow from the config. ``fill`` does not change them."""


def reference_path(name: str) -> Path:
    """Return the path of a file in the reference folder. ``$BEVDEPTH_REFERENCE`` names this
    folder; by default, it is ``../shared/reference`` relative to the repository.

    Raises:
        FileNotFoundError: the folder or file does not exist.
    """
    folder = Path(os.environ.get('BEVDEPTH_REFERENCE', ROOT.parent / 'shared' / 'reference'))
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(
            f'{path} does not exist: give the reference folder with `make golden REFERENCE=DIR`'
        )
    return path


def golden(case: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a case, from tests/data or from the reference folder."""
    if (DATA / f'{case}.npz').exists():
        return _read_case(DATA, case)
    return reference_golden(case)


def stereo_golden(case: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a BEVStereo case from the reference folder."""
    return _read_case(reference_path('stereo/golden'), case)


def reference_golden(case: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a case from the reference folder."""
    return _read_case(reference_path('golden'), case)


def _read_case(folder: Path, case: str) -> tuple[dict, dict[str, np.ndarray]]:
    return json.loads((folder / f'{case}.json').read_text()), dict(np.load(folder / f'{case}.npz'))


def float32_steps(size: float, steps: int = 8) -> float:
    """Return ``steps`` times the distance between neighboring float32 numbers near ``size``.

    If each of two computations rounds at most ``steps`` numbers of up to ``size``, the two results
    differ by at most the returned value.
    """
    return steps * float(np.spacing(np.float32(size))) if size else 0.0


def uniform(name: str, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """Return the pseudo-random float64 numbers in [-1, 1) that the official run used for ``name``.
    The seed is computed from ``name``, and ``offset`` is added to it."""
    seed = (zlib.crc32(name.encode()) + offset) % 2**32
    return 2 * np.random.Generator(np.random.PCG64(seed)).random(tuple(shape)) - 1


def fill_value(name: str, shape: tuple[int, ...], stereo: bool = False) -> np.ndarray:
    """Return the deterministic float64 values of the official tensor ``name`` (without the prefix
    ``model.``). The values of some tensors differ between models with and without stereo."""
    u = uniform(name, shape)
    value = _base_value(name, u)
    for pattern, exception in _STEREO_EXCEPTIONS if stereo else _EXCEPTIONS:
        if re.search(pattern, name):
            value = exception(u, value)
    return value


def _base_value(name: str, u: np.ndarray) -> np.ndarray:
    leaf = name.rsplit('.', 1)[1]
    if leaf == 'num_batches_tracked':
        return np.zeros(u.shape)
    if leaf == 'running_mean':
        return 0.2 * u
    if leaf == 'running_var':
        return 1 + 0.5 * u
    if leaf == 'bias':
        return 0.1 * u
    if u.ndim == 1:
        return (1 + 0.5 * u) * (0.3 if _LAST_NORM.search(name) else 1)
    fan_in = u.shape[0] if _TRANSPOSED.search(name) else np.prod(u.shape[1:])
    return u * np.sqrt(3) * np.sqrt(2 / fan_in)


def filled_model(case: str) -> BEVDepth:
    """Return the model preset ``PRESETS[case]`` with deterministic weights, in evaluation mode."""
    model = BEVDepth(load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[case]}.yaml'))
    fill(model)
    return model.eval()


def fill(model: BEVDepth) -> None:
    """Set all weights and batch norm statistics of ``model`` to their deterministic values."""
    stereo = model.config.stereo is not None
    for name, tensor in model.state_dict().items():
        if name not in _CONSTRUCTED:
            value = fill_value(to_official_name(name, stereo), tuple(tensor.shape), stereo)
            tensor.copy_(torch.from_numpy(value))


def synthetic_images() -> torch.Tensor:
    """Return the (1, 2, 6, 3, 256, 704) float32 images of the golden cases ``synth_*``."""
    coarse = (
        uniform('synthetic_image:coarse', (1, 2, 6, 3, 16, 44))
        .repeat(16, axis=-2)
        .repeat(16, axis=-1)
    )
    fine = uniform('synthetic_image:fine', (1, 2, 6, 3, 256, 704))
    return torch.from_numpy((0.7 * coarse + 0.35 * fine).astype(np.float32))
