"""The figure with images and top view. Lines are drawn at the projected positions of the boxes and
nowhere else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.synthetic import nuscenes_like_rig
from bevdepth_core.types import Boxes3D, CameraRig, Detections3D, Frame
from bevdepth_core.visualization import (
    CLASS_COLORS,
    UNKNOWN_CLASS_COLOR,
    class_color,
    compose,
    draw_bev,
    draw_boxes_on_image,
    draw_text,
)

INTRINSICS = np.array(((300.0, 0, 200), (0, 300, 100), (0, 0, 1)))
CAMERA_FROM_EGO = np.array(((0.0, -1, 0, 0), (0, 0, -1, 0), (1, 0, 0, 0), (0, 0, 0, 1)))
"""Transform from the ego frame to a camera that is at the origin of the ego frame and looks
forward."""
GRAY = np.full((200, 400, 3), 90, np.uint8)


def boxes(*rows) -> Boxes3D:
    """Return one box per row (x, y, z, length, width, height, yaw, vx, vy)."""
    table = np.array(rows, np.float32).reshape(-1, 9)
    return Boxes3D(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7:])


def detections(found: Boxes3D, label: int = 0) -> Detections3D:
    return Detections3D(
        found, np.linspace(0.9, 0.3, len(found)), np.full(len(found), label), NUSCENES_CLASSES, 0
    )


def frame(rig: CameraRig, size: tuple[int, int] = (160, 90), poses: bool = True) -> Frame:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    stamps = np.zeros(len(rig), np.int64)
    return Frame(
        (image,) * len(rig),
        rig,
        stamps,
        np.repeat(np.eye(4)[None], len(rig), axis=0) if poses else None,
    )


def drawn_at(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return (n, 2) columns and rows of the pixels in which a channel differs by more than 40."""
    return np.argwhere(np.abs(after.astype(int) - before).max(axis=-1) > 40)[:, ::-1]


def draw(found: Boxes3D, **options) -> np.ndarray:
    return draw_boxes_on_image(
        GRAY, found, np.zeros(len(found), int), INTRINSICS, CAMERA_FROM_EGO, **options
    )


def test_every_nuscenes_class_has_its_own_color_and_unknown_classes_also_have_a_color() -> None:
    assert set(CLASS_COLORS) == set(NUSCENES_CLASSES)
    colors = np.array(list(CLASS_COLORS.values()))
    apart = np.abs(colors[:, None] - colors[None]).sum(axis=-1)
    assert apart[~np.eye(len(colors), dtype=bool)].min() > 60
    assert class_color('tram') == UNKNOWN_CLASS_COLOR


def test_a_box_is_drawn_at_its_projected_corners_in_the_color_of_its_class() -> None:
    image = draw(boxes((10, 0, 0, 2, 3, 2, 0, 0, 0)))
    pixels = drawn_at(GRAY, image)
    # The nearest face is 9 m away. At this distance, half of the width (1.5 m) covers 50 px, and
    # half of the height (1 m) covers 33 px.
    np.testing.assert_allclose(
        (pixels.min(axis=0), pixels.max(axis=0)), ((150, 66.7), (250, 133.3)), atol=2
    )
    np.testing.assert_allclose(image[100, 150], CLASS_COLORS['car'], atol=30)


def test_the_front_face_is_tinted_and_the_rear_face_is_not() -> None:
    away, towards = (draw(boxes((10, 0, 0, 6, 3, 2, yaw, 0, 0))) for yaw in (0.0, np.pi))
    inside_nearest_face_only = (101, 158)
    assert not np.array_equal(towards[inside_nearest_face_only], GRAY[inside_nearest_face_only])
    np.testing.assert_array_equal(away[inside_nearest_face_only], GRAY[inside_nearest_face_only])


def test_the_track_id_is_written_above_the_box_unless_the_id_is_0_or_the_box_is_small() -> None:
    near, far = boxes((10, 0, 0, 2, 3, 2, 0, 0, 0)), boxes((60, 0, 0, 2, 3, 2, 0, 0, 0))
    written = drawn_at(draw(near), draw(near, track_ids=np.array([12])))
    (left, top), (right, bottom) = written.min(axis=0), written.max(axis=0)
    assert 145 < left < right < 190
    assert 45 < top < bottom < 68
    np.testing.assert_array_equal(draw(near, track_ids=np.array([0])), draw(near))
    np.testing.assert_array_equal(draw(far, track_ids=np.array([12])), draw(far))


