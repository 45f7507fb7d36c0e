"""The fault matrix: injected faults, expected results and expected diagnostics."""

from tests.faults.cases import calibration, cameras, images, load, raw_images, tf, timing, tracking
from tests.faults.cases.case import ALL, NOTHING, UNFUSED, Case, without

__all__ = ['ALL', 'CASES', 'INPUT_CASES', 'NOTHING', 'TIME_CASES', 'UNFUSED', 'Case', 'without']

INPUT_CASES = (*cameras.CASES, *images.CASES, *calibration.CASES, *raw_images.CASES)
TIME_CASES = (*timing.CASES, *tf.CASES, *load.CASES, *tracking.CASES)
CASES = (*INPUT_CASES, *TIME_CASES)
