"""Plans the traffic of a scene: lanes, vehicles, traffic lights and crosswalks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from bevdepth_core.synthetic.world.placer import random_size
from bevdepth_core.synthetic.world.road import CROSSING_CROSSWALK, CROSSING_STOP, LANE_WIDTH, Road
from bevdepth_core.synthetic.world.traffic import Path, Signal, Vehicle, around_corner, straight

EGO_LENGTH, EGO_WIDTH = 5.2, 2.0
EGO_MIDDLE = 1.3
"""Distance from the origin of the ego frame forward to the middle of the vehicle, meters."""

_EGO_AT = 4.0
"""Position of the ego vehicle along the road at the first time step, meters."""
_MIXED_TRAFFIC = {
    'car': 0.6,
    'truck': 0.1,
    'bus': 0.08,
    'trailer': 0.08,
    'motorcycle': 0.12,
    'bicycle': 0.02,
}
_LIGHT_TRAFFIC = {'car': 0.8, 'motorcycle': 0.2}
"""Shares of the classes in the lanes beside the lane of the ego vehicle. Only small vehicles drive
in these lanes, because large vehicles would hide the scene."""
_CROSS_TRAFFIC = {'car': 0.72, 'truck': 0.08, 'bus': 0.08, 'motorcycle': 0.12}
_HITCH_GAP = 0.4
_CLEARANCE_S = 3.0
"""Time between the start of red for the road and the start of green for the crossing street,
and vice versa, seconds."""
_CROSS_REACH = 200.0
_TURN_RADIUS = 5.6
_TURNING_SHARE = 0.2
_LATE_S = 1e3
_CROSSWALK_STOP = 3.0


@dataclass(frozen=True, eq=False)
class Plan:
    """The traffic of a scene.

    Attributes:
        lanes: per lane, its vehicles from front to rear.
        ego: the ego vehicle, which is also in one of the lanes.
        crosswalks: positions of the crosswalks along the road, meters.
        walks: per crosswalk with people, its position along the road in meters, and the start and
            the end in seconds of the time window in which the people may start to cross.
        side_walk: start and end of the time window in which people may start to cross the crossing
            street, seconds.
    """

    lanes: list[list[Vehicle]]
    ego: Vehicle
    crosswalks: tuple[float, ...]
    walks: tuple[tuple[float, float, float], ...]
    side_walk: tuple[float, float]


def plan_traffic(
    rng: np.random.Generator, road: Road, ego_speed: float, duration_s: float
) -> Plan:
    """Return the traffic around an ego vehicle with the desired speed ``ego_speed``, m/s."""
    reach = ego_speed * duration_s
    red_main, red_cross = (
        _phases(rng, duration_s)
        if road.crossing is not None
        else ((-_LATE_S, -_LATE_S), (-_LATE_S, -_LATE_S))
    )
    crosswalk, hold = _crosswalk(rng, road, reach, duration_s)
    planner = _Planner(rng, road, red_main, red_cross, crosswalk, hold)
    lanes, ego = planner.main_lanes(ego_speed, reach, duration_s)
    crosswalks, walks = [crosswalk], [(crosswalk, hold[0] + 1.5, hold[1] - 8.0)]
    if road.crossing is not None:
        lanes += planner.cross_lanes()
        for side in (-1, 1):
            crosswalks.append(road.crossing + side * CROSSING_CROSSWALK)
            walks.append((crosswalks[-1], red_main[0] + 2.5, red_main[1] - 8.0))
    return Plan(
        lanes,
        ego,
        tuple(crosswalks),
        tuple(walk for walk in walks if walk[2] > walk[1]),
        (max(red_cross[0] + 1, -1.0), min(red_cross[1] - 9, duration_s)),
    )


def _phases(
    rng: np.random.Generator, duration_s: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the red phase of the road and the red phase of the crossing street, each as (start,
    end) in seconds.
    """
    kind, change = rng.random(), rng.uniform(0.2, 0.75) * duration_s
    if kind < 0.4:
        return (_LATE_S, _LATE_S), (-_LATE_S, _LATE_S)
    if kind < 0.75:
        return (-_LATE_S, change), (change - _CLEARANCE_S, _LATE_S)
    return (change, _LATE_S), (-_LATE_S, change + _CLEARANCE_S)