def test_the_track_id_is_written_beside_the_box_in_the_top_view() -> None:
    found, size = boxes((20, 10, 0, 4, 2, 1, 0, 0, 0)), (300, 300)

    def view(track_id: int) -> np.ndarray:
        return draw_bev(
            size, found, np.zeros(1, int), reach_m=50.0, track_ids=np.array([track_id])
        )

    written = drawn_at(view(0), view(12))
    # The center of the box is 60 px above and 30 px left of the image center. The box is 6 px
    # wide and 12 px high.
    assert (written.min(axis=0) > (121, 94)).all()
    assert (written.max(axis=0) < (155, 118)).all()
    np.testing.assert_array_equal(view(0), draw_bev(size, found, np.zeros(1, int), reach_m=50.0))


def test_a_box_behind_the_camera_is_not_drawn() -> None:
    np.testing.assert_array_equal(draw(boxes((-10, 0, 0, 2, 3, 2, 0, 0, 0))), GRAY)


def test_a_box_around_the_camera_is_cut_at_the_near_plane() -> None:
    image = draw(boxes((2, 0, 0, 10, 3, 2, 0, 0, 0)))
    # The far face is 7 m away; the edges that run past the camera leave the image through its
    # upper and lower border.
    assert np.abs(image[57, 150].astype(int) - GRAY[0, 0]).max() > 40
    assert len(drawn_at(GRAY[:3, 40:60], image[:3, 40:60])) > 0
    np.testing.assert_array_equal(image[0, 60:340], GRAY[0, 60:340])


def test_the_input_image_is_not_modified() -> None:
    image = GRAY.copy()
    draw_boxes_on_image(
        image, boxes((10, 0, 0, 2, 3, 2, 0, 0, 0)), np.zeros(1, int), INTRINSICS, CAMERA_FROM_EGO
    )
    np.testing.assert_array_equal(image, GRAY)


def test_ground_truth_is_dashed() -> None:
    found = boxes((10, 0, 0, 2, 3, 2, 0, 0, 0))
    solid, dashed = (
        np.abs(draw(found, **options)[75:125, 150].astype(int) - 90).max(axis=-1) > 40
        for options in ({}, {'ground_truth': True})
    )
    assert solid.all()
    assert 0.3 < dashed.mean() < 0.9
    assert np.abs(np.diff(dashed.astype(int))).sum() >= 6


def test_a_small_ground_truth_box_is_drawn_as_an_unfilled_rectangle() -> None:
    image = draw(boxes((60, 8, 0, 20, 4, 3, 0, 0, 0)), ground_truth=True)
    (left, top), (right, bottom) = (end(drawn_at(GRAY, image), axis=0) for end in (np.min, np.max))
    assert right - left > bottom - top > 10
    np.testing.assert_array_equal(image[top + 3 : bottom - 2, left + 3 : right - 2], 90)


def test_in_the_top_view_forward_is_up_and_left_is_left() -> None:
    size, reach_m = (300, 300), 50.0
    empty = draw_bev(size, boxes(), np.zeros(0, int), reach_m=reach_m)
    pixels = drawn_at(
        empty,
        draw_bev(size, boxes((20, 10, 0, 4, 2, 1, 0, 0, 0)), np.zeros(1, int), reach_m=reach_m),
    )
    # The scale is 3 pixels per meter. The ego vehicle is in the middle of the image.
    np.testing.assert_allclose(pixels.mean(axis=0), (150 - 30, 150 - 60), atol=2)
    np.testing.assert_allclose(np.ptp(pixels, axis=0), (6, 12), atol=5)


def test_in_the_top_view_an_arrow_shows_the_motion_of_one_second() -> None:
    still, moving = (
        draw_bev(
            (300, 300), boxes((0, 20, 0, 2, 2, 1, 0, speed, 0)), np.zeros(1, int), reach_m=50.0
        )
        for speed in (0, 25)
    )
    pixels = drawn_at(still, moving)
    assert pixels[:, 1].min() == pytest.approx(150 - 75, abs=2)
    np.testing.assert_allclose(pixels[:, 0], 150 - 60, atol=6)


