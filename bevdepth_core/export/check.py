"""Compares an exported network with PyTorch, stage by stage and box by box, on changing images,
calibration and ego motion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from bevdepth_core.decode import ScoredBoxes, stack_maps
from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.engine.eager import EagerNetwork
from bevdepth_core.engine.exported import ExportedNetwork
from bevdepth_core.engine.exported_inference import ExportedInference
from bevdepth_core.export.half_precision import overflows
from bevdepth_core.export.quantization import Samples
from bevdepth_core.geometry import invert_rigid, rigid_from_quaternion
from bevdepth_core.inference import default_cpu_threads
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures
from bevdepth_core.types import CameraRig, Detections3D, Frame

ERROR_LIMITS = {'fp32': 1e-4, 'fp16': 5e-2, 'int8': 0.5}
"""Largest accepted relative L2 error of a stage, by precision."""
MATCHED_SHARE = {'fp32': 0.98, 'fp16': 0.8, 'int8': 0.0}
"""Smallest accepted share of matched boxes, by precision. Even for fp32, the share is below 1,
because rounding changes the order of boxes with nearly equal scores, and a task returns only its
best boxes."""
MATCH_DISTANCE_M = 0.1
MATCH_SCORE_DIFFERENCE = 0.01
FRAME_NS = 500_000_000
SOURCE = (450, 800)
"""Height and width of the source images."""


@dataclass
class Report:
    """Result of a comparison.

    Attributes:
        precision: precision of the export.
        errors: largest relative L2 error by stage. A stage of the export gets the same inputs as
            the stage in PyTorch.
        boxes: number of boxes that the network in PyTorch finds in all frames.
        exported_boxes: number of boxes that the export finds in all frames.
        matched: number of pairs of a PyTorch box and an exported box, see ``matched_boxes``.
        problems: what is wrong with the export, one text per problem.
    """

    precision: str
    errors: dict[str, float] = field(default_factory=dict)
    boxes: int = 0
    exported_boxes: int = 0
    matched: int = 0
    problems: list[str] = field(default_factory=list)

    def add_error(self, stage: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Compute the relative L2 error of ``found``, and store it if it is the largest error of
        ``stage``. The error is infinite if ``found`` is not finite, or if its shape differs from
        the shape of ``expected``.
        """
        error = float('inf')
        if found.shape == expected.shape and found.isfinite().all():
            difference = (found.double() - expected.double()).norm()
            error = float(difference / expected.double().norm().clamp(min=1e-12))
        self.errors[stage] = max(error, self.errors.get(stage, 0.0))


def compare(model: BEVDepth, folder: Path, cameras: Iterable[int], seed: int = 0) -> Report:
    """Return the differences between ``model`` and its export in ``folder``.

    For each number of cameras, both networks process two random frames. Images, intrinsics,
    mounting poses and ego pose of the two frames differ.
    """
    return compare_all(model, (folder,), cameras, seed)[0]


def compare_all(
    model: BEVDepth, folders: Sequence[Path], cameras: Iterable[int], seed: int = 0
) -> list[Report]:
    """Return the result of ``compare`` for each of several exports. All exports process the same
    frames, so the network in PyTorch runs only once.
    """
    threads = default_cpu_threads()
    torch.set_num_threads(threads)
    eager = EagerNetwork(model, torch.device('cpu'), torch.float32)
    exports = [ExportedInference(model, folder, threads) for folder in folders]
    reports = [Report(ExportedNetwork.read(folder).manifest['precision']) for folder in folders]
    rng = np.random.default_rng(seed)
    for count in cameras:
        _compare_frames(eager, exports, reports, random_frames(count, rng))
    frames = random_frames(2, rng)
    for exported, report in zip(exports, reports, strict=True):
        _require_dependence(exported, frames, report)
        _judge(report)
    _require_half_range(model, folders, reports, random_frames(1, rng))
    return reports


def random_frames(count: int, rng: np.random.Generator) -> list[Frame]:
    """Return two random frames, half a second apart, of ``count`` cameras around the vehicle. The
    second frame has other images and another calibration than the first frame.
    """
    frames = []
    for place in range(2):
        images = rng.integers(0, 256, (count, *SOURCE, 3), dtype=np.uint8)
        poses = np.stack([_yawed(0.1 * place, 4.0 * place)] * count)
        stamps = np.full(count, place * FRAME_NS)
        frames.append(Frame(tuple(images), _random_rig(count, rng), stamps, poses))
    return frames


