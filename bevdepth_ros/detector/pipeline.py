"""Starts and stops the subscriptions, the detection thread and the publishing thread. They exist
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
"""A moving transform is reported if it was not updated for this time, in seconds."""


class Pipeline:
    """Receives images in the executor's thread, detects in a second thread, and publishes in a
    third thread.
    """

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
            node: node whose executor receives the messages.
            detector: the detector, which only the detection thread uses.
            settings: returns the current settings.
            monitor: receives counts and problems.
            publish: see ``ResultPublisher``.
            on_tf_fault: see ``on_fault`` of ``Transforms``.
            on_device_failure: see ``Worker``.
            infos: the newest CameraInfo by topic. This object updates the dictionary, and the
                caller keeps it for the next activation. A calibration that is published only once
                is therefore not lost when the node is deactivated.

        Raises:
            ValueError: a calibration file is unusable.
            OSError: a calibration file cannot be read.
            rclpy.exceptions.InvalidTopicNameException: a topic name is invalid.
        """
        self._monitor, self._infos, self._stale = monitor, infos, set[str]()
        rig = settings()
        self._ego = rig.fixed_frame, rig.base_frame
        self._info_topics = {source.name: source.info_topic for source in rig.camera_sources}
        with ExitStack() as started:  # stops the started parts if a later part cannot start
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
        """Use the CameraInfo that was received in earlier activations of the node."""
        for camera, topic in self._info_topics.items():
            if topic in self._infos:
                self._builder.take_info(camera, self._infos[topic])

    def _take_info(self, camera: str, message: CameraInfo) -> None:
        self._infos[self._info_topics[camera]] = message
        self._builder.take_info(camera, message)

    def stop(self, discard: bool, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop the subscriptions, then the threads; see ``SlotThread.stop`` for the arguments."""
        if not discard:
            self._intake.flush()
            self._intake.report_no_sets()
        self._intake.close()
        self._worker.stop(discard, timeout_s)
        self._result_publisher.stop(discard, timeout_s)
        self._transforms.close()

    def is_alive(self) -> bool:
        """Return True if the detection thread still runs. After ``stop``, this means that the
        thread did not end in time and still uses the detector.
        """
        return self._worker.is_alive()

    def check(self, camera_timeout_s: float) -> None:
        """Report missing images, results, transforms and odometry; see ``Intake.check`` for the
        argument.
        """
        self._intake.check(camera_timeout_s)
        self._worker.check()
        self._report_stale_transforms()
        self._report_missing_odometry()

    def _report_stale_transforms(self) -> None:
        """Report moving transforms that are no longer updated although image sets arrive.

        If all topics stop at the same time, for example because a replay is paused, nothing is
        reported: when a transform is older than ``STALE_S``, the last image set is then older than
        ``STALE_S / 2``.
        """
        is_live = self._monitor.seconds_since_last_set() < STALE_S / 2
        stale = self._transforms.stale(STALE_S, self._ego) if is_live else {}
        self._monitor.solved(*(f'stale/{frame}' for frame in self._stale - stale.keys()))
        self._stale = set(stale)
        for frame, sentence in stale.items():
            self._monitor.report(f'stale/{frame}', 'tf', WARN, sentence)

    def _report_missing_odometry(self) -> None:
        """Report that no odometry has arrived although image sets have arrived. If tf also
        contains the ego poses, nothing else shows that ``odometry_topic`` is wrong.
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
        """Drop the images that are not in an image set yet. Also drop moving transforms that do
        not fit the current time ``now_ns``; see ``Transforms.clock_went_back``.
        """
        self._intake.reset()
        self._transforms.clock_went_back(now_ns)
