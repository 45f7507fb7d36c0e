"""Exported graphs give the results of the network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions as extensions
import pytest
import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import SizeAwareNMSConfig
from bevdepth_core.engine import exported_inference
from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.engine.exported import MANIFEST, ExportError, Graph, file_digest
from bevdepth_core.engine.onnx import onnx_graph, open_session
from bevdepth_core.export import volume_pooling
from bevdepth_core.export.check import MATCHED_SHARE, compare, matched_boxes, random_frames
from bevdepth_core.export.command_line import main
from bevdepth_core.export.onnx_graphs import write_graph
from bevdepth_core.export.parts import CustomPooling, Part, SampledDeformableConv, network_parts
from bevdepth_core.export.pooling import PlainPooling
from bevdepth_core.export.scatter_pooling import ScatterPooling, WholePooling
from bevdepth_core.export.volume_pooling import VolumePooling, _running_sums
from bevdepth_core.export.writing import export_onnx
from bevdepth_core.geometry import to_4x4
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import LiftSplat
from bevdepth_core.preprocess import ImageTransform
from tests.core.export.inputs import splat_inputs
from tests.core.frames import make_frame, make_rig
from tests.networks import export_model

Pooling = Callable[[LiftSplat], torch.nn.Module]
GRAPHS = ('image_branch', 'splat', 'detection')


def nodes(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(path).graph.node)


def test_the_export_equals_the_network_for_any_number_of_cameras(
    model: BEVDepth, exported: Path
) -> None:
    report = compare(model, exported, (1, 3))
    assert report.problems == []
    assert set(report.errors) == {'depth', 'context', 'bev', 'maps'}
    assert max(report.errors.values()) < 5e-6
    assert report.boxes > 100
    assert report.matched == report.boxes == report.exported_boxes


def test_the_check_reports_a_graph_that_ignores_its_calibration_input(
    model: BEVDepth, exported: Path, tmp_path: Path
) -> None:
    class OneCalibration(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pooling = PlainPooling(model.view_transform)

        def forward(self, depth, context, ego_from_frustum):
            return self.pooling(depth, context, torch.eye(4)[:3] + 0 * ego_from_frustum)

    folder = shutil.copytree(exported, tmp_path / 'exported')
    splat = network_parts(model, 'plain', True)[1]
    write_graph(
        Part('splat', OneCalibration(), splat.inputs, splat.outputs, splat.per_camera),
        folder / 'splat.onnx',
    )
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest['graphs']['splat']['sha256'] = file_digest(folder / 'splat.onnx')
    (folder / MANIFEST).write_text(json.dumps(manifest))
    problems = compare(model, folder, (1,)).problems
    assert problems[0] == 'bev does not depend on the calibration'
    assert any(problem.startswith('bev: the relative error is') for problem in problems)
    assert any('boxes match' in problem for problem in problems)


@pytest.mark.parametrize('graph', GRAPHS)
def test_plain_graphs_have_standard_operators_and_no_scatter(exported: Path, graph: str) -> None:
    model = onnx.load(exported / f'{graph}.onnx')
    onnx.checker.check_model(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [('', 19)]
    kinds = {node.op_type for node in model.graph.node}
    assert not {kind for kind in kinds if kind.startswith('Scatter') or kind == 'DeformConv'}


def test_the_grid_sample_node_has_the_mode_bilinear_which_tensorrt_supports(
    exported: Path,
) -> None:
    """Opset 20 changes the name bilinear to linear. If the mode is linear, the parser of
    TensorRT uses nearest neighbor.
    """
    (node,) = [node for node in nodes(exported / 'image_branch.onnx') if 'Grid' in node.op_type]
    attributes = {entry.name: entry for entry in node.attribute}
    assert attributes['mode'].s == b'bilinear'
    assert attributes['align_corners'].i == 1


@pytest.mark.parametrize('pooling', [PlainPooling, ScatterPooling, WholePooling])
def test_each_form_of_pooling_equals_the_voxel_pooling_op(
    model: BEVDepth, pooling: Pooling
) -> None:
    inputs = splat_inputs(model, 3)
    expected = CustomPooling(model.view_transform)(*inputs)
    found = pooling(model.view_transform)(*inputs)
    assert expected.count_nonzero() > 100
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('pooling', [PlainPooling, ScatterPooling, WholePooling])
@pytest.mark.parametrize('offset', [-0.999, -1.001, 0.0, 7.999, 8.001, float('nan'), 1e30])
def test_each_form_of_pooling_treats_points_at_grid_borders_as_the_voxel_pooling_op_does(
    model: BEVDepth, offset: float, pooling: Pooling
) -> None:
    """All points have the same position, which is ``offset`` cells away from the lower end of the
    grid along one axis. Each axis is tested.
    """
    grid = model.config.grid
    depth, context, _ = splat_inputs(model, 1)
    for axis in range(3):
        place = [low + 0.5 * cell for low, cell in zip(grid.lower, grid.cell, strict=True)]
        place[axis] = grid.lower[axis] + offset * grid.cell[axis]
        matrices = torch.zeros(1, 3, 4)
        matrices[0, :, 3] = torch.tensor(place)
        expected = CustomPooling(model.view_transform)(depth, context, matrices)
        found = pooling(model.view_transform)(depth, context, matrices)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_deformable_convolution_written_with_grid_sample_equals_the_original(
    model: BEVDepth,
) -> None:
    conv = model.depth_net.deform
    features = torch.randn(2, conv.offset.in_channels, 5, 7)
    assert conv.offset(features).abs().max() > 1
    torch.testing.assert_close(
        SampledDeformableConv(conv, 5, 7)(features), conv(features), rtol=1e-4, atol=1e-5
    )


def test_the_native_form_of_a_deformable_convolution_is_one_deformconv_node(
    model: BEVDepth, tmp_path: Path
) -> None:
    write_graph(network_parts(model, 'plain', False)[0], tmp_path / 'native.onnx')
    kinds = [node.op_type for node in nodes(tmp_path / 'native.onnx')]
    assert kinds.count('DeformConv') == 1
    assert 'GridSample' not in kinds


def test_the_custom_pooling_node_runs_in_onnx_runtime_with_a_registered_kernel(
    model: BEVDepth, tmp_path: Path
) -> None:
    part = network_parts(model, 'custom', True)[1]
    write_graph(part, tmp_path / 'splat.onnx')
    (node,) = [node for node in nodes(tmp_path / 'splat.onnx') if node.domain == 'bevdepth']
    assert node.op_type == 'VoxelPooling'
    types = extensions.PyCustomOpDef
    numbers = [f'{name}_{axis}' for name in ('lower', 'cell') for axis in 'xyz']

    @extensions.onnx_op(
        op_type='bevdepth::VoxelPooling',
        inputs=[types.dt_float] * 6,
        attrs={
            **dict.fromkeys(numbers, types.dt_float),
            **dict.fromkeys(('columns', 'rows'), types.dt_int64),
        },
    )
    def pool(*inputs, **grid):
        lower, cell = ([grid[f'{name}_{axis}'] for axis in 'xyz'] for name in ('lower', 'cell'))
        tensors = [torch.from_numpy(np.array(value)) for value in inputs]
        shape = (grid['columns'], grid['rows'], 1)
        return torch.ops.bevdepth.voxel_pooling(*tensors, lower, cell, shape).contiguous().numpy()

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(extensions.get_library_path())
    session = onnxruntime.InferenceSession(
        str(tmp_path / 'splat.onnx'), options, providers=['CPUExecutionProvider']
    )
    inputs = splat_inputs(model, 3)
    named = {name: value.numpy() for name, value in zip(part.inputs, inputs, strict=True)}
    torch.testing.assert_close(torch.from_numpy(session.run(None, named)[0]), part.module(*inputs))


def test_a_detector_with_an_export_gives_the_boxes_of_the_network_in_a_stream_of_frames(
    model: BEVDepth, exported: Path
) -> None:
    expected, detector = Detector(model), Detector(model, onnx_folder=exported)
    detector.keep_depth = True
    for stamp, cameras in (
        (0.0, 2),
        (0.5, 2),
        (1.0, 1),
        (1.5, 3),
    ):  # the number of cameras changes
        frame = make_frame(stamp, make_rig(cameras), seed=int(2 * stamp))
        boxes, found = expected(frame), detector(frame)
        assert found.past_stamp_ns == boxes.past_stamp_ns
        # Rounding can change the order of boxes with nearly equal scores. A task returns only its
        # best boxes, so rounding can also change which boxes are returned.
        one, other = matched_boxes(boxes, found).T
        assert len(one) >= MATCHED_SHARE['fp32'] * len(boxes.scores)
        for name in ('center', 'velocity'):
            np.testing.assert_allclose(
                getattr(found.boxes, name)[other], getattr(boxes.boxes, name)[one], atol=1e-4
            )
        np.testing.assert_allclose(found.scores[other], boxes.scores[one], atol=1e-5)
    assert boxes.past_stamp_ns is not None
    assert len(boxes.scores) > 10
    assert detector.depth is not None
    assert list(found.stage_seconds) == list(boxes.stage_seconds)


@pytest.mark.parametrize(('pooling', 'expected'), [('plain', 2), ('scatter', 1)])
def test_only_a_splat_graph_with_a_scatter_is_limited_to_one_thread(
    model: BEVDepth,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    expected: int,
) -> None:
    """With several threads, ONNX Runtime loses additions of ScatterND (issue 18048 of ONNX
    Runtime).
    """
    export_onnx(model, tmp_path, pooling=pooling)
    threads = {}

    def opened(path: Path, count: int) -> Graph:
        threads[path.stem] = count
        return onnx_graph(path, count)

    monkeypatch.setattr(exported_inference, 'onnx_graph', opened)
    Detector(model, onnx_folder=tmp_path, cpu_threads=2)
    assert threads == {'image_branch': 2, 'splat': expected, 'detection': 2}


def test_the_manifest_describes_inputs_preprocessing_and_weights(
    model: BEVDepth, exported: Path
) -> None:
    manifest = json.loads((exported / MANIFEST).read_text())
    graphs = manifest['graphs']
    assert tuple(graphs) == GRAPHS
    assert graphs['image_branch']['inputs']['images']['shape'] == ['cameras', 3, 32, 96]
    assert graphs['splat']['inputs']['ego_from_frustum']['shape'] == ['cameras', 3, 4]
    assert list(graphs['detection']['inputs']) == ['bev_key', 'bev_past']
    assert graphs['detection']['outputs']['candidates']['shape'] == [6, 11, 60]
    assert manifest['classes'] == list(model.config.class_names)
    assert manifest['preprocessing']['mean'] == list(model.config.image.mean)
    assert manifest['weights']['name'] == 'tiny'
    assert len(manifest['weights']['sha256']) == 64


def test_the_input_matrix_of_the_splat_can_be_computed_from_the_rows_in_the_manifest(
    model: BEVDepth, exported: Path
) -> None:
    """The matrix multiplies (u d, v d, d, 1). The crop is therefore in its third column, which is
    multiplied by the depth d. In ``inv(image_aug)``, the crop is in the fourth column.
    """
    text = json.loads((exported / MANIFEST).read_text())['preprocessing']['source_from_input']
    frame, spec = make_frame(0.0, make_rig(2)), model.config.image
    transform = ImageTransform.for_inference(352, 200, spec)
    assert transform.crop_y > 0
    numbers = {name: getattr(transform, name) for name in ('scale', 'crop_x', 'crop_y')}
    rows = text.removeprefix('rows: ').split('; ')
    source_from_input = [[eval(cell, {}, numbers) for cell in row.split()] for row in rows]
    found = (
        frame.rig.ego_from_camera
        @ np.linalg.inv(to_4x4(frame.rig.intrinsics))
        @ np.array(source_from_input)
    )
    expected = Calibration.of(frame.rig, frame.images, spec).ego_from_frustum(
        frame.rig.ego_from_camera, torch.float64
    )
    np.testing.assert_allclose(found[:, :3], expected[0].numpy(), atol=1e-9)


def test_an_export_with_weights_that_differ_from_the_network_is_an_error(
    model: BEVDepth, exported: Path
) -> None:
    other = export_model()
    other.head.shared[0].weight.data[0, 0, 0, 0] += 1
    with pytest.raises(ExportError, match='exported from other weights'):
        Detector(other, onnx_folder=exported)


def test_a_missing_or_damaged_file_is_an_error(
    model: BEVDepth, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r'manifest\.json: cannot be read'):
        Detector(model, onnx_folder=tmp_path)
    folder = shutil.copytree(exported, tmp_path / 'exported')
    with (folder / 'splat.onnx').open('ab') as file:
        file.write(b'x')
    with pytest.raises(ExportError, match=r'splat.onnx: missing or damaged; write it with'):
        Detector(model, onnx_folder=folder)


@pytest.mark.parametrize(
    ('entry', 'values'),
    [
        ('graphs', {}),
        ('pooling', {}),
        ('config', {}),
        ('weights', {}),
        ('graphs', {'graphs': 'text'}),
        ('config', {'config': 'text'}),
        ('weights', {'weights': 'text'}),
    ],
)
def test_a_manifest_with_a_missing_or_invalid_entry_is_an_error_with_the_remedy(
    model: BEVDepth, exported: Path, tmp_path: Path, entry: str, values: dict[str, str]
) -> None:
    folder = shutil.copytree(exported, tmp_path / 'exported')
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[entry]
    manifest.update(values)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match='write it with'):
        Detector(model, onnx_folder=folder)


def test_without_onnx_runtime_the_error_contains_the_install_command(
    model: BEVDepth, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ExportError, match='pip install'):
        Detector(model, onnx_folder=exported)


def test_the_frames_of_the_check_differ_in_images_calibration_and_ego_poses() -> None:
    first, second = random_frames(2, np.random.default_rng(0))
    assert not np.array_equal(first.images[0], second.images[0])
    assert not np.array_equal(first.rig.intrinsics, second.rig.intrinsics)
    assert not np.array_equal(first.rig.ego_from_camera, second.rig.ego_from_camera)
    assert not np.array_equal(first.world_from_ego, second.world_from_ego)


def test_with_depth_refinement_each_form_of_pooling_equals_the_voxel_pooling_op() -> None:
    view = (model := export_model(refinement=True)).view_transform
    inputs = splat_inputs(model, 3)
    expected = CustomPooling(view)(*inputs)
    assert expected.count_nonzero() > 100
    for pooling in (VolumePooling, ScatterPooling, WholePooling):
        torch.testing.assert_close(pooling(view)(*inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('refinement', [False, True])
def test_the_scatter_graph_adds_all_points_of_a_cell(tmp_path: Path, refinement: bool) -> None:
    model = export_model(refinement=refinement)
    part = network_parts(model, 'scatter', True)[1]
    write_graph(part, tmp_path / 'splat.onnx')
    written = onnx.load(tmp_path / 'splat.onnx')
    onnx.checker.check_model(written)
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [('', 19)]
    depth, context, matrices = splat_inputs(model, 3)
    matrices = matrices * torch.tensor((1, 1, 1, 1e-3))  # many points in few cells
    matrices[..., 2] *= 0.1
    expected = CustomPooling(model.view_transform)(depth, context, matrices)
    named = dict(zip(part.inputs, (depth, context, matrices), strict=True))
    session = open_session(tmp_path / 'splat.onnx', 1)
    found = session.run(None, {name: value.numpy() for name, value in named.items()})[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_a_group_of_columns_has_at_most_as_many_points_as_tensorrt_can_sort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = (model := export_model(refinement=True)).view_transform
    inputs = splat_inputs(model, 2)
    expected = VolumePooling(view)(*inputs)
    monkeypatch.setattr(volume_pooling, 'MOST_SORTED', 4 * len(view.frustum_d) - 1)
    pooling = VolumePooling(view)
    # The limit allows at most 3 columns per group, and 3 divides the 6 columns of the features.
    assert pooling.group == 3
    found = pooling(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_running_sums_restart_at_each_cell() -> None:
    cells = torch.tensor([[0.0, 1, 1, 1, 1, 1, 4, 4]])
    values = torch.tensor([[[1.0, 2, 3, 4, 5, 6, 7, 8]]])
    sums = _running_sums(cells, values)
    assert sums.tolist() == [[[1, 2, 5, 9, 14, 20, 7, 15]]]


def test_the_plain_splat_graph_with_depth_refinement_has_no_scatter_that_adds(
    tmp_path: Path,
) -> None:
    model = export_model(refinement=True)
    part = network_parts(model, 'plain', True)[1]
    write_graph(part, path := tmp_path / 'splat.onnx')
    scatters = [node for node in nodes(path) if 'Scatter' in node.op_type]
    assert scatters
    for node in scatters:
        assert {value.name: value.s for value in node.attribute}.get(
            'reduction', b'none'
        ) == b'none'
    constants = {node.output[0] for node in nodes(path) if node.op_type == 'Constant'}
    sorts = [node for node in nodes(path) if node.op_type == 'TopK']
    assert len(sorts) == len(model.view_transform.frustum_v)
    assert all(node.input[1] in constants for node in sorts)  # TensorRT requires a constant
    session = open_session(tmp_path / 'splat.onnx', 1)
    inputs = splat_inputs(model, 3)
    named = {name: value.numpy() for name, value in zip(part.inputs, inputs, strict=True)}
    expected = CustomPooling(model.view_transform)(*inputs)
    found = torch.from_numpy(session.run(None, named)[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_with_depth_refinement_the_custom_splat_graph_has_two_custom_nodes(tmp_path: Path) -> None:
    model = export_model(refinement=True)
    write_graph(network_parts(model, 'custom', True)[1], tmp_path / 'splat.onnx')
    own = [node.op_type for node in nodes(tmp_path / 'splat.onnx') if node.domain == 'bevdepth']
    assert own == ['VoxelIndex', 'VoxelPoolingVolume']


def test_the_command_writes_and_checks_an_export_and_rejects_a_missing_checkpoint(
    model: BEVDepth, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / 'tiny.safetensors'
    save_checkpoint(model, checkpoint)
    main([str(checkpoint), '--out', str(tmp_path / 'out'), '--check', '--cameras', '1'])
    printed = capsys.readouterr().out
    assert 'manifest.json' in printed
    assert 'boxes' in printed
    with pytest.raises(SystemExit, match='no such checkpoint file'):
        main([str(tmp_path / 'missing.safetensors'), '--out', str(tmp_path / 'out')])


def test_a_network_with_size_aware_nms_is_rejected_before_files_are_written(
    tmp_path: Path,
) -> None:
    config = export_model().config
    decode = replace(config.decode, size_aware_nms=SizeAwareNMSConfig())
    network = BEVDepth(replace(config, decode=decode))
    with pytest.raises(ExportError, match=r'set decode\.size_aware_nms of the model'):
        export_onnx(network, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
