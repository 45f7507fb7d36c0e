from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bevdepth_core.config import ModelConfig, StereoConfig
from bevdepth_core.types import Boxes3D, CameraRig, Detections3D, Frame
from bevdepth_core.uncertainty import BoxCovariance, default_covariance
from bevdepth_ros.detector import worker
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.outputs import DetectionResult, ResultPublisher
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import OK
from bevdepth_ros.detector.worker import Worker
from bevdepth_ros.rig.frames import BuiltFrame
from bevdepth_ros.rig.synchronizer import ImageSet
from tests.ros.detector.monitoring import Log, statuses, values
from tests.ros.graph import wait_until

OUT_OF_MEMORY = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 MiB')
LOST = RuntimeError('CUDA error: an illegal memory access was encountered')


class FailingDetector:
    """Replaces the detector by one whose GPU fails: raises ``errors`` one after the other, then
    returns detections.
    """

    config, device = ModelConfig(), torch.device('cpu')

    def __init__(self, *errors: Exception):
        self.errors, self.resets, self.depth = list(errors), 0, None

    def reset(self) -> None:
        self.resets += 1

    def covariance(self, detections: Detections3D) -> BoxCovariance:
        return default_covariance(detections)

    def __call__(self, frame: Frame) -> Detections3D:
        if self.errors:
            raise self.errors.pop(0)
        empty = Boxes3D(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2)))
        return Detections3D(
            empty, np.zeros(0), np.zeros(0, np.int64), self.config.class_names, frame.stamp_ns
        )


