"""Compares the result file of the real sample with the file of the official evaluator."""

from __future__ import annotations

import json
from pathlib import Path

from tests.core.nuscenes.official_results import detections, require_official_results
from tests.reference import reference_golden, reference_path


def test_the_result_file_of_the_real_sample_equals_the_official_result_file(
    tmp_path: Path,
) -> None:
    arrays = reference_golden('real_2key')[1]
    official = json.loads(reference_path('golden/evaluator_real_2key.json').read_text())
    found = detections(*(arrays[f'out/b0/{name}'] for name in ('boxes', 'scores', 'labels')))
    require_official_results(official, found, tmp_path)
