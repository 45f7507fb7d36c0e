"""Lays out a scene from a seed: road, traffic, parked cars, a building site, people, houses and trees."""

from __future__ import annotations

import math

import numpy as np

from bevdepth_core.nuscenes.synthetic.scene import PARKING_WIDTH, Actor, Light, Prop, Road, Scene

TYPICAL_SIZE = {
    'car': (4.6, 1.92, 1.62),
    'truck': (7.4, 2.5, 3.0),
    'construction_vehicle': (6.4, 2.7, 3.1),
    'bus': (11.4, 2.85, 3.4),
    'trailer': (11.8, 2.6, 3.8),
    'barrier': (0.5, 2.4, 1.0),
    'motorcycle': (2.1, 0.8, 1.65),
    'bicycle': (1.75, 0.62, 1.7),
    'pedestrian': (0.7, 0.66, 1.75),
    'traffic_cone': (0.42, 0.42, 0.95),
}
"""Mean length, width, height in metres."""

_SIZE_SPREAD = 0.06
_ROAD_STEP = 0.5
_BEHIND, _AHEAD = 130.0, 220.0
_TRAFFIC_BEHIND, _TRAFFIC_AHEAD = 60.0, 90.0
_EGO_SIZE = (5.2, 2.0, 1.6)
_CHECK_STEP_S = 0.25
_SIDE_MARGIN = 0.15

_MIXED_TRAFFIC = {'car': 0.58, 'truck': 0.13, 'bus': 0.1, 'trailer': 0.05, 'motorcycle': 0.1, 'bicycle': 0.04}
_LIGHT_TRAFFIC = {'car': 0.8, 'motorcycle': 0.2}
"""Shares of the classes in a lane; light traffic beside the ego vehicle leaves it a view."""

_LIGHTS = (
    # sun elevation in degrees, sun, ambient, zenith, horizon, clouds, haze distance
    (48, (0.66, 0.64, 0.58), (0.60, 0.63, 0.68), (86, 132, 190), (200, 213, 224), 0.35, 420.0),
    (24, (0.86, 0.72, 0.54), (0.54, 0.56, 0.62), (98, 136, 184), (230, 214, 194), 0.45, 340.0),
    (60, (0.20, 0.20, 0.20), (0.92, 0.93, 0.95), (172, 180, 188), (212, 215, 217), 0.90, 280.0),
)


def make_scene(seed: int = 0, duration_s: float = 8.0) -> Scene:
    """Return the drive of ``seed``; the same seed gives the same drive, actors do not run into each other within it."""
    rng = np.random.default_rng(seed)
    ego_speed = rng.uniform(6.0, 9.5)
    road = _make_road(rng, -_BEHIND, ego_speed * duration_s + _AHEAD)
    ego_lane = int(rng.integers(road.lanes))
    ego_lateral = road.lane_center(ego_lane)
    end = ego_speed * duration_s
    crosswalk = end + rng.uniform(14.0, 20.0)
    ego = Actor('car', _EGO_SIZE, along=1.3, lateral=ego_lateral, speed=ego_speed)
    placer = _Placer(rng, duration_s, ego)
    _place_site(placer, road, start=rng.uniform(12.0, 20.0))
    _place_traffic(placer, road, ego_lane, ego_speed, end)
    _place_parked(placer, road, end)
    _place_people(placer, road, crosswalk, end)
    props = (*_houses(rng, road), *_trees(rng, road, crosswalk), *_lamps(road))
    return Scene(
        road=road,
        actors=tuple(placer.actors),
        props=props,
        crosswalks=(crosswalk, crosswalk - 95.0),
        light=_make_light(rng, road),
        ego_along=0.0,
        ego_lateral=ego_lateral,
        ego_speed=ego_speed,
        duration_s=duration_s,
        seed=seed,
    )


def _make_road(rng: np.random.Generator, start: float, stop: float) -> Road:
    along = np.arange(start, stop, _ROAD_STEP)
    heading = np.full_like(along, rng.uniform(-math.pi, math.pi))
    for wavelength in (rng.uniform(190, 260), rng.uniform(90, 130)):
        heading += 0.0011 * wavelength * rng.choice((-1, 1)) * np.sin(2 * math.pi * (along / wavelength + rng.random()))
    steps = _ROAD_STEP * np.stack((np.cos(heading), np.sin(heading)), axis=-1)
    center = rng.uniform(400, 1600, 2) + np.cumsum(steps, axis=0)
    return Road(along, center, heading, lanes=int(rng.integers(1, 3)))


