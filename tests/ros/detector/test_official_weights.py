"""Downloaded weights in the running node, by their short name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bevdepth_core.weights import cache_folder
from tests.networks import write_tiny_checkpoint
from tests.ros.detector.running import Detector
from tests.ros.graph import wait_until

NAME = '2key_da_ema'


def test_downloaded_weights_run_in_the_node_by_their_short_name(
    detector: Callable[..., Detector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cache_folder().mkdir(parents=True)
    write_tiny_checkpoint(cache_folder() / f'{NAME}.safetensors')
    node = detector(checkpoint=NAME)
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert node.detections[0].detections
    wait_until(lambda: NAME in node.diagnostics.values('node').get('checkpoint', ''), 'the name')
