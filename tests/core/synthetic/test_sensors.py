"""Lidar, calibration and visibility of the synthetic world agree with its boxes and images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.synthetic import (
    EXPOSURE_OFFSET_S,
    ego_from_lidar,
    make_scene,
    nuscenes_like_rig,
    render_camera,
    scan,
    visible_fractions,
)
from bevdepth_core.synthetic.world.placer import TYPICAL_SIZE
from bevdepth_core.synthetic.world.scene import Actor, SyntheticScene
from tests.core.synthetic.scenes import SHADOWLESS, actor_ahead, scene_with

SIZE = {'width': 800, 'height': 450}
CLOSE = 0.03
"""Largest distance by which noise moves a lidar point out of the box of its actor, meters."""


@pytest.fixture(scope='module')
def scene() -> SyntheticScene:
    return make_scene(4, duration_s=8.0)


def world_points(scene: SyntheticScene, time_s: float, **options) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, 3) points of a scan in the world frame, and for each point the index of the
    actor, or -1 if the point is not on an actor.
    """
    mount = ego_from_lidar()
    measured = scan(scene, time_s, mount, seed=1, **options)
    world_from_lidar = scene.world_from_ego(time_s) @ mount
    return measured.points @ world_from_lidar[:3, :3].T + world_from_lidar[:3, 3], measured.actor


def outside_of_box(points: np.ndarray, actor: Actor, time_s: float) -> np.ndarray:
    """Return the distance in meters by which each of the (n, 3) points is outside an actor's box.
    The distance of a point inside the box is negative.
    """
    x, y, heading = actor.pose(time_s)
    cos, sin = np.cos(heading), np.sin(heading)
    local = np.column_stack(
        (
            (points[:, :2] - (x, y)) @ np.array(((cos, -sin), (sin, cos))),
            points[:, 2] - actor.size[2] / 2,
        )
    )
    return (np.abs(local) - np.array(actor.size) / 2).max(axis=1)


def test_the_box_of_an_actor_contains_the_lidar_points_of_this_actor_and_no_other_points(
    scene: SyntheticScene,
) -> None:
    points, owners = world_points(scene, 3.0)
    measured = 0
    for number, actor in enumerate(scene.actors):
        outside = outside_of_box(points, actor, 3.0)
        assert (outside[owners == number] < CLOSE).all()
        assert (outside[(owners != number) & (points[:, 2] > 0.25)] > -CLOSE).all()
        measured += (owners == number).any()
    assert measured > 25


@pytest.mark.parametrize('class_name', NUSCENES_CLASSES)
def test_lidar_points_extend_over_half_of_the_height_and_40_percent_of_the_length_of_an_object(
    class_name: str,
) -> None:
    alone = scene_with(
        actor_ahead(
            scene_with(),
            class_name,
            ahead=9.0 + TYPICAL_SIZE[class_name][0] / 2,
            aside=1.0,
            turn=0.5,
            appearance=4,
        )
    )
    points, owners = world_points(alone, 0.0)
    actor_points, size = points[owners == 0], alone.actors[0].size
    assert len(actor_points) > 12
    assert np.ptp(actor_points[:, 2]) > 0.5 * size[2]
    assert np.ptp(actor_points[:, :2], axis=0).max() > 0.4 * max(size[:2])


def test_a_lidar_scan_without_actors_contains_only_flat_ground() -> None:
    points, owners = world_points(scene_with(), 0.0)
    assert (owners == -1).all()
    assert len(points) > 15_000
    assert np.abs(points[:, 2]).max() < 0.1
    distance = np.linalg.norm(
        points - scene_with().world_from_ego(0.0)[:3, 3] - (0, 0, 1.84), axis=1
    )
    assert distance.max() < 73


def test_rings_are_numbered_upwards_and_fewer_beams_give_fewer_points(
    scene: SyntheticScene,
) -> None:
    measured = scan(scene, 1.0, ego_from_lidar(), seed=0)
    elevation = np.degrees(
        np.arcsin(measured.points[:, 2] / np.linalg.norm(measured.points, axis=1))
    )
    np.testing.assert_allclose(elevation, -30.67 + measured.ring * 41.34 / 31, atol=1e-3)
    assert measured.intensity.min() >= 0
    assert measured.intensity.max() <= 255
    few = scan(scene, 1.0, ego_from_lidar(), beams=8, seed=0)
    assert len(few.points) < 0.35 * len(measured.points)


def test_the_same_seed_gives_the_same_scan_and_another_seed_gives_another_scan(
    scene: SyntheticScene,
) -> None:
    first, again, other = (
        scan(scene, 2.0, ego_from_lidar(), seed=seed).points for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[: len(other)], other[: len(first)])


