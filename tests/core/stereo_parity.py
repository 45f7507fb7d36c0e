"""Compares every stage of a stereo network with the official code.

``python -m tests.core.stereo_parity`` prints a table with the tolerance and the measured distance
of each stage.

The official code computes the motion between two frames in float32, from poses that are 1,000 m
from the origin of the world frame. It computes the motion twice: for the BEV features and for
stereo matching. The two results differ by 0.1 mm. Our code uses one result for both. For the
comparison, our stereo matching therefore uses the official matrices of stereo matching.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bevdepth_core.config import BEVGrid
from bevdepth_core.decode import decode
from bevdepth_core.model import BEVDepth, bevdepth, stereo_depth
from bevdepth_core.model.depth_net import camera_vector
from bevdepth_core.model.stereo_depth import StereoDistribution
from bevdepth_core.model.view_transform import (
    ImageFeatures,
    LiftSplat,
    camera_from_frustum,
    ego_from_frustum,
)
from bevdepth_core.ops import (
    voxel_index,
    voxel_pooling_reference,
    voxel_pooling_volume,
    warping,
)
from bevdepth_core.types import CameraMatrices, ModelInputs
from tests.core.parity import (
    BEV_STAGES,
    IMAGE_STAGES,
    MAX_FLIPS,
    TIGHT,
    TIGHT_BOXES,
    Row,
    Stages,
    compare_boxes,
    print_table,
    real_images,
)
from tests.reference import filled_model, reference_path, stereo_golden

CASES = ('stereo_real_2key', 'stereo_real_2key_da', 'stereo_real_2key_mu_clamp')
AMPLIFIED = 5e-3
"""Largest relative L2 distance of the stages after the first update of the spread. Candidates with
a depth near 0 project far outside of the image, where a rounding error moves the projection by
many pixels. In these stages, a float32 run and a float64 run of the official code differ by up to
1.5e-3."""
FIRST_COSTS = 5e-5
"""Largest relative L2 distance of the cost volumes of the first step. One pixel (camera 4, row 17,
column 93 of the second range) projects to 0.12 m in front of the source camera. The 8 elements of
this pixel differ by up to 1e-2 between AVX2 and AVX-512 instructions of one machine. This changes
the random projection of a stage by up to 2e-5. The stored elements agree within 7.2e-6."""
DEPTH = 2e-4
"""Largest relative L2 distance of the depth distribution. The softmax reduces the differences of
the stages before it. Float32 and float64 runs of the official code differ by 3e-5 with the weights
of these cases, and by up to 4e-4 with other weights."""
FLIPS = 1e-2
"""Largest relative L2 distance of the stages after voxel pooling with our voxel indices. For two
points of the past frame, our cell differs from the official cell. One of these points has the
depth probability 0.153 and a context with the norm 18.8. The map has the norm 872. Because this
point is in another cell, the map changes by sqrt(2) * 0.153 * 18.8 / 872 = 4.7e-3. Maps of the
head change by up to twice this number."""
BORDER_M = 4e-5
"""Largest distance to the nearest cell border, meters, for points whose cell differs from the
official cell. Float32 coordinates of up to 100 m have steps of 7.6e-6 m. About ten operations
round the coordinates by up to half a step each."""
BOXES = (0.1, 1e-2, 10)
"""Tolerances with our voxel indices: distance of centers in meters, difference of scores, and
number of unmatched boxes."""
STORED_INDEX = 2e-4
"""Largest relative L2 distance after voxel pooling with the official indices. Only the difference
of the depth distribution contributes."""

_STEREO_IMAGE_STAGES = {
    **{
        stage: name
        for stage, name in IMAGE_STAGES.items()
        if 'depth_conv' not in stage and stage not in (
            'img_backbone.stage1', 'depth_net.depth_logits', 'depth_net.depth_softmax',
            'depth_aggregation_net_raw',
        )
    },
    'stereo_feat': 'image_encoder.backbone.layer1',
    'depth_net.depth_feat_conv.0': 'depth_net.depth_blocks.0',
    'depth_net.depth_feat_conv.1': 'depth_net.depth_blocks.1',
    'depth_net.depth_feat_conv.2_aspp': 'depth_net.pyramid',
    'depth_net.depth_feat_conv.3_dcn_offset': 'depth_net.deform.offset',
    'depth_net.depth_feat_conv.3_dcn': 'depth_net.deform',
    'depth_net.mono_depth_net.0': 'depth_net.mono_head.0',
    'depth_net.mono_depth': 'depth_net.mono_head',
    'depth_net.mu_sigma_range_net.0': 'depth_net.hypothesis_head.0',
    'depth_net.mu_sigma_range_net.3': 'depth_net.hypothesis_head.3',
    'depth_net.mu_sigma_range_net.6': 'depth_net.hypothesis_head.6',
    'depth_net.mu_sigma_range_raw': 'depth_net.hypothesis_head',
}  # fmt: skip
_DOWNSAMPLE_STAGES = {
    'depth_down.relu1': 'stereo.downsample.2',
    'depth_down.relu2': 'stereo.downsample.5',
    'depth_down': 'stereo.downsample',
}


def golden_inputs(arrays: dict[str, np.ndarray]) -> ModelInputs:
    """Return the inputs of a golden case, whose two frames have the same images."""
    names = ('sensor2ego_mats', 'intrin_mats', 'ida_mats', 'bda_mat')
    matrices = CameraMatrices(*(torch.from_numpy(arrays[f'in/{name}']) for name in names))
    return ModelInputs(real_images().expand(1, 2, -1, -1, -1, -1), matrices)


def official_pair_matrices(arrays: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """Return two matrices ``source_from_reference``, computed from the official poses. The
    reference frame is the key frame in the first matrix and the past frame in the second.
    """
    poses = torch.from_numpy(arrays['in/sensor2sensor_mats']).double()  # one per frame
    frustums = [
        camera_from_frustum(
            *(torch.from_numpy(arrays[f'in/{name}'])[:, f] for name in ('intrin_mats', 'ida_mats'))
        )
        for f in (0, 1)
    ]
    matrices = []
    for reference, source in ((0, 1), (1, 0)):
        motion = poses[:, source] @ torch.linalg.inv(poses[:, reference])
        matrix = torch.linalg.inv(frustums[source]) @ motion @ frustums[reference]
        matrices.append(matrix[..., :3, :])
    return matrices


@contextmanager
def official_poses(arrays: dict[str, np.ndarray]) -> Iterator[None]:
    """Make stereo matching use the matrices of ``official_pair_matrices`` in one forward pass with
    two frames.
    """
    pairs = official_pair_matrices(arrays)
    with patch.object(bevdepth, 'source_from_reference', side_effect=pairs):
        yield


@contextmanager
def stored_cells() -> Iterator[None]:
    """Replace the voxel indices by the official indices in one forward pass with two frames. The
    model must have no depth aggregation.
    """
    frames = iter((0, 1))

    def splat(self: LiftSplat, features: ImageFeatures, matrix: torch.Tensor) -> torch.Tensor:
        index = torch.from_numpy(stored_index(next(frames)))
        return voxel_pooling_reference.voxel_pooling(
            features.depth, features.context, index, self.grid.shape
        )

    with patch.object(LiftSplat, 'forward', splat):
        yield


def case_model(case: str) -> BEVDepth:
    """Return the model of a golden case, with deterministic weights."""
    model = filled_model('stereo_2key_da' if case.endswith('_da') else 'stereo_2key')
    if case.endswith('mu_clamp'):
        assert model.stereo is not None
        model.stereo._config = replace(model.stereo._config, clamp_mean=True)
    return model


@dataclass
class EncodedCase:
    """A golden case, and the features of its two frames."""

    case: str
    arrays: dict[str, np.ndarray]
    stages: Stages
    model: BEVDepth
    inputs: ModelInputs
    features: list[ImageFeatures]


@torch.inference_mode()
def encoded(case: str) -> EncodedCase:
    """Encode the images of a case frame by frame, and compare the stages of the image branch."""
    reference, arrays = stereo_golden(case)
    model, inputs = case_model(case), golden_inputs(arrays)
    stages = Stages(case, reference['stages'], arrays)
    stages.add('image', inputs.images, TIGHT)
    cameras = camera_vector(inputs.matrices.frame(0))
    features = []
    for frame in (0, 1):
        with _hooks(model, stages, _STEREO_IMAGE_STAGES, f's{frame}.', TIGHT):
            features.append(model.encode_images(inputs.images[:, frame], cameras))
        stereo = features[-1].stereo
        assert stereo is not None
        spreads = stereo.hypotheses[0].chunk(3, dim=1)[1]
        stages.add(f's{frame}.depth_net.sigma', torch.nn.functional.elu(spreads) + 1, TIGHT)
    return EncodedCase(case, arrays, stages, model, inputs, features)


class _Noted:
    """Adds rows to ``Stages`` and notes in each row that it uses the official voxel indices."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def add(self, stage: str, tensor: torch.Tensor, tolerance: float) -> None:
        if stage in self._stages.reference:
            row = self._stages.row(stage, tensor, tolerance, ' (stored indices)')
            self._stages.rows.append(row)


