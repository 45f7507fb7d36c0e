"""Helpers that compare the head maps of streaming steps with the head maps of a forward pass with
two frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import Detections3D, Frame, TaskMaps


def head_maps(
    detector: Detector, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> tuple[Sequence[TaskMaps], Detections3D]:
    """Return the head maps and the detections of one streaming step."""
    maps, network = [], detector._network.model
    monkeypatch.setattr(
        network,
        'head_maps',
        lambda bev: maps.append(BEVDepth.head_maps(network, bev)) or maps[-1],
    )
    detections = detector(frame)
    monkeypatch.undo()
    return maps[0], detections


def assert_same_maps(ours: Sequence[TaskMaps], theirs: Sequence[TaskMaps]) -> None:
    """Raise AssertionError if the L2 distance of two maps exceeds 1e-5 of the norm of the map in
    ``theirs``.
    """
    for ours_task, theirs_task in zip(ours, theirs, strict=True):
        for name in ('reg', 'height', 'dim', 'rot', 'vel', 'heatmap'):
            difference = torch.linalg.norm(getattr(ours_task, name) - getattr(theirs_task, name))
            assert difference <= 1e-5 * torch.linalg.norm(getattr(theirs_task, name)), name
