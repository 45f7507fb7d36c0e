"""Compares graphs in float16 and INT8 with the float32 graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bevdepth_core.decode import NO_CLASS
from bevdepth_core.engine.exported import ExportError
from bevdepth_core.engine.onnx import open_session
from bevdepth_core.export.check import compare, random_frames
from bevdepth_core.export.half_precision import to_half
from bevdepth_core.export.layer_groups import GROUPS, group_of
from bevdepth_core.export.quantization import IN_FLOAT32, Samples, to_int8
from bevdepth_core.export.writing import export_onnx
from bevdepth_core.model import BEVDepth
from tests.networks import export_model

GRAPHS = ('image_branch', 'detection')


@pytest.fixture(scope='module')
def samples(model: BEVDepth) -> Samples:
    return Samples.of(model, random_frames(2, np.random.default_rng(0)))


@pytest.fixture(scope='module')
def quantized(exported: Path, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both graphs in INT8. Two groups of layers stay in float32."""
    folder = tmp_path_factory.mktemp('quantized')
    for name in GRAPHS:
        (folder / f'{name}.onnx').write_bytes((exported / f'{name}.onnx').read_bytes())
        to_int8(folder / f'{name}.onnx', samples.by_graph[name], ('depth_head', 'head_tasks'))
    return folder


def layers(path: Path) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in onnx.load(path).graph.node}


def quantized_groups(path: Path) -> set[str | None]:
    """Return the groups of the convolutions whose weights are stored in INT8."""
    nodes = layers(path).values()
    produced = {node.output[0] for node in nodes if node.op_type == 'DequantizeLinear'}
    convolutions = [node for node in nodes if node.op_type == 'Conv']
    return {group_of(node.name) for node in convolutions if node.input[1] in produced}


def difference(path: Path, inputs: dict[str, np.ndarray], expected: np.ndarray) -> float:
    """Return the relative L2 error of the first output. Logits of classes that a task does not
    have are left out.
    """
    found, has_class = outputs(path, inputs)[0], expected > NO_CLASS
    return float(
        np.linalg.norm((found - expected)[has_class]) / np.linalg.norm(expected[has_class])
    )


