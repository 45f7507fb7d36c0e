"""Score a checkpoint with the official nuScenes metrics.

Run from the repository root after `. env.sh`:

    python training/evaluate.py --checkpoint
    out/training/r50_256x704_2key/weights/epoch_024.safetensors --data.root data/nuscenes

takes our .safetensors and the official .pth and .ckpt. The detector runs over the key frames of
the split as it runs on a robot: scene by scene, each frame encoded once and kept as the next one's
    past. `output` (out/evaluation) gets

    results.json                                 every sample's boxes in the nuScenes result format
    metrics_summary.json, metrics_details.json   what the devkit's DetectionEval makes of them
    table.md                                     the printed table: mAP, NDS, five errors, also per
    class

On nuScenes val a table of one of the published networks names the published scores, too. A split
without annotations (v1.0-test) gets results.json alone, ready for the evaluation server.

Every GPU is used without being asked, one process and a share of the scenes each. `--device
cuda:1` takes one, `--device cuda:0,cuda:2` two; `--device cpu` none, `--device cpu,cpu` two
processes without any. Own splits: a file `<version>/splits.json` that maps names to lists of scene
    names, as the devkit reads it.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import ArgumentParser
from torch import multiprocessing
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bevdepth_core.checkpoint import CheckpointError, load_checkpoint
from bevdepth_core.config import ModelConfig
from bevdepth_core.inference import PAST_FRAME_AGE_NS, Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.dataset import load_frame
from bevdepth_core.nuscenes.evaluation import (
    PUBLISHED,
    PublishedScore,
    evaluate,
    result_boxes,
    table,
    write_results,
)
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.training.config import ManualHelp
from bevdepth_core.training.dataset_settings import DatasetSettings, report_boxes
from bevdepth_core.types import Detections3D, Frame

PUBLISHED_ON = ('v1.0-trainval', 'val')
"""Version and split that the published scores hold for."""
POLL_SECONDS = 1.0
"""How often the processes are looked after while none has a result."""


@dataclass(frozen=True)
class EvaluationData(DatasetSettings):
    """What to score on.

    Attributes:
        workers: processes that read images, per device; 0 reads between the frames.
    """

    split: str = 'val'
    workers: int = 2


@dataclass(frozen=True)
class EvaluationConfig:
    """A scoring run.

    Attributes:
        checkpoint: weights, ``.safetensors`` or official.
        data: what to score on.
        output: folder for results and scores.
        device: ``auto`` for all GPUs, or the CPU where there is none; else devices separated by
            commas, a process for each.
        precision: of the image branch.
    """

    checkpoint: str
    data: EvaluationData = field(default_factory=EvaluationData)
    output: str = 'out/evaluation'
    device: str = 'auto'
    precision: Literal['fp32', 'fp16', 'bf16'] = 'fp32'


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = ArgumentParser(
        prog='training/evaluate.py', description=__doc__, formatter_class=ManualHelp
    )
    parser.add_class_arguments(EvaluationConfig)
    values = parser.instantiate(parser.parse_args(arguments))
    try:
        print(score(EvaluationConfig(**vars(values))))
    except (ValueError, OSError, multiprocessing.ProcessRaisedException) as error:
        sys.exit(str(error))


def score(config: EvaluationConfig) -> str:
    """Detect on a split, write results and scores, and return what to print.

    Raises:
        ValueError: the checkpoint is refused, the split is unknown, the dataset incomplete or a
            device absent.
        OSError: an image cannot be read.
        ProcessRaisedException: the same, in one of several processes.
    """
    model = _load(config.checkpoint)
    data = config.data
    index = data.load(model.config)
    report_boxes(index, data, model.config, needs_boxes=index.is_annotated)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    results = detect(config, index)
    write_results(results, output / 'results.json')
    if not index.is_annotated:
        return (
            f'{output / "results.json"} holds {len(results)} samples; split {data.split!r} has no '
            'annotations to score them with'
        )
    text = _score_table(index, model, data, output)
    (output / 'table.md').write_text(text + '\n')
    return text


def _score_table(index: SampleIndex, model: BEVDepth, data: EvaluationData, output: Path) -> str:
    summary = evaluate(output / 'results.json', data.root, data.version, data.split, output, index)
    averaged = model.metadata.get('averaged') == 'true'
    text = table(summary, published_score(model.config, averaged, data), index.class_names)
    if index.is_official:
        return text
    return text + '\n\nNot comparable with nuScenes: own classes, lidar or point counts.'


def _load(path: str) -> BEVDepth:
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        hint = (
            '; out of a last.ckpt of training, training/export_weights.py takes the weights'
            if path.endswith('.ckpt')
            else ''
        )
        raise CheckpointError(f'{error}{hint}') from error


def published_score(
    network: ModelConfig, averaged: bool, data: EvaluationData
) -> PublishedScore | None:
    """Return the published scores of a network, those of its averaged weights where ``averaged``;
    None where there are none.
    """
    if (data.version, data.split) != PUBLISHED_ON:
        return None
    plain = ModelConfig()
    refined = replace(plain, depth_net=replace(plain.depth_net, refinement=True))
    rows = {'r50_256x704_2key': plain, 'r50_256x704_2key_da': refined}
    names = [name + '_ema' * averaged for name, published in rows.items() if published == network]
    return PUBLISHED[names[0]] if names else None


def detect(config: EvaluationConfig, index: SampleIndex) -> dict[str, list[dict]]:
    """Return result entries per sample token, in the order of the index."""
    devices = chosen_devices(config.device)
    shares = [index.scenes()[first :: len(devices)] for first in range(len(devices))]
    found = (
        _in_processes(config, index, devices, shares)
        if len(devices) > 1
        else _share(config, index, devices[0], shares[0])
    )
    results = dict(tqdm(found, total=len(index), desc='detecting', unit='sample', disable=None))
    return {token: results[token] for token in index.tokens()}


def chosen_devices(device: str) -> list[str]:
    """Return a device per process: see ``EvaluationConfig.device``."""
    if device == 'auto':
        return [f'cuda:{number}' for number in range(torch.cuda.device_count())] or ['cpu']
    return [name.strip() for name in device.split(',')]


def _share(
    config: EvaluationConfig, index: SampleIndex, device: str, scenes: Sequence[range]
) -> Iterator[tuple[str, list[dict]]]:
    """Yield token and result entries of each sample of some scenes."""
    detector = Detector.from_checkpoint(config.checkpoint, device, config.precision)
    for position, detections in stream(detector, index, scenes, config.data):
        record = index[position]
        yield record.token, result_boxes(record.token, detections, record.world_from_ego())


def stream(
    detector: Detector, index: SampleIndex, scenes: Sequence[range], data: EvaluationData
) -> Iterator[tuple[int, Detections3D]]:
    """Yield position and detections of each key frame, its past frame the key frame before it in
    the scene.
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
    """Return the frame with stamps as if key frames came at exactly 2 Hz.

    The official pipeline takes the key frame before as the past frame whatever its age, the
    detector goes by age.
    """
    return replace(
        frame, stamps_ns=frame.stamps_ns - frame.stamp_ns + position * PAST_FRAME_AGE_NS
    )


