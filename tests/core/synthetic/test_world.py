"""Images, boxes, poses and stamps of a synthetic drive agree with each other."""

from __future__ import annotations

import collections
import dataclasses
import math

import cv2
import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.synthetic import (
    EXPOSURE_OFFSET_S,
    SyntheticScene,
    make_scene,
    nuscenes_like_rig,
    render_camera,
    render_frame,
)
from bevdepth_core.synthetic.sensors.order import boxes_cannot_hide, draw_order
from bevdepth_core.synthetic.shapes.catalog import build_shape
from bevdepth_core.synthetic.world.generator import TYPICAL_SIZE
from tests.core.synthetic.scenes import SHADOWLESS, actor_ahead, scene_with

SIZE = {'width': 400, 'height': 225}


def front_image(
    scene: SyntheticScene, time_s: float = 0.0, width: int = 800, height: int = 450
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image, the intrinsics and camera_from_ego of the front camera."""
    rig = nuscenes_like_rig(width, height)
    index = rig.names.index('CAM_FRONT')
    world_from_camera = scene.world_from_ego(time_s) @ rig.ego_from_camera[index]
    image = render_camera(
        scene, rig.intrinsics[index], world_from_camera, time_s, width=width, height=height
    )
    return image, rig.intrinsics[index], invert_rigid(rig.ego_from_camera[index])


def hull_mask(
    corners: np.ndarray, intrinsics: np.ndarray, shape: tuple[int, ...], margin: int
) -> np.ndarray:
    """Return the mask of the convex hull of (n, 3) points that are projected into the image,
    widened by ``margin`` pixels. The points are in camera coordinates.
    """
    pixels = corners @ intrinsics.T
    outline = cv2.convexHull((pixels[:, :2] / pixels[:, 2:]).astype(np.float32))
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.rint(outline).astype(np.int32), 1)
    return cv2.dilate(mask, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)).astype(bool)


def test_the_same_seed_gives_the_same_images_and_another_seed_gives_different_images() -> None:
    rig = nuscenes_like_rig(**SIZE)
    first, again, other = (render_frame(make_scene(seed), rig, 1.0, **SIZE) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
    assert not np.array_equal(first.images[1], other.images[1])


@pytest.mark.parametrize('class_name', NUSCENES_CLASSES)
def test_an_object_is_rendered_inside_its_box_and_fills_more_than_20_percent_of_the_box(
    class_name: str,
) -> None:
    empty = scene_with()
    actor = actor_ahead(
        empty,
        class_name,
        ahead=11.0 + TYPICAL_SIZE[class_name][0] / 2,
        aside=1.0,
        turn=0.4,
        appearance=5,
    )
    scene = scene_with(actor)
    image, intrinsics, camera_from_ego = front_image(scene)
    changed = np.abs(image.astype(int) - front_image(empty)[0]).max(axis=-1) > 20
    boxes, labels = scene.ground_truth(0.0)
    corners = boxes.corners()[0] @ camera_from_ego[:3, :3].T + camera_from_ego[:3, 3]
    assert NUSCENES_CLASSES[labels[0]] == class_name
    assert not (changed & ~hull_mask(corners, intrinsics, image.shape, margin=3)).any()
    assert changed.sum() > 0.2 * hull_mask(corners, intrinsics, image.shape, margin=0).sum()


def test_a_nearer_object_hides_a_farther_object() -> None:
    empty = scene_with()
    near, far = (
        actor_ahead(empty, 'bus', 14.0, appearance=1),
        actor_ahead(empty, 'car', 32.0, appearance=2),
    )
    assert np.array_equal(front_image(scene_with(near))[0], front_image(scene_with(near, far))[0])
    assert np.array_equal(
        front_image(scene_with(far, near))[0], front_image(scene_with(near, far))[0]
    )


def test_an_object_to_the_left_of_the_camera_is_rendered_only_in_the_left_half() -> None:
    empty = scene_with()
    beside = actor_ahead(empty, 'trailer', 2.0, aside=3.2, appearance=3)
    image, intrinsics, _ = front_image(scene_with(beside))
    changed = np.abs(image.astype(int) - front_image(empty)[0]).max(axis=-1) > 20
    assert changed[:, :100].any()
    assert not changed[:, int(intrinsics[0, 2]) :].any()


def test_a_farther_object_that_can_hide_a_nearer_object_is_rendered_after_the_nearer_object() -> (
    None
):
    distance = np.array([5.0, 9.0, 7.0])
    cannot_hide = np.ones((3, 3), bool)
    cannot_hide[1, 0] = False
    order = draw_order(cannot_hide, distance)
    assert sorted(order) == [0, 1, 2]
    assert order.index(1) > order.index(0)


def test_the_front_tires_of_a_bus_are_drawn_before_its_body() -> None:
    bus = build_shape('bus', TYPICAL_SIZE['bus'], appearance=3)
    order = draw_order(
        boxes_cannot_hide(bus.bounds, np.array((22.0, 1.0, 1.5))),
        np.linalg.norm(bus.bounds.mean(axis=1), axis=-1),
    )
    heights = bus.bounds[order, 1, 2]
    front_tires, body = bus.bounds[order, 0, 0] > 2, heights > 3
    assert front_tires.sum() == 2
    assert np.flatnonzero(body).min() > np.flatnonzero(front_tires).max()


def test_every_camera_has_its_own_exposure_time_and_ego_pose() -> None:
    scene, rig = make_scene(2), nuscenes_like_rig(**SIZE)
    frame = render_frame(scene, rig, 1.5, start_ns=1_000_000_000, **SIZE)
    for name, stamp_ns, pose in zip(rig.names, frame.stamps_ns, frame.world_from_ego, strict=True):
        assert stamp_ns == 1_000_000_000 + round((1.5 + EXPOSURE_OFFSET_S[name]) * 1e9)
        np.testing.assert_array_equal(pose, scene.world_from_ego(1.5 + EXPOSURE_OFFSET_S[name]))
    speed = (
        np.linalg.norm(scene.world_from_ego(1.6)[:2, 3] - scene.world_from_ego(1.5)[:2, 3]) / 0.1
    )
    assert speed > 2
    assert np.linalg.norm(
        frame.world_from_ego[0, :2, 3] - frame.world_from_ego[3, :2, 3]
    ) == pytest.approx(0.0426 * speed, rel=0.2)


def test_a_camera_renders_the_world_at_its_exposure_time() -> None:
    scene, rig = make_scene(2), nuscenes_like_rig(**SIZE)
    frame = render_frame(scene, rig, 1.5, **SIZE)
    index = rig.names.index('CAM_BACK_LEFT')
    moment = 1.5 + EXPOSURE_OFFSET_S['CAM_BACK_LEFT']
    alone = render_camera(
        scene,
        rig.intrinsics[index],
        scene.world_from_ego(moment) @ rig.ego_from_camera[index],
        moment,
        **SIZE,
    )
    np.testing.assert_array_equal(frame.images[index], alone)


def test_the_cameras_expose_in_clockwise_order_once_around_the_vehicle() -> None:
    rig = nuscenes_like_rig()
    expected = (
        'CAM_FRONT_LEFT',
        'CAM_FRONT',
        'CAM_FRONT_RIGHT',
        'CAM_BACK_LEFT',
        'CAM_BACK',
        'CAM_BACK_RIGHT',
    )
    assert rig.names == expected == tuple(EXPOSURE_OFFSET_S)
    headings = {
        name: math.atan2(pose[1, 2], pose[0, 2])
        for name, pose in zip(rig.names, rig.ego_from_camera, strict=True)
    }
    in_time = sorted(EXPOSURE_OFFSET_S, key=EXPOSURE_OFFSET_S.get)
    turns = [
        (headings[a] - headings[b]) % (2 * math.pi)
        for a, b in zip(in_time, [*in_time[1:], in_time[0]], strict=True)
    ]
    assert all(0.5 < turn < 1.5 for turn in turns)
    assert sum(turns) == pytest.approx(2 * math.pi)


def test_a_smaller_image_shows_the_same_view() -> None:
    scene = dataclasses.replace(make_scene(3), light=SHADOWLESS)
    large, small = (front_image(scene, 1.0, *size)[0] for size in ((1600, 900), (400, 225)))
    shrunk = cv2.resize(large, (400, 225), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - small).mean() < 8
    assert np.abs(shrunk.astype(int) - small[:, ::-1]).mean() > 20


def test_velocities_equal_the_motion_of_the_boxes() -> None:
    scene, step = make_scene(5), 0.1
    world_from_ego, later = scene.world_from_ego(2.0), scene.world_from_ego(2.0 + step)
    boxes, _ = scene.ground_truth(2.0, max_distance=40)
    targets, _ = scene.ground_truth(2.0 + step, max_distance=50)
    predicted = np.column_stack((boxes.center[:, :2] + boxes.velocity * step, boxes.center[:, 2]))
    expected = predicted @ world_from_ego[:3, :3].T + world_from_ego[:3, 3]
    reached = targets.center @ later[:3, :3].T + later[:3, 3]
    assert len(boxes) > 10
    assert np.linalg.norm(boxes.velocity, axis=1).max() > 3
    assert (
        np.linalg.norm(expected[:, None, :2] - reached[None, :, :2], axis=-1).min(axis=1).max()
        < 0.06
    )


@pytest.mark.parametrize('seed', [0, 8])
def test_objects_and_the_ego_vehicle_never_overlap_during_a_drive(seed: int) -> None:
    scene = make_scene(seed, duration_s=20.0)
    sizes = np.array([(5.2, 2.0), *(actor.size[:2] for actor in scene.actors)])
    reach = np.hypot(*sizes.T) / 2
    for time_s in np.arange(0, scene.duration_s, 0.5):
        ego = scene.world_from_ego(time_s)
        middle = (ego[:3, :3] @ (1.3, 0.0, 0.0) + ego[:3, 3])[:2]
        poses = np.concatenate(
            [[(*middle, math.atan2(ego[1, 0], ego[0, 0]))], scene.actor_poses(time_s)]
        )
        poses[:, :2] -= middle  # OpenCV uses float32, which is inexact for large coordinates
        rectangles = [
            ((x, y), tuple(size), math.degrees(heading))
            for (x, y, heading), size in zip(poses.tolist(), sizes.tolist(), strict=True)
        ]
        close = (
            np.linalg.norm(poses[:, None, :2] - poses[None, :, :2], axis=-1)
            < reach[:, None] + reach
        )
        for i, j in np.argwhere(np.triu(close, 1)):
            assert (
                cv2.rotatedRectangleIntersection(rectangles[i], rectangles[j])[0]
                == cv2.INTERSECT_NONE
            )


def test_a_few_scenes_contain_all_ten_classes_with_plausible_sizes() -> None:
    counts = collections.Counter()
    for seed in range(8):
        for actor in make_scene(seed, duration_s=4.0).actors:
            counts[actor.class_name] += 1
            expected = np.array(TYPICAL_SIZE[actor.class_name])
            np.testing.assert_allclose(actor.size[:2], expected[:2], rtol=0.13)
            np.testing.assert_allclose(
                actor.size[2],
                expected[2] * (1 if actor.rider or actor.class_name[-5:] != 'cycle' else 0.66),
                rtol=0.13,
            )
    assert set(counts) == set(NUSCENES_CLASSES)
    assert min(counts.values()) >= 8


def test_some_cars_stop_some_drive_fast_and_none_accelerates_implausibly() -> None:
    stopped, sped = 0, 0
    for seed in range(6):
        scene = make_scene(seed, duration_s=10.0)
        for actor in scene.actors:
            if actor.moving and actor.class_name == 'car':
                speed = np.linalg.norm(np.diff(actor.track[:, :2], axis=0), axis=1) / 0.1
                assert np.abs(np.diff(speed)).max() / 0.1 < 12
                stopped += speed.min() < 0.2 and speed.max() > 3
                sped += speed.max() > 6
    assert stopped > 5
    assert sped > 30


def test_ground_truth_contains_no_box_beyond_the_given_distance() -> None:
    boxes, labels = make_scene(0).ground_truth(3.0, max_distance=30.0)
    assert len(boxes) == len(labels) > 0
    assert np.hypot(*boxes.center[:, :2].T).max() <= 30.0
    assert len(make_scene(0).ground_truth(3.0, max_distance=0.1)[0]) == 0


def test_ground_truth_omits_invisible_objects() -> None:
    scene = make_scene(0)
    all_boxes, _ = scene.ground_truth(3.0)
    seen = np.arange(len(scene.actors)) % 2 == 0
    boxes, labels = scene.ground_truth(3.0, seen=seen)
    assert 0 < len(boxes) == len(labels) < len(all_boxes)
    assert len(scene.ground_truth(3.0, seen=~seen)[0]) == len(all_boxes) - len(boxes)
