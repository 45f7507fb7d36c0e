"""One ROS graph per test, on localhost and in a domain of its own."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import (
    BEVEncoderConfig,
    BEVGrid,
    DecodeConfig,
    DepthBins,
    DepthNetConfig,
    HeadConfig,
    ImageEncoderConfig,
    ImageSpec,
    ModelConfig,
    load_model_config,
)
from bevdepth_core.model import BEVDepth
from tests.reference import ROOT
from tests.ros.graph import Graph

DOMAINS = 100
"""Domain ids 1 to this are free of the ports that Linux hands out."""
_turns = itertools.count(step=7)
"""Each test takes another domain, since a process that was killed lives on in its old one for 20 s."""


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a domain that nobody on this machine is in, and set it for this process and its children."""
    return enter_free_domain(monkeypatch)


@pytest.fixture(scope='module')
def module_graph() -> Iterator[Graph]:
    """Yield a running graph with a node, for all tests of a file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter_free_domain(monkeypatch)
        yield from _running_graph()


def enter_free_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    candidates = ((os.getpid() + next(_turns)) % DOMAINS + 1 for _ in range(DOMAINS))
    domain = next(domain for domain in candidates if _is_empty(domain))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    if os.environ['ROS_DISTRO'] == 'humble':
        monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
    else:
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return domain


def _is_empty(domain: int) -> bool:
    """Tell whether the port of the domain's first participant is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(('', 7410 + 250 * domain))
        except OSError:
            return False
    return True


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
    torch.manual_seed(0)
    config = ModelConfig(
        image=ImageSpec(height=32, width=96),
        depth_bins=DepthBins(step=4.0),
        grid=BEVGrid(x=(-51.2, 51.2, 3.2), y=(-51.2, 51.2, 3.2)),
        image_encoder=ImageEncoderConfig(depth=18, neck_channels=8),
        depth_net=DepthNetConfig(mid_channels=16, context_channels=8, refinement=False),
        bev_encoder=BEVEncoderConfig(base_channels=8, neck_channels=8),
        head=HeadConfig(channels=8),
        decode=DecodeConfig(candidates=20, boxes_per_task=3),
    )
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_checkpoint(BEVDepth(config), path)
    return path


@pytest.fixture(scope='session')
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the small preset with random weights, the same on every run."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
    save_checkpoint(BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')), path)
    return path