def _crosswalk(
    rng: np.random.Generator, road: Road, reach: float, duration_s: float
) -> tuple[float, tuple[float, float]]:
    """Return the position of a crosswalk that is at least 40 m from the crossing, and the start
    and end, in seconds, of the time window in which people have the right of way.
    """
    places = rng.uniform(20.0, 50.0 + reach, 20)
    place = next(
        (float(place) for place in places if not road.near_crossing(place, 40.0)),
        float(reach + 90.0),
    )
    start = rng.uniform(-2.0, 0.6 * duration_s)
    return place, (start, start + rng.uniform(11.0, 15.0)) if rng.random() < 0.6 else (
        _LATE_S,
        _LATE_S,
    )


class _Planner:
    """Fills lanes with vehicles."""

    def __init__(
        self,
        rng: np.random.Generator,
        road: Road,
        red_main: tuple[float, float],
        red_cross: tuple[float, float],
        crosswalk: float,
        hold: tuple[float, float],
    ) -> None:
        self.rng, self.road = rng, road
        self._red_main, self._red_cross, self._crosswalk, self._hold = (
            red_main,
            red_cross,
            crosswalk,
            hold,
        )

    def main_lanes(
        self, ego_speed: float, reach: float, duration_s: float
    ) -> tuple[list[list[Vehicle]], Vehicle]:
        """Return the lanes of the road in both directions, and the ego vehicle, which is in one of
        these lanes.
        """
        ego_lane, count = int(self.rng.integers(self.road.lanes)), self.road.lanes
        lanes = []
        for lane in range(count):
            path, turning, origin = self._ego_direction(lane)
            behind, ahead = self._beside_ego(
                path, turning, origin, ego_speed, reach, is_ego_lane=lane == ego_lane
            )
            vehicles = [*behind, *ahead]
            if lane == ego_lane:
                ego = Vehicle(path, origin, ego_speed, [], EGO_LENGTH)
                vehicles = [*behind, ego, *ahead]
            lanes.append(self._signaled(vehicles, 1))
        return [*lanes, *(self._oncoming(lane, reach, duration_s) for lane in range(count))], ego

    def _ego_direction(self, lane: int) -> tuple[Path, Path | None, float]:
        """Return the path of a lane in the direction of the ego vehicle, the path of vehicles that
        turn off this lane (None if no vehicle can turn off), and the distance, meters, from the
        start of the path of the lane to the place nearest to the start of the ego vehicle.
        """
        road, lateral = self.road, self.road.lane_center(lane)
        path = straight(road, (road.along[0] + 5, lateral), (road.along[-1] - 5, lateral))
        turning = self._turn_off(1, lateral) if lane == road.lanes - 1 else None
        return path, turning, path.nearest(road.pose(_EGO_AT, lateral)[0])

    def _beside_ego(
        self,
        path: Path,
        turning: Path | None,
        origin: float,
        ego_speed: float,
        reach: float,
        is_ego_lane: bool,
    ) -> tuple[list[Vehicle], list[Vehicle]]:
        """Return the vehicles of a lane in two lists: behind and ahead of position ``origin``."""
        low, high = (0.95, 1.2) if is_ego_lane else (0.7, 1.3)
        speed = ego_speed * self.rng.uniform(low, high)
        shares = _MIXED_TRAFFIC if is_ego_lane else _LIGHT_TRAFFIC
        first, last = (3.2, -9.0) if is_ego_lane else (-20, -22)
        fill = partial(self._fill, path, turning, shares, speed)
        ahead = fill(origin + first, origin + 110 + 0.3 * reach)
        return fill(origin - 70, origin + last), ahead

    def _oncoming(self, lane: int, reach: float, duration_s: float) -> list[Vehicle]:
        """Return the vehicles of a lane in the opposite direction."""
        road, lateral = self.road, -self.road.lane_center(lane)
        path = straight(road, (road.along[-1] - 5, lateral), (road.along[0] + 5, lateral))
        turning = self._turn_off(-1, lateral) if lane == road.lanes - 1 else None
        speed = self.rng.uniform(5.5, 11.0)
        stop, start = (
            path.nearest(road.pose(place, lateral)[0])
            for place in (-30.0, reach + min(speed * duration_s + 90.0, 190.0))
        )
        return self._signaled(self._fill(path, turning, _MIXED_TRAFFIC, speed, start, stop), -1)

    def cross_lanes(self) -> list[list[Vehicle]]:
        """Return the two lanes of the crossing street; some of their vehicles turn right into the
        road.
        """
        road, lanes = self.road, []
        crossing = road.required_crossing()
        for direction in (-1, 1):
            along = crossing + direction * LANE_WIDTH / 2
            start, stop = (along, -direction * _CROSS_REACH), (along, direction * _CROSS_REACH)
            path = straight(road, start, stop)
            outer = direction * road.lane_center(road.lanes - 1)
            turning = around_corner(
                road, start, (along, outer), (along + direction * 120, outer), _TURN_RADIUS
            )
            vehicles = self._fill(
                path,
                turning,
                _CROSS_TRAFFIC,
                self.rng.uniform(6, 9),
                _CROSS_REACH - 110,
                _CROSS_REACH + 40,
            )
            point = road.pose(along, -direction * (road.curb + 5.5))[0]
            lanes.append(self._with_signals(vehicles, [Signal(point, (self._red_cross,))]))
        return lanes

    def _turn_off(self, direction: int, lateral: float) -> Path | None:
        """Return the path of vehicles that turn right at the crossing; None without a crossing."""
        road = self.road
        if road.crossing is None:
            return None
        along = road.crossing - direction * LANE_WIDTH / 2
        start = road.along[0] + 5 if direction > 0 else road.along[-1] - 5
        return around_corner(
            road,
            (start, lateral),
            (along, lateral),
            (along, -direction * _CROSS_REACH),
            _TURN_RADIUS,
        )

    def _fill(
        self,
        path: Path,
        turning: Path | None,
        shares: dict[str, float],
        speed: float,
        start: float,
        stop: float,
    ) -> list[Vehicle]:
        """Return vehicles between the positions ``start`` and ``stop`` on a path, from rear to
        front.
        """
        vehicles, place = [], start + self.rng.uniform(2.0, 14.0)
        while place < stop:
            parts, length = self._parts(
                str(self.rng.choice(list(shares), p=list(shares.values())))
            )
            vehicle_path = (
                turning if turning and length < 9 and self.rng.random() < _TURNING_SHARE else path
            )
            if not vehicle_path.turn or place + length < vehicle_path.turn[0] - 5:
                vehicles.append(
                    Vehicle(
                        vehicle_path,
                        place + length / 2,
                        speed * self.rng.uniform(0.88, 1.12),
                        parts,
                        length,
                    )
                )
            place += length + self.rng.uniform(4.0, 30.0)
        return vehicles

    def _parts(
        self, class_name: str
    ) -> tuple[list[tuple[str, tuple[float, float, float], float]], float]:
        """Return the parts and the length of a vehicle. For a trailer, the parts are a truck and
        the trailer.
        """
        size = random_size(self.rng, class_name)
        if class_name != 'trailer':
            return [(class_name, size, 0.0)], size[0]
        towing_truck = random_size(self.rng, 'truck')
        length = towing_truck[0] + _HITCH_GAP + size[0]
        return [
            ('truck', towing_truck, (length - towing_truck[0]) / 2),
            ('trailer', size, (size[0] - length) / 2),
        ], length

    def _signaled(self, vehicles: list[Vehicle], direction: int) -> list[Vehicle]:
        """Assign the signals of the crosswalk and of the crossing to the vehicles of a main lane.

        The argument ``vehicles`` is in order from rear to front. The result contains the same
        vehicles in order from front to rear.
        """
        road = self.road
        lateral = direction * road.lane_center(0)
        signals = [
            Signal(
                road.pose(self._crosswalk - direction * _CROSSWALK_STOP, lateral)[0], (self._hold,)
            )
        ]
        if road.crossing is not None:
            signals.append(
                Signal(
                    road.pose(road.crossing - direction * CROSSING_STOP, lateral)[0],
                    (self._red_main,),
                )
            )
        return self._with_signals(vehicles, signals)

    @staticmethod
    def _with_signals(vehicles: list[Vehicle], signals: list[Signal]) -> list[Vehicle]:
        for vehicle in vehicles:
            vehicle.signals = signals
        return vehicles[::-1]
