r"""Scores the results of the running node with the official nuScenes metrics and compares them
with the offline evaluation.

    ros2 run bevdepth_ros evaluate_node --dataroot data/synthetic --version v1.0-synthetic \
        --split synthetic_val --checkpoint small

For each scene the tool writes a bag and replays it to ``ros2 launch bevdepth_ros
detect.launch.py``. The tool assigns the messages on ``~/detections`` and ``~/objects`` to the key
frames by their stamps. It transforms the boxes to the world with the ego pose that tf has for the
stamp, and scores the boxes with the devkit's DetectionEval. The offline evaluation
(training/evaluate.py) runs on the same checkpoint and split. Unless ``--real-time`` is given, the
replay waits for the detector, so the scores do not depend on the speed of the machine. The folder
``--out`` contains results.json, report.md, report.json, the devkit's files and the launch logs.
With ``--tracking``, the devkit's TrackingEval scores ``~/tracks`` and writes its files to the
folder ``tracking``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from bevdepth_core.checkpoint import CheckpointError, load_checkpoint
from bevdepth_core.inference import usable_device
from bevdepth_core.nuscenes.completeness import DatasetIncompleteError, require_files
from bevdepth_core.nuscenes.evaluation import evaluate
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.recording import CAMERA_MODALITY, SceneRecording, read_recording
from bevdepth_core.nuscenes.result_file import write_results
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.nuscenes.tracking_evaluation import evaluate_tracking, tracking_table
from bevdepth_ros.bags.player_options import positive
from bevdepth_ros.bags.recorded_transforms import read_transforms
from bevdepth_ros.bags.scene_bag import SceneError, Target, write_bag
from bevdepth_ros.closed_loop.report import (
    BoxComparison,
    compare_boxes,
    coverage_table,
    explanation,
    side_by_side,
)
from bevdepth_ros.closed_loop.results import SceneResults, read_image_sets, scene_results
from bevdepth_ros.closed_loop.run import ClosedLoopError, collect_results
from bevdepth_ros.launching import PACKAGE, LaunchError, isolate

LOSSLESS = {'image_reliability': 'reliable', 'image_queue_size': 50, 'geometry_timeout_s': 2.0}
"""Parameters with which a slow machine loses no image while the replay waits."""


def cameras_only(recording: SceneRecording, keep: Container[str] | None) -> SceneRecording:
    """Return a copy of a recording with camera images and ego poses only.

    Args:
        recording: recording of one scene.
        keep: image files to keep; None keeps all image files.
    """
    streams = []
    for stream in (stream for stream in recording.streams if stream.modality == CAMERA_MODALITY):
        rows = [row for row, name in enumerate(stream.filenames) if keep is None or name in keep]
        names = tuple(stream.filenames[row] for row in rows)
        streams.append(
            dataclasses.replace(stream, stamps_ns=stream.stamps_ns[rows], filenames=names)
        )
    return dataclasses.replace(recording, streams=tuple(streams), moments=())


def changed_parameters(params_file: Path, changes: dict[str, Any]) -> str:
    """Return the content of a parameter file after setting the parameters in ``changes``.

    Raises:
        ClosedLoopError: the file has no block ``/**``, which applies to every node.
    """
    try:
        values = yaml.safe_load(params_file.read_text())
        values['/**']['ros__parameters'].update(changes)
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ClosedLoopError(
            f"{params_file} contains no block '/**' with 'ros__parameters': rename its block to "
            "'/**'"
        ) from error
    return yaml.safe_dump(values)


class ClosedLoop:
    """Runs and scores the node on all scenes of a split."""

    def __init__(self, options: argparse.Namespace):
        """Read the tables and check the options.

        Raises:
            CheckpointError: the checkpoint is invalid.
            ClosedLoopError: the parameter file has no block ``/**``, which applies to every node.
            ValueError: the device does not exist on this machine, the split is unknown, or the
                dataset is incomplete.
        """
        self._options = options
        if options.device != 'auto':
            usable_device(options.device, options.precision)
        options.out.mkdir(parents=True, exist_ok=True)
        self._threshold = load_checkpoint(options.checkpoint).config.decode.score_threshold
        self.index: SampleIndex = load_index(
            options.dataroot, options.version, options.split, options.cache_dir
        )
        self._devkit = open_devkit(options.dataroot, options.version)
        self._parameters = self._write_parameters()

    def run_scenes(self) -> dict[str, SceneResults]:
        """Run the node on every scene, and return the results by name of the scene.

        Raises:
            ClosedLoopError, SceneError, LaunchError: a scene could not be run.
        """
        keep = None if self._options.all_frames else frozenset(self.index.filenames())
        results = {}
        for positions in self.index.scenes():
            name, started = self.index[positions.start].scene, time.monotonic()
            results[name] = self._run_scene(name, positions, keep)
            found = len(positions) - len(results[name].missed)
            seconds = time.monotonic() - started
            print(
                f'{name}: results for {found} of {len(positions)} key frames in {seconds:.0f} s',
                flush=True,
            )
        return results

    def _run_scene(self, name: str, positions: range, keep: Container[str] | None) -> SceneResults:
        with tempfile.TemporaryDirectory(dir=self._options.out) as folder:
            bag = self._found_bag(name) or self._write_bag(name, Path(folder), keep)
            sets = None if self._options.real_time else read_image_sets(bag)
            published = collect_results(
                self._launch_arguments(bag), self._options.out / f'{name}_launch.log', sets
            )
            return scene_results(
                [self.index[position] for position in positions], published, read_transforms(bag)
            )

    def _found_bag(self, name: str) -> Path | None:
        bag = self._options.bags and self._options.bags / name
        return bag if bag and bag.exists() else None

    def _write_bag(self, name: str, folder: Path, keep: Container[str] | None) -> Path:
        recording = cameras_only(read_recording(self._devkit, name), keep)
        require_files(self._options.dataroot, recording.filenames())
        return write_bag(recording, Target(self._options.dataroot, folder))

    def _write_parameters(self) -> Path:
        """Write the parameter file of the node and return its path. The file contains the
        parameters of --params-file, with the score threshold of the offline evaluation and, unless
        ``--real-time`` is given, with the values of ``LOSSLESS``.
        """
        changes = {'score_threshold': self._threshold} | (
            {} if self._options.real_time else LOSSLESS
        )
        path = self._options.out / 'detector.yaml'
        path.write_text(changed_parameters(self._options.params_file, changes))
        return path

    def _launch_arguments(self, bag: Path) -> list[str]:
        options = self._options
        arguments = {
            'params_file': self._parameters,
            'checkpoint': options.checkpoint,
            'device': options.device,
        }
        arguments |= {'precision': options.precision, 'bag': bag, 'rate': options.rate}
        return [f'{name}:={value}' for name, value in arguments.items()]

    def score(self, scenes: dict[str, SceneResults]) -> dict:
        """Write the result file of the node, score it with the devkit, and return the devkit's
        summary.
        """
        options = self._options
        found = {
            token: entries for scene in scenes.values() for token, entries in scene.entries.items()
        }
        write_results(
            {token: found[token] for token in self.index.tokens()}, options.out / 'results.json'
        )
        return evaluate(
            options.out / 'results.json',
            options.dataroot,
            options.version,
            options.split,
            options.out,
            self.index,
        )

    def score_tracks(self, scenes: dict[str, SceneResults]) -> str:
        """Write the tracking result of the node, score it with the devkit, and return a table of
        the scores.

        Raises:
            ValueError: the node published no tracks.
        """
        options, folder = self._options, self._options.out / 'tracking'
        folder.mkdir(exist_ok=True)
        found = {
            token: entries for scene in scenes.values() for token, entries in scene.tracks.items()
        }
        path = folder / 'results.json'
        write_results({token: found[token] for token in self.index.tokens()}, path)
        return tracking_table(
            evaluate_tracking(path, options.dataroot, options.version, options.split, folder)
        )

    def score_offline(self) -> dict:
        """Run the offline evaluation and return the devkit's summary.

        Raises:
            ClosedLoopError: the offline evaluation failed.
        """
        options = self._options
        values = {
            'checkpoint': options.checkpoint,
            'device': options.device,
            'precision': options.precision,
        }
        values |= {
            'output': options.out / 'offline',
            'data.root': options.dataroot,
            'data.version': options.version,
        }
        values |= {'data.split': options.split} | (
            {'data.cache_dir': options.cache_dir} if options.cache_dir else {}
        )
        command = [
            sys.executable,
            '-m',
            'bevdepth_core.training.evaluate',
            *(f'--{name}={value}' for name, value in values.items()),
        ]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if finished.returncode:
            raise ClosedLoopError(
                f'the offline evaluation failed with exit status {finished.returncode}; the '
                f'output above contains the reason. The command was {" ".join(command)}'
            )
        return json.loads((options.out / 'offline' / 'metrics_summary.json').read_text())


def run(options: argparse.Namespace) -> str:
    """Evaluate the node and, unless ``--no-offline`` is given, the network offline. Write the
    report and return it.

    Raises:
        ClosedLoopError, SceneError, LaunchError, ValueError, OSError: a step failed; the
            message names the step.
    """
    loop = ClosedLoop(options)
    offline = boxes = None
    if options.offline:
        print('offline evaluation ...', flush=True)
        offline = loop.score_offline()
    scenes = loop.run_scenes()
    node = loop.score(scenes)
    if offline is not None:
        boxes = compare_boxes(
            *(_results(folder) for folder in (options.out / 'offline', options.out))
        )
    mode = ('all images' if options.all_frames else 'key frames only') + (
        ', in real time' if options.real_time else ''
    )
    heading = (
        f'{options.checkpoint} on {options.split}: {len(scenes)} scenes, {len(loop.index)} key '
        f'frames; the node received {mode}'
    )
    parts = [heading, side_by_side(offline, node)]
    parts += [loop.score_tracks(scenes)] if options.tracking else []
    report = '\n\n'.join([*parts, coverage_table(scenes), explanation(scenes, boxes)])
    (options.out / 'report.md').write_text(report + '\n')
    (options.out / 'report.json').write_text(
        json.dumps(_report_values(heading, offline, node, scenes, boxes), indent=1)
    )
    return report


def _results(folder: Path) -> dict[str, list[dict]]:
    return json.loads((folder / 'results.json').read_text())['results']


def _report_values(
    heading: str,
    offline: dict | None,
    node: dict,
    scenes: dict[str, SceneResults],
    boxes: BoxComparison | None,
) -> dict:
    """Return the content of ``report.json``."""
    coverage = {
        name: {
            'key_frames': len(scene.entries),
            'missed': scene.missed,
            'late': scene.late,
            'unfused': scene.unfused,
        }
        | {'diagnostics': scene.diagnostics}
        for name, scene in scenes.items()
    }
    compared = None if boxes is None else dataclasses.asdict(boxes)
    return {
        'heading': heading,
        'offline': offline,
        'node': node,
        'scenes': coverage,
        'boxes': compared,
    }


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'evaluate_node',
        description='Score the results of the running node and of the offline evaluation.',
    )
    _add_dataset_options(parser)
    _add_replay_options(parser.add_argument_group('replay'))
    _add_evaluation_options(parser.add_argument_group('evaluation'))
    _add_network_options(parser.add_argument_group('node and network'))
    return parser.parse_args(remove_ros_args(argv or sys.argv)[1:])


def _add_dataset_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--dataroot', type=Path, required=True, help='root folder of the dataset')
    add('--version', required=True, help='folder of the tables, such as v1.0-mini')
    add('--split', required=True, help='split to evaluate, such as mini_val or synthetic_val')
    add('--checkpoint', required=True, help='path, or name of weights such as small')


def _add_replay_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = 'replay all camera images (12 Hz) instead of only the key frames (2 Hz)'
    add('--all-frames', action='store_true', help=text)
    text = 'do not let the replay wait for the node; image sets are lost if the node is too slow'
    add('--real-time', action='store_true', help=text)
    text = (
        'speed of the replay relative to real time, except while the replay waits for the node '
        '(default %(default)s)'
    )
    add('--rate', type=positive, default=1.0, metavar='R', help=text)
    add('--bags', type=Path, metavar='DIR', help='replay the bag DIR/<scene> if it exists')


def _add_evaluation_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    out, text = Path('out/closed_loop'), 'folder of results and logs (default %(default)s)'
    add('--out', type=Path, default=out, metavar='DIR', help=text)
    text = 'score ~/tracks, too: AMOTA, AMOTP, IDS, FRAG, recall'
    add('--tracking', action='store_true', help=text)
    text = 'evaluate only the node, without the offline evaluation'
    add('--no-offline', dest='offline', action='store_false', help=text)
    text = 'folder of the cached index of the dataset, which both evaluations use'
    add('--cache-dir', type=Path, help=text)


def _add_network_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add('--device', default='auto', help='cpu, cuda, cuda:<n> or auto (default %(default)s)')
    precisions, text = ('fp32', 'fp16', 'bf16'), 'precision of the network (default %(default)s)'
    add('--precision', default='fp32', choices=precisions, help=text)
    params_file = Path(get_package_share_directory(PACKAGE)) / 'config' / 'detector.yaml'
    text = 'parameters of the node (default: config/detector.yaml of the package)'
    add('--params-file', type=Path, default=params_file, help=text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. On an error, exit with a message; after an interrupt, with status 130."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        isolate()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        print('\n' + run(options))
    except (
        ClosedLoopError,
        LaunchError,
        SceneError,
        CheckpointError,
        DatasetIncompleteError,
        ValueError,
        OSError,
    ) as error:
        sys.exit(f'evaluate_node: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
