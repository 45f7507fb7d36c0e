"""Compares every stage of the network with the official code.

``python -m tests.core.parity`` prints a table with the tolerance and the measured distance of each
stage. A golden case is a file with network inputs, and with the numbers that the official code
computed from these inputs.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from bevdepth_core.config import ModelConfig
from bevdepth_core.decode import ScoredBoxes, decode
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures, ego_from_frustum
from bevdepth_core.ops import voxel_index, voxel_pooling_reference, voxel_pooling_volume
from bevdepth_core.preprocess import normalize, preprocess
from bevdepth_core.types import CameraMatrices, ModelInputs
from tests.reference import DATA, filled_model, golden, reference_path, synthetic_images, uniform
from tests.sample import sample_paths

CASES = ('real_1key', 'real_2key', 'real_2key_da', 'synth_2key', 'synth_2key_da')
"""The images of the synth cases come from a formula. These cases need no reference folder."""
TIGHT = 1e-5
"""Largest relative L2 distance of a stage that differs from the official stage only by
rounding."""
FLIPS = {'1key': 2e-3, '2key': 2e-3, '2key_da': 5e-3}
"""Largest relative L2 distance of the stages after voxel pooling with our voxel indices, for each
network variant. One or two points fall into a cell next to their official cell. After depth
aggregation, single points have large weights, so one such point changes the map more than it does
without depth aggregation."""
BOXES = {'1key': (1e-3, 1e-4, 0), '2key': (1e-3, 1e-4, 0), '2key_da': (5e-2, 1e-2, 4)}
"""Tolerances with our voxel indices: distance of centers in meters, difference of scores, and
number of unmatched boxes. A candidate with a score near the lowest selected score may be selected
only by our code, or only by the official code. Its box then has no match."""
TIGHT_BOXES = (1e-3, 1e-4, 0)
MAX_FLIPS = 16
"""Largest number of points of a frame whose cell may differ from the official cell. A frame has
473,088 points. A float32 run and a float64 run of the official code differ in the cells of 6 to 8
points."""

IMAGE_STAGES = {
    'img_backbone.stem_pool': 'image_encoder.backbone.maxpool',
    **{f'img_backbone.stage{n}': f'image_encoder.backbone.layer{n}' for n in (1, 2, 3, 4)},
    'img_neck': 'image_encoder.neck',
    'depth_net.mlp_input_bn': 'depth_net.camera_norm',
    'depth_net.reduce_conv': 'depth_net.reduce',
    'depth_net.context_mlp': 'depth_net.context_gate.mlp',
    'depth_net.context_se': 'depth_net.context_gate',
    'depth_net.depth_mlp': 'depth_net.depth_gate.mlp',
    'depth_net.depth_se': 'depth_net.depth_gate',
    **{f'depth_net.depth_conv.{n}': f'depth_net.depth_blocks.{n}' for n in (0, 1, 2)},
    'depth_net.depth_conv.3_aspp': 'depth_net.pyramid',
    'depth_net.depth_conv.4_dcn_offset': 'depth_net.deform.offset',
    'depth_net.depth_conv.4_dcn': 'depth_net.deform',
    'depth_net.depth_logits': 'depth_net.depth_head',
    'depth_net.depth_softmax': 'depth_net',
    'depth_net.context': 'depth_net.context_head',
    'depth_aggregation_net_raw': 'view_transform.refinement.out',
}
BEV_STAGES = {
    'trunk.stem': 'bev_encoder.trunk.relu',
    **{f'trunk.layer{n}': f'bev_encoder.trunk.layer{n}' for n in (1, 2, 3)},
    'bev_neck': 'bev_encoder.neck',
    'shared_conv': 'head.shared',
    **{
        f'task{t}.{name}': f'head.tasks.{t}.{name}'
        for t in range(6)
        for name in ('reg', 'height', 'dim', 'rot', 'vel', 'heatmap')
    },
}


@dataclass(frozen=True)
class Row:
    """One row of the table: the compared stage, the tolerance and the measured distance."""

    case: str
    stage: str
    measure: str
    tolerance: float
    reached: float

    @property
    def met(self) -> bool:
        return self.reached <= self.tolerance


def sample_inputs(case: str) -> ModelInputs:
    """Return the inputs of a golden case: the matrices of its file, and its images.

    The images of a synth case come from a formula, the images of a real case from the JPEG
    files of the real sample.
    """
    _, arrays = golden(case)
    matrices = (
        torch.from_numpy(arrays[f'in/{name}'])
        for name in ('sensor2ego_mats', 'intrin_mats', 'ida_mats', 'bda_mat')
    )
    frames = arrays['in/sensor2ego_mats'].shape[1]
    images = (
        synthetic_images()
        if case.startswith('synth')
        else real_images().expand(1, frames, -1, -1, -1, -1)
    )
    return ModelInputs(images, CameraMatrices(*matrices))


def real_images() -> torch.Tensor:
    """Return the (1, 1, 6, 3, 256, 704) network input of the real sample, from its JPEG files."""
    paths = sample_paths(reference_path('nuscenes_sample'))
    crops, _ = preprocess([np.asarray(Image.open(path)) for path in paths], ModelConfig().image)
    return normalize(torch.from_numpy(crops), ModelConfig().image)[None, None]


def compare(case: str) -> Iterator[Row]:
    """Yield the comparisons of all stages of the network for ``case``, a name in ``CASES``."""
    reference, arrays = golden(case)
    variant = case.split('_', 1)[1]
    model = filled_model(variant)
    inputs = sample_inputs(case)
    stages = Stages(case, reference['stages'], arrays)
    stages.add('image', inputs.images, TIGHT)
    with (
        torch.inference_mode(),
        _recorded(model, stages, FLIPS[variant]),
        _kept_features(model) as kept,
    ):
        outputs = model(inputs)
    stages.require_all()
    yield from stages.rows
    yield from compare_boxes(
        case,
        arrays,
        decode(outputs.tasks, model.config)[0],
        'voxel indices computed',
        BOXES[variant],
    )
    yield from _compare_geometry(case, inputs, model)
    yield from _compare_injected(case, stages, arrays, model, kept)


def compare_head_only() -> Iterator[Row]:
    """Yield the comparisons of BEV encoder and head on a BEV map that comes from a formula and
    does not depend on voxel indices.
    """
    reference, arrays = golden('head_only_2key')
    model = filled_model('2key')
    stages = Stages('head_only_2key', reference['stages'], arrays, prefix='head.')
    bev = torch.from_numpy((0.7 * uniform('head_input', (2, 160, 128, 128))).astype(np.float32))
    with torch.inference_mode(), _recorded(model, stages, TIGHT):
        tasks = model.head_maps([bev])
    stages.require_all()
    yield from stages.rows
    for index, boxes in enumerate(decode(tasks, model.config)):
        yield from compare_boxes(
            'head_only_2key', arrays, boxes, f'sample {index}', TIGHT_BOXES, index
        )


class Stages:
    """Compares tensors with a golden case while the network runs."""

    def __init__(
        self, case: str, reference: dict, arrays: dict[str, np.ndarray], prefix: str = ''
    ) -> None:
        self.case, self.rows, self._prefix = case, [], prefix
        self.reference, self._arrays = reference, arrays

    def row(self, stage: str, tensor: torch.Tensor, tolerance: float, note: str = '') -> Row:
        """Return the row of a stage. The distance in this row is the larger of two relative L2
        distances: the distance of the stored elements, and the distance of all elements, which is
        estimated from a random projection.
        """
        if list(tensor.shape) != self.reference[stage]['shape'] and tensor.numel() != np.prod(
            self.reference[stage]['shape']
        ):
            raise AssertionError(
                f'{self.case} {stage}: shape {tuple(tensor.shape)}, official '
                f'{self.reference[stage]["shape"]}'
            )
        values = tensor.reshape(-1).double().numpy()
        expected = self._arrays[f'{stage}/val'].astype(np.float64)
        stored = np.linalg.norm(values[self._arrays[f'{stage}/idx']] - expected) / np.linalg.norm(
            expected
        )
        projection = values @ uniform(f'proj:{stage}', values.shape)
        # The projection of a random difference on numbers that are uniform in [-1, 1) is typically
        # (root mean square) smaller than the L2 norm of the difference by the factor sqrt(3).
        total = (
            abs(projection - self.reference[stage]['proj'])
            * np.sqrt(3)
            / self.reference[stage]['l2']
        )
        return Row(self.case, stage + note, 'relative L2', tolerance, float(max(stored, total)))

    def add(self, stage: str, tensor: torch.Tensor, tolerance: float) -> None:
        """Compare a stage if the golden case contains it. Some stages are stored only for the key
        frame.
        """
        if self._prefix + stage in self.reference:
            self.rows.append(self.row(self._prefix + stage, tensor, tolerance))

    def require_all(self) -> None:
        """Raise AssertionError if a stored stage was not compared. Stages of the geometry are
        excluded, because their voxel indices are compared separately.
        """
        compared = {row.stage for row in self.rows}
        left_out = [
            stage for stage in self.reference if stage not in compared and 'geometry' not in stage
        ]
        if left_out:
            raise AssertionError(f'{self.case}: not compared: {left_out}')


@contextmanager
def _recorded(model: BEVDepth, stages: Stages, after_pooling: float) -> Iterator[None]:
    """Compare module outputs while the model runs. Image modules run once per frame.
    ``after_pooling`` is the tolerance of all stages that follow voxel pooling.
    """
    runs: Counter = Counter()

    def image_hook(stage):
        def hook(module, args, output):
            stages.add(
                f's{runs[stage]}.{stage}',
                output[0] if isinstance(output, tuple) else output,
                TIGHT,
            )
            runs[stage] += 1

        return hook

    def bev_hook(stage):
        return lambda module, args, output: stages.add(stage, output, after_pooling)

    modules = dict(model.named_modules())
    hooks = [
        modules[name].register_forward_hook(image_hook(stage))
        for stage, name in IMAGE_STAGES.items()
        if name in modules
    ]
    hooks += [
        modules[name].register_forward_hook(bev_hook(stage)) for stage, name in BEV_STAGES.items()
    ]

    def splat_hook(module, args, output):
        stages.add(f's{runs["bev"]}.bev', output, after_pooling)
        runs['bev'] += 1

    hooks.append(model.view_transform.register_forward_hook(splat_hook))
    hooks.append(
        model.bev_encoder.register_forward_pre_hook(
            lambda module, args: stages.add('backbone_bev', args[0], after_pooling)
        )
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _kept_features(model: BEVDepth) -> Iterator[list[ImageFeatures]]:
    """Collect the inputs of voxel pooling, frame by frame."""
    kept: list[ImageFeatures] = []
    hook = model.view_transform.register_forward_pre_hook(
        lambda module, args: kept.append(args[0])
    )
    try:
        yield kept
    finally:
        hook.remove()


def _compare_geometry(case: str, inputs: ModelInputs, model: BEVDepth) -> Iterator[Row]:
    for frame in range(inputs.images.shape[1]):
        flips = (
            (_voxel_index(inputs, frame, model).numpy() != stored_index(case, frame))
            .any(axis=-1)
            .sum()
        )
        yield Row(
            case, f's{frame}.geometry_voxel_int', 'points in another cell', MAX_FLIPS, int(flips)
        )


def stored_index(case: str, frame: int) -> np.ndarray:
    """Return the official voxel indices of one frame, (1, N, D, h, w, 3) int32. Both frames of
    a real case have the same indices.
    """
    if case.startswith('synth'):
        return np.load(DATA / 'geometry_synth.npz')['geom_int16'][:, frame].astype(np.int32)
    return np.load(reference_path('golden/voxel_pooling_real.npz'))['geom_int16'].astype(np.int32)


def _voxel_index(inputs: ModelInputs, frame: int, model: BEVDepth) -> torch.Tensor:
    view, grid = model.view_transform, model.config.grid
    matrix = ego_from_frustum(inputs.matrices.frame(frame))
    return voxel_index(
        matrix, view.frustum_u, view.frustum_v, view.frustum_d, grid.lower, grid.cell
    )


def _compare_injected(
    case: str, stages: Stages, arrays: dict, model: BEVDepth, kept: list[ImageFeatures]
) -> Iterator[Row]:
    """Yield the comparisons of BEV maps and boxes after voxel pooling with the official indices.
    With these indices, our results differ from the official results only by rounding.
    """
    bev_maps = []
    for frame, features in enumerate(kept):
        index = torch.from_numpy(stored_index(case, frame))
        bev_maps.append(_splat_indexed(features, index, model))
        yield stages.row(f's{frame}.bev', bev_maps[-1], TIGHT, ' (stored indices)')
    with torch.inference_mode():
        tasks = model.head_maps(bev_maps)
    yield from compare_boxes(
        case, arrays, decode(tasks, model.config)[0], 'stored indices', TIGHT_BOXES
    )


def _splat_indexed(features: ImageFeatures, index: torch.Tensor, model: BEVDepth) -> torch.Tensor:
    if features.volume is not None:
        return voxel_pooling_volume(features.volume, index, model.config.grid.shape)
    return voxel_pooling_reference.voxel_pooling(
        features.depth, features.context, index, model.config.grid.shape
    )


def compare_boxes(
    case: str, arrays: dict, found: ScoredBoxes, note: str, tolerances: tuple, sample: int = 0
) -> Iterator[Row]:
    expected = {name: arrays[f'out/b{sample}/{name}'] for name in ('boxes', 'scores', 'labels')}
    pairs, unmatched = match_boxes(
        found, expected['boxes'], expected['scores'], expected['labels']
    )
    ours, theirs = pairs[:, 0], pairs[:, 1]
    center = np.linalg.norm(found.boxes.center[ours] - expected['boxes'][theirs, :3], axis=1).max(
        initial=0
    )
    score = np.abs(found.scores[ours] - expected['scores'][theirs]).max(initial=0)
    yield Row(case, f'boxes: center ({note})', 'largest distance, m', tolerances[0], float(center))
    yield Row(case, f'boxes: score ({note})', 'largest difference', tolerances[1], float(score))
    yield Row(
        case,
        f'boxes: unmatched of {len(expected["boxes"])} ({note})',
        'boxes',
        tolerances[2],
        unmatched,
    )


def match_boxes(
    found: ScoredBoxes, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, int]:
    """Pair each official box with one of our boxes: the nearest unpaired box within 0.1 m that has
    the same label and a score that differs by at most 0.01.

    Args:
        found: our boxes.
        boxes: official boxes; the first columns are x, y and z.
        scores: official scores.
        labels: official labels.

    Returns:
        (pairs, 2) array with one row (index of our box, index of the official box) per pair, and
        the number of unpaired boxes: our boxes plus official boxes that are in no pair.
    """
    free = np.ones(len(found.boxes), bool)
    pairs = []
    for theirs in range(len(boxes)):
        distance = np.linalg.norm(found.boxes.center - boxes[theirs, :3], axis=1)
        distance[
            ~free
            | (found.labels != labels[theirs])
            | (np.abs(found.scores - scores[theirs]) > 0.01)
        ] = np.inf
        ours = int(distance.argmin())
        if distance[ours] <= 0.1:
            pairs.append((ours, theirs))
            free[ours] = False
    return np.array(pairs, np.int64).reshape(-1, 2), int(free.sum()) + len(boxes) - len(pairs)


def all_rows() -> Iterator[Row]:
    """Yield all rows of the table."""
    for case in CASES:
        yield from compare(case)
    yield from compare_head_only()


def require_all_met(rows: list[Row]) -> None:
    """Raise AssertionError with the rows whose distance exceeds the tolerance."""
    missed = [row for row in rows if not row.met]
    assert not missed, '\n'.join(str(row) for row in missed)


def summary(rows: list[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Return, for each (stage, measure) and each case, the row with the largest distance of all
    frames, tasks and samples.
    """
    table: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        stage = re.sub(r'^(s\d|head)\.|task\d\.| of \d+|sample \d', '', row.stage).replace(
            ' ()', ''
        )
        cases = table.setdefault((stage, row.measure), {})
        known = cases.get(row.case)
        if known is None or row.reached > known.reached:
            cases[row.case] = row
    return table


def main() -> None:
    """Print the table; exit with an error if a distance exceeds its tolerance."""
    print_table(list(all_rows()))


def print_table(rows: list[Row]) -> None:
    """Print the rows as Markdown; exit with an error if a distance exceeds its tolerance."""
    cases = list(dict.fromkeys(row.case for row in rows))
    print(f'| stage | measure | tolerance | {" | ".join(cases)} |')
    print('| --- | --- | --- |' + ' ---: |' * len(cases))
    for (stage, measure), by_case in summary(rows).items():
        tolerances = ', '.join(dict.fromkeys(f'{row.tolerance:g}' for row in by_case.values()))
        cells = [
            f'{by_case[case].reached:.2g}' + ('' if by_case[case].met else ' MISSED')
            if case in by_case
            else ''
            for case in cases
        ]
        print(f'| {stage} | {measure} | {tolerances} | {" | ".join(cells)} |')
    missed = sum(not row.met for row in rows)
    print(f'\n{len(rows)} comparisons, {missed} missed.')
    sys.exit(missed > 0)


if __name__ == '__main__':
    main()
