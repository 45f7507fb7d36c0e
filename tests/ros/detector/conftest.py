"""The running node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ros.detector.running import Detector
from tests.ros.graph import Graph


@pytest.fixture
def detector(graph: Graph, tiny_checkpoint: Path) -> Iterator[Callable[..., Detector]]:
    """Return a maker of detectors, which are taken down at the end."""
    made: list[Detector] = []

    def make(**options) -> Detector:
        made.append(Detector(graph, **{'checkpoint': tiny_checkpoint, **options}))
        return made[-1]

    yield make
    graph.stop()
    for one in made:
        one.node.release()
        one.node.destroy_node()
