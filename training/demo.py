"""Runs a complete training on two CPU cores in minutes: generates data, trains, kills the run,
resumes it, scores and plots.

    python training/demo.py [--out out/train_demo] [--epochs 4]

The network is the small preset with smaller images and a coarser grid, and the dataset consists of
a few synthetic scenes. This is enough to see that the loss decreases and that all parts work, but
not to detect well. tools/train_small.sh trains the bundled weights.

If you run the command again, it uses the same data, and continues a training that Ctrl-C
interrupted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    from tqdm import tqdm

    from bevdepth_core.training.plot import plot, read_parts, repeated_steps
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run 'make setup' once, then '. ./env.sh', in the folder of the project")

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = '400x225'
SCENE_S, KEY_FRAMES = 4, 8
"""Duration of a scene, seconds, and number of key frames of a scene."""
CELLS = '[-51.2, 51.2, 1.6]'
NETWORK = {
    'model.network.image.height': 96,
    'model.network.image.width': 256,
    'model.network.grid.x': CELLS,
    'model.network.grid.y': CELLS,
}
RECIPE = {
    'model.learning_rate_batch': 1,
    'model.warmup_steps': 10,
    'data.batch_size': 1,
    'data.workers': 1,
    'data.class_balanced': 'false',
    'trainer.accelerator': 'cpu',
    'trainer.devices': 1,
    'trainer.averaging.decay': 0.9,
    'trainer.log_every_n_steps': 1,
}
CHECKPOINTS = 6
"""Number of checkpoints that the training writes."""
POLL_S = 0.2
REPORT_S = 10.0
"""Interval between two reports of the progress, seconds."""
SAVING_S = 60.0
"""After Ctrl-C, a training has this time to finish its step and to write a checkpoint, seconds."""
INTERRUPTED = 130


class TrainDemoError(Exception):
    """A step of the demo failed; the message names the step."""


class Demo:
    """Runs the steps of the demo. Each step prints what it does, with the time since the start."""

    def __init__(self, options: Namespace) -> None:
        """Name the folders of the data and of the run. They depend on the options, so that a demo
        with the same options uses the same folders again.
        """
        self._out, self._epochs, self._scenes = (
            options.out.absolute(),
            options.epochs,
            options.scenes,
        )
        self._steps = self._epochs * self._scenes * KEY_FRAMES
        self._data = self._out / f'data_{self._scenes}_scenes'
        self._run = self._out / f'run_{self._scenes}_scenes_{self._epochs}_epochs'
        self._finished = self._run / 'finished'
        self._started = time.monotonic()
        self._out.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Generate data, train, kill, resume, score, plot.

        Raises:
            TrainDemoError: one of these steps failed.
        """
        self._generate()
        self._train()
        for sentence in _loss_sentences(self._run, self._steps):
            self._report(sentence)
        plot(self._run, self._out / 'loss.png')
        self._report(f'wrote {self._out / "loss.png"}; scoring with the devkit')
        print(self._finish(_scoring_command(self._data, self._run), 'score'))
        self._report(
            f'scores near 0 are normal after {self._steps} steps: this run only shows that all '
            'programs work; tools/train_small.sh trains weights that detect objects'
        )
        self._finished.touch()
        self._report('done')

    def _report(self, text: str) -> None:
        print(f'[{time.monotonic() - self._started:4.0f} s] {text}', flush=True)

    def _generate(self) -> None:
        if self._data.exists():
            self._report(f'using the data of an earlier run in {self._data}')
            return
        total = (self._scenes + 1) * KEY_FRAMES
        self._report(f'generating {self._scenes} training scenes and 1 validation scene')
        command = _data_command(self._data, self._scenes)
        images = self._data.with_name(f'{self._data.name}.part') / 'samples' / 'CAM_FRONT'
        self._finish(command, 'data', lambda: len(list(images.glob('*'))), total, 'key frames')

    def _train(self) -> None:
        """Train, kill the training and resume it. If Ctrl-C interrupted the training of an earlier
        demo, only resume this earlier training.
        """
        has_checkpoint = (self._run / 'last.ckpt').exists()
        command = _training_command(self._data, self._run, self._epochs, self._steps)
        if has_checkpoint and not self._finished.exists():
            self._report('continuing the training that was interrupted')
        else:
            shutil.rmtree(self._run, ignore_errors=True)
            self._report(f'training {self._steps} steps: {" ".join(command[1:4])} ...')
            killed_at = self._train_and_kill(command, self._steps * 7 // 12)
            self._report(
                f'killed the run with SIGKILL after {killed_at} steps; the same command with '
                '--resume true resumes it'
            )
        resuming = [*command, '--resume', 'true']
        self._finish(resuming, 'resumed', lambda: _steps_done(self._run), self._steps, 'steps')

    def _train_and_kill(self, command: list[str], steps: int) -> int:
        """Start the training, kill its processes after ``steps`` steps, and return the number of
        steps in its log.
        """
        with self._child(command, 'first') as process:
            self._watch(
                process,
                lambda: _steps_done(self._run),
                self._steps,
                'steps',
                lambda: _steps_done(self._run) >= steps,
            )
            if process.poll() is not None:
                raise TrainDemoError(f'the training ended too early:\n{self._end_of("first")}')
            os.killpg(process.pid, signal.SIGKILL)
        return _steps_done(self._run)

    def _finish(
        self,
        command: list[str],
        name: str,
        count: Callable[[], int] = lambda: 0,
        total: int = 0,
        unit: str = '',
    ) -> str:
        """Run a command to its end and return its output. ``name`` is the name of its output
        files; ``_watch`` describes the other arguments.
        """
        with self._child(command, name) as process:
            self._watch(process, count, total, unit, lambda: False)
        if process.returncode:
            raise TrainDemoError(f'{command[1]} failed:\n{self._end_of(name)}')
        return (self._out / f'{name}.out').read_text()

    @contextmanager
    def _child(self, command: list[str], name: str) -> Iterator[subprocess.Popen]:
        """Run a command that writes its output to NAME.out and its messages to NAME.log.

        After Ctrl-C, this process sends SIGINT to the command, and waits until the command has
        saved its state. The command uses one OpenMP thread. Several threads would wait for each
        other, which makes the command many times slower if other processes use the CPU.
        """
        environment = {'OMP_NUM_THREADS': '1', **os.environ}
        out, log = self._out / f'{name}.out', self._out / f'{name}.log'
        with out.open('w') as output, log.open('w') as messages:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=messages,
                start_new_session=True,
            )
        try:
            yield process
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            print('\ninterrupted: waiting until the running step has ended ...', flush=True)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAVING_S)
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _watch(
        self,
        process: subprocess.Popen,
        count: Callable[[], int],
        total: int,
        unit: str,
        is_enough: Callable[[], bool],
    ) -> None:
        """Wait until a process ends or ``is_enough`` returns True. Meanwhile, report the progress
        and the remaining time.

        Args:
            process: the process.
            count: returns the number of units that are done.
            total: number of units; 0 if the progress is not reported.
            unit: name of the units, such as steps.
            is_enough: returns True if the wait can end.
        """
        report_at = time.monotonic() + REPORT_S
        first: tuple[float, int] | None = None
        at_start = count()
        while process.poll() is None and not is_enough():
            time.sleep(POLL_S)
            done, now = count(), time.monotonic()
            first = (now, done) if first is None and done != at_start else first
            if total and now >= report_at:
                report_at = now + REPORT_S
                self._report(f'  {done} of {total} {unit}{_left(first, now, done, total)}')

    def _end_of(self, name: str) -> str:
        return (self._out / f'{name}.log').read_text()[-2000:]