def outputs(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return open_session(path, 1).run(None, inputs)


@pytest.mark.parametrize('graph', GRAPHS)
def test_every_group_of_layers_contains_convolutions_of_exactly_one_graph(
    exported: Path, graph: str
) -> None:
    of_graph = {
        'image_branch': {
            name for name in GROUPS if name.startswith(('image', 'depth', 'context'))
        },
        'detection': {name for name in GROUPS if name.startswith(('bev', 'head'))},
    }
    nodes = layers(exported / f'{graph}.onnx').values()
    found = {group_of(node.name) for node in nodes if 'Conv' in node.op_type}
    assert found - {None} == of_graph[graph]


def test_layers_of_the_camera_vector_of_sampling_and_of_decoding_belong_to_no_group() -> None:
    for name in ('/depth_net/mlp/mlp.0/Gemm', '/depth_net/deform/GridSample', '/TopK'):
        assert group_of(name) is None


def test_samples_contain_the_inputs_of_the_graphs_for_each_frame(
    model: BEVDepth, exported: Path
) -> None:
    frames = random_frames(2, np.random.default_rng(0))
    samples = Samples.of(model, frames).by_graph
    first, second = samples['detection']
    assert np.array_equal(first['bev_past'], first['bev_key'])
    assert np.array_equal(second['bev_past'], first['bev_key'])
    assert not np.array_equal(second['bev_key'], first['bev_key'])
    images = [entry['images'] for entry in samples['image_branch']]
    assert images[0].shape == (2, 3, 32, 96)
    assert not np.array_equal(images[0], images[1])
    assert samples['image_branch'][0]['cameras'].shape == (2, 27)


@pytest.mark.parametrize('graph', GRAPHS)
def test_half_precision_graphs_have_float32_inputs_and_outputs_and_nearly_equal_results(
    exported: Path, samples: Samples, tmp_path: Path, graph: str
) -> None:
    path = tmp_path / 'half.onnx'
    path.write_bytes((exported / f'{graph}.onnx').read_bytes())
    inputs = samples.by_graph[graph][0]
    expected = outputs(path, inputs)[0]
    to_half(path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    content = onnx.load(path).graph
    for value in (*content.input, *content.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    halves = [
        entry for entry in content.initializer if entry.data_type == onnx.TensorProto.FLOAT16
    ]
    assert len(halves) > 20
    assert 1e-6 < difference(path, inputs, expected) < 5e-3


def test_values_beyond_the_range_of_float16_are_reported(tmp_path: Path) -> None:
    """On a CPU, ONNX Runtime computes a float16 graph in float32, so such values are not
    visible in the outputs of the graph.
    """

    def problems() -> list[str]:
        export_onnx(model, tmp_path, precision='fp16')
        return [text for text in compare(model, tmp_path, (1,)).problems if 'range' in text]

    model = export_model()
    assert problems() == []
    block = model.image_encoder.backbone.layer2[0]
    block.bn1.weight *= 1e5
    block.conv2.weight /= 1e5
    (problem,) = problems()
    assert problem.startswith('image_branch: 2 values are beyond the range of float16, the first')
    assert '/image_encoder/backbone/layer2/layer2.0/' in problem


def test_all_groups_are_quantized_except_the_groups_that_are_chosen_for_float32(
    quantized: Path,
) -> None:
    image = quantized_groups(quantized / 'image_branch.onnx')
    detection = quantized_groups(quantized / 'detection.onnx')
    assert {'image_layer3', 'depth_blocks', 'context_head'} <= image
    assert {'bev_stem', 'head_shared'} <= detection
    assert not (image | detection) & {'depth_head', 'head_tasks', None}


@pytest.mark.parametrize('graph', GRAPHS)
def test_quantized_graphs_give_nearly_equal_results_for_the_samples_of_the_calibration(
    exported: Path, quantized: Path, samples: Samples, graph: str
) -> None:
    for inputs in samples.by_graph[graph]:
        expected = outputs(exported / f'{graph}.onnx', inputs)[0]
        assert 1e-4 < difference(quantized / f'{graph}.onnx', inputs, expected) < 0.1


def test_zero_points_of_quantized_layers_are_zero_and_some_scales_are_per_channel(
    quantized: Path,
) -> None:
    content = onnx.load(quantized / 'image_branch.onnx').graph
    values = {entry.name: onnx.numpy_helper.to_array(entry) for entry in content.initializer}
    zeros = [value for name, value in values.items() if name.endswith('zero_point')]
    assert zeros
    assert not any(value.any() for value in zeros)
    assert any(value.size > 1 for name, value in values.items() if name.endswith('_scale'))


@pytest.mark.parametrize('graph', GRAPHS)
def test_quantized_graphs_dequantize_only_int8_values_because_tensorrt_rejects_other_types(
    quantized: Path, graph: str
) -> None:
    """The parser of TensorRT accepts only INT8 as input of nodes that dequantize, not int32."""
    model = onnx.load(quantized / f'{graph}.onnx')
    onnx.checker.check_model(model, full_check=True)
    values = {entry.name: entry for entry in model.graph.initializer}
    quantizing = [node for node in model.graph.node if node.op_type == 'QuantizeLinear']
    dequantizing = [node for node in model.graph.node if node.op_type == 'DequantizeLinear']
    assert len(dequantizing) > len(quantizing) > 5
    for node in (*quantizing, *dequantizing):
        assert (onnx.numpy_helper.to_array(values[node.input[1]]) > 0).all()
        assert values[node.input[2]].data_type == onnx.TensorProto.INT8
    assert all(
        values[node.input[0]].data_type == onnx.TensorProto.INT8
        for node in dequantizing
        if node.input[0] in values
    )


def test_the_error_about_int8_without_key_frames_names_the_option_calibration(
    model: BEVDepth, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match='set --calibration to a dataset'):
        to_int8(tmp_path / 'any.onnx', [])


def test_an_unknown_group_of_layers_is_an_error(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match='no group of layers is named depht'):
        to_int8(tmp_path / 'any.onnx', samples.by_graph['detection'], ('depht',))
    assert set(IN_FLOAT32) <= set(GROUPS)


def test_only_convolutions_read_quantized_values(quantized: Path) -> None:
    for graph in GRAPHS:
        nodes = layers(quantized / f'{graph}.onnx').values()
        rounded = {node.output[0] for node in nodes if node.op_type == 'QuantizeLinear'}
        values = {
            node.output[0]
            for node in nodes
            if node.op_type == 'DequantizeLinear' and node.input[0] in rounded
        }
        groups = {group_of(node.name) for node in nodes if values & set(node.input)}
        readers = {node.op_type for node in nodes if values & set(node.input)}
        assert readers == {'Conv'}
        assert not groups & {'depth_head', 'head_tasks'}


def test_by_default_all_groups_are_quantized_except_four_groups_of_the_bev_part(
    exported: Path, samples: Samples, tmp_path: Path
) -> None:
    found = set()
    for graph in GRAPHS:
        path = tmp_path / f'{graph}.onnx'
        path.write_bytes((exported / f'{graph}.onnx').read_bytes())
        to_int8(path, samples.by_graph[graph])
        found |= quantized_groups(path)
    assert found == set(GROUPS) - {'bev_stem', 'bev_neck', 'head_shared', 'head_tasks'}


def test_the_groups_that_stay_in_float32_can_be_chosen(
    model: BEVDepth, samples: Samples, tmp_path: Path
) -> None:
    others = [name for name in GROUPS if name != 'image_neck']
    export_onnx(model, tmp_path, precision='int8', samples=samples, in_float32=others)
    assert quantized_groups(tmp_path / 'image_branch.onnx') == {'image_neck'}
    assert quantized_groups(tmp_path / 'detection.onnx') == set()


def test_a_graph_whose_groups_all_stay_in_float32_does_not_change(
    exported: Path, samples: Samples, tmp_path: Path
) -> None:
    path = tmp_path / 'detection.onnx'
    path.write_bytes((exported / 'detection.onnx').read_bytes())
    to_int8(path, samples.by_graph['detection'], tuple(GROUPS))
    assert path.read_bytes() == (exported / 'detection.onnx').read_bytes()