def _make_light(rng: np.random.Generator, road: Road) -> Light:
    elevation, sun, ambient, zenith, horizon, clouds, haze_distance = _LIGHTS[rng.choice(len(_LIGHTS), p=(0.55, 0.25, 0.2))]
    elevation = math.radians(elevation + rng.uniform(-5, 5))
    azimuth = road.heading[len(road.heading) // 3] + rng.choice((-1, 1)) * rng.uniform(0.6, 2.4)
    to_sun = (math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation))
    return Light(to_sun, sun, ambient, zenith, horizon, clouds, haze_distance)


class _Placer:
    """Accepts actors that never come too close to those already there."""

    def __init__(self, rng: np.random.Generator, duration_s: float, ego: Actor) -> None:
        self.rng = rng
        self.actors: list[Actor] = []
        self._times = np.arange(-1.0, duration_s + 1.0, _CHECK_STEP_S)
        self._tracks = [self._track(ego, 0.0)]

    def _track(self, actor: Actor, margin: float) -> np.ndarray:
        """Return (times, 2, 2) lower and upper road coordinates."""
        center = np.stack([np.broadcast_to(value, self._times.shape) for value in actor.road_position(self._times)], axis=-1)
        half = np.add(actor.road_half_extent(), (margin, _SIDE_MARGIN))
        return np.stack((center - half, center + half), axis=1)

    def add(self, class_name: str, along: float, lateral: float, *, gap: float = 0.3, **motion) -> bool:
        """Add an actor of a random size unless it would come within ``gap`` metres along the road of another."""
        size = tuple(float(value) for value in np.array(TYPICAL_SIZE[class_name]) * self.rng.uniform(1 - _SIZE_SPREAD, 1 + _SIZE_SPREAD, 3))
        appearance = int(self.rng.integers(1 << 30))
        actor = Actor(class_name, size, float(along), float(lateral), appearance=appearance, **motion)
        track = self._track(actor, gap)
        for other in self._tracks:
            if ((track[:, 0] < other[:, 1]) & (other[:, 0] < track[:, 1])).all(axis=1).any():
                return False
        self._tracks.append(track)
        self.actors.append(actor)
        return True


def _place_site(placer: _Placer, road: Road, start: float) -> None:
    """A building site in the right-hand parking lane: cones around, barriers at the ends, a machine and workers inside."""
    inner, outer = -road.driving_half_width, -road.curb
    middle, length = (inner + outer) / 2, 18.0
    placer.add('construction_vehicle', start + 8.5, middle - 0.55, heading_offset=placer.rng.choice((0.0, math.pi)))
    for end in (start, start + length):
        placer.add('barrier', end, middle)
    for along in np.arange(start + 1.4, start + length - 1, 2.6):
        placer.add('traffic_cone', along, inner + 0.1 + placer.rng.normal(0, 0.05))
    for along in (start + 2.6, start + 14.0, start + 15.5):
        placer.add('pedestrian', along, middle + placer.rng.uniform(-0.5, 0.5), heading_offset=placer.rng.uniform(-math.pi, math.pi))
    for along in np.arange(start + 24, start + 36, 2.7):
        placer.add('barrier', along, outer - 0.5, heading_offset=math.pi / 2)


def _place_traffic(placer: _Placer, road: Road, ego_lane: int, ego_speed: float, end: float) -> None:
    for lane in range(road.lanes):
        speed = ego_speed if lane == ego_lane else ego_speed * placer.rng.uniform(0.75, 1.25)
        classes = _MIXED_TRAFFIC if lane == ego_lane else _LIGHT_TRAFFIC
        _fill_lane(placer, classes, road.lane_center(lane), speed, -_TRAFFIC_BEHIND, _TRAFFIC_AHEAD)
    for lane in range(road.lanes):
        speed = -placer.rng.uniform(6.0, 11.0)
        _fill_lane(placer, _MIXED_TRAFFIC, -road.lane_center(lane), speed, -20.0, end + abs(speed) * end / ego_speed + _TRAFFIC_AHEAD)


