"""Saves and loads weights as safetensors files with the model config, or as official Lightning
files.

    python -m bevdepth_core.checkpoint convert IN OUT
    python -m bevdepth_core.checkpoint untrained CONFIG OUT

The first command converts between the two formats. The second command writes random weights for
CONFIG, the YAML file of a model config such as ``config/models/small.yaml``. Random weights have
the right shapes but detect no objects. The suffix of OUT selects the format: ``.safetensors`` is
the format of this project, ``.pth`` and ``.ckpt`` are the official format. From pickled files,
only tensors and plain containers are loaded.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import sys
import zipfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from bevdepth_core.config import (
    ModelConfig,
    load_model_config,
    model_config_from_dict,
    model_config_to_dict,
)
from bevdepth_core.files import write_atomically
from bevdepth_core.model import BEVDepth
from bevdepth_core.official_layout import (
    GEOMETRY,
    official_config,
    official_state_dict,
    own_state_dict,
)
from bevdepth_core.weights import WeightsError, locate

FORMAT = 'bevdepth-1'
"""Value of the ``format`` entry in the header of this project's files."""

_OFFICIAL_PREFIX = 'model.'
_WRAPPERS = re.compile(r'(?:model\.|module\.|_orig_mod\.)+')
"""Prefixes that Lightning, DistributedDataParallel and torch.compile add to names of weights."""
_CONTAINERS = ('state_dict', 'model_state_dict', 'model')
"""Possible names of the checkpoint entry in which a training program stores the weights."""
_TRAINING_ENTRIES = {'description', 'state_dict', 'loops'}
"""A checkpoint of ``training/train.py`` has all of these entries; no official checkpoint does."""
_MMDETECTION3D = 'img_backbone.'
"""Prefix of the weights of the image encoder in mmdetection3d and BEVDet."""
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MAX_PICKLE_BYTES = 64 << 20
"""Largest size of the pickled part of a ``.pth`` file. This part only lists the tensors, so a file
with a larger part is rejected."""


class CheckpointError(ValueError):
    """A checkpoint is invalid; the message names the file, the reason and the remedy."""


def load_checkpoint(path: str | Path) -> BEVDepth:
    """Return the model on the CPU, in evaluation mode and with float32 weights.

    Args:
        path: a ``.safetensors`` file of this project; or an official Lightning checkpoint, trained
            with or without EMA; or a file with only the state dict of such a checkpoint; or the
            name of bundled or downloaded weights, such as ``small``.

    Raises:
        CheckpointError: the file is missing, truncated, of another format, or contains pickled
            objects other than tensors and plain containers; its config is invalid; or weights are
            missing, unexpected, not finite, or of a wrong shape or type.
    """
    path = _located(path)
    if path.suffix in ('.yaml', '.yml'):
        raise CheckpointError(
            f'{path}: a YAML file is a configuration; give a file with weights (.safetensors or '
            '.pth), or the name of bundled or downloaded weights, such as small'
        )
    load = _load_own if path.suffix == '.safetensors' else _load_official
    return load(path).eval()


def _located(path: str | Path) -> Path:
    try:
        return locate(path)
    except WeightsError as error:
        raise CheckpointError(str(error)) from error


