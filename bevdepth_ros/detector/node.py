"""The ROS 2 lifecycle node ``bevdepth_detector``: parameters, transitions, diagnostics.

Three threads share the work. The executor's thread receives messages and forms image sets. The
second thread detects objects in the image sets, and the third thread publishes the results.
Further threads decode the images.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any, NoReturn

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterValueException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo

from bevdepth_core.inference import Detector
from bevdepth_core.jpeg import JpegDecoder
from bevdepth_ros.detector import parameters
from bevdepth_ros.detector.diagnostics import AREAS, Monitor
from bevdepth_ros.detector.outputs import DetectionResult, Outputs
from bevdepth_ros.detector.parameters import FIELDS, Settings
from bevdepth_ros.detector.pipeline import Pipeline
from bevdepth_ros.detector.problems import ERROR, LOG_PERIOD_S, WARN
from bevdepth_ros.detector.slot import STOP_TIMEOUT_S
from bevdepth_ros.detector.transitions import respond_to_every_transition_request
from bevdepth_ros.detector.updater import make_updater
from bevdepth_ros.process import (
    callback_problem,
    end_process,
    ros_process,
    spin_until_signal,
    start_problem,
)
from bevdepth_ros.signals import signals, wait_for

NODE_NAME = 'bevdepth_detector'
TICK_S = 0.25
"""Period of the timer (tick) that checks for problems and publishes changed problems, seconds."""
CLOCK_TICKS = 8
"""With use_sim_time, a missing /clock is reported if no message arrived for more than this number
of ticks."""
CLOCK_LOG_PERIOD_S = 60.0
"""Shortest time between two log messages about a replay that started again, seconds."""
CLOCK_STARTUP_S = 15.0
"""With use_sim_time, this number of seconds is added to the startup time until the first message
arrives on /clock. On a busy machine, the process of a player takes this time to start."""
GRAPH_CHECK_TICKS = 4
"""Number of ticks between two checks for other publishers of the outputs."""
EXIT_TIMEOUT_S = 0.5
"""When the process ends, it waits at most this number of seconds for the detection in progress,
and then at most the same time for the publication in progress."""
FAULT_HOLD_S = 2.0
"""A problem of tf or of a callback has ended if it did not occur again for this time, in
seconds."""


class DetectorNode(LifecycleNode):
    """Detects objects in synchronized camera images.

    The transition configure loads the weights and creates the publishers. activate subscribes and
    starts the worker. deactivate processes the complete image sets, and ends the subscriptions and
    the worker. cleanup releases the weights and the publishers.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters.

        Args:
            options: options of ``rclpy.node.Node``, such as ``namespace`` and
                ``parameter_overrides``.

        Raises:
            ValueError: a parameter has the wrong type.
            InvalidParameterValueException: a parameter is out of range.
        """
        super().__init__(
            NODE_NAME, automatically_declare_parameters_from_overrides=True, **options
        )
        parameters.declare(self)
        self._settings = Settings()
        self._monitor = Monitor(self.get_logger(), ros_now_s=self._now_s)
        self._monitor.fact('node', state='unconfigured')
        self._detector: Detector | None = None
        self._loaded: tuple | None = None
        self._outputs: Outputs | None = None
        self._pipeline: Pipeline | None = None
        self._device_failure: str | None = None
        self._infos: dict[str, CameraInfo] = {}
        self._updater = make_updater(self)
        self._statuses: dict[str, DiagnosticStatus] = {}
        for area in AREAS:
            self._updater.add(area, partial(self._fill_status, area))
        self._ticks = 0
        self._diagnostics_due_at = 0.0
        self._last_fault_s: dict[str, float] = {}
        self._ticks_without_clock = 0
        self._awaits_clock = False
        self.add_on_set_parameters_callback(self._on_parameters)
        respond_to_every_transition_request(self)
        self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        backwards = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            backwards, post_callback=self._on_clock_jump
        )
        self.get_logger().info('is unconfigured')

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the weights and create the publishers; FAILURE if a parameter
        or the checkpoint is invalid.
        """
        try:
            self._settings = parameters.read(self)
            self._load_detector()
            self._check_classes(self._settings)
            self._outputs = Outputs(self)
        except Exception as error:
            self._unload()
            return self._failed('configure', error)
        return self._reached('inactive', super().on_configure(state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Apply changed parameters, subscribe and start to detect; FAILURE if a parameter or the
        checkpoint is invalid.
        """
        try:
            self._settings = parameters.read(self)
            detector = self._load_detector()
            self._check_classes(self._settings)
            self._start_detecting(detector)
        except Exception as error:
            self._stop_detecting(discard=True, timeout_s=EXIT_TIMEOUT_S)
            return self._failed('activate', error)
        result = super().on_activate(state)
        self._publish_labels()
        return self._reached('active', result)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, process the complete image sets and stop the worker; ERROR if the device
        failed.
        """
        if self._device_failure is not None:
            return TransitionCallbackReturn.ERROR
        self._stop_detecting(discard=False, timeout_s=STOP_TIMEOUT_S)
        self.get_logger().info(f'image sets: {self._monitor.summary()}')
        return self._reached('inactive', super().on_deactivate(state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release weights and publishers."""
        self._unload()
        return self._reached('unconfigured', super().on_cleanup(state))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self.release()
        return self._reached('finalized', super().on_shutdown(state))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; the node can be configured again."""
        self.release()
        return self._reached('unconfigured', super().on_error(state))

    def release(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Release everything; wait at most ``timeout_s`` seconds for the image set in progress."""
        self._stop_detecting(discard=True, timeout_s=timeout_s)
        self._unload()

    def _failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self._monitor.report('transition', 'node', ERROR, f'{transition} failed: {error}')
        return TransitionCallbackReturn.FAILURE

    def _reached(self, state: str, result: TransitionCallbackReturn) -> TransitionCallbackReturn:
        self._monitor.solved('transition')
        if state == 'inactive':
            self._monitor.solved('device_failure', 'device')
        self._monitor.fact('node', state=state)
        self.get_logger().info(f'is {state}')
        return result

    def _load_detector(self) -> Detector:
        """Return the detector. Load the weights, unless they are loaded already with the same
        settings.
        """
        wanted = (
            self._settings.checkpoint_path,
            self._settings.device,
            self._settings.precision,
            self._settings.cuda_graphs,
            self._settings.cpu_threads or None,
            self._settings.exported_network,
        )
        if self._detector is not None and wanted == self._loaded:
            return self._detector
        self._detector = self._loaded = None
        path, device, precision, cuda_graphs, cpu_threads, onnx_folder = wanted
        if device == 'auto':
            use_gpu = torch.cuda.is_available() and onnx_folder is None
            device = 'cuda' if use_gpu else 'cpu'
        if precision == 'auto':
            precision = 'fp32' if device == 'cpu' else 'fp16'
        detector = self._detector = wait_for(
            lambda: _ready_detector(
                Detector.from_checkpoint(
                    path, device, precision, cuda_graphs, cpu_threads, onnx_folder
                ),
                len(self._settings.cameras),
            )
        )
        self._loaded = wanted
        self._monitor.fact(
            'node',
            checkpoint=path,
            device=detector.device,
            precision=precision,
            runtime=self._settings.runtime,
            covariance='default' if self._detector.uncertainty is None else 'fitted',
        )
        self.get_logger().info(f'loaded {path} on {detector.device} in {precision}')
        return detector

    def _now_s(self) -> float:
        """Return the time of the node's clock, seconds. If the node does not use /clock, read the
        system time directly, which takes a tenth of the time.
        """
        clock = self.get_clock()
        return clock.now().nanoseconds * 1e-9 if clock.ros_time_is_active else time.time()

    def _unload(self) -> None:
        if self._outputs is not None:
            self._outputs.close()
        self._outputs = self._detector = self._loaded = None
        self._infos.clear()

    def _start_detecting(self, detector: Detector) -> None:
        self._device_failure = None
        self._awaits_clock = self._lacks_clock()
        clock_s = CLOCK_STARTUP_S if self._awaits_clock else 0.0
        self._monitor.start(self._settings.cameras, self._settings.camera_startup_s + clock_s)
        detector.reset()
        detector.past_frame_spacing_ns = round(1e9 * self._settings.past_frame_spacing_s)
        self._pipeline = Pipeline(
            self,
            detector,
            self._current_settings,
            self._monitor,
            self._publish,
            self._on_tf_fault,
            self._on_device_failure,
            self._infos,
        )

    def _stop_detecting(self, discard: bool, timeout_s: float) -> None:
        """Stop the pipeline; see ``SlotThread.stop`` for the arguments."""
        if self._pipeline is not None:
            self._pipeline.stop(discard, timeout_s)
            if self._pipeline.is_alive():
                # The thread still uses this detector, so the next activation must load a new one.
                self._detector = self._loaded = None
                if not signals.received:  # the process does not end
                    self.get_logger().error(
                        f'detection did not end within {timeout_s:.1f} s: the device hangs or is '
                        'too slow; the weights are loaded again on the next activation'
                    )
        self._pipeline = None
        self._monitor.stop()

    def _current_settings(self) -> Settings:
        return self._settings

    def _publish(self, result: DetectionResult) -> dict[str, float] | None:
        assert self._outputs is not None  # set by on_configure
        return self._outputs.publish(result, self._settings)

    def _check_classes(self, settings: Settings) -> None:
        """Raise ValueError if ``settings`` name a class that the detector does not have."""
        assert self._detector is not None  # set by on_configure
        settings.selection(self._detector.class_names)

    def _publish_labels(self) -> None:
        assert self._outputs is not None and self._detector is not None  # set by on_configure
        now_ns = self.get_clock().now().nanoseconds
        self._outputs.publish_labels(
            self._settings.selection(self._detector.class_names).names,
            self._settings.score_threshold,
            now_ns,
            self._settings.base_frame,
        )

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Reject the changes, with the reason, if a value is invalid or a parameter cannot change
        in the current state. Otherwise accept the changes. If the node is active, the changes
        apply immediately.
        """
        values = {change.name: change.value for change in changes if change.name in FIELDS}
        try:
            parameters.check_choices(values)
            parameters.check_formats(values)
            if self._pipeline is not None:
                parameters.check_live(values)
                settings = parameters.read(self, values)
                self._check_classes(settings)
                self._settings = settings
                self._publish_labels()
        except (
            Exception
        ) as error:  # an exception in a callback would leave the request without a response
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_clock_jump(self, jump: Any) -> None:
        self._monitor.clock_jumped()
        if self._pipeline is not None:
            self.get_logger().info(
                'the clock went back, as when a replay starts again: waiting images, past frames '
                'and transforms with later stamps are dropped',
                throttle_duration_sec=CLOCK_LOG_PERIOD_S,
            )
            self._pipeline.clock_went_back(self.get_clock().now().nanoseconds)

    def on_callback_error(self, error: Exception) -> None:
        """Report an exception in a timer, in a service, or in a callback of rclpy itself, such as
        its callback for /clock.
        """
        self._note_fault('callback', 'node', callback_problem(error))

    def _on_tf_fault(self, kind: str, sentence: str) -> None:
        self._note_fault(kind, 'tf', sentence)

    def _note_fault(self, kind: str, area: str, sentence: str) -> None:
        self._last_fault_s[kind] = time.monotonic()
        self._monitor.report(kind, area, WARN, sentence)

    def _on_device_failure(self, sentence: str) -> None:
        """Store that detection has ended because the device failed. The worker's thread calls this
        method; the executor's thread then starts the error transition.
        """
        self._monitor.report('device_failure', 'node', ERROR, sentence)
        self._device_failure = sentence

    def _tick(self) -> None:
        try:
            self._report_missing_events()
            self._publish_diagnostics()
        except Exception as error:  # an exception in a callback would end the node
            self.get_logger().error(
                f'a check for problems failed ({type(error).__name__}: {error}); report this '
                'error if it repeats',
                throttle_duration_sec=LOG_PERIOD_S,
            )

    def _report_missing_events(self) -> None:
        """Report missing images, results and messages on /clock. Only a timer can report them,
        because missing messages call no callback.
        """
        if self._device_failure is not None and self._pipeline is not None:
            self.trigger_deactivate()
        now = time.monotonic()
        self._monitor.solved(
            *(kind for kind, last_s in self._last_fault_s.items() if now - last_s > FAULT_HOLD_S)
        )
        if self._pipeline is None:
            self._monitor.solved('clock', quietly=True)
            return
        self._pipeline.check(self._settings.camera_timeout_s)
        self._ticks += 1
        if self._ticks % GRAPH_CHECK_TICKS == 0:
            self._report_other_publishers()
        lacks_clock = self._lacks_clock()
        if self._awaits_clock and not lacks_clock:
            self._awaits_clock = False
            self._monitor.clock_began(self._settings.camera_startup_s)
        # After use_sim_time was set, the node needs time to discover the publisher of /clock.
        self._ticks_without_clock = self._ticks_without_clock + 1 if lacks_clock else 0
        if self._monitor.startup_is_over() and self._ticks_without_clock > CLOCK_TICKS:
            sentence = (
                'use_sim_time is set, but no message was received on '
                f'{self.resolve_topic_name("/clock")}: '
                'publish the time or set use_sim_time to false'
            )
            self._monitor.report('clock', 'node', WARN, sentence)
        else:
            self._monitor.solved('clock')

    def _lacks_clock(self) -> bool:
        """Return True if the node uses /clock and has received no message on this topic."""
        uses_clock = self.get_parameter('use_sim_time').value
        return bool(uses_clock) and not self.get_clock().now().nanoseconds

    def _report_other_publishers(self) -> None:
        """Report other nodes that publish on the topic ``~/detections`` of this node."""
        others = self._outputs.other_publishers() if self._outputs is not None else []
        if not others:
            self._monitor.solved('other_publishers')
            return
        sentence = (
            f'other nodes also publish on {self.resolve_topic_name("~/detections")}: '
            f'{", ".join(others)}; subscribers receive the results of all these nodes: stop the '
            'other nodes, or give this node another name'
        )
        self._monitor.report('other_publishers', 'node', WARN, sentence)

    def _publish_diagnostics(self) -> None:
        now = time.monotonic()
        if not self._monitor.changed() and now < self._diagnostics_due_at:
            return
        self._diagnostics_due_at = now + self._settings.diagnostics_period_s
        if self._detector is not None and self._detector.device.type == 'cuda':
            self._monitor.fact(
                'node', gpu_memory_mb=torch.cuda.memory_reserved(self._detector.device) >> 20
            )
        now_ns = self.get_clock().now().nanoseconds
        statuses = self._monitor.statuses(self.get_fully_qualified_name(), now_ns)
        self._statuses = dict(zip(AREAS, statuses, strict=True))
        self._updater.force_update()

    def _fill_status(self, area: str, status: DiagnosticStatus) -> DiagnosticStatus:
        filled = self._statuses[area]
        status.level, status.message, status.values = filled.level, filled.message, filled.values
        return status


def _ready_detector(detector: Detector, cameras: int) -> Detector:
    """Prepare ``detector`` for image sets of ``cameras`` images and return it. Without the
    preparation, the first image set would take longer.
    """
    detector.prepare(cameras)
    JpegDecoder(detector.device).prepare()
    return detector


def run_detector() -> NoReturn:
    """Run the node until it is interrupted."""
    _run()
    end_process()


def _run() -> None:
    with ros_process():
        try:
            node = DetectorNode()
        except (ValueError, InvalidParameterValueException) as error:
            sys.exit(f'{NODE_NAME} does not start: {start_problem(error)}')
        try:
            spin_until_signal(node, node.on_callback_error)
        finally:
            signals.ignore()  # otherwise the signal would end the first wait in release()
            node.release(EXIT_TIMEOUT_S)
            node.destroy_node()
            # destroy_node of rclpy keeps the state machine. If a thread still loads weights or
            # detects, the thread has a reference to the node, and without this deletion, the state
            # machine would keep the node in the ROS graph.
            del node._state_machine
