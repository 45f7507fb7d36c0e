r"""Score a checkpoint with the official nuScenes metrics.

Run from the repository root after `. ./env.sh`:

    python training/evaluate.py --data.root data/nuscenes \
        --checkpoint out/training/r50_256x704_2key/weights/epoch_024.safetensors

The checkpoint is a .safetensors file of this project, an official .pth or .ckpt file, or a name
such as small. The detector processes the key frames of the split as on a vehicle, that is, scene
by scene and in order of time. The features of a key frame are computed once. They are used again
when this key frame is the past frame of the next key frame. The program writes these files to the
folder `output` (out/evaluation):

    results.json                                 boxes of every sample, nuScenes result format
    metrics_summary.json, metrics_details.json   metrics of the devkit's DetectionEval
    table.md                                     the printed table: mAP, NDS, errors, per class
    tracking/                                    with `--tracking true`: tracks of every sample,
                                                 and metrics of the devkit's TrackingEval

On nuScenes val the table of a published network also shows the published scores. The official
evaluation needs the classes of nuScenes, LIDAR_TOP, data.min_points 1, and cameras that together
show all boxes. Otherwise this program itself computes the same detection metrics from the
annotations, but no tracking metrics. For a split without annotations (v1.0-test), it only writes
results.json, which the evaluation server of nuScenes accepts.

By default, all GPUs are used. Each GPU has one process, which processes some of the scenes.
`--device cuda:1` uses one GPU, `--device cuda:0,cuda:2` uses two GPUs, `--device cpu` uses the
CPU, and `--device cpu,cpu` uses two processes on the CPU. `<version>/splits.json` may define more
splits. This file maps names of splits to lists of scene names.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.multiprocessing import Queue, get_context
from torch.multiprocessing.spawn import ProcessContext, spawn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bevdepth_core.checkpoint import CheckpointError, load_checkpoint
from bevdepth_core.config import ModelConfig, SizeAwareNMSConfig, StereoConfig
from bevdepth_core.inference import PAST_FRAME_AGE_NS, Detector, usable_device
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.dataset import load_frame
from bevdepth_core.nuscenes.evaluation import PUBLISHED, PublishedScore, evaluate, table
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.result_file import result_boxes, write_results
from bevdepth_core.nuscenes.tracking_evaluation import (
    evaluate_tracking,
    new_tracker,
    track_results,
    tracking_table,
)
from bevdepth_core.training.command_line import (
    require_at_least,
    require_writable,
    run_program,
)
from bevdepth_core.training.dataset_settings import DatasetSettings, report_boxes
from bevdepth_core.types import Detections3D, Frame
from bevdepth_core.uncertainty import UncertaintyModel

PUBLISHED_ON = ('v1.0-trainval', 'val')
"""Version and split for which scores are published."""
POLL_SECONDS = 1.0
"""Seconds between two checks for failed processes, during the wait for a result."""


@dataclass(frozen=True)
class EvaluationData(DatasetSettings):
    """Data for scoring.

    Attributes:
        workers: number of processes per device that read images; 0: the process that runs the
            network also reads the images.
    """

    split: str = 'val'
    workers: int = 2

    def __post_init__(self) -> None:
        require_at_least('data', self, workers=0, min_points=0)


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of an evaluation.

    Attributes:
        checkpoint: weights to evaluate, given as a ``.safetensors`` file, an official file, or a
            name such as ``small``.
        data: dataset to score on.
        output: folder for results and scores.
        device: ``auto``: all GPUs, or the CPU if there is no GPU. Otherwise devices separated by
            commas, with one process each.
        precision: precision of the network: fp32, fp16 or bf16.
        onnx_folder: folder of an exported network (docs/EXPORT.md), which then runs on the CPU.
            Empty: PyTorch runs the network.
        tracking: also track the detections and score the tracks: AMOTA, AMOTP, IDS, FRAG, recall.
    """

    checkpoint: str
    data: EvaluationData = field(default_factory=EvaluationData)
    output: str = 'out/evaluation'
    device: str = 'auto'
    precision: Literal['fp32', 'fp16', 'bf16'] = 'fp32'
    onnx_folder: str = ''
    tracking: bool = False


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    run_program('training/evaluate.py', __doc__ or '', EvaluationConfig, score, arguments)


