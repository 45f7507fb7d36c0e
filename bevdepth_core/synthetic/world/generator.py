"""Generates a scene from a seed: road, traffic, parked cars, building sites, people, houses and
trees.
"""

from __future__ import annotations

import numpy as np

from bevdepth_core.synthetic.world.lanes import (
    EGO_LENGTH,
    EGO_MIDDLE,
    EGO_WIDTH,
    Plan,
    plan_traffic,
)
from bevdepth_core.synthetic.world.people_places import (
    place_crossers,
    place_cyclists,
    place_side_crossers,
    place_walkers,
)
from bevdepth_core.synthetic.world.placer import TYPICAL_SIZE, Placer
from bevdepth_core.synthetic.world.road import make_road
from bevdepth_core.synthetic.world.scene import Actor, SyntheticScene
from bevdepth_core.synthetic.world.streetside import (
    place_houses,
    place_lamps,
    place_parked,
    place_sites,
    place_trees,
)
from bevdepth_core.synthetic.world.traffic import drive
from bevdepth_core.synthetic.world.weather import make_light

__all__ = ['TYPICAL_SIZE', 'make_scene']

_BEHIND, _AHEAD = 130.0, 220.0
_BUSY_BEHIND, _BUSY_AHEAD = 50.0, 90.0
_FARTHEST_ACTOR = 110.0


def make_scene(seed: int = 0, duration_s: float = 8.0) -> SyntheticScene:
    """Return the scene of a drive of ``duration_s`` seconds, in which no actors collide. The same
    ``seed`` and duration always give the same scene.
    """
    rng = np.random.default_rng(seed)
    ego_speed = rng.uniform(5.0, 11.0)
    reach = ego_speed * duration_s
    crossing = float(rng.uniform(22, 40 + 0.7 * reach)) if rng.random() < 0.6 else None
    road = make_road(rng, -_BEHIND - 12 * duration_s, 1.3 * reach + _AHEAD, crossing)
    placer = Placer(rng, road, duration_s)
    plan = plan_traffic(rng, road, ego_speed, duration_s)
    traveled = drive(plan.lanes, placer.times)
    ego_track = plan.ego.path.pose(traveled[plan.ego] - EGO_MIDDLE)
    placer.block(plan.ego.path.pose(traveled[plan.ego]), EGO_LENGTH, EGO_WIDTH, margin=0.3)
    crosswalks = plan.crosswalks
    end = float(traveled[plan.ego][-1] - traveled[plan.ego][0])
    place_trees(placer, crosswalks)
    place_lamps(placer)
    place_houses(placer)
    place_sites(placer, rng.uniform(8.0, 20.0), end + 60)
    _place_traffic(placer, plan, traveled)
    place_parked(placer, -_BUSY_BEHIND, end + _BUSY_AHEAD, crosswalks)
    _place_people(placer, plan, end)
    return SyntheticScene(
        road=road,
        actors=_near(placer.actors, ego_track),
        props=tuple(placer.props),
        crosswalks=crosswalks,
        light=make_light(rng),
        ego_track=ego_track,
        duration_s=duration_s,
        seed=seed,
    )


def _place_traffic(placer: Placer, plan: Plan, traveled: dict) -> None:
    for lane in plan.lanes:
        for vehicle in lane:
            if vehicle is not plan.ego:
                for class_name, size, forward in vehicle.parts:
                    placer.add(
                        class_name,
                        vehicle.path.pose(traveled[vehicle] + forward),
                        size=size,
                        margin=0.1,
                    )


def _place_people(placer: Placer, plan: Plan, end: float) -> None:
    for crosswalk, from_s, until_s in plan.walks:
        place_crossers(placer, crosswalk, from_s, until_s)
    if placer.road.crossing is not None:
        place_side_crossers(placer, *plan.side_walk)
    place_cyclists(placer, -_BUSY_BEHIND, end + _BUSY_AHEAD)
    place_walkers(placer, -_BUSY_BEHIND, end + _BUSY_AHEAD)


def _near(actors: list[Actor], ego_track: np.ndarray) -> tuple[Actor, ...]:
    """Return the actors that come nearer to the ego vehicle than ``_FARTHEST_ACTOR`` meters."""
    return tuple(
        actor
        for actor in actors
        if np.hypot(*(actor.track[:, :2] - ego_track[:, :2]).T).min() < _FARTHEST_ACTOR
    )
