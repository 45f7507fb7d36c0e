"""A few executions of every fuzzing target; `python -m tests.fuzz` executes more."""

import re
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from bevdepth_core.config import model_config_from_dict
from tests.fuzz.targets import TARGETS
from tests.reference import ROOT

EXECUTIONS = 20
"""Number of executions of each target. With a time limit instead, a slow machine would test fewer
inputs than a fast machine."""


def test_every_damaged_input_is_accepted_or_rejected_with_the_expected_error():
    command = [sys.executable, '-m', 'tests.fuzz', '--executions', str(EXECUTIONS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        name: int(count.replace(',', ''))
        for name, count in re.findall(r'^(\w+) +([\d,]+) executions,', done.stdout, re.MULTILINE)
    }
    assert counts == dict.fromkeys(TARGETS, EXECUTIONS)


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_SECTIONS = st.sampled_from(
    (
        'image',
        'depth_bins',
        'grid',
        'image_encoder',
        'depth_net',
        'bev_encoder',
        'head',
        'decode',
        'key_frames',
    )
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_SECTIONS, _PLAIN, max_size=3))
def test_any_mapping_is_a_valid_model_config_or_raises_a_value_error(values):
    try:
        config = model_config_from_dict(values)
    except ValueError:
        return
    assert min(config.grid.shape) > 0
