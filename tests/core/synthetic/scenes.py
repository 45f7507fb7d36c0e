"""Scenes with a road, given actors and no other objects."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from bevdepth_core.synthetic import SyntheticScene, make_scene
from bevdepth_core.synthetic.world.generator import TYPICAL_SIZE
from bevdepth_core.synthetic.world.scene import Actor, Light

SHADOWLESS = Light(
    (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (150, 170, 200), (200, 205, 210), 0.3, 1e6
)
"""Ambient light without shadows. An object therefore changes only the pixels that it covers."""


def scene_with(*actors: Actor, light: Light = SHADOWLESS) -> SyntheticScene:
    """Return a scene with a road, these actors and no other objects."""
    return dataclasses.replace(make_scene(1), actors=actors, props=(), light=light)


def actor_ahead(
    scene: SyntheticScene,
    class_name: str,
    ahead: float,
    aside: float = 0.0,
    turn: float = 0.0,
    appearance: int = 0,
) -> Actor:
    """Return an actor that is ``ahead`` meters in front and ``aside`` meters to the left of the
    ego vehicle. The actor is turned to the left by ``turn`` radians.
    """
    world_from_ego = scene.world_from_ego(0.0)
    x, y, _ = world_from_ego[:3, :3] @ (ahead, aside, 0.0) + world_from_ego[:3, 3]
    heading = math.atan2(world_from_ego[1, 0], world_from_ego[0, 0]) + turn
    return Actor(class_name, TYPICAL_SIZE[class_name], np.array([(x, y, heading)]), appearance)