def save_checkpoint(
    model: BEVDepth,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    half: bool = False,
) -> None:
    """Write weights, model config and free-text metadata to one ``.safetensors`` file, atomically.

    Args:
        model: the model to save, on any device.
        path: path of the file; its suffix must be ``.safetensors``.
        metadata: entries that the file gets in addition to ``model.metadata``.
        half: store matrices and convolution kernels in float16. This halves the size of the file.
            Rounding changes each weight in the normal range of float16 by at most 0.05 %. Vectors,
            such as the statistics of batch norms, stay float32.

    Raises:
        CheckpointError: the suffix of ``path`` is not ``.safetensors``.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise CheckpointError(f'{path}: the file name must end in .safetensors')
    header = {
        **model.metadata,
        **(metadata or {}),
        'format': FORMAT,
        'config': json.dumps(model_config_to_dict(model.config)),
    }
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    if half:
        state = {
            name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in state.items()
        }
    try:
        write_atomically(path, lambda target: safetensors.torch.save_file(state, target, header))
    except safetensors.SafetensorError as error:
        raise OSError(
            f'{path} could not be written ({error}): make space in {path.parent}'
        ) from error


def untrained(config: str | Path, seed: int = 0) -> BEVDepth:
    """Return a model with random weights.

    Args:
        config: YAML file of a model config, such as a file in ``config/models``.
        seed: seed of the random weights; the same seed always gives the same weights.

    Raises:
        FileNotFoundError: the config does not exist.
        ValueError: the config is invalid.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BEVDepth(load_model_config(config))
    model.metadata = {'weights': f'random, seed {seed}'}
    return model


def save(model: BEVDepth, path: str | Path, half: bool = False) -> None:
    """Write a model in the format that the suffix of ``path`` selects. ``.safetensors`` selects
    the format of this project, and any other suffix selects the official format.

    Raises:
        CheckpointError: ``path`` selects the official format, and this format, which stores no
            config, cannot describe the model; or ``path`` selects the official format, and
            ``half`` is set.
    """
    path = Path(path)
    if path.suffix == '.safetensors':
        save_checkpoint(model, path, half=half)
        return
    if half:
        raise CheckpointError(f'{path}: --half needs a file name that ends in .safetensors')
    _require_official_layout(model, path)
    save_official(model, path)


def save_official(model: BEVDepth, path: str | Path) -> None:
    """Write the weights in the official layout, with the entries ``epoch``, ``global_step`` and
    ``state_dict``. The official layout stores no config, so ``load_checkpoint`` assumes the config
    of an official experiment when it reads the file.
    """
    state = {
        _OFFICIAL_PREFIX + name: tensor.detach().cpu()
        for name, tensor in official_state_dict(model).items()
    }
    write_atomically(
        Path(path),
        lambda target: torch.save({'epoch': 0, 'global_step': 0, 'state_dict': state}, target),
    )


def _require_official_layout(model: BEVDepth, path: Path) -> None:
    """Raise CheckpointError unless the official layout, which stores no config, describes the
    model completely.
    """
    try:
        config = official_config(official_state_dict(model))
    except ValueError as error:
        raise CheckpointError(
            f'{path}: the official layout cannot describe this network ({error}): convert to '
            '.safetensors instead'
        ) from error
    sections = [field.name for field in dataclasses.fields(ModelConfig)]
    lost = [name for name in sections if getattr(config, name) != getattr(model.config, name)]
    if lost:
        raise CheckpointError(
            f'{path}: the official layout stores no config, and {", ".join(lost)} of this model '
            'differ from the official experiments, so the file could not be read again: '
            'convert to .safetensors instead'
        )


def _load_own(path: Path) -> BEVDepth:
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            if header.get('format') != FORMAT:
                raise CheckpointError(
                    f'{path}: not a {FORMAT} file (format {header.get("format")!r}); convert the '
                    'official checkpoint instead'
                )
            names = list(file.keys())
            state = _without_wrappers(path, {name: file.get_tensor(name) for name in names})
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f'{path}: truncated or not safetensors ({error}); copy or download it again'
        ) from error
    try:
        config = model_config_from_dict(json.loads(header['config']))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f'{path}: its model config cannot be read ({error}); '
            'save the checkpoint again with this version of the package'
        ) from error
    model = _build(path, config, state)
    model.metadata = {
        key: value for key, value in header.items() if key not in ('format', 'config')
    }
    return model


