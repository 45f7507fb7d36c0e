"""``StageTimer`` returns the stages of the last frame in order; on a CPU, all times are zero."""

import torch

from bevdepth_core.engine.timing import StageTimer


def test_stages_are_recorded_in_order_and_cleared_for_each_frame():
    timer = StageTimer(torch.device('cpu'))
    timer.start()
    for stage in ('resize', 'encode', 'decode'):
        timer.stage_done(stage)
    assert list(timer.wait().items()) == [('resize', 0.0), ('encode', 0.0), ('decode', 0.0)]
    timer.start()
    timer.stage_done('encode')
    assert timer.wait() == {'encode': 0.0}