def test_the_top_view_draws_ground_truth_without_detections() -> None:
    truth = (boxes((20, 10, 0, 4, 2, 1, 0, 0, 0)), np.zeros(1, int))
    without, with_truth = (
        draw_bev((300, 300), boxes(), np.zeros(0, int), ground_truth=boxes_and_labels)
        for boxes_and_labels in (None, truth)
    )
    assert len(drawn_at(without, with_truth)) > 10


@pytest.mark.parametrize('width', [960, 1920])
def test_the_figure_has_the_requested_width(width: int) -> None:
    image = compose(
        frame(nuscenes_like_rig(160, 90)),
        detections(boxes((10, 0, 1, 4, 2, 1.5, 0, 3, 0))),
        width=width,
    )
    assert image.shape[1] == width
    assert image.dtype == np.uint8


def test_an_object_ahead_is_drawn_only_in_the_front_camera() -> None:
    scene = frame(nuscenes_like_rig(160, 90))
    plain, image = (
        compose(scene, detections(found), width=1200)
        for found in (boxes(), boxes((15, 0, 1, 4, 2, 1.5, 0, 0, 0)))
    )
    height, cameras = plain.shape[0], 1200 * 0.72
    pixels = drawn_at(plain, image)
    in_cameras = pixels[
        (pixels[:, 0] < cameras) & (pixels[:, 1] > 0.08 * height) & (pixels[:, 1] < 0.92 * height)
    ]
    assert len(in_cameras) > 20
    assert (in_cameras[:, 0] > cameras / 3).all()
    assert (in_cameras[:, 0] < 2 * cameras / 3).all()
    assert (in_cameras[:, 1] < height / 2).all()


def test_boxes_are_projected_with_the_ego_pose_of_each_camera() -> None:
    rig = nuscenes_like_rig(160, 90)
    front = CameraRig(
        ('left_behind', 'front'), rig.intrinsics[[1, 1]], rig.ego_from_camera[[1, 1]]
    )
    together = frame(front)
    apart = together.world_from_ego.copy()
    apart[1, 0, 3] = 6.0
    found = detections(boxes((20, 0, 1, 4, 2, 1.5, 0, 0, 0)))
    plain, same, shifted = (compose(scene, shown, width=900) for scene, shown in (
        (together, detections(boxes())), (together, found), (dataclasses.replace(together,
         world_from_ego=apart), found)))  # fmt: skip
    panel = slice(0, 200), slice(0, 230)
    # The mean ego pose is 3 m ahead of the ego pose of the first camera. In the image of this
    # camera, the box is therefore farther away and smaller.
    assert np.ptp(drawn_at(plain[panel], shifted[panel])[:, 0]) < np.ptp(
        drawn_at(plain[panel], same[panel])[:, 0]
    )


def test_compose_accepts_a_frame_without_poses_whose_only_camera_has_an_unknown_name() -> None:
    rig = nuscenes_like_rig(160, 90)
    single = CameraRig(('webcam',), rig.intrinsics[:1], rig.ego_from_camera[:1])
    assert compose(frame(single, poses=False), detections(boxes()), width=800).shape[1] == 800


def test_the_title_is_written_at_the_top_and_the_caption_at_the_bottom() -> None:
    scene = frame(nuscenes_like_rig(160, 90))
    plain, titled, captioned = (compose(scene, detections(boxes()), width=1200,
    **words) for words in (
        {'title': ''}, {'title': 'drive'}, {'title': '', 'caption': '12 ms'}))  # fmt: skip
    assert drawn_at(plain, titled)[:, 1].max() < 0.1 * plain.shape[0]
    assert drawn_at(plain, captioned)[:, 1].min() > 0.9 * plain.shape[0]


@pytest.mark.parametrize('position', [(-20, -6), (90, 15), (300, 300), (-500, 5)])
def test_text_may_extend_beyond_the_image(position: tuple[int, int]) -> None:
    image = np.zeros((20, 100, 3), np.uint8)
    assert draw_text(image, 'far out', position, 14, shadow=True) > 20
