"""Fuzzing targets that read checkpoints, YAML files, images and tables."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import yaml
from PIL import Image

from bevdepth_core.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_official,
)
from bevdepth_core.config import load_model_config, model_config_from_dict, model_config_to_dict
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.images import read_image
from bevdepth_core.nuscenes.index import load_index
from bevdepth_ros.rig.conversions import intrinsics_from_file
from tests.fuzz.message_targets import IMAGE_WORDS
from tests.fuzz.mutation import damaged, damaged_tree
from tests.fuzz.small_inputs import CALIBRATION, make_tables
from tests.networks import TINY

YAML_WORDS = (
    b'&a',
    b'*a',
    b'<<: *a',
    b'!!python/object/apply:os.system [true]',
    b'!!int',
    b'!!binary',
    b'{',
    b'[' * 200,
    b'---',
    b'? ',
    b'\t',
    b'2001-99-99',
)
TENSOR_TYPES = (
    'F64',
    'F32',
    'F16',
    'BF16',
    'I64',
    'U8',
    'BOOL',
    'F8_E4M3',
    'F8_E5M2',
    'C64',
    'I16',
    'U64',
    'X',
)


def calibration_file(folder: Path) -> Callable[[Random], bool]:
    path, text = folder / 'calibration.yaml', yaml.safe_dump(CALIBRATION).encode()

    def execute(rng: Random) -> bool:
        tree = rng.random() < 0.3
        path.write_bytes(
            yaml.safe_dump(damaged_tree(rng, CALIBRATION)).encode()
            if tree
            else damaged(rng, text, YAML_WORDS)
        )
        try:
            found = intrinsics_from_file(path, rng.random() < 0.5)
        except ValueError:
            return False
        assert np.isfinite(found.matrix).all()
        return True

    return execute


def model_config(folder: Path) -> Callable[[Random], bool]:
    path, config = folder / 'model.yaml', model_config_to_dict(TINY)
    text = yaml.safe_dump(config).encode()

    def execute(rng: Random) -> bool:
        try:
            if rng.random() < 0.7:
                path.write_bytes(damaged(rng, text, YAML_WORDS))
                found = load_model_config(path)
            else:
                found = model_config_from_dict(damaged_tree(rng, config))
        except ValueError:
            return False
        assert math.prod(found.grid.shape) < 1 << 23
        assert found.image.height * found.image.width < 1 << 25
        return True

    return execute


def _require_sound(model: BEVDepth) -> None:
    assert not model.training
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def own_checkpoint(folder: Path) -> Callable[[Random], bool]:
    path = folder / 'weights.safetensors'
    save_checkpoint(BEVDepth(TINY), path)
    content = path.read_bytes()
    (length,) = struct.unpack('<Q', content[:8])
    header, tensors = content[: 8 + length], content[8 + length :]
    tree = json.loads(header[8:])
    config = json.loads(tree['__metadata__']['config'])

    def other_header(rng: Random) -> bytes:
        changed = dict(tree)
        if rng.random() < 0.5:
            changed['__metadata__'] = changed['__metadata__'] | {
                'config': json.dumps(damaged_tree(rng, config))
            }
        else:
            for name in rng.sample(sorted(set(tree) - {'__metadata__'}), rng.randint(1, 3)):
                kind = rng.randrange(3)
                entry = tree[name] | ({'dtype': rng.choice(TENSOR_TYPES)} if kind == 0 else {})
                changed[name] = damaged_tree(rng, entry) if kind == 1 else entry
                if kind == 2:
                    changed[name + 'x'] = changed.pop(name)
        text = json.dumps(changed).encode()
        return struct.pack('<Q', len(text)) + text

    def execute(rng: Random) -> bool:
        begin = damaged(rng, header) if rng.random() < 0.5 else other_header(rng)
        path.write_bytes(begin + (damaged(rng, tensors) if rng.random() < 0.1 else tensors))
        try:
            _require_sound(load_checkpoint(path))
        except CheckpointError:
            return False
        return True

    return execute


def _malicious(rng: Random, pickled: bytes) -> bytes:
    """Return damaged pickle data, or pickle data that would call functions. The functions must
    never run.
    """
    kind = rng.randrange(4)
    if kind == 0:
        return pickle.dumps(_Command(), protocol=rng.choice((0, 2, 4)))
    if kind == 1:
        return (
            b'\x80\x02'
            + rng.choice((b'cos\nsystem\n', b'cposix\nsystem\n', b'cbuiltins\neval\n'))
            + b'(X\x04\x00\x00\x00truetR.'
        )
    return damaged(
        rng,
        pickled,
        (b'c', b'R', b'(', b't', b'.', b'}', b'h\x00', b'ctorch\nload\n', b'cbuiltins\neval\n'),
    )


class _Command:
    def __reduce__(self):
        return exec, ('raise SystemError("unpickled code was run")',)


def official_checkpoint(folder: Path) -> Callable[[Random], bool]:
    path = folder / 'weights.pth'
    save_official(BEVDepth(TINY), path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in entries if name.endswith('data.pkl'))

    def repacked(rng: Random) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(
            buffer, 'w', rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        ) as archive:
            for name, data in entries.items():
                archive.writestr(name, _malicious(rng, data) if name == pickled else data)
        return buffer.getvalue()

    def execute(rng: Random) -> bool:
        path.write_bytes(repacked(rng) if rng.random() < 0.5 else damaged(rng, content))
        try:
            _require_sound(load_checkpoint(path))
        except CheckpointError:
            return False
        return True

    return execute


def image_file(folder: Path) -> Callable[[Random], bool]:
    path, files = folder / 'image', []
    for kind in ('JPEG', 'PNG', 'GIF', 'TIFF', 'BMP'):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)).save(
            buffer, kind
        )
        files.append(buffer.getvalue())

    def execute(rng: Random) -> bool:
        path.write_bytes(damaged(rng, rng.choice(files), IMAGE_WORDS))
        try:
            decoded = read_image(path)
        except OSError:
            return False
        assert decoded.ndim == 3
        assert decoded.shape[2] == 3
        return True

    return execute


def dataset(folder: Path) -> Callable[[Random], bool]:
    tables = make_tables(folder / 'root')
    version, cache = folder / 'root' / 'v1.0-mini', folder / 'cache'

    def execute(rng: Random) -> bool:
        name = rng.choice(sorted(tables))
        path = version / f'{name}.json'
        sound = json.dumps(tables[name])
        path.write_bytes(
            damaged(rng, sound.encode())
            if rng.random() < 0.3
            else json.dumps(damaged_tree(rng, tables[name])).encode()
        )
        try:
            index = load_index(folder / 'root', 'v1.0-mini', 'all', cache)
            assert all((folder / 'root' / filename).is_file() for filename in index.filenames())
            [index[position] for position in range(len(index))]
        except (ValueError, OSError):
            return False
        finally:
            path.write_text(sound)
        return True

    return execute
