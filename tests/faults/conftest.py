"""The fixtures of the node's tests, and a running node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bench import Bench
from tests.ros.conftest import domain_id, graph, module_graph, tiny_checkpoint

__all__ = ['bench', 'domain_id', 'graph', 'module_graph', 'tiny_checkpoint']


@pytest.fixture(scope='module')
def bench(
    module_graph, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Yield the running, healthy node."""
    bench = Bench(module_graph, tiny_checkpoint, tmp_path_factory.mktemp('node') / 'log.txt')
    try:
        bench.start()
        yield bench
    finally:
        bench.close()
