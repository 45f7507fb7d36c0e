"""One picture of a frame: six cameras with boxes in them, and the same boxes from above.

All images are (height, width, 3) uint8 RGB. Nothing given is changed; every function returns a new image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.types import Boxes3D, Detections3D, Frame

CLASS_COLORS: dict[str, tuple[int, int, int]] = {
    'car': (255, 158, 0),
    'truck': (255, 84, 60),
    'construction_vehicle': (232, 214, 64),
    'bus': (255, 92, 172),
    'trailer': (186, 120, 255),
    'barrier': (150, 164, 178),
    'motorcycle': (88, 214, 141),
    'bicycle': (0, 200, 190),
    'pedestrian': (70, 150, 255),
    'traffic_cone': (205, 133, 83),
}
"""RGB per class, far enough apart to be told from each other; also used by the ROS markers."""

UNKNOWN_CLASS_COLOR = (210, 210, 210)
"""RGB of classes that are not nuScenes ones."""

CAMERA_GRID = (
    ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'),
    ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'),
)
"""Where ``compose`` puts the nuScenes cameras; cameras of other names fill the grid in their own order."""

GroundTruth = tuple[Boxes3D, np.ndarray]
"""Boxes in the ego frame and their labels (n,)."""

_NEAR = 0.2
_CLIP_MARGIN_PX = 8.0
_EDGES = np.array(((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)))
_FRONT_FACE_ALPHA = 0.28
_TRUTH_COLOR = (255, 255, 255)
_DASH_PX, _DASH_GAP_PX = 5, 4
_BACKGROUND, _PANEL, _GRID, _FAINT, _TEXT = (16, 18, 22), (24, 27, 33), (58, 64, 74), (150, 158, 170), (236, 238, 242)
_EGO_OUTLINE = ((3.8, 0.95), (3.8, -0.95), (-1.0, -0.95), (-1.0, 0.95))
_RING_STEP_M = 10
_RING_LABEL_DIRECTION = (0.72, -0.72)
_SHIFT = 3
_SHORTEST_ARROW_MPS = 0.3


def class_color(name: str) -> tuple[int, int, int]:
    """Return the RGB colour of a class."""
    return CLASS_COLORS.get(name, UNKNOWN_CLASS_COLOR)


def draw_boxes_on_image(
    image: np.ndarray,
    boxes: Boxes3D,
    labels: np.ndarray,
    intrinsics: np.ndarray,
    camera_from_ego: np.ndarray,
    *,
    class_names: Sequence[str] = NUSCENES_CLASSES,
    ground_truth: bool = False,
    thickness: int = 2,
) -> np.ndarray:
    """Return ``image`` with the boxes' edges in their class colours and a tinted front face.

    Args:
        image: (height, width, 3) uint8 RGB.
        boxes: n boxes in the ego frame.
        labels: (n,) index into ``class_names``.
        intrinsics: (3, 3) for pixels of ``image``.
        camera_from_ego: (4, 4) rigid.
        class_names: names behind the labels.
        ground_truth: draw thin dashed white lines instead.
        thickness: line width, pixels.
    """
    canvas = image.copy()
    corners = boxes.corners() @ camera_from_ego[:3, :3].T + camera_from_ego[:3, 3]
    order = np.argsort(-corners[..., 2].mean(axis=1))
    in_front = [i for i in order if corners[i, :, 2].max() > _NEAR]
    for index in in_front:
        segments = _edges_in_image(corners[index], intrinsics, image.shape)
        if ground_truth:
            _draw_dashed(canvas, segments, _TRUTH_COLOR)
            continue
        color = class_color(class_names[labels[index]])
        if corners[index, :4, 2].min() > _NEAR:
            _tint(canvas, _project(corners[index, :4], intrinsics), color)
        cv2.polylines(canvas, _fixed(segments), False, color, thickness, cv2.LINE_AA, _SHIFT)
    return canvas


def _project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    pixels = points @ intrinsics.T
    return pixels[..., :2] / pixels[..., 2:]


def _edges_in_image(corners: np.ndarray, intrinsics: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (m, 2, 2) pixel segments of a box's edges, cut at the near plane and near the border of the image."""
    start, stop = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
    rise = np.where(stop[:, 2] == start[:, 2], 1, stop[:, 2] - start[:, 2])
    crossing = start + (stop - start) * ((_NEAR - start[:, 2]) / rise)[:, None]
    visible = (start[:, 2] > _NEAR) | (stop[:, 2] > _NEAR)
    start, stop = (np.where(end[:, 2:] > _NEAR, end, crossing)[visible] for end in (start, stop))
    segments = np.stack((_project(start, intrinsics), _project(stop, intrinsics)), axis=1)
    return _clip_to_image(segments, shape)


