"""The fault matrix: injected faults, expected results and expected diagnostics."""

from tests.faults.cases import calibration, cameras, images, load, raw_images, tf, timing, tracking
from tests.faults.cases.case import ALL, NOTHING, UNFUSED, Case, without

__all__ = ['ALL', 'CASES', 'NOTHING', 'UNFUSED', 'Case', 'without']

CASES = (
    *cameras.CASES,
    *timing.CASES,
    *tf.CASES,
    *images.CASES,
    *calibration.CASES,
    *load.CASES,
    *raw_images.CASES,
    *tracking.CASES,
)
