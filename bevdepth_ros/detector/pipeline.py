"""Starts and stops the subscriptions, the detection thread and the publishing thread, which exist
while the node is active.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo

from bevdepth_core.inference import Detector
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.intake import Intake
from bevdepth_ros.detector.outputs import DetectionResult, ResultPublisher
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import WARN
from bevdepth_ros.detector.slot import STOP_TIMEOUT_S
from bevdepth_ros.detector.worker import Worker
from bevdepth_ros.rig.frames import FrameBuilder
from bevdepth_ros.rig.transforms import Transforms

STALE_S = 2.0
"""A moving transform that was not updated for this time is reported, seconds."""


class Pipeline:
    """Subscribes in the executor's thread, detects in a second one and publishes in a third."""

    def __init__(
        self,
        node: LifecycleNode,
        detector: Detector,
        settings: Callable[[], Settings],
        monitor: Monitor,
        publish: Callable[[DetectionResult], dict[str, float] | None],
        on_tf_fault: Callable[[str, str], None],
        on_device_failure: Callable[[str], None],
        infos: dict[str, CameraInfo],
    ) -> None:
        """Start the threads, then subscribe.

        Args:
            node: its executor receives the messages.
            detector: used only by the detection thread.
            settings: returns the current settings.
            monitor: receives counts and problems.
            publish: see ``ResultPublisher``.
            on_tf_fault: see ``on_fault`` of ``Transforms``.
            on_device_failure: see ``Worker``.
            infos: the newest CameraInfo by topic. This object updates the dictionary. The caller
                keeps it, so that a calibration that is published only once survives a
                deactivation.

        Raises:
            ValueError: a calibration file is unusable.
            OSError: a calibration file cannot be read.
            rclpy.exceptions.InvalidTopicNameException: a topic name is invalid.
        """
        self._monitor, self._infos, self._stale = monitor, infos, set[str]()
        rig = settings()
        self._ego = rig.fixed_frame, rig.base_frame
        self._info_topics = {source.name: source.info_topic for source in rig.camera_sources}
        with ExitStack() as started:  # stops the started parts if a later one cannot start
            self._transforms = Transforms(
                node, rig.tf_buffer_s, on_tf_fault, rig.odometry_topic, rig.base_frame
            )
            started.callback(self._transforms.close)
            self._builder = FrameBuilder(
                settings,
                self._transforms,
                monitor.startup_is_over,
                detector.device if rig.cuda_graphs else None,
                topic_name=node.resolve_topic_name,
            )
            self._result_publisher = ResultPublisher(publish, monitor)
            started.callback(self._result_publisher.stop, discard=True)
            put_result = self._result_publisher.put
            self._worker = Worker(
                detector, self._builder, settings, put_result, monitor, on_device_failure
            )
            started.callback(self._worker.stop, discard=True)
            self._use_known_infos()
            self._intake = Intake(
                node, rig, monitor, self._worker.put, self._take_info, self._builder.take_image
            )
            started.pop_all()

    def _use_known_infos(self) -> None:
        """Use the CameraInfo that was received before the last deactivation."""
        for camera, topic in self._info_topics.items():
            if topic in self._infos:
                self._builder.take_info(camera, self._infos[topic])

    def _take_info(self, camera: str, message: CameraInfo) -> None:
        self._infos[self._info_topics[camera]] = message
        self._builder.take_info(camera, message)

    def stop(self, discard: bool, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop all parts in reverse order; the arguments are those of ``Worker.stop``."""
        if not discard:
            self._intake.flush()
            self._intake.report_no_sets()
        self._intake.close()
        self._worker.stop(discard, timeout_s)
        self._result_publisher.stop(discard, timeout_s)
        self._transforms.close()

    def is_alive(self) -> bool:
        """Return True if detection did not end in time and still uses the detector."""
        return self._worker.is_alive()

    def check(self, camera_timeout_s: float) -> None:
        """Report missing images (as ``Intake.check``), results, transforms and odometry."""
        self._intake.check(camera_timeout_s)
        self._worker.check()
        self._report_stale_transforms()
        self._report_missing_odometry()

    def _report_stale_transforms(self) -> None:
        """Report moving transforms that stopped arriving while images arrive."""
        is_live = self._monitor.seconds_since_last_set() < STALE_S / 2
        stale = self._transforms.stale(STALE_S, self._ego) if is_live else {}
        self._monitor.solved(*(f'stale/{frame}' for frame in self._stale - stale.keys()))
        self._stale = set(stale)
        for frame, sentence in stale.items():
            self._monitor.report(f'stale/{frame}', 'tf', WARN, sentence)

    def _report_missing_odometry(self) -> None:
        """Report that no odometry has arrived, although images have: if tf has the ego poses, too,
        nothing else shows that ``odometry_topic`` is wrong.
        """
        topic = self._transforms.missing_odometry()
        if not topic:
            self._monitor.solved('odometry')
        elif self._monitor.startup_is_over() and self._monitor.sets_received():
            sentence = (
                f'no odometry was received on {topic}: start its publisher or correct '
                'odometry_topic; until then, only tf can give the motion of the vehicle'
            )
            self._monitor.report('odometry', 'tf', WARN, sentence)

    def clock_went_back(self, now_ns: int) -> None:
        """Drop waiting images, and transforms later than the current time ``now_ns``."""
        self._intake.reset()
        self._transforms.clock_went_back(now_ns)