@contextmanager
def _hooks(
    model: BEVDepth, stages: Stages | _Noted, names: dict[str, str], prefix: str, tolerance: float
) -> Iterator[None]:
    modules = dict(model.named_modules())

    def hook(stage: str) -> Callable[[Any, Any, torch.Tensor], None]:
        return lambda module, args, output: stages.add(prefix + stage, output, tolerance)

    with ExitStack() as removed:
        for stage, name in names.items():
            removed.callback(modules[name].register_forward_hook(hook(stage)).remove)
        yield


class _StereoStages:
    """Compares the stages of ``StereoDepth`` for one reference frame.

    The methods with the argument ``real`` replace functions of our code. They call the replaced
    function ``real``, and compare its arguments or its results. ``cost_volume`` and ``updated``
    are called once per refinement step for all depth ranges together; ``bin_density`` is called
    once per range.
    """

    def __init__(self, stages: Stages, frame: int, ranges: int) -> None:
        self._stages, self._frame, self._ranges = stages, frame, ranges
        self._calls: Counter[str] = Counter()
        self._warped: list[torch.Tensor] = []

    def _add(self, name: str, tensor: torch.Tensor, tolerance: float) -> None:
        self._stages.add(f's{self._frame}.{name}', tensor, tolerance)

    def _add_ranges(self, step: int, first: float, **stages: torch.Tensor) -> None:
        """Compare stages of one step; the first dimension of each tensor is the depth range.

        Args:
            step: refinement step.
            first: tolerance in the first step; the tolerance in later steps is ``AMPLIFIED``.
            stages: tensors by name.
        """
        tolerance = first if step == 0 else AMPLIFIED
        for name, tensors in stages.items():
            for number, tensor in enumerate(tensors):
                self._add(f'r{number}.i{step}.{name}', tensor, tolerance)

    def _step(self, stage: str) -> int:
        self._calls[stage] += 1
        return self._calls[stage] - 1

    def cost_volume(self, reference, source, depths, *args, real):  # type: ignore[no-untyped-def]
        self._warped = []
        cost = real(reference, source, depths, *args)
        by_range = (self._ranges, -1)
        step = self._step('cost_volume')
        self._add_ranges(
            step,
            TIGHT,
            depth_sample=depths.unflatten(1, by_range).movedim(1, 0),
            warped=torch.stack(self._warped, dim=2).unflatten(2, by_range).movedim(2, 0),
        )
        by_range_cost = cost.unflatten(2, by_range).movedim(2, 0)
        self._add_ranges(step, FIRST_COSTS, cost_volume=by_range_cost)
        return cost

    def warp_features(self, maps, depth, matrix, image, *, real):  # type: ignore[no-untyped-def]
        warped = real(maps, depth, matrix, image)
        self._warped.append(warped)
        return warped

    def warp(self, maps, depth, matrix, image, *, real):  # type: ignore[no-untyped-def]
        warped = real(maps, depth, matrix, image)
        for number, tensor in enumerate(warped.unflatten(0, (-1, self._ranges)).unbind(1)):
            self._add(f'r{number}.mask_warped_mono', tensor, AMPLIFIED)
        return warped

    def updated(self, candidates, spread, scores, *, real):  # type: ignore[no-untyped-def]
        step = self._step('updated')
        self._add_ranges(step, TIGHT, score=scores.movedim(1, 0))
        mean, spread = real(candidates, spread, scores)
        self._add_ranges(step, AMPLIFIED, sigma_after=spread.movedim(1, 0))
        return mean, spread

    def bin_density(self, depths, mean, spread, *, real):  # type: ignore[no-untyped-def]
        number = self._step('bin_density')
        self._add(f'r{number}.mu_final', mean, AMPLIFIED)
        self._add(f'r{number}.sigma_final', spread, AMPLIFIED)
        return real(depths, mean, spread)

    def mask(self, module: Any, args: Any, output: torch.Tensor) -> None:
        for number, mask in enumerate(output.unflatten(0, (-1, self._ranges)).unbind(1)):
            self._add(f'r{number}.mask', mask.sigmoid(), AMPLIFIED)

    def depth_and_mask(self, pair: Any, *, real: Callable) -> Any:
        depth, mask = real(pair)
        self._add('stereo_depth', depth, AMPLIFIED)
        self._add('mask_score', mask, AMPLIFIED)
        return depth, mask


