"""Compares the output of every stage of a stereo network with the output of the official code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bevdepth_core.decode import half_extents
from bevdepth_core.official_layout import official_state_dict
from bevdepth_core.ops.circle_nms import size_aware_nms
from tests.core.parity import require_all_met
from tests.core.stereo_parity import CASES, compare
from tests.reference import filled_model, reference_path, stereo_golden


@pytest.mark.parametrize('case', CASES)
def test_the_output_of_every_stage_equals_the_official_output(case: str) -> None:
    rows = list(compare(case))
    assert len(rows) > 50
    require_all_met(rows)


@pytest.mark.parametrize('case', ['stereo_2key', 'stereo_2key_da'])
def test_deterministic_weights_have_the_absolute_sums_of_the_official_run(case: str) -> None:
    expected = json.loads(reference_path(f'stereo/fill_check_{case}.json').read_text())
    state = official_state_dict(filled_model(case))
    assert state.keys() == expected.keys()
    for name, numbers in expected.items():
        total = state[name].double().abs().sum().item()
        assert total == pytest.approx(numbers['abssum'], rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize('case', CASES)
def test_size_aware_nms_of_the_official_candidates_keeps_the_official_boxes(case: str) -> None:
    arrays = stereo_golden(case)[1]
    factors = filled_model('stereo_2key').config.decode.size_aware_nms.factors
    kept = []
    for task, factor in enumerate(factors):
        boxes, scores = (
            torch.from_numpy(arrays[f'out/b0/pre_nms_task{task}/{name}'])
            for name in ('boxes', 'scores')
        )
        boxes = boxes[scores.argsort(descending=True)][None]
        index = size_aware_nms(
            boxes[..., :2],
            half_extents(*boxes[..., [3, 4, 6]].unbind(-1)),
            torch.ones(boxes.shape[:2], dtype=torch.bool),
            torch.tensor([factor]),
            83,
        )[0]
        kept.append(boxes[0, index[index >= 0].long()].numpy())
    official = arrays['out/b0/boxes']
    ours = np.concatenate(kept)
    assert len(ours) == len(official)
    for found in (ours, official):
        found[:] = found[np.lexsort(found.T)]
    assert np.array_equal(ours, official)