def test_an_actor_hidden_from_the_cameras_is_hidden_from_the_lidar() -> None:
    empty = scene_with()
    bus, car = actor_ahead(empty, 'bus', 14.0), actor_ahead(empty, 'car', 32.0)
    hidden = scene_with(bus, car)
    seen_hidden, seen_alone = (
        visible_fractions(s, nuscenes_like_rig(**SIZE), 0.0, **SIZE)
        for s in (hidden, scene_with(car))
    )
    assert seen_hidden[1] == 0
    assert seen_hidden[0] > 0.95
    assert seen_alone[0] > 0.95
    assert not (world_points(hidden, 0.0)[1] == 1).any()
    assert (world_points(scene_with(car), 0.0)[1] == 0).sum() > 20


def test_about_half_of_an_actor_is_visible_if_another_actor_hides_half_of_it() -> None:
    empty = scene_with()
    wall, far = (
        actor_ahead(empty, 'truck', 14.0, aside=-1.25),
        actor_ahead(empty, 'truck', 24.0, aside=0.0),
    )
    share = visible_fractions(scene_with(wall, far), nuscenes_like_rig(**SIZE), 0.0, **SIZE)[1]
    assert 0.3 < share < 0.7


def test_an_actor_across_an_image_border_is_visible_and_an_actor_outside_all_images_is_not() -> (
    None
):
    empty = scene_with()
    between, under = (
        actor_ahead(empty, 'car', 12.0, aside=9.5),
        actor_ahead(empty, 'traffic_cone', 1.0, aside=1.6),
    )
    shares = visible_fractions(scene_with(between, under), nuscenes_like_rig(**SIZE), 0.0, **SIZE)
    assert shares[0] > 0.9
    assert shares[1] < 0.1


def test_an_actor_with_visible_fraction_0_is_not_in_the_image(scene: SyntheticScene) -> None:
    plain = dataclasses.replace(scene, light=SHADOWLESS)
    rig = nuscenes_like_rig(**SIZE)
    shares = visible_fractions(plain, rig, 3.0, **SIZE)
    index, moment = rig.names.index('CAM_FRONT'), 3.0 + EXPOSURE_OFFSET_S['CAM_FRONT']
    world_from_camera = plain.world_from_ego(moment) @ rig.ego_from_camera[index]
    image = render_camera(plain, rig.intrinsics[index], world_from_camera, moment, **SIZE).astype(
        int
    )
    ahead = (plain.actor_poses(moment)[:, :2] - world_from_camera[:2, 3]) @ world_from_camera[
        :2, 2
    ]
    candidates = np.flatnonzero((ahead > 5) & (ahead < 60))[:16]
    hidden = candidates[shares[candidates] == 0]
    assert len(hidden) > 0
    for number in hidden:
        others = tuple(actor for other, actor in enumerate(plain.actors) if other != number)
        without = render_camera(
            dataclasses.replace(plain, actors=others),
            rig.intrinsics[index],
            world_from_camera,
            moment,
            **SIZE,
        )
        assert (np.abs(image - without).max(axis=-1) > 25).sum() < 12


def test_every_log_has_a_reproducible_calibration_near_the_nominal_calibration() -> None:
    nominal, first, again, other = (nuscenes_like_rig(log_seed=seed) for seed in (None, 3, 3, 4))
    np.testing.assert_array_equal(first.intrinsics, again.intrinsics)
    np.testing.assert_array_equal(first.ego_from_camera, again.ego_from_camera)
    for index in range(6):
        assert 1 < np.abs(first.intrinsics[index] - other.intrinsics[index]).max() < 40
        assert (
            1e-3
            < np.linalg.norm(
                first.ego_from_camera[index, :3, 3] - nominal.ego_from_camera[index, :3, 3]
            )
            < 0.06
        )
        turn = np.degrees(
            np.arccos(
                (
                    np.trace(
                        first.ego_from_camera[index, :3, :3].T
                        @ nominal.ego_from_camera[index, :3, :3]
                    )
                    - 1
                )
                / 2
            )
        )
        assert 0.05 < turn < 2
    np.testing.assert_array_equal(ego_from_lidar(3), ego_from_lidar(3))
    assert not np.array_equal(ego_from_lidar(3), ego_from_lidar(4))
    np.testing.assert_allclose(ego_from_lidar()[:3, :3] @ (0, 1, 0), (1, 0, 0), atol=0.02)


def test_the_vehicle_tilts_by_less_than_3_degrees_and_rises_by_less_than_5_cm() -> None:
    scene = make_scene(0, duration_s=20.0)
    poses = np.array([scene.world_from_ego(time_s) for time_s in np.arange(0, 20, 0.25)])
    tilt = np.degrees(np.arccos(poses[:, 2, 2]))
    assert 0.05 < tilt.max() < 3
    assert 0.001 < np.abs(poses[:, 2, 3]).max() < 0.05
