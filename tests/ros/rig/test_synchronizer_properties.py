"""Tests random rigs with known trigger cycles: no set may mix trigger cycles, and nearly all
possible sets must be formed.

``python -m tests.ros.rig.test_synchronizer_properties 500`` runs each test with 500 random rigs.
"""

from __future__ import annotations

import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ros.rig.timing import SimulatedRig

COMPLETE = 0.98
"""Share of the possible sets that must be formed."""
MOST = 0.95
"""Share of the possible sets that must be formed in a test of only three seconds. In such a short
time, a single interruption can cost more than 2 % of the sets."""
RECOVERY_S = 3.0
SLOP_S = 0.06
EXAMPLES = int(sys.argv[1]) if __name__ == '__main__' else 8
BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@st.composite
def rigs(draw, fewest: int = 1, loss: tuple[float, ...] = (0.0, 0.02, 0.1)) -> SimulatedRig:
    """Return a rig whose cameras expose within the first 45 % of the trigger cycle."""
    period_s = 1 / draw(st.sampled_from((5.0, 8.0, 10.0, 12.0, 20.0, 30.0, 60.0)))
    jitter_s = draw(st.sampled_from((0.0, 0.01, 0.03))) * period_s
    longest_s = min(0.45 * period_s, SLOP_S - 8 * jitter_s)
    share = st.floats(0.0, 1.0)
    shares = draw(st.lists(share, min_size=fewest - 1, max_size=7))
    offsets_s = [0.0, *(one * max(0.0, longest_s) for one in shares)]
    # After a restart, the offset of a camera may be larger by a tenth of the cycle.
    slop_s = max(SLOP_S, max(offsets_s) + 8 * jitter_s) + 0.11 * period_s
    return SimulatedRig(
        offsets_s,
        period_s,
        jitter_s,
        draw(st.sampled_from(loss)),
        draw(st.sampled_from((0.0, 0.03))),
        slop_s,
        seed=draw(st.integers(0, 10**6)),
    )


@BOUNDED
@given(rigs())
def test_possible_sets_are_formed_and_no_set_mixes_trigger_cycles(rig: SimulatedRig):
    rig.run(8.0)
    assert not rig.mixed()
    first = min(rig.cycles(rig.sets[0]))
    assert rig.complete(first) >= COMPLETE
    assert rig.synchronizer.untriggered is None
    assert all(camera.state == 'used' for camera in rig.synchronizer.cameras)


@BOUNDED
@given(rigs(fewest=2), st.floats(-0.1, 0.1))
def test_a_camera_that_restarts_is_used_again_within_three_seconds(rig: SimulatedRig, move: float):
    def moved(camera: int, time_s: float) -> float:
        return move * rig.period_s if camera == 1 else 0.0

    rig.run(4.0)
    rig.run(3.0, missing=[1])
    assert rig.sets[-1].cameras == tuple(one for one in range(len(rig.offsets_s)) if one != 1)
    rig.run(RECOVERY_S, moved)
    recovered = rig.cycle
    rig.run(3.0, moved)
    assert not rig.mixed()
    assert rig.complete(recovered) >= COMPLETE


@BOUNDED
@given(
    rigs(fewest=3, loss=(0.0, 0.02)),
    st.sampled_from((-0.05, -0.02, -0.01, -0.005, 0.002, 0.005, 0.01, 0.02, 0.05)),
)
def test_a_camera_whose_clock_drifts_is_left_out_before_its_images_match_another_cycle(
    rig: SimulatedRig, drift: float
):
    rig.run(4.0)
    seconds = 1.5 * rig.period_s / abs(drift) + 3.0
    rig.run(min(seconds, 30.0), lambda camera, time_s: drift * time_s if camera == 1 else 0.0)
    assert not rig.mixed()
    others = {index for index, _ in enumerate(rig.offsets_s)} - {1}
    assert any(set(images.cameras) == others for images in rig.sets)


@BOUNDED
@given(rigs(loss=(0.0,)), st.sampled_from((5.0, 10.0, 12.0, 16.0, 30.0)))
def test_after_a_rate_change_sets_are_formed_again_within_three_seconds(
    rig: SimulatedRig, hz: float
):
    rig.run(4.0)
    factor = 1 / hz / rig.period_s
    rig.period_s, rig.jitter_s = 1 / hz, rig.jitter_s * factor
    rig.offsets_s = [one * min(1.0, factor) for one in rig.offsets_s]
    rig.run(RECOVERY_S)
    recovered = rig.cycle
    rig.run(3.0)
    assert not rig.mixed()
    assert rig.complete(recovered) >= COMPLETE


@BOUNDED
@given(
    rigs(),
    st.integers(10, 60),
    st.sampled_from((-100, -30, -12, -5, -3, -2, -1, 1, 2, 12, 100)),
)
def test_no_set_mixes_cycles_if_all_clocks_jump_by_whole_cycles(
    rig: SimulatedRig, after: int, cycles: int
):
    """The clocks jump after 10 to 60 cycles. In some examples, the synchronizer has not found the
    offsets yet."""
    rig.run(after * rig.period_s)
    rig.run(RECOVERY_S, lambda camera, time_s: cycles * rig.period_s)
    recovered = rig.cycle
    rig.run(3.0, lambda camera, time_s: cycles * rig.period_s)
    assert not rig.mixed()
    assert rig.complete(recovered) >= MOST
    assert all(camera.state == 'used' for camera in rig.synchronizer.cameras)


if __name__ == '__main__':
    for test in [one for name, one in list(globals().items()) if name.startswith('test_')]:
        test()
        print(f'{test.__name__}: {EXAMPLES} examples', flush=True)
