"""Renders a recording, without a running ROS graph.

Examples:
    ros2 run bevdepth_ros render --bag BAG --out drive.mp4                    # detections in BAG
    ros2 run bevdepth_ros render --bag BAG --out drive.gif --checkpoint FILE  # runs the detector
    ros2 run bevdepth_ros render --bag BAG --out folder --detections RECORDED  # bag of `record:=`
    ros2 run bevdepth_ros render --bag BAG --out one.png --start 4
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from rclpy.utilities import remove_ros_args
from tqdm import tqdm

from bevdepth_core.inference import Detector
from bevdepth_core.visualization import compose
from bevdepth_ros.bags.player_options import not_negative, positive
from bevdepth_ros.bring_up.params_files import ParametersError
from bevdepth_ros.bring_up.scope import resolve_detector
from bevdepth_ros.rendering.recorded_scenes import MAX_DURATION_S, RecordedScenes
from bevdepth_ros.rendering.scene import SHOWN_SCORE, Scene
from bevdepth_ros.rendering.video import ImageWriter
from bevdepth_ros.rig.settings import RigSettings

FINEST_WIDTH = 1440
"""If the output is narrower than this, in pixels, images are rendered at this width and then
resized, so that lines and text stay sharp."""
LOG_INTERVAL_S = 10.0
"""If the output is a log file instead of a terminal, the progress is printed at this interval, in
seconds."""


class RenderError(Exception):
    """The recording cannot be rendered; the message gives the reason."""


def render(options: argparse.Namespace) -> int:
    """Render with the command line options and return the number of images.

    Raises:
        RenderError: the bag contains no complete scene, or an argument is invalid.
        Exception: of many types, if the bag or the checkpoint is damaged.
    """
    if options.depth and options.checkpoint is None:
        raise RenderError('--depth needs --checkpoint: recorded detections contain no depth')
    writer = ImageWriter(options.out)
    detector, rig = _detector(options), settings(options.camera_preset, options.detector)
    missing = Counter[str]()
    with RecordedScenes(
        options.bag,
        rig,
        options.detector,
        options.width,
        options.detections,
    ) as recording:
        if options.detections is not None and not recording.has_detections:
            raise RenderError(
                f'{options.detections} contains no {options.detector}/objects: set --detector '
                'to the name of the node whose topics were recorded'
            )
        if detector is None and not recording.has_detections:
            print(
                f'render: {options.bag} contains no {options.detector}/objects, so the images '
                'show no detections: add --checkpoint small, or --detections with another bag',
                file=sys.stderr,
            )
        absent = recording.absent_topics()
        scenes = recording.scenes(options.start, options.duration, detector, options.depth)
        with writer:
            for scene in _with_progress(_thinned(scenes, options.fps), recording, options):
                image = _rendered(scene, _caption(scene, recording.start_ns), options)
                writer.add(image, scene.stamp_ns * 1e-9)
                missing.update(set(rig.cameras) - set(scene.frame.rig.names))
                if writer.is_full:
                    break
            if not writer.count:
                topics = [topic for names in absent.values() for topic in names]
                raise RenderError(
                    f'{options.bag} contains no complete scene from --start on: check that '
                    f'images, camera_info and tf are in this part{_absent(topics)}'
                )
            for camera, count in sorted(missing.items()):
                print(
                    f'render: {camera} is missing in {count} of {writer.count} rendered images: '
                    f'check images, CameraInfo and tf of this camera{_absent(absent[camera])}',
                    file=sys.stderr,
                )
            return writer.count


def _absent(topics: list[str]) -> str:
    """Return a clause that names ``topics``, which the bag does not contain; empty if ``topics``
    is empty.
    """
    if not topics:
        return ''
    return (
        f'; the bag has no {", ".join(topics)} (if the topics of the bag have other names, select '
        'these names with --camera-preset)'
    )


def settings(preset: str, detector: str = '/bevdepth_detector') -> RigSettings:
    """Return the settings in a camera preset.

    Args:
        preset: name of a preset, or path of a parameter file; if empty, the default settings are
            returned.
        detector: full name of the detector. Topics without a leading slash are resolved in the
            namespace of the detector.

    Raises:
        RenderError: the preset does not exist, or the detector would reject the file.
    """
    if not preset:
        return RigSettings()
    presets = Path(get_package_share_directory('bevdepth_ros')) / 'config' / 'cameras'
    named = presets / f'{preset}.yaml'
    path = named if named.is_file() else Path(preset)
    if not path.is_file():
        names = ', '.join(sorted(file.stem for file in presets.glob('*.yaml')))
        raise RenderError(f'--camera-preset {preset} is neither a file nor one of {names}')
    namespace = detector.rpartition('/')[0]
    try:
        resolved = resolve_detector(LaunchContext(), namespace, [str(path)])
    except ParametersError as error:
        raise RenderError(str(error)) from error
    odometry = resolved.rig.odometry_topic
    return dataclasses.replace(
        resolved.rig,
        image_topics=tuple(source.image_topic for source in resolved.sources),
        camera_info_topics=tuple(source.info_topic for source in resolved.sources),
        odometry_topic=f'{namespace}/{odometry}' if odometry[:1] not in ('', '/') else odometry,
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


def _thinned(scenes: Iterable[Scene], fps: float | None) -> Iterator[Scene]:
    """Skip scenes so that at most ``fps`` scenes per second of the recording remain. If ``fps`` is
    None, keep all scenes.
    """
    due_ns = 0
    for scene in scenes:
        if fps is None or scene.stamp_ns >= due_ns:
            due_ns = max(due_ns, scene.stamp_ns - 1) + round(1e9 / fps) if fps else 0
            yield scene


def _with_progress(
    scenes: Iterable[Scene], recording: RecordedScenes, options: argparse.Namespace
) -> Iterator[Scene]:
    """Yield the scenes, and print the rendered part of the recording and the remaining time."""
    begin_s = recording.start_ns * 1e-9 + options.start
    seconds = min(options.duration, max(0.0, recording.end_ns * 1e-9 - begin_s))
    text = '{desc}: {percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} s [{elapsed}<{remaining}]'
    interval_s = 0.2 if sys.stderr.isatty() else LOG_INTERVAL_S
    with tqdm(
        total=seconds, desc='rendering', bar_format=text, mininterval=interval_s, miniters=0
    ) as bar:
        for scene in scenes:
            yield scene
            bar.update(max(0.0, min(seconds, scene.stamp_ns * 1e-9 - begin_s) - bar.n))


def _caption(scene: Scene, start_ns: int) -> str:
    words = f't = {(scene.stamp_ns - start_ns) * 1e-9:.2f} s'
    seconds = sum(scene.detections.stage_seconds.values()) if scene.detections is not None else 0
    return f'{words}  ·  detector {seconds * 1e3:.0f} ms' if seconds else words


def _rendered(scene: Scene, caption: str, options: argparse.Namespace) -> np.ndarray:
    if scene.detections is not None:
        scene = dataclasses.replace(scene, detections=scene.detections.above(options.score))
    truth = None if options.no_ground_truth else scene.ground_truth
    width = max(options.width, FINEST_WIDTH)
    image = compose(
        scene.frame,
        scene.detections,
        ground_truth=truth,
        depth=scene.depth,
        title=options.title,
        caption=caption,
        width=width,
    )
    if image.shape[1] == options.width:
        return image
    height = round(image.shape[0] * options.width / image.shape[1] / 2) * 2
    return cv2.resize(image, (options.width, height), interpolation=cv2.INTER_AREA)


def _even(text: str) -> int:
    if not text.isdecimal() or int(text) < 320 or int(text) % 2:
        raise argparse.ArgumentTypeError(f'must be an even number of at least 320, got {text}')
    return int(text)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'render', description='Render a rosbag2: camera images with boxes and the top view.'
    )
    _add_recording_options(parser)
    _add_detection_options(parser.add_argument_group('detections'))
    _add_part_options(parser.add_argument_group('part of the recording'))
    _add_image_options(parser.add_argument_group('images'))
    return parser.parse_args(remove_ros_args(argv or sys.argv)[1:])


def _add_recording_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--bag', type=Path, required=True, help='folder or file of a rosbag2')
    text = '.mp4, .gif, one .png, or a folder for numbered PNG files'
    add('--out', type=Path, required=True, help=text)
    text = (
        'camera preset, as for camera_preset:= of the launch file; relative topic names in the '
        'preset are resolved in the namespace of --detector'
    )
    add('--camera-preset', default='', help=text)


def _add_detection_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = 'run the detector with this checkpoint (default: use the detections in the bag)'
    add('--checkpoint', type=Path, help=text)
    text = 'another rosbag2 with the detections, as `record:=` of the launch file writes it'
    add('--detections', type=Path, help=text)
    text = 'name of the node whose recorded detections are rendered (default %(default)s)'
    add('--detector', default='/bevdepth_detector', help=text)
    text = 'device of the detector, with --checkpoint: cpu, cuda, cuda:<n> or auto (default auto)'
    add('--device', default='auto', help=text)
    text = 'lowest score of the boxes that are rendered (default %(default)s)'
    add('--score', type=float, default=SHOWN_SCORE, help=text)


def _add_part_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add('--start', type=not_negative, default=0.0, metavar='S', help='skip the first S seconds')
    text = 'render S seconds (default: to the end)'
    add('--duration', type=positive, default=MAX_DURATION_S, metavar='S', help=text)
    text = 'maximum number of images per second of the recording (default: all)'
    add('--fps', type=positive, help=text)


def _add_image_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = 'color the images with the expected depth; needs --checkpoint'
    add('--depth', action='store_true', help=text)
    add('--no-ground-truth', action='store_true', help='do not render annotations')
    add(
        '--width',
        type=_even,
        default=1920,
        help='width of the rendered images, pixels (default 1920)',
    )
    add('--title', default='BEVDepth on ROS 2', help='text at the upper left')


def main(argv: list[str] | None = None) -> None:
    """Run the command. On an error, exit with a message; after an interrupt, with status 130."""
    options = _options(argv)
    try:
        count = render(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except (
        Exception
    ) as error:  # rosbags, sqlite3, torch and FFmpeg raise many types on damaged files
        sys.exit(f'render: {error}')
    print(f'wrote {options.out}: {count} image{"s" * (count != 1)}')


if __name__ == '__main__':
    main()
