from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bevdepth_ros.bags.writer import BagWriter


@pytest.fixture(scope='session')
def small_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bag of 5 s with two messages."""
    path = tmp_path_factory.mktemp('bag') / 'small'
    with BagWriter(path) as bag:
        for second in (0, 5):
            bag.write_camera_info('CAM_FRONT', (10**9 + second) * 10**9, np.eye(3), 16, 9)
    return path
