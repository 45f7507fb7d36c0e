"""Tests the parameters of the node that evaluate_node runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bevdepth_ros.closed_loop.evaluate_node import changed_parameters
from bevdepth_ros.closed_loop.run import ClosedLoopError


def test_parameters_of_the_file_are_kept_unless_they_are_changed(tmp_path: Path):
    path = tmp_path / 'own.yaml'
    path.write_text('/**: {ros__parameters: {cameras: [a], score_threshold: 0.5}}')
    found = yaml.safe_load(changed_parameters(path, {'score_threshold': 0.0}))
    assert found == {'/**': {'ros__parameters': {'cameras': ['a'], 'score_threshold': 0.0}}}


@pytest.mark.parametrize('text', ['', 'a', '[', 'detector: {ros__parameters: {a: 1}}', '/**: {}'])
def test_a_file_without_a_block_for_all_nodes_is_reported_by_name(tmp_path: Path, text: str):
    path = tmp_path / 'own.yaml'
    path.write_text(text)
    with pytest.raises(ClosedLoopError, match=r"own\.yaml contains no block '/\*\*' with"):
        changed_parameters(path, {})