def score(config: EvaluationConfig) -> str:
    """Detect objects in a split, write results and scores, and return the text to print.

    Raises:
        ValueError: a device is absent, the checkpoint is invalid, the split is unknown or the
            dataset is incomplete.
        OSError: an image cannot be read, or the output folder cannot be written.
        ProcessRaisedException: one of these errors occurred in one of several processes.
    """
    devices = chosen_devices(config.device, config.precision)
    model = _load(config.checkpoint)
    if config.onnx_folder:
        Detector(model, devices[0], config.precision, onnx_folder=config.onnx_folder)
    output = Path(config.output)
    require_writable(output)
    data = config.data
    index = data.load(model.config)
    report_boxes(index, data, model.config, needs_boxes=index.is_annotated)
    results = detect(config, index)
    write_results(results, output / 'results.json')
    if not index.is_annotated:
        return (
            f'{output / "results.json"} contains {len(results)} samples; split {data.split!r} has '
            'no annotations to score them with'
        )
    text = _score_table(index, model, data, output)
    if config.tracking:
        text += f'\n\n{_tracking_table(results, index, model, data, output)}'
    (output / 'table.md').write_text(text + '\n')
    return text


def _score_table(index: SampleIndex, model: BEVDepth, data: EvaluationData, output: Path) -> str:
    summary = evaluate(output / 'results.json', data.root, data.version, data.split, output, index)
    averaged = model.metadata.get('averaged') == 'true'
    text = table(summary, published_score(model.config, averaged, data), index.class_names)
    if index.is_official:
        return text
    return text + (
        '\n\nNot comparable with scores on nuScenes: classes, sensors or data.min_points differ.'
    )


def _tracking_table(
    results: dict[str, list[dict]],
    index: SampleIndex,
    model: BEVDepth,
    data: EvaluationData,
    output: Path,
) -> str:
    if not index.is_official:
        return (
            'Tracking: not scored. The official evaluation needs the classes of nuScenes, '
            'LIDAR_TOP, data.min_points 1, and cameras that together show all boxes.'
        )
    folder = output / 'tracking'
    folder.mkdir(exist_ok=True)
    uncertainty = UncertaintyModel.from_metadata(model.metadata, model.config.class_names)
    tracks = track_results(results, index, lambda: new_tracker(uncertainty))
    write_results(tracks, folder / 'results.json')
    if not any(tracks.values()):
        return 'Tracking: no detection of the tracking classes starts a track.'
    summary = evaluate_tracking(
        folder / 'results.json', data.root, data.version, data.split, folder
    )
    return tracking_table(summary)


def _load(path: str) -> BEVDepth:
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        hint = (
            '; training/export_weights.py exports the weights of a last.ckpt'
            if path.endswith('.ckpt')
            else ''
        )
        raise CheckpointError(f'{error}{hint}') from error


def published_score(
    network: ModelConfig, averaged: bool, data: EvaluationData
) -> PublishedScore | None:
    """Return the published scores of a network, with averaged weights if ``averaged`` is True.
    Return None if no scores are published for this network or these data.
    """
    if (data.version, data.split) != PUBLISHED_ON:
        return None
    if network.stereo is not None:  # clamp_mean may differ from the published network
        network = replace(network, stereo=replace(network.stereo, clamp_mean=False))
    rows = _published_networks()
    names = [name + '_ema' * averaged for name, published in rows.items() if published == network]
    return PUBLISHED[names[0]] if names else None


def _published_networks() -> dict[str, ModelConfig]:
    """Return the networks of ``PUBLISHED``. The keys are the names in ``PUBLISHED``, without the
    ending ``_ema`` that marks averaged weights.
    """
    plain = ModelConfig()
    stereo = replace(
        plain,
        stereo=StereoConfig(),
        decode=replace(plain.decode, size_aware_nms=SizeAwareNMSConfig()),
    )
    networks = {'r50_256x704_2key': plain, 'stereo_r50_256x704_2key': stereo}
    return networks | {
        f'{name}_da': replace(network, depth_net=replace(network.depth_net, refinement=True))
        for name, network in networks.items()
    }