class OneFrame:
    """Replaces the frame builder: every set gives the same frame, with poses that move with
    ``speed``.
    """

    def __init__(self, speed_m_s: float = 0.0):
        self.speed_m_s = speed_m_s

    def close(self) -> None:
        pass

    def build(self, images: ImageSet, stopping: threading.Event) -> BuiltFrame:
        ego_from_camera = np.array(
            [[[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]], np.float64
        )
        rig = CameraRig(
            ('CAM_FRONT',),
            np.array([[[1266.0, 0, 800], [0, 1266.0, 450], [0, 0, 1]]]),
            ego_from_camera,
        )
        pose = np.eye(4)[None].copy()
        pose[0, 0, 3] = self.speed_m_s * images.stamps_ns[0] * 1e-9
        return BuiltFrame(
            Frame((np.zeros((900, 1600, 3), np.uint8),), rig, images.stamps_ns, pose), {}
        )


class Bench:
    """A worker, and records of its results and reports."""

    def __init__(self, detector: FailingDetector, builder: OneFrame | None = None):
        self.log, self.results, self.failures = Log(), [], []
        self.monitor = Monitor(self.log, ('CAM_FRONT',))
        settings = Settings(cameras=('CAM_FRONT',))
        self.worker = Worker(
            detector,
            builder or OneFrame(),
            lambda: settings,
            self.results.append,
            self.monitor,
            self.failures.append,
        )

    def work(self, *stamps_ns: int) -> None:
        for stamp_ns in stamps_ns:
            done = self.monitor.counts()
            self.worker.put(
                ImageSet((0,), (None,), np.array([stamp_ns], np.int64), time.monotonic())
            )
            wait_until(
                lambda done=done: (
                    self.monitor.counts()['processed'] + self.monitor.counts()['dropped']
                    > done['processed'] + done['dropped']
                ),
                'an end',
            )
        self.worker.stop(discard=False)


@pytest.mark.parametrize('error', [OUT_OF_MEMORY, LOST], ids=['out of memory', 'lost'])
def test_a_set_whose_device_fails_once_is_processed_again(error: Exception):
    detector = FailingDetector(error)
    bench = Bench(detector)
    bench.work(10**9)
    assert len(bench.results) == 1
    assert detector.resets == 1
    assert not bench.failures
    assert any(
        level == 'warning' and 'cpu failed, trying once more: ' in line
        for level, line in bench.log.lines
    )


def test_a_device_that_fails_twice_stops_detection_with_a_message():
    bench = Bench(FailingDetector(OUT_OF_MEMORY, OUT_OF_MEMORY))
    bench.work(10**9)
    assert not bench.results
    (sentence,) = bench.failures
    assert (
        'cpu failed twice, so the node stopped detection: OutOfMemoryError: CUDA out of memory'
        in sentence
    )
    assert 'configure and activate the node again' in sentence


def test_an_error_in_one_set_loses_only_that_set():
    detector = FailingDetector(ValueError('odd'))
    bench = Bench(detector)
    bench.work(10**9, 2 * 10**9)
    assert len(bench.results) == 1
    assert detector.resets == 1
    assert bench.log.lines[0] == ('error', 'detection failed: ValueError: odd')


def test_a_device_that_hangs_is_reported_until_it_continues(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, 'STALL_S', 0.1)
    goes_on = threading.Event()

    class HangingDetector(FailingDetector):
        def __call__(self, frame: Frame) -> Detections3D:
            goes_on.wait(60)
            return super().__call__(frame)

    bench = Bench(HangingDetector())
    bench.worker.put(ImageSet((0,), (None,), np.array([10**9], np.int64), time.monotonic()))
    words = 'cpu has worked on an image set for 0 s: it hangs'

    def is_reported() -> bool:
        bench.worker.check()
        return statuses(bench.monitor)['/node: sets'].message.startswith(words)

    wait_until(is_reported, 'the report')
    goes_on.set()
    wait_until(lambda: bench.results, 'the result')
    wait_until(lambda: not is_reported(), 'recovery')
    bench.worker.stop(discard=False)


class StereoDetector(FailingDetector):
    """Replaces the detector of a stereo model on a vehicle that first stands and then drives."""

    config = replace(ModelConfig(), stereo=StereoConfig())

    def __init__(self, *baselines_m: float | None):
        super().__init__()
        self._baselines_m = list(baselines_m)

    def __call__(self, frame: Frame) -> Detections3D:
        self.baseline_m = self._baselines_m.pop(0)
        return super().__call__(frame)


@pytest.mark.parametrize(
    ('baselines_m', 'stereo', 'shown'),
    [
        ((None,), 'off: there is no past frame', 'none'),
        ((None, 0.0), 'no baseline: the cameras moved less than 0.1 m since', '0.000'),
        ((0.0, 0.099), 'no baseline: the cameras moved less than 0.1 m since', '0.099'),
        ((0.0, 0.1), 'on', '0.100'),
        ((2.5, None), 'off: there is no past frame', 'none'),
    ],
)
def test_a_stereo_model_reports_whether_the_vehicle_moved(baselines_m, stereo, shown):
    bench = Bench(StereoDetector(*baselines_m))
    bench.work(*(10**9 * (1 + place) for place in range(len(baselines_m))))
    facts = values(bench.monitor, 'tf')
    assert facts['stereo'].startswith(stereo)
    assert facts['stereo_baseline_m'] == shown
    assert statuses(bench.monitor)['/node: tf'].level == OK


def test_other_models_report_no_stereo():
    bench = Bench(FailingDetector())
    bench.work(10**9)
    assert not {'stereo', 'stereo_baseline_m'} & values(bench.monitor, 'tf').keys()


def test_a_jump_of_the_ego_pose_clears_the_past_frames():
    slow, fast = FailingDetector(), FailingDetector()
    Bench(slow, OneFrame(speed_m_s=50.0)).work(10**9, 2 * 10**9)
    bench = Bench(fast, OneFrame(speed_m_s=500.0))
    bench.work(10**9, 2 * 10**9)
    assert (slow.resets, fast.resets) == (0, 1)
    assert statuses(bench.monitor)['/node: tf'].message.startswith(
        'the ego pose moved by 500.0 m in 1.00 s'
    )


def test_detection_does_not_wait_for_publication_and_unpublished_results_are_counted():
    may_publish, published = threading.Event(), []

    def publish(result: DetectionResult) -> dict:
        may_publish.wait(60)
        published.append(result)
        return {}

    monitor = Monitor(Log(), ('CAM_FRONT',))
    publisher = ResultPublisher(publish, monitor)
    for number in range(100):
        publisher.put(number)
    may_publish.set()
    publisher.stop(discard=False)
    assert published[-1] == 99
    assert monitor.counts()['unpublished'] == 100 - len(published)


def test_a_result_that_cannot_be_published_does_not_affect_later_ones():
    published = []

    def publish(result) -> dict:
        if result == 0:
            raise ValueError('no')
        published.append(result)
        return {}

    log = Log()
    publisher = ResultPublisher(publish, Monitor(log))
    publisher.put(0)
    wait_until(lambda: log.lines, 'the report')
    publisher.put(1)
    publisher.stop(discard=False)
    assert published == [1]
    assert log.lines[0] == ('error', 'detections could not be published: ValueError: no')