def _left(first: tuple[float, int] | None, now: float, done: int, total: int) -> str:
    """Return the remaining time as text, or an empty text while the remaining time is unknown.
    ``first`` is an earlier time, and the number of units that were done at that time.
    """
    if first is None or done <= first[1]:
        return ''
    seconds = (now - first[0]) / (done - first[1]) * (total - done)
    return f', {tqdm.format_interval(seconds)} left'


def _data_command(data: Path, scenes: int) -> list[str]:
    command = [sys.executable, '-m', 'bevdepth_core.synthetic', str(data), '--no-sweeps']
    counts = ['--train-scenes', str(scenes), '--val-scenes', '1', '--duration', str(SCENE_S)]
    return [*command, *counts, '--image-size', IMAGE_SIZE]


def _loss_sentences(run_folder: Path, steps: int) -> tuple[str, str]:
    """Return two sentences: one compares the losses of the steps that the resumed run repeated,
    and one compares the losses at the beginning and at the end.
    """
    parts = [part for part in read_parts(run_folder) if len(part['step'])]
    count, difference = repeated_steps(parts)
    tenth = max(1, steps // 10)
    return (
        f'resumed before step {int(parts[-1]["step"][0])}; {count} steps were repeated, '
        f'and the losses of both runs differ in these steps by at most {100 * difference:.1g} %',
        f'loss {parts[0]["total"][:tenth].mean():.1f} in the first tenth of the steps, '
        f'{parts[-1]["total"][-tenth:].mean():.1f} in the last tenth',
    )


def _training_command(data: Path, run: Path, epochs: int, steps: int) -> list[str]:
    values = {
        **NETWORK,
        **RECIPE,
        'data.root': data,
        'data.cache_dir': data.with_name(f'{data.name}.cache'),
        'trainer.max_epochs': epochs,
        'trainer.checkpoint_every_n_steps': max(1, steps // CHECKPOINTS),
        'output': run,
    }
    command = [sys.executable, 'training/train.py', '--config', 'config/training/small.yaml']
    return [*command, *_options(values)]


def _options(values: Mapping[str, object]) -> list[str]:
    return [word for name, value in values.items() for word in (f'--{name}', str(value))]


def _scoring_command(data: Path, run: Path) -> list[str]:
    weights = sorted((run / 'weights').glob('*.safetensors'))[-1]
    values = {
        'checkpoint': weights,
        'data.root': data,
        'data.version': 'v1.0-synthetic',
        'data.split': 'synthetic_val',
        'data.cache_dir': data.with_name(f'{data.name}.cache'),
        'data.workers': 1,
        'device': 'cpu',
        'output': run / 'score',
    }
    return [sys.executable, 'training/evaluate.py', *_options(values)]


def _steps_done(run: Path) -> int:
    """Return the number of steps in the log of a run."""
    try:
        return 1 + int(read_parts(run)[-1]['step'][-1])
    except (
        FileNotFoundError,
        IndexError,
        ValueError,
        KeyError,
    ):  # the log does not exist, or its last line is being written
        return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the exit status after Ctrl-C is 130."""
    parser = ArgumentParser(
        'training/demo.py',
        description='Train a small network on two CPU cores: kill and resume the training, score '
        'the network, and plot the loss.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out/train_demo'),
        help='output folder; data and an interrupted training of an earlier demo in this folder '
        'are used again (default out/train_demo)',
    )
    parser.add_argument('--epochs', type=int, default=4, help='epochs of training (default 4)')
    parser.add_argument('--scenes', type=int, default=2, help='training scenes (default 2)')
    try:
        Demo(parser.parse_args(arguments)).run()
    except TrainDemoError as error:
        sys.exit(f'train-demo: {error}')
    except KeyboardInterrupt:
        print('train-demo: interrupted; the same command continues the training', file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == '__main__':
    main()
