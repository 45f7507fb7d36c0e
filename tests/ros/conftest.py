"""Fixtures that provide a separate ROS domain on localhost for each test or each file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import load_model_config
from bevdepth_core.model import BEVDepth
from bevdepth_ros.launching import domain_variables, free_domain
from tests.networks import write_tiny_checkpoint
from tests.reference import ROOT
from tests.ros.graph import Graph


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield a ROS domain that is unused on this machine. The domain is set for this process and
    its children."""
    with own_domain(monkeypatch) as domain:
        yield domain


@pytest.fixture(scope='module')
def module_graph() -> Iterator[Graph]:
    """Yield a running graph with a node, for all tests of a file."""
    with pytest.MonkeyPatch.context() as monkeypatch, own_domain(monkeypatch):
        yield from _running_graph()


@contextmanager
def own_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield a ROS domain that no other test uses at this time. Tests have separate domains,
    because a killed process stays visible in its domain for 20 s."""
    domain, lease = free_domain()
    for name, value in domain_variables(domain).items():
        monkeypatch.setenv(name, value)
    with lease:
        yield domain


@pytest.fixture
def graph(domain_id: int) -> Iterator[Graph]:
    """Yield a running graph with a node for the test."""
    yield from _running_graph()


def _running_graph() -> Iterator[Graph]:
    rclpy.init()
    graph = Graph()
    try:
        yield graph
    finally:
        graph.close()
        rclpy.shutdown()


@pytest.fixture(scope='session')
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a tiny network with random weights, which are the same on every
    run."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp('weights') / 'tiny.safetensors')


@pytest.fixture(scope='session')
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the small preset with random weights, which are the same on every
    run."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
    save_checkpoint(BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')), path)
    return path
