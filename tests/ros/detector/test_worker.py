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
from bevdepth_ros.detector.problems import ERROR, OK, WARN
from bevdepth_ros.detector.worker import Worker
from bevdepth_ros.rig.frames import BuiltFrame, CameraFaultError
from bevdepth_ros.rig.synchronizer import ImageSet
from bevdepth_ros.rig.transforms import TransformMissingError
from tests.ros.detector.monitoring import Log, statuses, values
from tests.ros.graph import wait_until

OUT_OF_MEMORY = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 MiB')
LOST = RuntimeError('CUDA error: an illegal memory access was encountered')


class FailingDetector:
    """Replaces the detector. The first calls raise the exceptions of ``errors``, one per call.
    Later calls return detections without boxes.
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
    """Replaces the frame builder. All frames have the same image and camera. The ego pose moves
    along x with ``speed_m_s``.
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
    """Runs a worker and records its results, its log and its device failures."""

    def __init__(self, detector: FailingDetector, builder: OneFrame | None = None, **settings):
        self.log, self.results, self.failures = Log(), [], []
        self.monitor = Monitor(self.log, ('CAM_FRONT',))
        self.settings = Settings(cameras=('CAM_FRONT',), **settings)
        self.worker = Worker(
            detector,
            builder or OneFrame(),
            lambda: self.settings,
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
                'the end of processing',
            )
        self.worker.stop(discard=False)


@pytest.mark.parametrize('error', [OUT_OF_MEMORY, LOST], ids=['out of memory', 'lost'])
def test_a_set_is_processed_again_if_the_device_fails_once(error: Exception):
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


def test_a_set_that_causes_an_error_is_lost_and_the_next_set_is_processed():
    detector = FailingDetector(ValueError('odd'))
    bench = Bench(detector)
    bench.work(10**9, 2 * 10**9)
    assert len(bench.results) == 1
    assert detector.resets == 1
    assert bench.log.lines[0] == (
        'error',
        'detection failed for an image set (ValueError: odd); report this error if it repeats',
    )


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
    """Replaces the detector of a stereo model. Each call sets ``baseline_m`` to the next value of
    ``baselines_m``. The value None means that there is no past frame.
    """

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
def test_for_a_stereo_model_diagnostics_contain_the_state_of_stereo_and_the_baseline(
    baselines_m, stereo, shown
):
    bench = Bench(StereoDetector(*baselines_m))
    bench.work(*(10**9 * (1 + place) for place in range(len(baselines_m))))
    facts = values(bench.monitor, 'tf')
    assert facts['stereo'].startswith(stereo)
    assert facts['stereo_baseline_m'] == shown
    assert statuses(bench.monitor)['/node: tf'].level == OK


def test_for_a_model_without_stereo_diagnostics_contain_no_stereo_values():
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


def test_detection_does_not_wait_for_publication_and_replaced_results_are_counted():
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


def test_a_result_that_cannot_be_published_does_not_affect_later_results():
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
    assert log.lines[0] == (
        'error',
        'detections could not be published (ValueError: no); report this error if it repeats',
    )


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (OUT_OF_MEMORY, True),
        (MemoryError(), True),
        (LOST, True),
        (RuntimeError('cuDNN error: CUDNN_STATUS_EXECUTION_FAILED'), True),
        (RuntimeError('CUBLAS_STATUS_ALLOC_FAILED'), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError('shape mismatch'), False),
        (ValueError('CUDA'), False),
    ],
)
def test_is_device_failure_is_true_only_for_cuda_errors_and_out_of_memory_errors(
    error, expected: bool
):
    assert worker.is_device_failure(error) == expected


@pytest.mark.parametrize('error', [None, ValueError('odd')])
def test_an_idle_worker_is_never_reported_as_stalled(monkeypatch: pytest.MonkeyPatch, error):
    monkeypatch.setattr(worker, 'STALL_S', -1.0)
    bench = Bench(FailingDetector(*filter(None, [error])))
    bench.work(10**9)
    monkeypatch.setattr(worker, 'STALL_S', 0.0)
    bench.worker.check()
    assert 'has worked on' not in statuses(bench.monitor)['/node: sets'].message


