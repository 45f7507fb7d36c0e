"""Receives images, tf and detections for the visualizer and the viewer, and selects the next scene
to render.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo

from bevdepth_ros.rendering.node_process import declare
from bevdepth_ros.rendering.scene import Scene, SceneStore
from bevdepth_ros.rig.settings import IMAGE_TYPES, RigSettings, descriptor
from bevdepth_ros.rig.transforms import Transforms

CAMERA_PARAMETERS = (
    'cameras', 'image_transport', 'image_topics', 'images_rectified', 'camera_info_topics',
    'camera_info_files', 'camera_frames',
    'base_frame', 'fixed_frame', 'odometry_topic',
)  # fmt: skip
"""Parameters of cameras and frames. The detector has parameters with the same names, so that all
nodes can use one params_file."""
TF_BUFFER_S = 30.0
QUEUE_SIZE = 30
"""Number of images per camera that DDS queues while an image is rendered."""
DETECTIONS_TIMEOUT_S = 5.0
"""If no detections arrive for this time, in seconds, images are rendered without detections."""
LOG_PERIOD_S = 10.0

_IMAGES = QoSProfile(depth=QUEUE_SIZE, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class SceneListener:
    """Subscribes to images, tf and detections; exceptions in callbacks are logged."""

    def __init__(self, node: Node, panel_width: int):
        """Declare the parameters and subscribe.

        Args:
            node: node whose executor receives the messages.
            panel_width: see ``SceneStore``.

        Raises:
            ValueError: parameters contradict each other, or a calibration file is invalid.
            OSError: a calibration file cannot be read.
        """
        self._node = node
        settings = _settings(node)
        self._transforms = Transforms(
            node,
            TF_BUFFER_S,
            self._report_tf,
            settings.odometry_topic,
        )
        self.store = SceneStore(settings, self._transforms, panel_width)
        self.image_topics = tuple(
            node.resolve_topic_name(source.image_topic) for source in settings.camera_sources
        )
        self._shown: tuple[int, bool, int] | None = None
        for source in settings.camera_sources:
            add_image, add_info = (
                partial(self.store.add_image, source.name),
                partial(self.store.add_info, source.name),
            )
            self._subscribe(
                IMAGE_TYPES[settings.image_transport], source.image_topic, _IMAGES, add_image
            )
            if not source.info_file:
                self._subscribe(CameraInfo, source.info_topic, _IMAGES, add_info)
        detector = declare(
            node, 'detector', 'bevdepth_detector', 'Name of the node whose results are shown.'
        )
        annotations = declare(
            node, 'annotations_topic', '/annotations', 'Detection3DArray with the ground truth.'
        )
        self._subscribe(PointCloud2, f'{detector}/objects', 10, self.store.add_objects)
        self._subscribe(LabelInfo, f'{detector}/label_info', _LATCHED, self.store.add_label_info)
        self._subscribe(Detection3DArray, annotations, 10, self.store.add_annotations)

    def next_scene(self) -> Scene | None:
        """Return the newest scene, or None if it is not newer than the last scene that was
        returned.

        The newest scene has the stamp of the newest detections. If no detections arrived for
        ``DETECTIONS_TIMEOUT_S``, it has the stamp of the newest images. Until the images of the
        newest detections have arrived, the result is None.
        """
        with_detections = time.monotonic() - self.store.detections_arrived <= DETECTIONS_TIMEOUT_S
        stamp_ns = (
            self.store.newest_detections_ns() if with_detections else self.store.newest_images_ns()
        )
        if stamp_ns is None:
            return None
        wanted = (self.store.recording, with_detections, stamp_ns)
        # Never go back to an older scene, not even if the tf of older detections arrives late.
        # Only in another recording, or after a change between scenes with and without detections,
        # may the stamp be lower.
        if self._shown is not None and wanted[:2] == self._shown[:2] and wanted <= self._shown:
            return None
        scene = self.store.scene(stamp_ns)
        if scene is not None:
            self._shown = wanted
        return scene

    def call_at(self, rate_hz: float, work: Callable[[], None], purpose: str) -> None:
        """Call ``work`` ``rate_hz`` times per second. If ``work`` raises an exception, log the
        exception with ``purpose``, which names the work that failed.
        """

        def tick() -> None:
            try:
                work()
            except Exception as error:
                self._node.get_logger().error(
                    f'{purpose} failed ({type(error).__name__}: {error}); report this error if '
                    'it repeats',
                    throttle_duration_sec=LOG_PERIOD_S,
                )

        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._node.create_timer(1 / rate_hz, tick, clock=clock)

    def _subscribe(
        self, message_type: type, topic: str, qos: QoSProfile | int, handle: Callable[[Any], None]
    ) -> None:
        def callback(message: Any) -> None:
            try:
                handle(message)
            except Exception as error:  # the log must name the topic
                self._failed(error, topic)

        self._node.create_subscription(message_type, topic, callback, qos)

    def _report_tf(self, kind: str, sentence: str) -> None:
        """Log a problem of tf as a warning. Time that goes back is logged once as information,
        because the time goes back whenever a bag is played again.
        """
        if kind == 'tf_jump':
            self._node.get_logger().info(sentence, once=True)
        else:
            self._node.get_logger().warning(sentence, throttle_duration_sec=LOG_PERIOD_S)

    def _failed(self, error: Exception, topic: str) -> None:
        self._node.get_logger().warning(
            f'a message on {self._node.resolve_topic_name(topic)} could not be processed: '
            f'{type(error).__name__}: {error}; check the publisher of this topic',
            throttle_duration_sec=LOG_PERIOD_S,
        )


def _settings(node: Node) -> RigSettings:
    values = {}
    for name in CAMERA_PARAMETERS:
        field = RigSettings.__dataclass_fields__[name]
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        values[name] = node.declare_parameter(name, default, descriptor(field)).value
    return RigSettings.from_values(values)


def status_text(listener: SceneListener, scene: Scene) -> str:
    """Return latency and rate as text; empty if the scene has no detections."""
    if scene.detections is None:
        return ''
    parts = []
    if scene.latency_s is not None:
        parts.append(f'latency {scene.latency_s * 1e3:.0f} ms')
    if listener.store.detection_rate_hz is not None:
        parts.append(f'{listener.store.detection_rate_hz:.1f} Hz')
    return '  ·  '.join(parts)