def _load_official(path: Path) -> BEVDepth:
    state = _network_state(path)
    try:
        config, weights = official_config(state), own_state_dict(state)
    except ValueError as error:
        raise CheckpointError(f'{path}: {error}; is it a BEVDepth R50 checkpoint?') from error
    return _build(path, config, weights)


def _network_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of an official file by name; prefixes of wrappers are removed from the
    names.
    """
    require_plain_archive(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r'(?:GLOBAL|class) ([\w.]+)', str(error))
        found = (
            f'the pickled object {foreign.group(1)}'
            if foreign
            else 'pickled objects other than tensors'
        )
        raise CheckpointError(
            f'{path}: contains {found}, which is never loaded; if you trust the file, load it '
            "with PyTorch and save only its 'state_dict'"
        ) from error
    # torch raises RuntimeError, EOFError, KeyError and others on truncated or unrelated files.
    except Exception as error:
        raise CheckpointError(
            f'{path}: truncated or not a PyTorch checkpoint; copy or download it again'
        ) from error
    state = content
    if isinstance(content, dict):
        if content.keys() >= _TRAINING_ENTRIES:
            raise CheckpointError(
                f'{path}: a checkpoint of a training run, which contains more than weights; '
                f'export the weights: python training/export_weights.py {path} OUT.safetensors'
            )
        state = next((content[name] for name in _CONTAINERS if name in content), content)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and _is_plain(value) for name, value in state.items()
    ):
        raise CheckpointError(
            f"{path}: contains neither a 'state_dict' nor tensors by name; is it a BEVDepth "
            'checkpoint?'
        )
    state = _without_wrappers(path, state)
    missing = [name for name in GEOMETRY if name not in state]
    if missing and any(name.startswith(_MMDETECTION3D) for name in state):
        raise CheckpointError(
            f'{path}: a checkpoint of mmdetection3d or BEVDet, whose networks have other layers; '
            'only checkpoints of Megvii-BaseDetection/BEVDepth and of this project can be loaded'
        )
    if missing:
        raise CheckpointError(f'{path}: {missing[0]} is missing; is it a BEVDepth checkpoint?')
    return state


def _without_wrappers(path: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of ``state``, with the prefixes of wrappers removed from their names."""
    plain = {}
    for name, tensor in state.items():
        prefix = _WRAPPERS.match(name)
        plain_name = name[prefix.end() :] if prefix else name
        if plain_name in plain:
            raise CheckpointError(
                f'{path}: contains {plain_name} twice, with and without a prefix; keep one set '
                'of weights'
            )
        plain[plain_name] = tensor
    return plain


