from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bevdepth_ros.bags.writer import BagWriter


@pytest.fixture(scope='session')
def small_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bag with one message."""
    path = tmp_path_factory.mktemp('bag') / 'small'
    with BagWriter(path) as bag:
        bag.write_camera_info('CAM_FRONT', 10**18, np.eye(3), 16, 9)
    return path
