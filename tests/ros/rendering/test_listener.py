"""Tests which scenes the listener returns, in which order, and what it logs about tf."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.rendering import listener as listener_module
from bevdepth_ros.rendering.listener import SceneListener, status_text
from tests.ros.graph import Graph
from tests.ros.messages import compressed, encoded
from tests.ros.rig.image_messages import camera_info

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


class Setup:
    """A listener for one camera.

    Messages are added directly to the store of the listener. A function replaces tf. According to
    this function, transforms exist only at the times ``times_with_tf``, in milliseconds after
    START_NS.
    """

    def __init__(self, graph: Graph) -> None:
        cameras = [Parameter('cameras', value=['left'])]
        self.node = graph.add(Node('listener', parameter_overrides=cameras))
        self.listener = SceneListener(self.node, 16)
        k = np.array([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
        self.listener.store.add_info('left', camera_info(k=k, p=np.zeros(12), size=(32, 32)))
        self.times_with_tf: set[int] = set()

    def send(self, *times_ms: int) -> None:
        for time_ms in times_ms:
            message = compressed(encoded(np.zeros((32, 32, 3), np.uint8), 'JPEG'))
            message.header.frame_id = 'base_link'
            message.header.stamp = Time(nanoseconds=START_NS + time_ms * MS).to_msg()
            self.listener.store.add_image('left', message)

    def detect(self, time_ms: int, frame_id: str = '') -> None:
        boxes = Boxes3D([[9.0, 0, 1]], [[4.0, 2, 1.5]], [0.0], [[0.0, 0]])
        stamp_ns = START_NS + time_ms * MS
        self.listener.store.add_detections(
            Detections3D(boxes, [0.9], [0], NUSCENES_CLASSES, stamp_ns), frame_id
        )

    def next_time_ms(self) -> int | None:
        scene = self.listener.next_scene()
        return None if scene is None else (scene.stamp_ns - START_NS) // MS


@pytest.fixture
def setup(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    made = Setup(graph)

    def has_transform(target: str, source: str, stamp_ns: int | None = None) -> bool:
        return stamp_ns is None or (stamp_ns - START_NS) // MS in made.times_with_tf

    monkeypatch.setattr(made.listener._transforms, 'has_transform', has_transform)
    yield made
    graph.stop()
    made.listener.store.close()
    made.node.destroy_node()


def test_a_scene_is_never_followed_by_an_older_scene_whose_tf_arrives_later(setup: Setup) -> None:
    setup.send(1000, 1100, 1200)
    setup.detect(1000)
    setup.detect(1100)
    assert setup.next_time_ms() == 1100
    setup.times_with_tf = {1000}
    assert setup.next_time_ms() is None
    setup.times_with_tf = {1000, 1100}
    assert setup.next_time_ms() is None
    setup.detect(1200)
    setup.times_with_tf = {1200}
    assert setup.next_time_ms() == 1200


def test_scenes_of_a_new_recording_are_returned_although_their_stamps_are_older(
    setup: Setup,
) -> None:
    setup.send(1000)
    setup.detect(1000)
    assert setup.next_time_ms() == 1000
    setup.send(0)
    setup.detect(0)
    assert setup.next_time_ms() == 0


def test_a_backward_jump_of_tf_is_logged_once_as_info_and_an_invalid_transform_as_a_warning(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, 'LOG_PERIOD_S', 0.0)
    for _ in range(3):  # rounds of a looped replay
        setup.listener._report_tf('tf_jump', 'tf of base_link went back in time')
    setup.listener._report_tf('bad_tf', 'the transform is invalid')
    lines = [
        line for line in capfd.readouterr().err.splitlines() if 'tf' in line or 'valid' in line
    ]
    assert [line.split()[0] for line in lines] == ['[INFO]', '[WARN]']


def test_a_scene_that_was_returned_without_detections_is_returned_again_with_detections(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.send(1000)
    scene = setup.listener.next_scene()
    assert scene is not None and scene.detections is None
    assert status_text(setup.listener, scene) == ''
    setup.detect(1000)
    scene = setup.listener.next_scene()
    assert scene is not None and scene.detections is not None
    assert status_text(setup.listener, scene).startswith('latency ')
    monkeypatch.setattr(listener_module, 'DETECTIONS_TIMEOUT_S', 0.0)
    setup.send(1100)
    assert setup.next_time_ms() == 1100


def test_no_latency_is_shown_for_detections_in_an_unknown_frame(setup: Setup) -> None:
    setup.send(1000)
    setup.detect(1000, 'utm')
    scene = setup.listener.next_scene()
    assert scene is not None and scene.detections is None
    assert status_text(setup.listener, scene) == ''