def detect(config: EvaluationConfig, index: SampleIndex) -> dict[str, list[dict]]:
    """Return the result entries of each sample by its token, in the order of the index."""
    devices = chosen_devices(config.device, config.precision)
    shares = [index.scenes()[first :: len(devices)] for first in range(len(devices))]
    entries = (
        _in_processes(config, index, devices, shares)
        if len(devices) > 1
        else _entries_of_scenes(config, index, devices[0], shares[0])
    )
    results = dict(tqdm(entries, total=len(index), desc='detecting', unit='sample', disable=None))
    return {token: results[token] for token in index.tokens()}


def chosen_devices(device: str, precision: str = 'fp32') -> list[str]:
    """Return the device of each process; see ``EvaluationConfig.device``.

    Raises:
        ValueError: this machine does not have one of the devices, or the device does not support
            the precision.
    """
    gpus = [f'cuda:{number}' for number in range(torch.cuda.device_count())]
    devices = (gpus or ['cpu']) if device == 'auto' else [x.strip() for x in device.split(',')]
    valid = ['cpu', *(['cuda'] if gpus else []), *gpus]
    for name in devices:
        if name not in valid:
            raise ValueError(
                f'there is no device {name!r}: choose auto, or one or more of '
                f'{", ".join(valid)}, separated by commas'
            )
        usable_device(name, precision)
    return devices


def _entries_of_scenes(
    config: EvaluationConfig, index: SampleIndex, device: str, scenes: Sequence[range]
) -> Iterator[tuple[str, list[dict]]]:
    """Yield the token and the result entries of each sample of some scenes."""
    detector = Detector.from_checkpoint(
        config.checkpoint, device, config.precision, onnx_folder=config.onnx_folder or None
    )
    for position, detections in stream(detector, index, scenes, config.data):
        record = index[position]
        yield record.token, result_boxes(record.token, detections, record.world_from_ego())


def stream(
    detector: Detector, index: SampleIndex, scenes: Sequence[range], data: EvaluationData
) -> Iterator[tuple[int, Detections3D]]:
    """Yield the position in the index and the detections of each key frame. The past frame is the
    previous key frame of the scene.
    """
    positions = [position for scene in scenes for position in scene]
    starts = {scene.start for scene in scenes}
    frames = DataLoader(
        _KeyFrames(index, data.root, positions),
        batch_size=None,
        num_workers=data.workers,
        collate_fn=_same,
    )
    for position, frame in zip(positions, frames, strict=True):
        if position in starts:
            detector.reset()
        yield position, detector(_at_two_hertz(frame, position))


def _at_two_hertz(frame: Frame, position: int) -> Frame:
    """Return the frame with the stamps that it would have if key frames came at exactly 2 Hz.

    The official pipeline always uses the previous key frame as past frame. The detector chooses
    past frames by their age, and with these stamps it chooses the previous key frame, too.
    """
    return replace(
        frame, stamps_ns=frame.stamps_ns - frame.stamp_ns + position * PAST_FRAME_AGE_NS
    )


class _KeyFrames(Dataset[Frame]):
    """Dataset of the frames at some positions of an index, for a data loader."""

    def __init__(self, index: SampleIndex, dataroot: str, positions: Sequence[int]) -> None:
        self._index, self._dataroot, self._positions = index, dataroot, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, place: int) -> Frame:
        return load_frame(self._index[self._positions[place]], self._dataroot)


def _same(frame: Any) -> Any:
    return frame


def _in_processes(
    config: EvaluationConfig,
    index: SampleIndex,
    devices: Sequence[str],
    shares: Sequence[Sequence[range]],
) -> Iterator[tuple[str, list[dict]]]:
    """Yield the results of one process per device, in any order."""
    outputs = get_context('spawn').Queue()
    processes = spawn(
        _detect_share,
        (config, index, devices, shares, outputs),
        nprocs=len(devices),
        join=False,
    )
    for _ in range(len(index)):
        yield _next(outputs, processes)
    processes.join()


def _next(outputs: Queue, processes: ProcessContext) -> tuple[str, list[dict]]:
    while True:
        try:
            return outputs.get(timeout=POLL_SECONDS)
        except queue.Empty:
            processes.join(timeout=0)  # if a process failed, ends all processes and raises


def _detect_share(
    number: int,
    config: EvaluationConfig,
    index: SampleIndex,
    devices: Sequence[str],
    shares: Sequence[Sequence[range]],
    outputs: Queue,
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
    for entry in _entries_of_scenes(config, index, devices[number], shares[number]):
        outputs.put(entry)


if __name__ == '__main__':
    main()
