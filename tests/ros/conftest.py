"""One ROS graph per test, on localhost and in a domain of its own."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import load_model_config
from bevdepth_core.model import BEVDepth
from tests.networks import write_tiny_checkpoint
from tests.reference import ROOT
from tests.ros.graph import Graph

DOMAINS = 100
"""Domain ids 1 to this are free of the ports that Linux hands out."""
_turns = itertools.count(step=7)
"""Each test takes another domain, since a process that was killed lives on in its old one for 20 s."""


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield a domain that nobody on this machine is in, set for this process and its children."""
    with free_domain(monkeypatch) as domain:
        yield domain


@pytest.fixture(scope='module')
def module_graph() -> Iterator[Graph]:
    """Yield a running graph with a node, for all tests of a file."""
    with pytest.MonkeyPatch.context() as monkeypatch, free_domain(monkeypatch):
        yield from _running_graph()


@contextmanager
def free_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    candidates = ((os.getpid() + next(_turns)) % DOMAINS + 1 for _ in range(DOMAINS))
    domain, lease = next((domain, lease) for domain in candidates if (lease := _lease(domain)) is not None)
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    if os.environ['ROS_DISTRO'] == 'humble':
        monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
    else:
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with lease:
        yield domain


def _lease(domain: int) -> socket.socket | None:
    """Return what keeps other tests out of a domain until it is closed; None where somebody is."""
    lease = socket.socket(socket.AF_UNIX)
    try:
        lease.bind(f'\0bevdepth test domain {domain}')
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(('', 7410 + 250 * domain))  # the port of the domain's first participant
    except OSError:
        lease.close()
        return None
    return lease


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
    """Return a checkpoint with random weights of a network that costs next to nothing, the same on every run."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp('weights') / 'tiny.safetensors')


@pytest.fixture(scope='session')
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the small preset with random weights, the same on every run."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
    save_checkpoint(BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')), path)
    return path
