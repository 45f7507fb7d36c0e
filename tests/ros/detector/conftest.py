"""Fixtures that create the node under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vision_msgs.msg import Detection3DArray

from tests.ros.detector.running import Detector
from tests.ros.graph import Graph, wait_until

TRACKS = '/bevdepth_detector/tracks'


@pytest.fixture
def detector(graph: Graph, tiny_checkpoint: Path) -> Iterator[Callable[..., Detector]]:
    """Yield a function that creates detectors. The detectors are destroyed at the end of the
    test."""
    detectors: list[Detector] = []

    def make(**options) -> Detector:
        detectors.append(Detector(graph, **{'checkpoint': tiny_checkpoint, **options}))
        return detectors[-1]

    yield make
    graph.stop()
    for running in detectors:
        running.node.release()
        running.node.destroy_node()


@pytest.fixture
def tracking(graph: Graph, detector: Callable[..., Detector]) -> Detector:
    """Return an active detector that starts a track for every detection and publishes this track
    in the result of the same image set."""
    node = detector(track_birth_score=0.0, track_min_hits=1)
    node.tracks = graph.collect(Detection3DArray, TRACKS)
    node.start()
    wait_until(lambda: graph.node.count_publishers(TRACKS) == 1, 'tracks')
    return node
