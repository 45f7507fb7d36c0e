"""Simulates vehicles on their paths: each keeps its distance to the vehicle ahead and stops at
signals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from bevdepth_core.synthetic.world.road import ROAD_STEP, Road

STEP_S = 0.1

_ACCELERATION, _BRAKING, _HARDEST_BRAKING = 1.7, 2.4, 7.0
_HEADWAY_S, _STANDSTILL_GAP = 1.1, 2.0
_MAX_SIGNAL_BRAKING = 4.0
"""A vehicle that would have to brake harder than this does not stop at a red signal, m/s^2."""
_SIDEWAYS = 2.6
"""Lateral acceleration in turns, m/s^2."""
_GONE = 4.0
"""The paths of two vehicles separate where one of them turns. The vehicle ahead is no longer an
obstacle when its rear is this far beyond the start of the turn, meters."""


@dataclass(frozen=True, eq=False)
class Path:
    """A line along which vehicles drive.

    Attributes:
        points: (m, 2) world x and y.
        traveled: (m,) distance of each point from the start along the path, meters.
        heading: (m,) radians, continuous.
        turn: distance from the start of the path to the start and to the end of a tight turn,
            meters; None if the path has no tight turn.
    """

    points: np.ndarray
    traveled: np.ndarray
    heading: np.ndarray
    turn: tuple[float, float] | None = None

    @classmethod
    def through(
        cls,
        road: Road,
        along: np.ndarray,
        lateral: np.ndarray,
        turn: tuple[int, int] | None = None,
    ) -> Path:
        """Return the path through closely spaced road coordinates; ``turn`` contains the indices
        where a tight turn starts and ends.
        """
        points, _ = road.pose(along, lateral)
        traveled = np.concatenate(
            ((0.0,), np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
        )
        tangent = np.gradient(points, traveled, axis=0)
        heading = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
        return cls(
            points,
            traveled,
            heading,
            None if turn is None else (float(traveled[turn[0]]), float(traveled[turn[1]])),
        )

    def pose(self, traveled: np.ndarray) -> np.ndarray:
        """Return the (..., 3) world x, y and heading at distances ``traveled`` from the start."""
        columns = (self.points[:, 0], self.points[:, 1], self.heading)
        return np.stack(
            [np.interp(traveled, self.traveled, column) for column in columns], axis=-1
        )

    def nearest(self, point: np.ndarray) -> float:
        """Return the distance along the path from the start of the path to the place that is
        nearest to ``point``.
        """
        return float(self.traveled[np.argmin(((self.points - point) ** 2).sum(axis=1))])


def straight(road: Road, start: tuple[float, float], stop: tuple[float, float]) -> Path:
    """Return the path between two road coordinates (along, lateral)."""
    steps = np.arange(0, 1, ROAD_STEP / np.linalg.norm(np.subtract(stop, start)))[:, None]
    line = np.add(start, steps * np.subtract(stop, start))
    return Path.through(road, line[:, 0], line[:, 1])


def around_corner(
    road: Road,
    start: ArrayLike,
    corner: ArrayLike,
    stop: ArrayLike,
    radius: float,
) -> Path:
    """Return the path from ``start`` to ``stop``, road coordinates, with a round turn at
    ``corner``.
    """
    first, middle, last = (np.array(point, np.float64) for point in (start, corner, stop))
    legs = ((first, middle), (middle, last))
    before, after = ((b - a) / np.linalg.norm(b - a) for a, b in legs)
    angles = np.arange(0, np.pi / 2, ROAD_STEP / radius)[:, None]
    into, out = middle - radius * before, middle + radius * after
    arc = (
        into + radius * after - radius * after * np.cos(angles) + radius * before * np.sin(angles)
    )
    approach = first + before * np.arange(0, np.linalg.norm(into - first), ROAD_STEP)[:, None]
    leaving = out + after * np.arange(0, np.linalg.norm(last - out), ROAD_STEP)[:, None]
    line = np.concatenate((approach, arc, leaving))
    return Path.through(
        road, line[:, 0], line[:, 1], turn=(len(approach), len(approach) + len(arc))
    )


@dataclass(frozen=True, eq=False)
class Signal:
    """A traffic light, or a crosswalk at which vehicles must stop for people.

    Attributes:
        point: (2,) world x and y of the stop line, on a path or beside it.
        red: pairs of start and end of the red phases, seconds.
    """

    point: np.ndarray
    red: tuple[tuple[float, float], ...]

    def is_red(self, time_s: float) -> bool:
        return any(start <= time_s < stop for start, stop in self.red)


@dataclass(eq=False)
class Vehicle:
    """A vehicle, optionally with a trailer.

    Attributes:
        path: path along which the vehicle drives.
        start: position of the middle of the vehicle on the path at the first time step, meters.
        cruise: desired speed, m/s.
        parts: per part, from front to rear: class, size (length, width, height), and distance from
            the middle of the vehicle forward to the middle of the part, meters.
        length: length of all parts together, meters.
        signals: the signals at which the vehicle stops.
    """

    path: Path
    start: float
    cruise: float
    parts: list[tuple[str, tuple[float, float, float], float]]
    length: float
    signals: list[Signal] = field(default_factory=list)


def drive(lanes: list[list[Vehicle]], times: np.ndarray) -> dict[Vehicle, np.ndarray]:
    """Return the position, meters, of every vehicle on its path at each of the (t,) evenly spaced
    ``times``.

    Args:
        lanes: per lane, its vehicles from front to rear. The paths of the vehicles in a lane are
            equal up to their turns.
        times: seconds.
    """
    vehicles = [vehicle for lane in lanes for vehicle in lane]
    if not vehicles:
        return {}
    traffic = _Traffic(lanes, vehicles, float(times[0]))
    record = np.empty((len(times), len(vehicles)))
    for row, time_s in zip(record, times, strict=True):
        row[:] = traffic.traveled
        traffic.advance(time_s, float(times[1] - times[0]))
    return dict(zip(vehicles, record.T.copy(), strict=True))


class _Traffic:
    """Simulates all vehicles with the intelligent driver model (Treiber, Hennecke, Helbing,
    2000).
    """

    def __init__(
        self, lanes: list[list[Vehicle]], vehicles: list[Vehicle], start_s: float
    ) -> None:
        self.length = np.array([vehicle.length for vehicle in vehicles])
        self.cruise = np.array([vehicle.cruise for vehicle in vehicles])
        self.traveled = np.array([vehicle.start for vehicle in vehicles])
        self._leaders = _leaders(lanes, vehicles)
        turns = np.array([vehicle.path.turn or (np.inf, -np.inf) for vehicle in vehicles])
        self._turn_start, self._turn_end = turns.T
        self._turn_speed = np.sqrt(
            _SIDEWAYS * np.maximum(self._turn_end - self._turn_start, 1) / (np.pi / 2)
        )
        signals = list(
            {id(signal): signal for vehicle in vehicles for signal in vehicle.signals}.values()
        )
        self._signals = [(signal, _stop_lines(signal, vehicles)) for signal in signals]
        self.speed = np.minimum(self.cruise, self._allowed())
        leader = self._leaders[0][0]
        room = self.traveled[leader] - self.length[leader] / 2 - self.traveled - self.length / 2
        self.speed = np.where(
            leader >= 0,
            np.minimum(self.speed, np.maximum(room - _STANDSTILL_GAP, 0) / _HEADWAY_S),
            self.speed,
        )
        for signal, lines in self._signals:
            if signal.is_red(start_s):
                room = np.maximum(lines - self.traveled - self.length / 2, 0)
                self.speed = np.where(
                    room > 0, np.minimum(self.speed, np.sqrt(2 * 1.5 * room)), self.speed
                )

    def _allowed(self) -> np.ndarray:
        """Return, for each vehicle, the highest speed at which the vehicle can still brake for its
        turn, m/s. The speed is infinite for a vehicle that has no turn ahead.
        """
        ahead = np.maximum(self._turn_start - self.traveled, 0)
        limit = np.sqrt(self._turn_speed**2 + 2 * 1.4 * np.where(np.isfinite(ahead), ahead, 1e6))
        return np.where(self.traveled > self._turn_end, np.inf, limit)

    def advance(self, time_s: float, step_s: float) -> None:
        """Simulate one step."""
        wanted = np.minimum(self.cruise, self._allowed())
        gain = np.where(
            self.speed <= wanted,
            1 - (self.speed / np.maximum(wanted, 0.1)) ** 4,
            (wanted - self.speed) * 1.2,
        )
        rate = _ACCELERATION * np.maximum(gain, -3)
        for gap, speed in self._obstacles(time_s):
            needed = _STANDSTILL_GAP + np.maximum(
                0,
                self.speed * _HEADWAY_S
                + self.speed * (self.speed - speed) / (2 * np.sqrt(_ACCELERATION * _BRAKING)),
            )
            rate = np.minimum(
                rate, _ACCELERATION * (np.minimum(gain, 1) - (needed / np.maximum(gap, 0.1)) ** 2)
            )
        rate = np.maximum(rate, -_HARDEST_BRAKING)
        after = np.maximum(self.speed + rate * step_s, 0)
        self.traveled = self.traveled + (self.speed + after) / 2 * step_s
        self.speed = after

    def _obstacles(self, time_s: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield, for one kind of obstacle after the other, the (vehicles,) gaps to the obstacles
        ahead and the speeds of these obstacles. The gap is infinite for a vehicle without an
        obstacle of this kind.
        """
        for leader, turns_off_at in self._leaders:
            rear = self.traveled[leader] - self.length[leader] / 2
            in_the_way = (leader >= 0) & (rear < turns_off_at)
            yield (
                np.where(in_the_way, rear - self.traveled - self.length / 2, np.inf),
                self.speed[leader],
            )
        for signal, lines in self._signals:
            if signal.is_red(time_s):
                gap = lines - self.traveled - self.length / 2
                stops = (gap > 0) & (self.speed**2 < 2 * _MAX_SIGNAL_BRAKING * gap)
                yield np.where(stops, gap + 0.5 * _STANDSTILL_GAP, np.inf), np.zeros_like(gap)


