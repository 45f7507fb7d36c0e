"""Official weights in the running node, by their short name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bevdepth_core.checkpoint import save_official
from bevdepth_core.config import BEVGrid, ImageSpec, load_model_config
from bevdepth_core.downloads import main
from bevdepth_core.model import BEVDepth
from bevdepth_core.weights import OFFICIAL
from tests.reference import ROOT
from tests.ros.detector.running import Detector
from tests.ros.graph import wait_until

NAME = '2key_da_ema'


@pytest.fixture
def official_file(tmp_path: Path) -> Path:
    """Return random weights in a file as the authors release it; its images and its grid are
    small, so that a test takes seconds."""
    preset = load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_2key_da.yaml')
    axis = (-51.2, 51.2, 6.4)
    torch.manual_seed(0)
    model = BEVDepth(replace(preset, image=ImageSpec(64, 96), grid=BEVGrid(x=axis, y=axis)))
    save_official(model, tmp_path / OFFICIAL[NAME].file)
    return tmp_path / OFFICIAL[NAME].file


def test_official_weights_run_in_the_node_by_their_short_name(
    detector: Callable[..., Detector],
    official_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    main(['download', NAME, '--file', str(official_file)])
    node = detector(checkpoint=NAME)
    node.start()
    node.rig.send_all(0.0)
    node.answers(1)
    assert node.detections[0].detections
    wait_until(lambda: NAME in node.diagnostics.values('node').get('checkpoint', ''), 'the name')