def _clip_to_image(segments: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the parts of (m, 2, 2) segments inside the image with a margin, so that cut ends stay out of sight."""
    low, high = np.full(2, -_CLIP_MARGIN_PX), np.array((shape[1], shape[0])) + _CLIP_MARGIN_PX
    start, direction = segments[:, 0], segments[:, 1] - segments[:, 0]
    steps = np.where(direction == 0, 1e-9, direction)
    at_low, at_high = (low - start) / steps, (high - start) / steps
    enter = np.maximum(np.minimum(at_low, at_high).max(axis=1, initial=0), 0)
    leave = np.minimum(np.maximum(at_low, at_high).min(axis=1, initial=1), 1)
    ends = start[:, None] + direction[:, None] * np.stack((enter, leave), axis=1)[..., None]
    return ends[enter < leave]


def _fixed(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


def _tint(canvas: np.ndarray, outline: np.ndarray, color) -> None:
    """Blend ``color`` into the inside of an outline."""
    height, width = canvas.shape[:2]
    left, top = np.clip(np.floor(outline.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(outline.max(axis=0)), 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    part = canvas[top:bottom, left:right]
    tinted = part.copy()
    cv2.fillConvexPoly(tinted, _fixed(outline - (left, top)), color, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(tinted, _FRONT_FACE_ALPHA, part, 1 - _FRONT_FACE_ALPHA, 0, dst=part)


def _draw_dashed(canvas: np.ndarray, segments: np.ndarray, color, thickness: int = 1) -> None:
    dashes = []
    for start, stop in segments:
        length = max(float(np.linalg.norm(stop - start)), 1e-6)
        begins = np.arange(0, length, _DASH_PX + _DASH_GAP_PX)
        ends = np.minimum(begins + _DASH_PX, length)
        dashes.append(start + np.stack((begins, ends), axis=1)[..., None] * ((stop - start) / length))
    if dashes:
        cv2.polylines(canvas, _fixed(np.concatenate(dashes)), False, color, thickness, cv2.LINE_AA, _SHIFT)


def draw_bev(
    size: tuple[int, int],
    boxes: Boxes3D,
    labels: np.ndarray,
    *,
    class_names: Sequence[str] = NUSCENES_CLASSES,
    ground_truth: GroundTruth | None = None,
    reach_m: float = 52.0,
) -> np.ndarray:
    """Return the view from above, forward up: boxes with heading, velocity arrows of one second, range rings.

    Args:
        size: width and height, pixels.
        boxes: n boxes in the ego frame.
        labels: (n,) index into ``class_names``.
        class_names: names behind the labels.
        ground_truth: drawn as dashed outlines below the boxes.
        reach_m: metres from the ego vehicle to the nearer border.
    """
    width, height = size
    scale = min(width, height) / 2 / reach_m
    canvas = np.full((height, width, 3), _PANEL, np.uint8)
    _draw_rings(canvas, scale, reach_m)
    cv2.fillPoly(canvas, [_fixed(_bev_pixels(np.array(_EGO_OUTLINE), size, scale))], _FAINT, cv2.LINE_AA, _SHIFT)
    if ground_truth is not None:
        _draw_bev_truth(canvas, ground_truth[0], scale)
    for outline, nose, tip, speed, label in zip(*_bev_parts(boxes), labels, strict=True):
        color = class_color(class_names[label])
        pixels = _bev_pixels(np.concatenate((outline, nose, tip)), size, scale)
        _tint(canvas, pixels[:4], color)
        cv2.polylines(canvas, [_fixed(pixels[:4])], True, color, 2, cv2.LINE_AA, _SHIFT)
        cv2.polylines(canvas, [_fixed(pixels[4:6])], False, color, 2, cv2.LINE_AA, _SHIFT)
        if speed > _SHORTEST_ARROW_MPS:
            _arrow(canvas, pixels[4], pixels[6], _TEXT)
    return canvas


def _bev_parts(boxes: Boxes3D) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return per box the (4, 2) outline, (2, 2) line from centre to nose, (1, 2) tip of the velocity arrow, and speed."""
    corners = boxes.corners()[..., :2]
    outline = corners[:, (0, 1, 5, 4)]
    center = boxes.center[:, :2]
    nose = np.stack((center, corners[:, :2].mean(axis=1)), axis=1)
    return outline, nose, (center + boxes.velocity)[:, None], np.linalg.norm(boxes.velocity, axis=-1)


def _bev_pixels(points: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    return np.stack((size[0] / 2 - points[:, 1] * scale, size[1] / 2 - points[:, 0] * scale), axis=-1)


def _draw_rings(canvas: np.ndarray, scale: float, reach_m: float) -> None:
    height, width = canvas.shape[:2]
    center = np.array((width / 2, height / 2))
    for radius in range(_RING_STEP_M, int(reach_m * 1.5), _RING_STEP_M):
        cv2.circle(canvas, _fixed(center).tolist(), int(radius * scale * (1 << _SHIFT)), _GRID, 1, cv2.LINE_AA, _SHIFT)
        if radius < reach_m and radius % (2 * _RING_STEP_M) == 0:
            draw_text(canvas, f'{radius} m', center + radius * scale * np.array(_RING_LABEL_DIRECTION), 12, _FAINT)
    cv2.line(canvas, (width // 2, 0), (width // 2, height), _GRID, 1)
    cv2.line(canvas, (0, height // 2), (width, height // 2), _GRID, 1)


def _draw_bev_truth(canvas: np.ndarray, boxes: Boxes3D, scale: float) -> None:
    size = (canvas.shape[1], canvas.shape[0])
    for outline, nose, tip, speed in zip(*_bev_parts(boxes), strict=True):
        pixels = _bev_pixels(np.concatenate((outline, nose, tip)), size, scale)
        sides = np.stack((pixels[:4], np.roll(pixels[:4], -1, axis=0)), axis=1)
        _draw_dashed(canvas, np.concatenate((sides, pixels[None, 4:6])), _TRUTH_COLOR)
        if speed > _SHORTEST_ARROW_MPS:
            _arrow(canvas, pixels[4], pixels[6], _FAINT)


def _arrow(canvas: np.ndarray, start: np.ndarray, stop: np.ndarray, color) -> None:
    tip = min(0.5, 5 / max(float(np.linalg.norm(stop - start)), 1.0))
    cv2.arrowedLine(canvas, _fixed(start).tolist(), _fixed(stop).tolist(), color, 1, cv2.LINE_AA, _SHIFT, tip)


def compose(
    frame: Frame,
    detections: Detections3D,
    *,
    ground_truth: GroundTruth | None = None,
    title: str = 'BEVDepth',
    caption: str = '',
    width: int = 1920,
) -> np.ndarray:
    """Return one picture: cameras in two rows, the view from above beside them, legend and caption below.

    Boxes are drawn where each camera saw them: at its own exposure time and from its own ego pose.

    Args:
        frame: the images that were looked at; nuScenes cameras keep their usual places, others fill the grid in order.
        detections: of this frame.
        ground_truth: boxes in the detections' frame, drawn dashed.
        title: top left.
        caption: bottom right, such as the latency.
        width: of the picture, pixels; the height follows.
    """
    header, footer, gap = round(width * 0.024), round(width * 0.026), max(2, width // 480)
    names, columns = _camera_places(frame.rig.names)
    rows = -(-len(names) // columns)
    panel_width = round((width - (columns + 1) * gap) / (columns + rows * 9 / 16))
    panel_height = round(panel_width * 9 / 16)
    grid_height, grid_width = rows * panel_height + (rows - 1) * gap, columns * (panel_width + gap)
    canvas = np.full((header + grid_height + footer, width, 3), _BACKGROUND, np.uint8)
    for place, name in enumerate(names):
        if name is None:
            continue
        panel = _camera_panel(frame, frame.rig.names.index(name), detections, ground_truth, (panel_width, panel_height))
        row, column = divmod(place, columns)
        _paste(canvas, panel, column * (panel_width + gap), header + row * (panel_height + gap))
    bev_size = (width - grid_width, grid_height)
    bev = draw_bev(bev_size, detections.boxes, detections.labels, class_names=detections.class_names, ground_truth=ground_truth)
    _paste(canvas, bev, grid_width, header)
    _write_header_and_footer(canvas, header, footer, title, caption, detections, ground_truth)
    return canvas


def _camera_places(names: tuple[str, ...]) -> tuple[list[str | None], int]:
    """Return the cameras row by row, None for an empty place, and the number of columns."""
    known = [name for row in CAMERA_GRID for name in row]
    if set(names) <= set(known) and len(names) > 3:
        return [name if name in names else None for name in known], 3
    return list(names), min(len(names), 3)


def _camera_panel(
    frame: Frame, index: int, detections: Detections3D, ground_truth: GroundTruth | None, size: tuple[int, int]
) -> np.ndarray:
    image = frame.images[index]
    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    panel = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)), interpolation=cv2.INTER_AREA)
    intrinsics = np.diag((scale, scale, 1)) @ frame.rig.intrinsics[index]
    camera_from_ego = _camera_from_mean_ego(frame, index)
    delay_s = (frame.stamps_ns[index] - frame.stamp_ns) * 1e-9
    if ground_truth is not None:
        boxes, labels = ground_truth
        panel = draw_boxes_on_image(panel, _moved(boxes, delay_s), labels, intrinsics, camera_from_ego, ground_truth=True)
    panel = draw_boxes_on_image(
        panel, _moved(detections.boxes, delay_s), detections.labels, intrinsics, camera_from_ego, class_names=detections.class_names
    )
    draw_text(panel, frame.rig.names[index], (8, 6), max(12, size[0] // 32), _TEXT, shadow=True)
    return panel


def _moved(boxes: Boxes3D, seconds: float) -> Boxes3D:
    center = boxes.center.copy()
    center[:, :2] += boxes.velocity * seconds
    return Boxes3D(center, boxes.size, boxes.yaw, boxes.velocity)


def _camera_from_mean_ego(frame: Frame, index: int) -> np.ndarray:
    """Return the transform into a camera from the ego frame of the detections, which is the mean of all cameras' ego poses."""
    camera_from_ego = invert_rigid(frame.rig.ego_from_camera[index])
    if frame.world_from_ego is None:
        return camera_from_ego
    mean = frame.world_from_ego.mean(axis=0)
    left, _, right = np.linalg.svd(mean[:3, :3])
    mean[:3, :3] = left @ right
    return camera_from_ego @ invert_rigid(frame.world_from_ego[index]) @ mean


def _paste(canvas: np.ndarray, panel: np.ndarray, x: int, y: int) -> None:
    height, width = panel.shape[:2]
    canvas[y : y + height, x : x + width] = panel


def _write_header_and_footer(
    canvas: np.ndarray, header: int, footer: int, title: str, caption: str, detections: Detections3D, ground_truth: GroundTruth | None
) -> None:
    height, width = canvas.shape[:2]
    size = round(header * 0.46)
    draw_text(canvas, title, (size // 2, (header - size * 1.25) / 2), round(size * 1.1), _TEXT)
    counts = f'{len(detections)} detections' + (f'  ·  {len(ground_truth[0])} true boxes' if ground_truth is not None else '')
    draw_text(canvas, counts, (width - size // 2, (header - size * 1.1) / 2), size, _FAINT, align_right=True)
    x, y = size // 2, height - footer + (footer - size * 1.1) / 2
    for name in detections.class_names:
        cv2.rectangle(
            canvas, (round(x), round(y + 0.2 * size)), (round(x + 0.7 * size), round(y + 0.9 * size)), class_color(name), cv2.FILLED
        )
        x += size * 1.1 + draw_text(canvas, name.replace('_', ' '), (x + size, y), round(size * 0.9), _TEXT) + size * 0.9
    if ground_truth is not None:
        _draw_dashed(canvas, np.array((((x, y + 0.55 * size), (x + 2 * size, y + 0.55 * size)),)), _TRUTH_COLOR, thickness=2)
        draw_text(canvas, 'ground truth', (x + 2.4 * size, y), round(size * 0.9), _TEXT)
    draw_text(canvas, caption, (width - size // 2, y), round(size * 0.9), _FAINT, align_right=True)


def draw_text(canvas: np.ndarray, text: str, position, size: int, color=_TEXT, *, align_right: bool = False, shadow: bool = False) -> int:
    """Write one line of text into ``canvas`` itself and return its width in pixels.

    Args:
        canvas: (height, width, 3) uint8, changed.
        text: what to write; nothing is written for an empty line.
        position: x and y of the upper left corner (upper right when ``align_right``), pixels.
        size: of the font, pixels.
        color: RGB.
        align_right: end at ``position`` instead of starting there.
        shadow: darken what is behind, for text on pictures.
    """
    if not text:
        return 0
    mask = _text_mask(text, size)
    height, width = mask.shape
    x, y = round(position[0]) - (width if align_right else 0), round(position[1])
    left, top = max(x, 0), max(y, 0)
    part = canvas[top : y + height, left : x + width]
    cover = mask[top - y :, left - x :][: part.shape[0], : part.shape[1], None]
    if shadow:
        halo = cv2.GaussianBlur(cv2.dilate(mask, np.ones((3, 3))), (0, 0), 1.5)[top - y :, left - x :][
            : part.shape[0], : part.shape[1], None
        ]
        part[:] = (part * (1 - 0.75 * np.minimum(halo, 1))).astype(np.uint8)
    part[:] = (part * (1 - cover) + np.array(color) * cover).astype(np.uint8)
    return width


@lru_cache(maxsize=512)
def _text_mask(text: str, size: int) -> np.ndarray:
    """Return the (height, width) float32 coverage, 0..1, of a line of text."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    mask = Image.new('L', (round(right - left) + 3, round(size * 1.35)))
    ImageDraw.Draw(mask).text((1 - left, 0), text, fill=255, font=font)
    return np.asarray(mask, np.float32) / 255