@contextmanager
def _recorded_stereo(case: EncodedCase, frame: int) -> Iterator[None]:
    """Compare the stages of stereo matching while it runs."""
    stereo = case.model.stereo
    assert stereo is not None
    recorder = _StereoStages(case.stages, frame, len(stereo._ranges))
    with ExitStack() as undone:
        for name in ('cost_volume', 'warp', 'updated', 'bin_density'):
            real = getattr(stereo_depth, name)
            wrapped = _with_real(getattr(recorder, name), real)
            undone.enter_context(patch.object(stereo_depth, name, wrapped))
        wrapped = _with_real(recorder.warp_features, warping.warp)
        undone.enter_context(patch('bevdepth_core.ops.cost_volume.warp', wrapped))
        wrapped = _with_real(recorder.depth_and_mask, stereo._depth_and_mask)
        undone.enter_context(patch.object(stereo, '_depth_and_mask', wrapped))
        undone.callback(stereo.mask.register_forward_hook(recorder.mask).remove)
        undone.enter_context(
            _hooks(case.model, case.stages, _DOWNSAMPLE_STAGES, f's{frame}.', AMPLIFIED)
        )
        yield


def _with_real(function: Callable, real: Callable) -> Callable:
    return lambda *args: function(*args, real=real)


def compare(case: str) -> Iterator[Row]:
    """Yield every comparison of one case."""
    run = encoded(case)
    bev_maps = {'computed': [], 'stored': []}
    pairs = official_pair_matrices(run.arrays)
    for frame in (0, 1):
        features = _matched(run, frame, pairs[frame])
        for indices, maps in bev_maps.items():
            maps.append(_splatted(run, frame, features, indices))
        yield from _compare_cells(run, frame)
    stacked = torch.cat(bev_maps['stored'], dim=1)
    yield run.stages.row('backbone_bev', stacked, STORED_INDEX, ' (stored indices)')
    with torch.inference_mode():
        with _hooks(run.model, _Noted(run.stages), BEV_STAGES, '', STORED_INDEX):
            stored = run.model.head_maps(bev_maps['stored'])
        run.stages.add('backbone_bev', torch.cat(bev_maps['computed'], dim=1), FLIPS)
        with _hooks(run.model, run.stages, BEV_STAGES, '', FLIPS):
            computed = run.model.head_maps(bev_maps['computed'])
    run.stages.require_all()
    yield from run.stages.rows
    for note, tasks, tolerances in (
        ('voxel indices computed', computed, BOXES),
        ('stored indices', stored, TIGHT_BOXES),
    ):
        boxes = decode(tasks, run.model.config)[0]
        yield from compare_boxes(case, run.arrays, boxes, note, tolerances)


