"""Runs a complete training on two CPU cores in minutes: generates data, trains, kills the run,
resumes it, scores and plots.

    python training/demo.py [--out out/train_demo] [--steps 300]

The network is the small preset with smaller images, and the dataset consists of a few synthetic
scenes. This is enough to see that the loss decreases and that all parts work, but not to detect
well. tools/train_small.sh trains the bundled weights.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from bevdepth_core.training.plot import plot, read_parts, repeated_steps

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = '400x225'
NETWORK = {'model.network.image.height': 96, 'model.network.image.width': 256}
RECIPE = {
    'model.learning_rate_batch': 1,
    'model.warmup_steps': 20,
    'data.batch_size': 1,
    'data.workers': 1,
    'data.class_balanced': 'false',
    'trainer.accelerator': 'cpu',
    'trainer.devices': 1,
    'trainer.max_epochs': 1000,
    'trainer.averaging.decay': 0.97,
    'trainer.log_every_n_steps': 1,
}
CHECKPOINTS = 6
"""Number of checkpoints in the run."""
POLL_S = 0.2


class TrainDemoError(Exception):
    """A step of the demo failed; the message names it."""


def run(options: Namespace) -> None:
    """Generate data, train, kill, resume, score, plot.

    Raises:
        TrainDemoError: one of these failed.
    """
    out, started = options.out.absolute(), time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    def report(text: str) -> None:
        print(f'[{time.monotonic() - started:4.0f} s] {text}', flush=True)

    report(f'generating {options.scenes} training scenes and 2 validation scenes')
    _finish(_data_command(out, options.scenes), out / 'data.log')
    command = _training_command(out, options.steps)
    report(f'training {options.steps} steps: {" ".join(command[1:4])} ...')
    report(f'progress and remaining time: {out / "first.log"}')
    killed_at = _train_and_kill(command, out, options.steps * 7 // 12)
    report(
        f'killed the run with SIGKILL after step {killed_at}; the same command with --resume true '
        'resumes it'
    )
    _finish([*command, '--resume', 'true'], out / 'resumed.log')
    for sentence in _loss_sentences(out / 'run', options.steps):
        report(sentence)
    plot(out / 'run', out / 'loss.png')
    report(f'wrote {out / "loss.png"}; scoring with the devkit on the two validation scenes')
    print(_finish(_scoring_command(out), out / 'score.log'))
    report('done')


def _data_command(out: Path, scenes: int) -> list[str]:
    command = [sys.executable, '-m', 'bevdepth_core.synthetic', str(out / 'data')]
    counts = ['--train-scenes', str(scenes), '--val-scenes', '2']
    return [*command, *counts, '--duration', '4', '--image-size', IMAGE_SIZE, '--no-sweeps']


def _loss_sentences(run_folder: Path, steps: int) -> tuple[str, str]:
    """Return what the curves of the killed and of the resumed run show."""
    first, resumed = read_parts(run_folder)[:2]
    count, difference = repeated_steps([first, resumed])
    tenth = max(1, steps // 10)
    return (
        f'resumed before step {int(resumed["step"][0])}; {count} steps were repeated, their '
        f'losses differ by at most {difference:.1g}',
        f'loss {first["total"][:tenth].mean():.1f} in the first tenth of the steps, '
        f'{resumed["total"][-tenth:].mean():.1f} in the last',
    )


def _training_command(out: Path, steps: int) -> list[str]:
    values = {
        **NETWORK,
        **RECIPE,
        'data.root': out / 'data',
        'data.cache_dir': out / 'cache',
        'trainer.max_steps': steps,
        'trainer.checkpoint_every_n_steps': max(1, steps // CHECKPOINTS),
        'output': out / 'run',
    }
    command = [sys.executable, 'training/train.py', '--config', 'config/training/small.yaml']
    return [*command, *_options(values)]


def _options(values: Mapping[str, object]) -> list[str]:
    return [word for name, value in values.items() for word in (f'--{name}', str(value))]


def _scoring_command(out: Path) -> list[str]:
    weights = sorted((out / 'run/weights').glob('*.safetensors'))[-1]
    values = {
        'checkpoint': weights,
        'data.root': out / 'data',
        'data.version': 'v1.0-synthetic',
        'data.split': 'synthetic_val',
        'data.cache_dir': out / 'cache',
        'data.workers': 1,
        'device': 'cpu',
        'output': out / 'score',
    }
    return [sys.executable, 'training/evaluate.py', *_options(values)]


def _finish(command: list[str], log: Path) -> str:
    """Run a command and return its output."""
    with log.open('w') as errors:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
        raise TrainDemoError(f'{command[1]} failed:\n{log.read_text()[-2000:]}')
    return done.stdout


def _train_and_kill(command: list[str], out: Path, after_step: int) -> int:
    """Start training, kill it and its loader when its log reaches ``after_step``; return the last
    step in the log.
    """
    log = out / 'first.log'
    with log.open('w') as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=errors, stderr=errors, start_new_session=True
        )
    try:
        while process.poll() is None and _last_step(out) < after_step:
            time.sleep(POLL_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise TrainDemoError(
            f'the training ended before the demo could kill it:\n{log.read_text()[-2000:]}'
        )
    return _last_step(out)


def _last_step(out: Path) -> int:
    """Return the last step in the run's log, -1 while there is none."""
    try:
        return int(read_parts(out / 'run')[0]['step'][-1])
    except (
        FileNotFoundError,
        IndexError,
        ValueError,
        KeyError,
    ):  # absent, or being written
        return -1


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = ArgumentParser(
        'training/demo.py',
        description='Train a small network on two CPU cores: kill, resume, score, plot its loss.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out/train_demo'),
        help='folder, replaced (default out/train_demo)',
    )
    parser.add_argument('--steps', type=int, default=300, help='optimizer steps (default 300)')
    parser.add_argument('--scenes', type=int, default=8, help='training scenes (default 8)')
    try:
        run(parser.parse_args(arguments))
    except TrainDemoError as error:
        sys.exit(f'train-demo: {error}')


if __name__ == '__main__':
    main()