def _leaders(
    lanes: list[list[Vehicle]], vehicles: list[Vehicle]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the possible obstacles ahead of each vehicle, as two pairs of (vehicles,) arrays. The
    first pair describes the next vehicle ahead in the lane, and the second pair the next vehicle
    ahead on the same path. A pair contains the index of the vehicle ahead, -1 for none, and a
    position on the path. The vehicle ahead is no longer an obstacle when its rear is beyond this
    position.
    """
    number = {vehicle: index for index, vehicle in enumerate(vehicles)}
    next_one, next_same = np.full(len(vehicles), -1), np.full(len(vehicles), -1)
    off = np.full(len(vehicles), np.inf)
    for lane in lanes:
        for place, vehicle in enumerate(lane):
            ahead = lane[:place][::-1]
            if ahead:
                next_one[number[vehicle]] = number[ahead[0]]
                if ahead[0].path is not vehicle.path:
                    turns = [path.turn[0] for path in (vehicle.path, ahead[0].path) if path.turn]
                    off[number[vehicle]] = min(turns) + _GONE
            same = [other for other in ahead if other.path is vehicle.path]
            if same:
                next_same[number[vehicle]] = number[same[0]]
    return [(next_one, off), (next_same, np.full(len(vehicles), np.inf))]


def _stop_lines(signal: Signal, vehicles: list[Vehicle]) -> np.ndarray:
    """Return the position of the signal on each vehicle's path; -inf for vehicles that do
    not stop at this signal.
    """
    distances: dict[int, float] = {}
    lines = np.full(len(vehicles), -np.inf)
    for index, vehicle in enumerate(vehicles):
        if signal in vehicle.signals:
            lines[index] = distances.setdefault(
                id(vehicle.path), vehicle.path.nearest(signal.point)
            )
    return lines