@torch.inference_mode()
def _matched(run: EncodedCase, frame: int, matrix: torch.Tensor) -> ImageFeatures:
    reference, source = run.features[frame].stereo, run.features[1 - frame].stereo
    assert run.model.stereo is not None
    with _recorded_stereo(run, frame):
        depth: StereoDistribution = run.model.stereo(reference, source, matrix)
    run.stages.add(f's{frame}.depth_softmax', depth.masked, DEPTH)
    view = run.model.view_transform
    refined = {'depth_aggregation_net_raw': 'view_transform.refinement.out'}
    with _hooks(run.model, run.stages, refined if view.refinement else {}, f's{frame}.', DEPTH):
        return view.refine(depth.masked, run.features[frame].context)


@torch.inference_mode()
def _splatted(run: EncodedCase, frame: int, features: ImageFeatures, indices: str) -> torch.Tensor:
    if indices == 'computed':
        matrix = ego_from_frustum(run.inputs.matrices.frame(frame))
        bev = run.model.splat(features, matrix)
        run.stages.add(f's{frame}.bev', bev, FLIPS)
        return bev
    index, shape = torch.from_numpy(stored_index(frame)), run.model.config.grid.shape
    if features.volume is not None:
        return voxel_pooling_volume(features.volume, index, shape)
    return voxel_pooling_reference.voxel_pooling(features.depth, features.context, index, shape)