def require_plain_archive(path: Path) -> None:
    """Raise CheckpointError unless the file is an archive as ``torch.save`` writes it.

    An archive is rejected if it has compressed or overlapping entries, or a pickled part of more
    than ``MAX_PICKLE_BYTES``. Reading such an archive could need much more memory than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        remedy = 'copy or download it again; if it is old, load and save it with a newer PyTorch'
        raise CheckpointError(
            f'{path}: truncated or not a PyTorch checkpoint; {remedy}'
        ) from error
    if (
        any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or sum(entry.file_size for entry in entries) > path.stat().st_size
    ):
        raise CheckpointError(
            f'{path}: compressed or overlapping content, which PyTorch never writes; is it a '
            'BEVDepth checkpoint?'
        )
    if (
        sum(entry.file_size for entry in entries if entry.filename.endswith('.pkl'))
        > MAX_PICKLE_BYTES
    ):
        raise CheckpointError(
            f'{path}: contains much more than tensors; if you trust the file, load it with '
            "PyTorch and save only its 'state_dict'"
        )


def _is_plain(value: object) -> bool:
    """Return True if ``value`` is a dense tensor that stores all of its elements. An expanded
    tensor stores fewer elements than its shape has, and a copy of such a tensor could need
    unlimited memory.
    """
    if (
        not isinstance(value, torch.Tensor)
        or value.layout != torch.strided
        or value.is_quantized
        or value.device.type != 'cpu'
    ):
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


class _NoRandomWeights(TorchFunctionMode):
    """Skips ``Tensor.normal_``, which would initialize weights that are replaced anyway. For
    tensors without storage, ``normal_`` imports the compiler of PyTorch, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def _build(path: Path, config: ModelConfig, state: dict[str, torch.Tensor]) -> BEVDepth:
    """Return the model of ``config`` that uses the tensors of ``state`` as weights, without
    copying them.
    """
    try:
        with torch.device('meta'), _NoRandomWeights():
            model = BEVDepth(config)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f'{path}: its model config is invalid ({error}); '
            'save the checkpoint again with this version of the package'
        ) from error
    expected = model.state_dict()
    problems = [f'{name} is missing' for name in expected if name not in state]
    problems += [f'{name} is unexpected' for name in state if name not in expected]
    problems += [
        f'{name} has shape {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}'
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    problems += [
        f'{name} has type {tensor.dtype} instead of {expected[name].dtype}'
        for name, tensor in state.items()
        if name in expected and not _is_convertible(tensor.dtype, expected[name].dtype)
    ]
    if not problems:
        problems = [
            f'{name} contains NaN or infinity'
            for name, tensor in state.items()
            if not tensor.isfinite().all()
        ]
    if problems:
        more = f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''
        raise CheckpointError(
            f'{path}: weight {problems[0]}{more}; the weights must fit the model config of the '
            'file: copy, download or export the file again'
        )
    state = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model


def _is_convertible(source: torch.dtype, target: torch.dtype) -> bool:
    return source == target or (source in _FLOATS and target in _FLOATS)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == 'untrained':
            save(untrained(options.config, options.seed), options.target)
        else:
            model = load_checkpoint(options.source)
            if options.no_clamp_mean:
                _switch_clamp_off(model, options.source)
            save(model, options.target, options.half)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f'wrote {options.target}')


def _switch_clamp_off(model: BEVDepth, source: Path) -> None:
    """Set ``clamp_mean`` to false in the config that is saved with ``model``."""
    stereo = model.config.stereo
    if stereo is None:
        raise CheckpointError(f'{source}: not a stereo model; leave out --no-clamp-mean')
    model.config = dataclasses.replace(
        model.config, stereo=dataclasses.replace(stereo, clamp_mean=False)
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog='python -m bevdepth_core.checkpoint',
        description='Convert and create BEVDepth checkpoints.',
    )
    commands = parser.add_subparsers(dest='command', required=True)
    convert = commands.add_parser('convert', help='convert IN to the format of OUT')
    convert.add_argument(
        'source',
        metavar='IN',
        type=Path,
        help='file to read: official .pth or .ckpt, or .safetensors of this project',
    )
    targets = 'file to write: .safetensors for this project, .pth or .ckpt for the official code'
    convert.add_argument('target', metavar='OUT', type=_target, help=targets)
    convert.add_argument(
        '--half',
        action='store_true',
        help='store matrices and kernels in float16 (only for .safetensors)',
    )
    convert.add_argument(
        '--no-clamp-mean',
        action='store_true',
        help='set clamp_mean to false, for stereo weights that were trained without the clamp '
        '(docs/STEREO.md)',
    )
    random = commands.add_parser('untrained', help='write random weights for a model config')
    random.add_argument(
        'config', metavar='CONFIG', type=Path, help='YAML file, such as config/models/small.yaml'
    )
    random.add_argument('target', metavar='OUT', type=_target, help=targets)
    random.add_argument(
        '--seed', type=int, default=0, help='seed of the random weights (default 0)'
    )
    return parser


def _target(text: str) -> Path:
    if Path(text).suffix not in ('.safetensors', '.pth', '.ckpt'):
        raise ArgumentTypeError(f'{text} must end in .safetensors, .pth or .ckpt')
    return Path(text)


if __name__ == '__main__':
    main()
