"""What there is while the node is active: from subscriptions to publication."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode

from bevdepth_core.inference import Detector
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.intake import Intake
from bevdepth_ros.detector.outputs import Answer, Speaker
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.worker import Worker
from bevdepth_ros.rig.frames import FrameBuilder
from bevdepth_ros.rig.transforms import Transforms


class Pipeline:
    """Listens, detects in one thread and publishes in another, until it is stopped."""

    def __init__(
        self,
        node: LifecycleNode,
        detector: Detector,
        settings: Callable[[], Settings],
        monitor: Monitor,
        publish: Callable[[Answer], dict[str, float]],
        on_bad_tf: Callable[[str, str], None],
        on_device_failure: Callable[[str], None],
    ):
        """Begin with the threads, so that whatever arrives finds them; subscribe last.

        Args:
            node: whose executor takes the messages.
            detector: used by the thread that detects alone.
            settings: returns the present settings.
            monitor: is told of everything.
            publish: as ``Speaker`` has it.
            on_bad_tf: as ``Transforms`` has its ``on_fault``.
            on_device_failure: as ``Worker`` has it.

        Raises:
            ValueError: a calibration file is unusable.
            OSError: or cannot be read.
            rclpy.exceptions.InvalidTopicNameException: a topic has no name of a topic.
        """
        self._transforms: Transforms | None = None
        self._speaker: Speaker | None = None
        self._worker: Worker | None = None
        self._intake: Intake | None = None
        try:
            self._transforms = Transforms(
                node, settings().tf_buffer_s, on_bad_tf, settings().odometry_topic
            )
            images_on = detector.device if settings().cuda_graphs else None
            builder = FrameBuilder(settings, self._transforms, monitor.begun, images_on)
            self._speaker = Speaker(publish, monitor)
            self._worker = Worker(
                detector, builder, settings, self._speaker.put, monitor, on_device_failure
            )
            self._intake = Intake(node, settings(), monitor, self._worker.put, builder.take_info)
        except Exception:
            self.stop(discard=True)
            raise

    def stop(self, discard: bool, timeout_s: float | None = None) -> None:
        """End everything in reverse; arguments as ``Worker.stop`` has them."""
        if self._intake is not None:
            self._intake.close()
        for thread in (self._worker, self._speaker):
            if thread is not None:
                thread.stop(discard, timeout_s)
        if self._transforms is not None:
            self._transforms.close()

    def check(self, camera_timeout_s: float) -> None:
        """Look for what nobody reports because it does not happen: images (as ``Intake.check``)
        and answers.
        """
        self._intake.check(camera_timeout_s)
        self._worker.check()

    def clock_went_back(self, now_ns: int) -> None:
        """Forget what is of later than ``now_ns``, the time that it is now."""
        self._intake.reset()
        self._transforms.clock_went_back(now_ns)
