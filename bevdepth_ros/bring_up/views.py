"""Creates the RViz configuration and the Foxglove layout for the cameras and topics of a detector.

The files in ``config/rviz`` and ``config/foxglove`` are templates for the default parameters. This
module replaces cameras, topics and frames.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bevdepth_ros.bring_up.scope import DETECTOR, VISUALIZER, ResolvedDetector
from bevdepth_ros.rig.settings import CameraSource, RigSettings

INFO_NAME = 'camera_info'
"""RViz reads the calibration of a camera from the topic with this name in the namespace of the
image topic."""
DECODED_NAME = 'image_decoded'
LIDAR_TOPIC = '/LIDAR_TOP'
"""Topic of the lidar in nuScenes bags. The templates contain this topic."""


@dataclass(frozen=True)
class RvizCamera:
    """Topics from which RViz reads the images of a camera.

    Attributes:
        source: the camera.
        topic: topic with raw images that RViz can read.
        has_calibration: True if CameraInfo is published in the namespace of ``topic``.
        transport: ``compressed`` or ``raw`` if images of ``source.image_topic`` must be
            republished on ``topic``; empty if RViz can read them directly.
    """

    source: CameraSource
    topic: str
    has_calibration: bool
    transport: str


def rviz_cameras(detector: ResolvedDetector) -> list[RvizCamera]:
    """Return the topics from which RViz reads the images of each camera."""
    return [_rviz_camera(source, detector.rig.image_transport) for source in detector.sources]


def _rviz_camera(source: CameraSource, transport: str) -> RvizCamera:
    folder, _, name = source.info_topic.rpartition('/')
    has_calibration = name == INFO_NAME
    is_beside = source.image_topic.rpartition('/')[0] == folder
    if transport == 'raw' and (is_beside or not has_calibration):
        return RvizCamera(source, source.image_topic, has_calibration, '')
    namespace = folder if has_calibration else source.image_topic
    return RvizCamera(source, f'{namespace}/{DECODED_NAME}', has_calibration, transport)


def rviz_config(template: str, detector: ResolvedDetector) -> str:
    """Return an RViz configuration.

    Args:
        template: content of ``config/rviz/bevdepth.rviz``.
        detector: the detector whose cameras and topics the configuration shows.
    """
    config = _renamed(yaml.safe_load(template), _names(detector))
    manager = config['Visualization Manager']
    displays = manager['Displays']
    if not _has_lidar_of_nuscenes(detector):
        displays = [display for display in displays if _topic(display) != LIDAR_TOPIC]
    manager['Displays'] = list(_rviz_displays(displays, rviz_cameras(detector)))
    return yaml.safe_dump(config, sort_keys=False)


def _has_lidar_of_nuscenes(detector: ResolvedDetector) -> bool:
    """Return True if the cameras have the names of the nuScenes cameras. The detector reads no
    lidar, and for other vehicles the topic of the lidar is unknown.
    """
    return detector.rig.cameras == RigSettings().cameras


def _topic(display: dict) -> str:
    return display.get('Topic', {}).get('Value', '')


def _rviz_displays(displays: list[dict], cameras: list[RvizCamera]) -> Iterable[dict]:
    """Yield the displays of the template that show no camera, and then one display for each of
    ``cameras``.
    """
    prototype = next(display for display in displays if display['Class'].endswith('/Camera'))
    yield from (display for display in displays if not display['Class'].endswith('/Camera'))
    for camera in cameras:
        display = copy.deepcopy(prototype)
        display['Name'] = camera.source.name
        display['Topic']['Value'] = camera.topic
        if not camera.has_calibration:  # RViz can then not project boxes into the image
            display['Class'] = 'rviz_default_plugins/Image'
            del display['Visibility']
        yield display


def foxglove_layout(template: str, detector: ResolvedDetector) -> str:
    """Return a Foxglove layout.

    Args:
        template: content of ``config/foxglove/bevdepth.json``.
        detector: the detector whose cameras and topics the layout shows.
    """
    layout = _renamed(json.loads(template), _names(detector))
    if not _has_lidar_of_nuscenes(detector):
        for panel in layout['configById'].values():
            panel.get('topics', {}).pop(LIDAR_TOPIC, None)
    panels, panel_of = layout['configById'], _foxglove_panel
    old = [name for name, panel in panels.items() if 'calibrationTopic' in _image_mode(panel)]
    prototype = panels[old[0]]
    kept = {name: panel for name, panel in panels.items() if name not in old}
    cameras = {f'Image!{source.name}': panel_of(prototype, source) for source in detector.sources}
    layout['configById'] = cameras | kept
    layout['layout']['first'] = _grid(list(cameras))
    return json.dumps(layout, indent=2)


def _image_mode(panel: dict) -> dict:
    return panel.get('imageMode', {})


def _foxglove_panel(prototype: dict, source: CameraSource) -> dict:
    panel = copy.deepcopy(prototype)
    panel['foxglovePanelTitle'] = source.name
    panel['imageMode']['imageTopic'] = source.image_topic
    if source.info_topic:
        panel['imageMode']['calibrationTopic'] = source.info_topic
    else:
        del panel['imageMode']['calibrationTopic']
    panel['followTf'] = source.frame or source.name
    return panel


def _grid(panels: list[str]) -> Any:
    """Return a layout with the panels in two rows, or in one row if there are fewer than four
    panels.
    """
    half = (len(panels) + 1) // 2 if len(panels) > 3 else len(panels)
    rows = [_split('row', part) for part in (panels[:half], panels[half:]) if part]
    return _split('column', rows)


def _split(direction: str, parts: list) -> Any:
    """Return a Foxglove layout of ``parts`` with equal sizes, in one row or one column. Foxglove
    describes more than two parts as nested pairs.
    """
    if len(parts) == 1:
        return parts[0]
    return {
        'direction': direction,
        'first': parts[0],
        'second': _split(direction, parts[1:]),
        'splitPercentage': round(100 / len(parts), 1),
    }


def _names(detector: ResolvedDetector) -> dict[str, str]:
    """Map the names in the templates to the names in the launch."""
    topics = {f'/{DETECTOR}/{name}': topic for name, topic in detector.outputs.items()}
    overview = f'/{VISUALIZER}/image/compressed'
    return {
        **topics,
        overview: f'{detector.namespace.rstrip("/")}{overview}',
        'base_link': detector.rig.base_frame,
    }


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Return ``value``, which may be nested, after replacing every string and key that ``names``
    contains.
    """
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(entry, names) for key, entry in value.items()}
    if isinstance(value, list):
        return [_renamed(entry, names) for entry in value]
    return names.get(value, value) if isinstance(value, str) else value


def write_view(text: str, folder: Path, detector: ResolvedDetector, suffix: str) -> Path:
    """Write a configuration to a file in ``folder`` and return the path of the file. The name of
    the file consists of the name of the detector and ``suffix``.
    """
    path = folder / f'{re.sub(r"[^0-9A-Za-z]+", "_", detector.name).strip("_")}{suffix}'
    path.write_text(text)
    return path
