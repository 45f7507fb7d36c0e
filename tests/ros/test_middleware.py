"""Tests that raw images arrive with the Fast DDS profile of this package."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.reference import ROOT

COUNT = 20
PROFILE = ROOT / 'config' / 'middleware' / 'fastdds_large_images.xml'


def test_no_raw_image_is_lost_with_the_fast_dds_profile_for_large_images() -> None:
    environment = {
        **os.environ,
        'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
        'FASTRTPS_DEFAULT_PROFILES_FILE': str(PROFILE),
    }
    command = [sys.executable, '-m', 'tests.ros.large_images']
    publisher = subprocess.Popen([*command, 'publish', str(COUNT)], cwd=ROOT, env=environment)
    try:
        received = subprocess.run(
            [*command, 'receive', str(COUNT)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert int(received) == COUNT
        assert publisher.wait(60) == 0
    finally:
        publisher.kill()
