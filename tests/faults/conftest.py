"""Fixtures of the node tests, and a fixture with a running node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.export.writing import export_onnx
from tests.faults.bench import Bench
from tests.ros.conftest import domain_id, graph, module_graph, tiny_checkpoint

__all__ = ['bench', 'domain_id', 'graph', 'module_graph', 'tiny_checkpoint']


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--runtime',
        choices=('torch', 'onnx'),
        default='torch',
        help='runtime of the node (default: torch)',
    )


@pytest.fixture(scope='session')
def runtime(
    pytestconfig: pytest.Config, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the parameters of the node for ``--runtime``."""
    if pytestconfig.getoption('--runtime', 'torch') == 'torch':
        return {}
    folder = tmp_path_factory.mktemp('exported')
    model = load_checkpoint(tiny_checkpoint).requires_grad_(False)
    export_onnx(model, folder, pooling='scatter')
    return {'runtime': 'onnx', 'onnx_folder': str(folder)}


@pytest.fixture(scope='module')
def bench(
    module_graph,
    tiny_checkpoint: Path,
    runtime: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """Yield a bench whose node is active and healthy."""
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    bench = Bench(module_graph, tiny_checkpoint, log, **runtime)
    try:
        bench.start()
        yield bench
    finally:
        bench.close()
