"""Configuration of the tracker, with the reasons for its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClassMotion:
    """Motion of the objects of one class.

    Attributes:
        acceleration: standard deviation of the acceleration, m/s^2; gives the process noise.
        speed: standard deviation of the speed of a new track without measured velocity, m/s.
        gate_m: largest distance between a prediction and its detection, meters.
        separation_m: a detection that is closer than this to a better detection of the same class
            is a duplicate and starts no track, meters.
    """

    acceleration: float
    speed: float
    gate_m: float
    separation_m: float


VEHICLE = ClassMotion(acceleration=2.5, speed=8.0, gate_m=5.0, separation_m=1.5)
CYCLIST = ClassMotion(acceleration=2.0, speed=5.0, gate_m=4.0, separation_m=0.8)
PEDESTRIAN = ClassMotion(acceleration=1.0, speed=1.5, gate_m=2.0, separation_m=0.4)
STATIC = ClassMotion(acceleration=0.05, speed=0.1, gate_m=1.5, separation_m=0.4)

MOTION = {
    **dict.fromkeys(('car', 'truck', 'bus', 'trailer', 'construction_vehicle'), VEHICLE),
    **dict.fromkeys(('motorcycle', 'bicycle'), CYCLIST),
    'pedestrian': PEDESTRIAN,
    **dict.fromkeys(('barrier', 'traffic_cone'), STATIC),
}
"""Motion of the nuScenes classes; for a class with another name, ``VEHICLE`` is used."""


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of the tracker.

    Attributes:
        birth_score: lowest score with which a detection starts a track; detections with a lower
            score only continue tracks.
        min_hits: number of detections that confirms a track.
        instant_score: lowest score with which a single detection confirms a track.
        coast_s: a confirmed track is published until this time after its last detection, seconds.
        keep_s: a confirmed track ends this time after its last detection, seconds; at least
            ``coast_s``. Between ``coast_s`` and ``keep_s``, it is not published, but its object
            may be detected again, for example when a truck no longer hides it.
        tentative_s: a tentative track ends this time after its last detection, seconds.
        gap_s: a longer time between two updates ends all tracks, seconds.
        gate: largest squared Mahalanobis distance of a match. It is much larger than the 99.9 %
            quantile of chi-square with 4 degrees of freedom (18.5), because errors of detections
            have heavier tails than a normal distribution and are similar in successive frames.
        motion: motion by class name.
    """

    birth_score: float = 0.2
    min_hits: int = 2
    instant_score: float = 0.5
    coast_s: float = 1.0
    keep_s: float = 3.0
    tentative_s: float = 0.6
    gap_s: float = 3.0
    gate: float = 30.0
    motion: Mapping[str, ClassMotion] = field(default_factory=lambda: MOTION, hash=False)

    def __post_init__(self) -> None:
        for name in ('coast_s', 'tentative_s', 'gap_s', 'gate'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} must be positive, got {getattr(self, name)}')
        for name in ('birth_score', 'instant_score'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} must be between 0 and 1, got {getattr(self, name)}')
        if self.min_hits < 1:
            raise ValueError(f'min_hits must be at least 1, got {self.min_hits}')
        if self.keep_s < self.coast_s:
            raise ValueError(f'keep_s ({self.keep_s}) must be at least coast_s ({self.coast_s})')

    def motion_of(self, class_name: str) -> ClassMotion:
        """Return the motion of ``class_name``."""
        return self.motion.get(class_name, VEHICLE)
