"""The plan of a small synthetic dataset, which is written once and read by several tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bevdepth_core.synthetic.dataset.capture import Sensors
from bevdepth_core.synthetic.dataset.writing import DatasetPlan

PLAN = DatasetPlan(
    train_scenes=1, val_scenes=1, duration_s=1.5, sensors=Sensors(160, 90, lidar_beams=16)
)
KEY_FRAMES = 3
"""Number of key frames of a drive."""
TURNS = (KEY_FRAMES - 1) * 10 + 1
"""Number of lidar scans of a drive."""
IMAGES = (KEY_FRAMES - 1) * 6 + 1
"""Number of images of one camera in a drive."""


def digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 digest of every file below ``root``, by its relative path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }
