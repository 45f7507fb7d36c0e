"""Multi-object tracking in the world frame: stable ids, smoothed poses and covariance."""

from bevdepth_core.tracking.config import ClassMotion, TrackerConfig
from bevdepth_core.tracking.tracker import Tracker
from bevdepth_core.tracking.tracks import Tracks3D

__all__ = ['ClassMotion', 'Tracker', 'TrackerConfig', 'Tracks3D']
