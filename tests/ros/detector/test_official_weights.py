"""Tests that the node finds weights in the download folder by their short name.

The tests download nothing. They write a tiny network to the file that a download creates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bevdepth_core.weights import OFFICIAL, cache_folder
from tests.networks import write_tiny_checkpoint
from tests.ros.detector.running import Detector
from tests.ros.graph import wait_until


@pytest.mark.parametrize('name', OFFICIAL)
def test_the_node_finds_weights_in_the_download_folder_by_their_short_name(
    detector: Callable[..., Detector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cache_folder().mkdir(parents=True)
    write_tiny_checkpoint(cache_folder() / f'{name}.safetensors')
    node = detector(checkpoint=name)
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert node.detections[0].detections
    wait_until(
        lambda: name in node.diagnostics.values('node').get('checkpoint', ''),
        'the checkpoint in diagnostics',
    )