def _random_rig(count: int, rng: np.random.Generator) -> CameraRig:
    height, width = SOURCE
    optical = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    poses, intrinsics = [], []
    for index in range(count):
        pose = _yawed(2 * np.pi * index / count + rng.uniform(-0.2, 0.2), rng.uniform(-1, 2))
        pose[2, 3] = rng.uniform(1.2, 2.0)
        pose[:3, :3] = pose[:3, :3] @ optical
        poses.append(pose)
        focal = width * rng.uniform(0.6, 1.2)
        intrinsics.append([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    names = tuple(f'camera_{index}' for index in range(count))
    return CameraRig(names, np.array(intrinsics), np.stack(poses))


def _yawed(yaw: float, x: float) -> np.ndarray:
    return rigid_from_quaternion((np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)), (x, 0, 0))


@torch.inference_mode()
def _compare_frames(
    eager: EagerNetwork,
    exports: list[ExportedInference],
    reports: list[Report],
    frames: list[Frame],
) -> None:
    """Compare the exports with the eager network, first by stage and then by boxes.

    Each stage of an export gets the outputs of the eager network's earlier stages as inputs. For
    the boxes, each network uses the outputs of its own earlier stages.
    """
    model, key_frames = eager.model, eager.model.config.key_frames
    calibrations = [
        Calibration.of(frame.rig, frame.images, model.config.image) for frame in frames
    ]
    own, moved = _matrices(frames, calibrations)
    expected = _encoded(eager, frames, calibrations)
    bev = [model.splat(*inputs) for inputs in zip(expected, own, strict=True)]
    maps = stack_maps(model.head_maps(bev[:key_frames]))
    is_class = maps > -1e4  # False for the logit NO_CLASS, which stands for an absent class
    boxes = _boxes(eager, expected, own, moved, key_frames)
    for exported, report in zip(exports, reports, strict=True):
        found = _encoded(exported, frames, calibrations)
        for place, features in enumerate(found):
            report.add_error('depth', features.depth, expected[place].depth)
            report.add_error('context', features.context, expected[place].context)
            report.add_error('bev', exported.splat(expected[place], own[place]), bev[place])
        report.add_error('maps', exported.head_maps(bev[:key_frames])[is_class], maps[is_class])
        others = _boxes(exported, found, own, moved, key_frames)
        for pair in zip(boxes, others, strict=True):
            report.boxes += len(pair[0].scores)
            report.exported_boxes += len(pair[1].scores)
            report.matched += len(matched_boxes(*pair))


def _matrices(
    frames: list[Frame], calibrations: list[Calibration]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return two results: ``ego_from_frustum`` of each frame in its own ego frame, and
    ``ego_from_frustum`` of the first frame in the ego frame of the second frame.
    """
    own = [
        calibration.ego_from_frustum(frame.rig.ego_from_camera, torch.float64)
        for frame, calibration in zip(frames, calibrations, strict=True)
    ]
    past, key = frames
    assert past.world_from_ego is not None
    assert key.world_from_ego is not None
    key_from_past = invert_rigid(key.world_from_ego) @ past.world_from_ego
    moved = key_from_past @ past.rig.ego_from_camera
    return own, calibrations[0].ego_from_frustum(moved, torch.float64)


def _encoded(
    network: EagerNetwork | ExportedInference,
    frames: list[Frame],
    calibrations: list[Calibration],
) -> list[ImageFeatures]:
    features = []
    for frame, calibration in zip(frames, calibrations, strict=True):
        network.set_images(frame.images)
        features.append(network.encode(calibration.cameras))
    return features


def _boxes(
    network: EagerNetwork | ExportedInference,
    features: list[ImageFeatures],
    own: list[torch.Tensor],
    moved: torch.Tensor,
    key_frames: int,
) -> list[ScoredBoxes]:
    """Return the boxes of the first frame, which has no past frame, and of the second frame, whose
    past frame is the first frame.
    """
    first = [(features[0], own[0])]
    second = [(features[1], own[1]), (features[0], moved)][:key_frames]
    return [network.detect(inputs, threshold=0.0) for inputs in (first, second)]


def matched_boxes(
    boxes: Detections3D | ScoredBoxes, others: Detections3D | ScoredBoxes
) -> np.ndarray:
    """Match each box to at most one box of ``others`` with the same label.

    Centers of a pair differ by at most MATCH_DISTANCE_M, and scores by at most
    MATCH_SCORE_DIFFERENCE.

    Returns:
        (n, 2) indices of the pairs: into ``boxes`` and into ``others``.
    """
    distance = np.linalg.norm(boxes.boxes.center[:, None] - others.boxes.center, axis=-1)
    allowed = (
        (distance <= MATCH_DISTANCE_M)
        & (boxes.labels[:, None] == others.labels)
        & (np.abs(boxes.scores[:, None] - others.scores) <= MATCH_SCORE_DIFFERENCE)
    )
    pairs = np.stack(linear_sum_assignment(np.where(allowed, distance, 1e3)), axis=1)
    return pairs[allowed[pairs[:, 0], pairs[:, 1]]]


@torch.inference_mode()
def _require_dependence(exported: ExportedInference, frames: list[Frame], report: Report) -> None:
    """Report each output that stays the same although an input changes. In this case, the export
    has replaced the input by a constant.
    """
    cameras, matrices, features = [], [], []
    for frame in frames:
        calibration = Calibration.of(frame.rig, frame.images, exported.config.image)
        cameras.append(calibration.cameras)
        matrices.append(calibration.ego_from_frustum(frame.rig.ego_from_camera, torch.float64))
        exported.set_images(frame.images)
        features.append(exported.encode(calibration.cameras))
    by_camera = exported.encode(cameras[0])  # images of frame 1, camera vectors of frame 0
    bev = [exported.splat(features[0], matrix) for matrix in matrices]
    changes = {
        'depth does not depend on the images': (features[0].depth, by_camera.depth),
        'depth does not depend on the calibration': (features[1].depth, by_camera.depth),
        'context does not depend on the images': (features[0].context, by_camera.context),
        'context does not depend on the calibration': (features[1].context, by_camera.context),
        'bev does not depend on the calibration': (bev[0], bev[1]),
        'bev does not depend on the images': (bev[0], exported.splat(features[1], matrices[0])),
    }
    for index in range(exported.config.key_frames):
        inputs = [bev[0]] * exported.config.key_frames
        changed = [bev[1] if place == index else value for place, value in enumerate(inputs)]
        changes[f'maps do not depend on bev {index}'] = (
            exported.head_maps(inputs), exported.head_maps(changed),
        )  # fmt: skip
    report.problems += [text for text, (one, other) in changes.items() if torch.equal(one, other)]


def _require_half_range(
    model: BEVDepth, folders: Sequence[Path], reports: list[Report], frames: list[Frame]
) -> None:
    """Report values of float16 graphs that are beyond the range of float16."""
    halves = [pair for pair in zip(folders, reports, strict=True) if pair[1].precision == 'fp16']
    if not halves:
        return
    samples = Samples.of(model, frames).by_graph
    for folder, report in halves:
        for name, inputs in samples.items():
            if found := overflows(ExportedNetwork.read(folder).graph(name), inputs[0]):
                report.problems.append(
                    f'{name}: {len(found)} values are beyond the range of float16, the first is '
                    f'{found[0]}; use --precision fp32'
                )


def _judge(report: Report) -> None:
    """Report each error above the limit of the precision, and report if too few boxes match."""
    limit, share = ERROR_LIMITS[report.precision], MATCHED_SHARE[report.precision]
    for stage, error in report.errors.items():
        if not error <= limit:
            report.problems.append(
                f'{stage}: the relative error is {error:.1e}, the limit is {limit:.0e}'
            )
    if report.matched < share * max(report.boxes, report.exported_boxes):
        report.problems.append(
            f'only {report.matched} boxes match: PyTorch finds {report.boxes} boxes, the export '
            f'finds {report.exported_boxes}, and {share:.0%} must match'
        )


def print_report(report: Report) -> None:
    """Print the errors per stage and the matched boxes."""
    for stage, error in report.errors.items():
        print(f'{stage:8} relative error {error:.1e}')
    print(f'boxes    {report.matched} of {report.boxes} match')
