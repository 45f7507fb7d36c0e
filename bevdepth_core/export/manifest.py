"""Writes ``manifest.json``, which describes exported graphs for a runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bevdepth_core.config import ImageSpec
from bevdepth_core.engine.exported import (
    FORMATS,
    MANIFEST,
    file_digest,
    plain_config,
    weights_digest,
)
from bevdepth_core.export.parts import CAMERAS, Part
from bevdepth_core.files import write_atomically
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import BOX_MAPS

MEANINGS = {
    'images': 'normalized images, channels B G R, see preprocessing',
    'cameras': (
        'camera vector: fx fy cx cy of the source image; image_aug[0, 0], [0, 1], [0, 3], [1, 0], '
        '[1, 1], [1, 3]; 1 0 0 1 1, the identity BEV augmentation; ego_from_camera[:3, :4] by rows'
    ),
    'depth': 'probability of each depth bin; lower edge of a bin: start + step * index, in meters',
    'context': 'features of each pixel of the feature map',
    'ego_from_frustum': (
        'matrix that transforms (u d, v d, d, 1) to meters in the ego frame of the key frame; u '
        'and v are pixels of the network input, and d is the depth in meters. For the key frame: '
        'ego_from_camera @ inv(4x4 intrinsics) @ source_from_input, see preprocessing. For a past '
        'frame: key_ego_from_past_ego @ ego_from_camera @ inv(4x4 intrinsics) @ '
        'source_from_input. Multiply in float64, and round only the result'
    ),
    'bev': (
        'BEV map of the frame in the ego frame of the key frame: y increases with the row index, '
        'x with the column index'
    ),
    'bev_key': 'output of splat for the key frame',
    'bev_past': 'output of splat for the past frame, or for the key frame if no past frame exists',
    'maps': (
        f'per task: {BOX_MAPS}, then one logit per class; -65504 for classes that the task does '
        'not have'
    ),
    'candidates': (
        'per task, best score first: x y z (m) length width height (m) yaw (rad, about +z) vx vy '
        '(m/s) in the ego frame, score (-1 for an invalid box), label. Apply circle NMS per task, '
        'keep at most decode.boxes_per_task per task, then apply decode.score_threshold, then '
        'decode.scale_nms if the config has it'
    ),
}
"""Meaning of each input and output."""
UNKNOWN_LICENSE = 'not stated in the checkpoint; the license of the checkpoint applies'


def write_manifest(
    model: BEVDepth,
    parts: tuple[Part, ...],
    folder: Path,
    file_format: str,
    weights_name: str,
    options: dict[str, Any],
) -> None:
    """Write the manifest of the graphs in ``folder``.

    Args:
        model: the exported model.
        parts: the exported parts of ``model``.
        folder: folder with the graphs of the parts.
        file_format: a key of FORMATS, which is also the ending of the files.
        weights_name: name of the weights as the user gave it.
        options: options of the export, such as ``precision`` and ``pooling``, which are copied
            into the manifest.
    """
    metadata = dict(model.metadata)
    content = {
        'format': FORMATS[file_format],
        **options,
        'weights': {
            'name': weights_name,
            'sha256': weights_digest(model),
            'license': metadata.pop('license', UNKNOWN_LICENSE),
            'origin': metadata,
        },
        'classes': list(model.config.class_names),
        'preprocessing': preprocessing(model.config.image),
        'graphs': {part.name: _graph(part, folder, file_format) for part in parts},
        'config': plain_config(model),
    }

    def write(path: str) -> None:
        Path(path).write_text(json.dumps(content, indent=2))

    write_atomically(folder / MANIFEST, write)


def preprocessing(spec: ImageSpec) -> dict[str, Any]:
    """Return the description of how images are converted to network input."""
    return {
        'scale': f'max({spec.height} / height, {spec.width} / width)',
        'resize': 'Pillow, antialiased bicubic, to (int(width * scale), int(height * scale))',
        'crop': (
            'to the input size: remove all excess rows at the top, half of the excess columns at '
            'the left, and the other half at the right'
        ),
        'image_aug': 'rows: scale 0 0 -crop_x; 0 scale 0 -crop_y; 0 0 1 0; 0 0 0 1',
        # This is the inverse of image_aug for the coordinates (u d, v d, d, 1). The crop is in the
        # third column, because it must be multiplied by the depth d, too.
        'source_from_input': (
            'rows: 1/scale 0 crop_x/scale 0; 0 1/scale crop_y/scale 0; 0 0 1 0; 0 0 0 1'
        ),
        'channels': 'B G R',
        'normalization': (
            '(value - mean[i]) / std[i] of channel i in the order B G R; mean and std are '
            'statistics in the order R G B, and the official networks were trained with this mix'
        ),
        'mean': list(spec.mean),
        'std': list(spec.std),
    }


def _graph(part: Part, folder: Path, file_format: str) -> dict[str, Any]:
    file = f'{part.name}.{file_format}'
    # The part is run to determine the shapes of its outputs, which the manifest contains.
    outputs = part.module(*part.inputs.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    named = dict(zip(part.outputs, outputs, strict=True))
    return {
        'file': file,
        'sha256': file_digest(folder / file),
        'inputs': {name: _tensor(part, name, value.shape) for name, value in part.inputs.items()},
        'outputs': {name: _tensor(part, name, value.shape) for name, value in named.items()},
    }


def _tensor(part: Part, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    sizes: list[int | str] = list(shape)
    if name in part.per_camera:
        sizes[0] = CAMERAS
    return {'shape': sizes, 'type': 'float32', 'meaning': MEANINGS[name]}
