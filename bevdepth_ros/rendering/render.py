"""Draws a recording, without a running ROS graph.

Examples:
    ros2 run bevdepth_ros render --bag BAG --out drive.mp4                      # with the
    detections in the bag, if any ros2 run bevdepth_ros render --bag BAG --out drive.mp4
    --checkpoint FILE    # detects on the way ros2 run bevdepth_ros render --bag BAG --out
    drive.mp4 --answers ANSWERS    # recorded by `record:=` of the launch file ros2 run
    bevdepth_ros render --bag BAG --out one.png --start 4              # or a folder of PNG files,
    or a GIF
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from ament_index_python.packages import get_package_share_directory
from rclpy.utilities import remove_ros_args
from tqdm import tqdm

from bevdepth_core.inference import Detector
from bevdepth_core.visualization import compose
from bevdepth_ros.rendering.recorded_scenes import LONGEST_S, RecordedScenes
from bevdepth_ros.rendering.scene import SHOWN_SCORE, Scene
from bevdepth_ros.rendering.video import PictureWriter
from bevdepth_ros.rig.settings import RigSettings

FINEST_WIDTH = 1440
"""A narrower picture is drawn at this width and made smaller, which keeps lines and text fine."""


class RenderError(Exception):
    """There is nothing to draw; the message says why."""


def render(options: argparse.Namespace) -> int:
    """Draw what ``options`` ask for and return the number of pictures.

    Raises:
        RenderError: no moment of the bag can be drawn, or an argument does not fit.
        Exception: of many types, when bag or weights are broken.
    """
    if options.depth and options.checkpoint is None:
        raise RenderError('--depth needs --checkpoint: recorded detections carry no depth')
    writer = PictureWriter(options.out)
    detector = _detector(options)
    with RecordedScenes(
        options.bag,
        settings(options.camera_preset),
        options.detector,
        options.width,
        options.answers,
    ) as recording:
        if options.answers is not None and not recording.has_detections:
            raise RenderError(
                f'{options.answers} holds no {options.detector}/objects: name the node with '
                '--detector'
            )
        scenes = recording.scenes(options.start, options.duration, detector, options.depth)
        with writer:
            for scene in tqdm(_thinned(scenes, options.fps), unit=' pictures', disable=None):
                picture = _picture(scene, _caption(scene, recording.start_ns), options)
                writer.add(picture, scene.stamp_ns * 1e-9)
                if writer.full:
                    break
            if not writer.count:
                raise RenderError(
                    f'{options.bag} has no moment to draw: are images, camera_info and tf in it, '
                    'under the names of the preset?'
                )
            return writer.count


def settings(preset: str) -> RigSettings:
    """Return the settings of a camera preset, given by name or path; the default ones for an empty
    one.
    """
    if not preset:
        return RigSettings()
    named = (
        Path(get_package_share_directory('bevdepth_ros')) / 'config' / 'cameras' / f'{preset}.yaml'
    )
    path = named if named.is_file() else Path(preset)
    values = yaml.safe_load(path.read_text())['/**']['ros__parameters']
    return RigSettings(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in RigSettings.__dataclass_fields__
        }
    )


def _detector(options: argparse.Namespace) -> Detector | None:
    if options.checkpoint is None:
        return None
    device = (
        ('cuda' if torch.cuda.is_available() else 'cpu')
        if options.device == 'auto'
        else options.device
    )
    detector = Detector.from_checkpoint(options.checkpoint, device)
    detector.keep_depth = options.depth
    return detector


def _thinned(scenes, fps: float | None):
    """Leave out scenes so that at most ``fps`` a second remain; all remain when it is None."""
    due_ns = 0
    for scene in scenes:
        if fps is None or scene.stamp_ns >= due_ns:
            due_ns = max(due_ns, scene.stamp_ns - 1) + round(1e9 / fps) if fps else 0
            yield scene


def _caption(scene: Scene, start_ns: int) -> str:
    words = f't = {(scene.stamp_ns - start_ns) * 1e-9:.2f} s'
    seconds = sum(scene.detections.stage_seconds.values()) if scene.detections is not None else 0
    return f'{words}  ·  detector {seconds * 1e3:.0f} ms' if seconds else words


def _picture(scene: Scene, caption: str, options: argparse.Namespace) -> np.ndarray:
    if scene.detections is not None:
        scene = dataclasses.replace(scene, detections=scene.detections.above(options.score))
    truth = None if options.no_ground_truth else scene.ground_truth
    width = max(options.width, FINEST_WIDTH)
    picture = compose(
        scene.frame,
        scene.detections,
        ground_truth=truth,
        depth=scene.depth,
        title=options.title,
        caption=caption,
        width=width,
    )
    if picture.shape[1] == options.width:
        return picture
    height = round(picture.shape[0] * options.width / picture.shape[1] / 2) * 2
    return cv2.resize(picture, (options.width, height), interpolation=cv2.INTER_AREA)


def _even(text: str) -> int:
    value = int(text)
    if value < 320 or value % 2:
        raise argparse.ArgumentTypeError(f'must be even and at least 320, got {text}')
    return value


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'render', description='Draw a rosbag2: six cameras with boxes and the view from above.'
    )
    parser.add_argument('--bag', type=Path, required=True, help='folder or file of a rosbag2')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='.mp4, .gif, one .png, or a folder for numbered PNG files',
    )
    parser.add_argument(
        '--checkpoint',
        type=Path,
        help='detect on the way with these weights (default: detections in the bag)',
    )
    parser.add_argument(
        '--answers',
        type=Path,
        help='another rosbag2, which holds the detections: of `record:=` of the launch file',
    )
    parser.add_argument('--device', default='auto', help='cpu, cuda or auto (default auto)')
    parser.add_argument(
        '--depth',
        action='store_true',
        help='colour the images with the expected depth; needs --checkpoint',
    )
    parser.add_argument(
        '--start', type=float, default=0.0, metavar='S', help='leave out the first S seconds'
    )
    parser.add_argument(
        '--duration',
        type=float,
        default=LONGEST_S,
        metavar='S',
        help='draw S seconds (default: to the end)',
    )
    parser.add_argument(
        '--fps',
        type=float,
        help='at most so many pictures per second of the recording (default: all)',
    )
    parser.add_argument(
        '--score',
        type=float,
        default=SHOWN_SCORE,
        help='draw detections that score at least this (default %(default)s)',
    )
    parser.add_argument('--no-ground-truth', action='store_true', help='leave annotations out')
    parser.add_argument(
        '--width', type=_even, default=1920, help='of the pictures, pixels (default 1920)'
    )
    parser.add_argument('--title', default='BEVDepth on ROS 2', help='upper left')
    parser.add_argument(
        '--camera-preset',
        default='',
        help='cameras and frames, as camera_preset of the launch file',
    )
    parser.add_argument(
        '--detector', default='/bevdepth_detector', help='node whose recorded objects are drawn'
    )
    return parser.parse_args(remove_ros_args(argv or sys.argv)[1:])


def main(argv: list[str] | None = None) -> None:
    """Draw; ends the process with a sentence when there is nothing to draw, and with 130 when
    interrupted.
    """
    options = _options(argv)
    try:
        count = render(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except (
        Exception
    ) as error:  # rosbags, sqlite3, torch and FFmpeg raise many types on broken files
        sys.exit(f'render: {error}')
    print(f'wrote {options.out}: {count} pictures')


if __name__ == '__main__':
    main()