def _fill_lane(placer: _Placer, classes: dict[str, float], lateral: float, speed: float, start: float, stop: float) -> None:
    along = start + placer.rng.uniform(0, 8)
    while along < stop:
        name = str(placer.rng.choice(list(classes), p=list(classes.values())))
        length = TYPICAL_SIZE[name][0]
        along += length / 2
        heading = 0.0 if speed > 0 else math.pi
        placer.add(name, along, lateral + placer.rng.normal(0, 0.12), gap=2.5, speed=speed, heading_offset=heading)
        along += length / 2 + placer.rng.uniform(7.0, 26.0)


def _place_parked(placer: _Placer, road: Road, end: float) -> None:
    lateral = road.driving_half_width + PARKING_WIDTH / 2
    for side in (-1, 1):
        along = -40.0 + placer.rng.uniform(0, 6)
        while along < end + _TRAFFIC_AHEAD:
            name = str(placer.rng.choice(('car', 'truck', 'trailer', 'motorcycle', 'bus'), p=(0.8, 0.07, 0.05, 0.05, 0.03)))
            length = TYPICAL_SIZE[name][0]
            heading = (0.0 if side < 0 else math.pi) + placer.rng.normal(0, 0.02)
            if placer.rng.random() < 0.6:
                placer.add(name, along + length / 2, side * lateral, gap=0.6, heading_offset=heading)
            along += length + placer.rng.uniform(1.2, 7.0)


def _place_people(placer: _Placer, road: Road, crosswalk: float, end: float) -> None:
    rng = placer.rng
    for _ in range(int(rng.integers(28, 44))):
        side, direction = rng.choice((-1, 1)), rng.choice((-1, 1))
        lateral = side * rng.uniform(road.curb + 1.5, road.sidewalk_end - 0.4)
        speed = direction * rng.uniform(0.9, 1.7) if rng.random() < 0.75 else 0.0
        heading = (0.0 if direction > 0 else math.pi) if speed else rng.uniform(-math.pi, math.pi)
        placer.add('pedestrian', rng.uniform(-30, end + 70), lateral, speed=speed, heading_offset=heading)
    for _ in range(6):
        side = rng.choice((-1, 1))
        placer.add('bicycle', rng.uniform(-30, end + 60), side * (road.driving_half_width + 0.35), speed=-side * rng.uniform(3.5, 5.5),
                   heading_offset=0.0 if side < 0 else math.pi)  # fmt: skip
    for _ in range(5):
        direction = rng.choice((-1, 1))
        placer.add('pedestrian', crosswalk + rng.uniform(-1.6, 1.6), -direction * rng.uniform(2.0, road.curb + 6.0),
                   lateral_speed=direction * rng.uniform(0.9, 1.5), heading_offset=direction * math.pi / 2)  # fmt: skip


def _houses(rng: np.random.Generator, road: Road) -> list[Prop]:
    houses = []
    for side in (-1, 1):
        along = float(road.along[0]) + 4.0
        while along < road.along[-1] - 30:
            length, depth, height = rng.uniform(11, 26), rng.uniform(9, 14), 3.4 * rng.integers(2, 8) + 1.2
            lateral = side * (road.sidewalk_end + rng.uniform(1.0, 5.0) + depth / 2)
            houses.append(Prop('building', (length, depth, height), along + length / 2, lateral, 0.0, int(rng.integers(1 << 30))))
            along += length + (rng.uniform(1.5, 4.0) if rng.random() < 0.7 else rng.uniform(9.0, 20.0))
    return houses


def _trees(rng: np.random.Generator, road: Road, crosswalk: float) -> list[Prop]:
    trees = []
    for side in (-1, 1):
        along = float(road.along[0])
        while along < road.along[-1]:
            along += rng.uniform(9.0, 17.0)
            height = rng.uniform(5.0, 8.5)
            if abs(along - crosswalk) > 5:
                trees.append(
                    Prop('tree', (0.55 * height, 0.55 * height, height), along, side * (road.curb + 0.75), 0.0, int(rng.integers(1 << 30)))
                )
    return trees


def _lamps(road: Road) -> list[Prop]:
    """Lamp posts every 32 m on alternating sides, their arm over the road."""
    lamps = []
    for number, along in enumerate(np.arange(road.along[0] + 3, road.along[-1], 32.0)):
        side = -1 if number % 2 else 1
        lamps.append(Prop('lamp', (2.2, 0.3, 8.2), float(along), side * (road.curb + 0.45), -side * math.pi / 2))
    return lamps