class _KeyFrames(Dataset):
    """The frames of some positions, read ahead by a data loader."""

    def __init__(self, index: SampleIndex, dataroot: str, positions: Sequence[int]) -> None:
        self._index, self._dataroot, self._positions = index, dataroot, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, place: int) -> Frame:
        return load_frame(self._index[self._positions[place]], self._dataroot)


def _same(frame: Frame) -> Frame:
    return frame


def _in_processes(
    config: EvaluationConfig,
    index: SampleIndex,
    devices: Sequence[str],
    shares: Sequence[Sequence[range]],
) -> Iterator[tuple[str, list[dict]]]:
    """Yield what one process per device finds in its share, in any order."""
    found = multiprocessing.get_context('spawn').Queue()
    processes = multiprocessing.spawn(
        _work, (config, index, devices, shares, found), nprocs=len(devices), join=False
    )
    for _ in range(len(index)):
        yield _next(found, processes)
    processes.join()


def _next(
    found: multiprocessing.Queue, processes: multiprocessing.ProcessContext
) -> tuple[str, list[dict]]:
    while True:
        try:
            return found.get(timeout=POLL_SECONDS)
        except queue.Empty:
            processes.join(timeout=0)  # ends all and raises where one has failed


def _work(
    number: int,
    config: EvaluationConfig,
    index: SampleIndex,
    devices: Sequence[str],
    shares: Sequence[Sequence[range]],
    found: multiprocessing.Queue,
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
    for entry in _share(config, index, devices[number], shares[number]):
        found.put(entry)


if __name__ == '__main__':
    main()
