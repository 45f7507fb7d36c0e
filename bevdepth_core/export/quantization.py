"""Quantizes the convolutions of exported graphs to INT8 with the quantizer of ONNX Runtime.

The quantizer inserts pairs of QuantizeLinear and DequantizeLinear into the graphs. Their scales
are computed from the largest values that occur in a few key frames (static quantization). Weights
have one scale per channel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.engine.eager import EagerNetwork
from bevdepth_core.engine.exported import ExportError
from bevdepth_core.engine.image_preparation import ImagePreparation
from bevdepth_core.engine.onnx import MISSING
from bevdepth_core.export.layer_groups import GROUPS, group_of
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import Frame

IN_FLOAT32 = ('bev_stem', 'bev_neck', 'head_shared', 'head_tasks')
"""Groups of layers that are not quantized by default. A table in docs/EXPORT.md lists the effect
of quantizing each group."""
QUANTIZED = 'Conv'
"""Type of the quantized operators. Their inputs and weights are quantized. Their outputs are not
quantized, because values would otherwise be rounded both before and after the activation."""

Inputs = dict[str, np.ndarray]


class Samples:
    """Inputs of the graphs for some key frames, for the calibration of the scales.

    Attributes:
        by_graph: maps the name of a graph to a list of its inputs, one entry per key frame.
    """

    def __init__(self) -> None:
        self.by_graph: dict[str, list[Inputs]] = {'image_branch': [], 'detection': []}

    @classmethod
    @torch.inference_mode()
    def of(cls, model: BEVDepth, frames: Iterable[Frame]) -> Samples:
        """Return the inputs of the graphs of ``model`` for key frames in order of time.

        The map of the past frame is the map of the previous key frame, without correction for the
        ego motion. This correction would not change the range of the values.
        """
        samples, maps = cls(), []
        network = EagerNetwork(model, torch.device('cpu'), torch.float32)
        prepare = ImagePreparation(model.config.image, torch.device('cpu'))
        for frame in frames:
            calibration = Calibration.of(frame.rig, frame.images, model.config.image)
            images = prepare(frame.images)[0].numpy().copy()
            samples.by_graph['image_branch'].append(
                {'images': images, 'cameras': calibration.cameras[0].numpy()}
            )
            network.set_images(frame.images)
            matrix = calibration.ego_from_frustum(frame.rig.ego_from_camera, torch.float64)
            maps.append(network.model.splat(network.encode(calibration.cameras), matrix).numpy())
        names = ('bev_key', 'bev_past')[: model.config.key_frames]
        samples.by_graph['detection'] = [
            dict(zip(names, (maps[place], maps[max(place - 1, 0)]), strict=False))
            for place in range(len(maps))
        ]
        return samples


def to_int8(path: Path, samples: list[Inputs], in_float32: Collection[str] = IN_FLOAT32) -> None:
    """Quantize the convolutions of the ONNX file ``path``, in place.

    Args:
        path: an ONNX file in float32.
        samples: inputs of the graph for the calibration.
        in_float32: groups of layers that stay in float32.

    Raises:
        ExportError: there are no samples, a group is unknown, or ONNX Runtime is missing.
    """
    import onnx

    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise ExportError(MISSING) from error
    if not samples:
        raise ExportError(
            'INT8 is calibrated with key frames of a dataset: set --calibration to a dataset'
        )
    if unknown := set(in_float32) - set(GROUPS):
        raise ExportError(f'no group of layers is named {", ".join(sorted(unknown))}')
    graph = onnx.load(path)
    chosen = _chosen(graph.graph.node, GROUPS.keys() - set(in_float32))
    if not chosen:  # with an empty list, the quantizer would quantize all nodes
        return
    quantization.quantize_static(
        graph,
        str(path),
        _reader(samples),
        op_types_to_quantize=[QUANTIZED],
        nodes_to_quantize=chosen,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={
            'ActivationSymmetric': True,  # as TensorRT requires
            'QuantizeBias': False,  # TensorRT rejects DequantizeLinear of int32
            'OpTypesToExcludeOutputQuantization': [QUANTIZED],
        },
    )
    quantized = onnx.load(path)
    _connect_others(quantized.graph.node, chosen)
    onnx.save(quantized, path)


def _chosen(nodes: Iterable[Any], groups: Collection[str | None]) -> list[str]:
    return [
        node.name for node in nodes if node.op_type == QUANTIZED and group_of(node.name) in groups
    ]


def _connect_others(nodes: Iterable[Any], chosen: Collection[str]) -> None:
    """Connect all nodes that are not in ``chosen`` to the values before quantization. This is
    needed because the quantizer connects every reader of a value, such as a residual addition, to
    the rounded value.
    """
    exact = {node.output[0]: node.input[0] for node in nodes if node.op_type == 'QuantizeLinear'}
    before = {
        node.output[0]: exact[node.input[0]]
        for node in nodes
        if node.op_type == 'DequantizeLinear' and node.input[0] in exact
    }
    for node in nodes:
        if node.name not in chosen:
            node.input[:] = [before.get(name, name) for name in node.input]


def _reader(samples: Iterable[Inputs]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest: Iterator[Inputs] = iter(samples)

        def get_next(self) -> Inputs | None:
            return next(self._rest, None)

    return Reader()
