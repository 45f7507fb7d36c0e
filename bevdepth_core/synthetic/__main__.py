"""Writes a synthetic dataset in the format of nuScenes.

python -m bevdepth_core.synthetic data/synthetic --train-scenes 8 --val-scenes 2
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

from bevdepth_core.synthetic.dataset.capture import Sensors
from bevdepth_core.synthetic.dataset.writing import SPLITS, VERSION, DatasetPlan, write_dataset
from bevdepth_core.synthetic.sensors.rig import NUSCENES_RIG
from bevdepth_core.synthetic.sensors.rig_file import read_rig

_EPILOG = f"""
The dataset has version {VERSION} and the splits {' and '.join(SPLITS)}.
The program writes to ROOT.part and renames the folder when the dataset is complete. An interrupted
run leaves no dataset. If ROOT contains a dataset, the program stops with an error. With --force,
the program replaces the dataset. The same options always give the same files; --jobs does not
change the files.
"""


def main(arguments: list[str] | None = None) -> None:
    """Write the dataset that the command line describes."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # each worker process uses one CPU
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sensors = _sensors(options)
        plan = DatasetPlan(
            options.train_scenes, options.val_scenes, options.duration, sensors, options.seed
        )
        write_dataset(options.root, plan, jobs=options.jobs, force=options.force)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    except BrokenProcessPool:
        sys.exit(
            'error: a process was killed, probably because memory ran out: set --jobs to a '
            'smaller number'
        )
    except KeyboardInterrupt:
        sys.exit('interrupted: the unfinished dataset was removed')
    print(
        f'{options.root}: {VERSION}, number of scenes: {options.train_scenes} in {SPLITS[0]}, '
        f'{options.val_scenes} in {SPLITS[1]}'
    )


def _sensors(options: argparse.Namespace) -> Sensors:
    """Return the sensors that the options describe; raises ValueError if the rig file is
    invalid.
    """
    rig = read_rig(options.rig) if options.rig else NUSCENES_RIG
    width, height = options.image_size or rig.image_size
    return Sensors(
        width,
        height,
        options.lidar_beams or rig.lidar.beams,
        options.sweeps,
        rig,
        options.distorted,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m bevdepth_core.synthetic',
        description=(
            'Render synthetic drives and write them as a dataset in the format of nuScenes v1.0.'
        ),
        epilog=_EPILOG,
    )
    parser.add_argument('root', help='folder of the new dataset')
    _add_scene_options(parser.add_argument)
    _add_sensor_options(parser.add_argument)
    text = 'number of processes (default: one per processor)'
    parser.add_argument('--jobs', type=int, help=text)
    text = 'replace a dataset that this program wrote'
    parser.add_argument('--force', action='store_true', help=text)
    return parser


def _add_scene_options(add: Callable) -> None:
    text = 'number of training scenes (default %(default)s)'
    add('--train-scenes', type=int, default=8, help=text)
    text = (
        'number of validation scenes, which have other seeds and calibrations than the training '
        'scenes (default %(default)s)'
    )
    add('--val-scenes', type=int, default=2, help=text)
    text = 'duration of a scene in seconds (default %(default)s)'
    add('--duration', type=float, default=20.0, help=text)
    add('--seed', type=int, default=0, help='seed of all scenes (default %(default)s)')


def _add_sensor_options(add: Callable) -> None:
    text = 'width and height of the images in pixels (default: the size in the rig)'
    add('--image-size', type=_size, metavar='WxH', help=text)
    text = 'YAML file with cameras and lidar, such as config/rigs/a.yaml (default: as in nuScenes)'
    add('--rig', metavar='FILE', help=text)
    text = (
        'write images with lens distortion, for nuscenes_to_bag; training needs undistorted images'
    )
    add('--distorted', action='store_true', help=text)
    text = 'number of lidar beams (default: the number in the rig)'
    add('--lidar-beams', type=int, help=text)
    text = 'record only key frames, which are about a seventh of the data'
    add('--no-sweeps', dest='sweeps', action='store_false', help=text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f'{text!r} is not a size such as 1600x900')
    return int(width), int(height)


if __name__ == '__main__':
    main()