class WaitingDetector(FailingDetector):
    """Processes an image set until the test sets ``goes_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, frame: Frame) -> Detections3D:
        self.began.set()
        self.goes_on.wait(60)
        return super().__call__(frame)


def image_set(stamp_ns: int) -> ImageSet:
    return ImageSet((0,), (None,), np.array([stamp_ns], np.int64), time.monotonic())


@pytest.mark.parametrize('discard', [True, False])
def test_a_set_that_is_in_progress_when_the_worker_is_stopped_is_not_published(discard: bool):
    detector = WaitingDetector()
    bench = Bench(detector)
    bench.worker.put(image_set(10**9))
    assert detector.began.wait(60)
    bench.worker.stop(discard, timeout_s=0.01)
    assert bench.worker.is_alive()
    detector.goes_on.set()
    bench.worker.stop(discard)
    assert not bench.worker.is_alive()
    assert not bench.results


def test_a_waiting_set_is_replaced_by_a_newer_set_and_counted():
    detector = WaitingDetector()
    bench = Bench(detector)
    bench.worker.put(image_set(10**9))
    assert detector.began.wait(60)
    bench.worker.put(image_set(2 * 10**9))
    bench.worker.put(image_set(3 * 10**9))
    detector.goes_on.set()
    bench.worker.stop(discard=False)
    assert [result.detections.stamp_ns for result in bench.results] == [10**9, 3 * 10**9]
    counts = bench.monitor.counts()
    assert (counts['received'], counts['processed'], counts['dropped_replaced']) == (3, 2, 1)


class Scripted(OneFrame):
    """Builds the frames of ``OneFrame`` with new field values.

    The first item of ``changes`` has the new values for the first frame, and so on.
    """

    def __init__(self, *changes: dict) -> None:
        super().__init__()
        self.changes, self.lacks_output_frame, self.closed = list(changes), False, False

    def close(self) -> None:
        self.closed = True

    def build(self, images: ImageSet, stopping: threading.Event) -> BuiltFrame:
        return replace(super().build(images, stopping), **self.changes.pop(0))

    def pose_in(self, frame_id: str, stamp_ns: int) -> np.ndarray:
        if self.lacks_output_frame:
            raise TransformMissingError(f'tf has no {frame_id} <- base_link')
        return np.diag((1.0, 1, 1, 1)) + np.eye(4, k=3) * 7.0


def shown(bench: Bench, area: str) -> tuple[bytes, str]:
    status = statuses(bench.monitor)[f'/node: {area}']
    return status.level, status.message


@pytest.mark.parametrize(
    ('reason', 'area'),
    [('no_extrinsics', 'tf'), ('no_camera_info', 'cameras'), ('bad_image', 'cameras')],
)
def test_an_unusable_camera_is_reported_in_the_area_of_its_fault_until_it_is_usable(reason, area):
    fault = {'CAM_FRONT': CameraFaultError(reason, 'CAM_FRONT is odd')}
    rejected = {'frame': None, 'faults': fault, 'rejection': (reason, 'nothing is published')}
    bench = Bench(FailingDetector(), Scripted(rejected, {}))
    bench.worker.put(image_set(10**9))
    wait_until(lambda: bench.monitor.counts()[f'dropped_{reason}'], 'the rejection')
    wait_until(lambda: shown(bench, 'sets') == (ERROR, 'nothing is published'), 'the report')
    assert shown(bench, area) == (ERROR, 'CAM_FRONT is odd')
    assert values(bench.monitor, 'cameras')['left_out'] == 'CAM_FRONT'
    assert values(bench.monitor, 'cameras')['CAM_FRONT.unusable'] == '1'
    bench.work(2 * 10**9)
    assert {shown(bench, name) for name in ('sets', area)} == {(OK, 'ok')}
    assert values(bench.monitor, 'cameras')['used'] == 'CAM_FRONT'
    assert len(bench.results) == 1


def test_the_second_fault_of_a_camera_replaces_the_first_fault_in_diagnostics():
    faults = [
        {'faults': {'CAM_FRONT': CameraFaultError(reason, reason)}}
        for reason in ('bad_image', 'no_camera_info')
    ]
    bench = Bench(FailingDetector(), Scripted(*faults))
    bench.worker.put(image_set(10**9))
    wait_until(lambda: bench.results and shown(bench, 'cameras')[1] == 'bad_image', 'the report')
    bench.work(2 * 10**9)
    assert shown(bench, 'cameras') == (ERROR, 'no_camera_info')


@pytest.mark.parametrize(
    ('change', 'area', 'words'),
    [
        ({'warnings': {'CAM_FRONT': 'camera CAM_FRONT is odd'}}, 'cameras', 'camera CAM_FRONT is'),
        ({'no_poses': 'tf has no map'}, 'tf', 'tf has no map'),
    ],
)
def test_there_is_a_warning_while_a_calibration_is_suspicious_or_poses_are_missing(
    change: dict, area: str, words: str
):
    bench = Bench(FailingDetector(), Scripted(change, {}))
    bench.worker.put(image_set(10**9))
    wait_until(lambda: bench.results, 'a result')
    level, message = shown(bench, area)
    assert level == WARN
    assert message.startswith(words)
    bench.work(2 * 10**9)
    assert shown(bench, area) == (OK, 'ok')
    assert len(bench.results) == 2


def test_the_worker_closes_its_frame_builder_when_it_ends():
    builder = Scripted({})
    bench = Bench(FailingDetector(), builder)
    bench.work(10**9)
    assert builder.closed


def test_base_frame_height_m_is_added_to_the_camera_heights_that_are_compared_with_training():
    bench = Bench(FailingDetector(), OneFrame(), base_frame_height_m=1.0)
    bench.worker.put(image_set(10**9))
    wait_until(lambda: bench.results, 'a result')
    level, message = shown(bench, 'cameras')
    assert level == WARN
    assert 'CAM_FRONT is 2.50 m above the ground' in message
    bench.settings = replace(bench.settings, base_frame_height_m=0.0)
    bench.work(2 * 10**9)
    assert shown(bench, 'cameras') == (OK, 'ok')


class OneBox(FailingDetector):
    """Detects one box that stands on the ground. ``past_stamp_ns`` of the detections is
    ``past_s`` seconds before their stamp, or None if ``past_s`` is None.
    """

    def __init__(self, past_s: float | None = None) -> None:
        super().__init__()
        self.past_s, self.frames = past_s, []

    def __call__(self, frame: Frame) -> Detections3D:
        self.frames.append(frame)
        box = Boxes3D([[9.0, 0, 1]], [[4.0, 2, 2]], [0.0], [[0.0, 0]])
        names, stamp = self.config.class_names, frame.stamp_ns
        past_ns = None if self.past_s is None else stamp - round(self.past_s * 1e9)
        return Detections3D(box, [0.9], [0], names, stamp, past_ns)


def test_the_detector_gets_heights_above_ground_and_boxes_are_published_in_the_base_frame():
    detector = OneBox()
    bench = Bench(detector, base_frame_height_m=0.4)
    bench.work(10**9)
    assert detector.frames[0].rig.ego_from_camera[0, 2, 3] == pytest.approx(1.9)
    assert bench.results[0].detections.boxes.center[0].tolist() == pytest.approx([9, 0, 0.6])
    assert bench.results[0].frame.rig.ego_from_camera[0, 2, 3] == 1.5


def test_the_detector_uses_the_lowest_class_threshold_and_keeps_depth_only_if_it_is_published():
    detector = FailingDetector()
    bench = Bench(detector, score_threshold=0.3, class_score_thresholds=('car=0.05',))
    bench.work(10**9)
    assert (detector.score_threshold, detector.keep_depth) == (0.05, False)
    Bench(detector, publish_depth_points=True).work(10**9)
    assert (detector.score_threshold, detector.keep_depth) == (0.1, True)


def test_a_result_has_the_durations_of_its_stages():
    bench = Bench(FailingDetector(), Scripted({'seconds': {'decoding': 0.0, 'geometry': 0.0}}))
    bench.work(10**9)
    seconds = bench.results[0].stage_seconds
    assert set(seconds) == {'waiting', 'decoding', 'geometry', 'checks'}
    assert all(0 <= duration < 60 for duration in seconds.values())


@pytest.mark.parametrize(
    ('past_s', 'key_frames', 'no_poses', 'fusion', 'age'),
    [
        (0.5, 2, None, 'on', '0.500'),
        (None, 1, None, 'off: the model has one key frame', 'none'),
        (None, 2, None, 'off: no past frame is 0.4 to 0.6 s old', 'none'),
        (None, 2, 'tf has no map', 'off: tf has no map', 'none'),
    ],
)
def test_diagnostics_contain_the_age_of_the_past_frame_or_the_reason_why_fusion_is_off(
    past_s, key_frames, no_poses, fusion, age
):
    detector = OneBox(past_s)
    detector.config = replace(ModelConfig(), key_frames=key_frames)
    bench = Bench(detector, Scripted({'no_poses': no_poses}))
    bench.work(10**9)
    facts = values(bench.monitor, 'tf')
    assert (facts['temporal_fusion'], facts['past_frame_age_s']) == (fusion, age)


@pytest.mark.parametrize(
    ('is_too_slow', 'remedy'),
    [
        (False, 'publish images at 2 Hz, or at 4 Hz or more'),
        (True, 'the detector is too slow and drops image sets: use a GPU or a smaller model'),
    ],
)
def test_velocities_that_are_missing_for_long_are_reported_until_a_past_frame_is_used(
    is_too_slow, remedy
):
    detector, few = OneBox(None), worker.FEW_WITHOUT_PAST
    bench = Bench(detector, Scripted(*({} for _ in range(few + 1))))
    for number in range(1, few + 1):
        if is_too_slow:
            bench.monitor.set_dropped('replaced')
        assert shown(bench, 'sets') == (OK, 'ok')
        bench.worker.put(image_set(number * 10**9))
        wait_until(lambda count=number: len(bench.results) == count, 'a result')
    wait_until(lambda: shown(bench, 'sets')[0] == WARN, 'the report')
    message = shown(bench, 'sets')[1]
    assert 'had no past frame 0.4 to 0.6 s old' in message
    assert message.endswith(f'so the velocities of their boxes are NaN: {remedy}')
    detector.past_s = 0.5
    bench.work((few + 1) * 10**9)
    assert shown(bench, 'sets') == (OK, 'ok')


@pytest.mark.parametrize(
    ('is_wanted', 'no_poses', 'tracking'),
    [
        (True, None, 'on'),
        (True, 'tf has no map', 'off: tf has no map'),
        (False, None, 'off: publish_tracks is false'),
    ],
)
def test_diagnostics_report_whether_tracking_is_on_and_why_it_is_off(
    is_wanted, no_poses, tracking
):
    builder = Scripted({'no_poses': no_poses})
    bench = Bench(FailingDetector(), builder, publish_tracks=is_wanted)
    bench.work(10**9)
    assert values(bench.monitor, 'tf')['tracking'] == tracking


def test_nothing_is_published_until_tf_contains_the_output_frame():
    builder = Scripted({}, {}, {})
    builder.lacks_output_frame = True
    bench = Bench(FailingDetector(), builder, output_frame='odom')
    bench.worker.put(image_set(10**9))
    wait_until(lambda: bench.monitor.counts()['dropped_no_output_frame'], 'the rejection')
    wait_until(lambda: shown(bench, 'tf')[0] == ERROR, 'the report')
    assert 'so nothing can be published in odom' in shown(bench, 'tf')[1]
    assert not bench.results
    builder.lacks_output_frame = False
    bench.worker.put(image_set(2 * 10**9))
    wait_until(lambda: bench.results, 'a result')
    bench.settings = replace(bench.settings, output_frame='')
    bench.work(3 * 10**9)
    assert shown(bench, 'tf') == (OK, 'ok')
    placements = [result.placement for result in bench.results]
    assert [result.frame_id for result in placements] == ['odom', 'base_link']
    assert placements[0].from_base[0, 3] == 7
    assert placements[1].from_base is None
    assert bench.monitor.counts()['processed'] == 2


@pytest.mark.parametrize(('text', 'line'), [('one\ntwo', 'ValueError: one'), ('', 'ValueError: ')])
def test_the_report_of_a_device_failure_contains_the_first_line_of_the_error(text: str, line: str):
    assert worker._first_line(ValueError(text)) == line