def stored_index(frame: int) -> np.ndarray:
    """Return the official voxel indices of one frame, (1, N, D, h, w, 3) int32."""
    path = reference_path('stereo/golden/geometry_stereo_real_2key.npz')
    return np.load(path)['geom_int16'][:, frame].astype(np.int32)


def _compare_cells(run: EncodedCase, frame: int) -> Iterator[Row]:
    """Compare the voxel indices. Points whose index differs from the official index must be close
    to a cell border.
    """
    view, grid = run.model.view_transform, run.model.config.grid
    matrix = ego_from_frustum(run.inputs.matrices.frame(frame), torch.float64)
    axes = (view.frustum_u, view.frustum_v, view.frustum_d)
    index = voxel_index(matrix.float(), *axes, grid.lower, grid.cell).numpy()
    changed = index != stored_index(frame)
    stage, count = f's{frame}.geometry_voxel_int', int(changed.any(axis=-1).sum())
    yield Row(run.case, stage, 'points in another cell', MAX_FLIPS, count)
    farthest = _border_distances(matrix, axes, grid)[changed].max(initial=0.0)
    yield Row(run.case, stage, 'their distance to the cell border, m', BORDER_M, float(farthest))


def _border_distances(
    matrix: torch.Tensor, axes: tuple[torch.Tensor, ...], grid: BEVGrid
) -> np.ndarray:
    """Return (1, N, D, h, w, 3) float64: distance of each point to the nearest cell border along
    x, y and z, meters.
    """
    u, v, d = (axis.double() for axis in axes)
    depth, row, column = torch.meshgrid(d, v, u, indexing='ij')
    points = torch.stack((column * depth, row * depth, depth, torch.ones_like(depth)), dim=-1)
    lower, cell = (torch.tensor(values).double() for values in (grid.lower, grid.cell))
    cells = (torch.einsum('bnij,dhwj->bndhwi', matrix, points) - lower) / cell
    return ((cells - cells.round()).abs() * cell).numpy()


def main() -> None:
    """Print the table as Markdown; exit with an error if a distance exceeds its tolerance."""
    print_table([row for case in CASES for row in compare(case)])


if __name__ == '__main__':
    main()
