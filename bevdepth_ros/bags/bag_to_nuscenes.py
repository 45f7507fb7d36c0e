"""Converts recordings of a vehicle to a dataset in nuScenes format.

    ros2 run bevdepth_ros bag_to_nuscenes --bag drive_1 drive_2 --out data/own

Each bag becomes one scene, or several scenes if there are gaps between its key frames. Files are
written to the folder ``<out>.part``, which is renamed when the dataset is complete. After an
interruption, run the same command again to continue the conversion.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bevdepth_core.nuscenes.table_files import TableFiles
from bevdepth_ros.bags.conversion.converter import BagConverter, Selection
from bevdepth_ros.bags.conversion.sources import ConversionError
from bevdepth_ros.bags.conversion.unfinished import UnfinishedDataset
from bevdepth_ros.bags.reader import BagError
from bevdepth_ros.signals import end_with_ros2_run

SPLIT = 'own_train'


def report(sentence: str) -> None:
    """Print a sentence for the user. If a progress bar is shown, the sentence is above the bar."""
    tqdm.write(f'bag_to_nuscenes: {sentence}', file=sys.stderr)


def convert(options: argparse.Namespace) -> None:
    """Write the dataset.

    Raises:
        ConversionError: a bag cannot be converted, or the dataset exists.
        BagError: a bag cannot be read.
        OSError: a file cannot be written.
    """
    if options.out.exists():
        raise ConversionError(f'{options.out} exists: choose another folder or remove it')
    bags = [path.resolve() for path in options.bag]
    unfinished = UnfinishedDataset(options.out, vars(options) | {'bag': bags, 'out': ''})
    unfinished.begin()
    if unfinished.is_continued:
        report(f'continuing the interrupted conversion in {unfinished.path}')
    try:
        _write(unfinished.path, options)
        unfinished.finish()
    except (KeyboardInterrupt, OSError):
        if unfinished.has_files():
            report(
                'the conversion is not complete: run the same command again to continue in '
                f'{unfinished.path}'
            )
        else:
            unfinished.remove()
        raise
    except BaseException:
        unfinished.remove()
        raise


def _write(root: Path, options: argparse.Namespace) -> None:
    folder = root / options.version
    folder.mkdir(exist_ok=True)
    with TableFiles(folder) as tables:
        converter = BagConverter(root, _selection(options), tables, report)
        for path in options.bag:
            converter.add(path)
        converter.finish()
    (folder / 'splits.json').write_text(json.dumps({SPLIT: converter.scenes}))


def _selection(options: argparse.Namespace) -> Selection:
    return Selection(
        options.cameras,
        options.rectified,
        options.lidar,
        options.annotations,
        options.odometry,
        options.min_score,
        options.world_frame,
        options.base_frame,
        round(options.slop * 1e9),
        with_sweeps=not options.key_frames,
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'bag_to_nuscenes',
        description='Convert rosbag2 recordings to a dataset in nuScenes format.',
    )
    add = parser.add_argument
    add('--bag', type=Path, nargs='+', required=True, help='recordings, one per drive')
    add('--out', type=Path, required=True, help='folder of the new dataset')
    add('--version', default='v1.0-own', help='folder of the tables (default v1.0-own)')
    add(
        '--cameras',
        nargs='+',
        metavar='TOPIC',
        help='image topics (default: one topic of each camera that has CameraInfo)',
    )
    add('--rectified', action='store_true', help='treat all images as free of lens distortion '
        '(default: only images on topics named image_rect...)')  # fmt: skip
    add('--lidar', metavar='TOPIC', help='topic of type PointCloud2 (default: the only topic of '
        "this type); '' for no lidar")  # fmt: skip
    add('--annotations', metavar='TOPIC', help='topic of type Detection3DArray (default: the only '
        "topic of this type); '' for no annotations")  # fmt: skip
    add('--min-score', type=float, default=0.0, metavar='S',
        help='leave out annotations whose score is lower than S (default 0)')  # fmt: skip
    add(
        '--odometry',
        metavar='TOPIC',
        default='',
        help='topic of nav_msgs/Odometry for the poses of the vehicle; extrinsics come from tf',
    )
    add(
        '--world-frame',
        help='tf frame in which the vehicle moves (default: map, or the frame of the poses on the '
        'topic of --odometry)',
    )
    add('--base-frame', default='base_link', help='tf frame of the vehicle (default base_link)')
    add('--slop', type=float, default=0.06, metavar='S',
        help='largest time between a measurement and its key frame (default 0.06 s)')  # fmt: skip
    add('--key-frames', action='store_true', help='leave out the sweeps between key frames')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the recordings. The exit status is 1 after an error, which is printed, and 130 after
    an interruption.
    """
    options = _options(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    end_with_ros2_run()
    try:
        convert(options)
    except (ConversionError, BagError, OSError) as error:
        sys.exit(f'bag_to_nuscenes: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    print(options.out)


if __name__ == '__main__':
    main()
