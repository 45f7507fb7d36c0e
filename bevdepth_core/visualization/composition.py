"""Renders a frame as one image: camera images, bird's-eye view, legend and caption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D, Frame
from bevdepth_core.visualization.bev import draw_bev
from bevdepth_core.visualization.cameras import camera_from_mean_ego, draw_boxes_on_image, moved
from bevdepth_core.visualization.colors import (
    BACKGROUND,
    FAINT,
    TEXT,
    TRUTH,
    class_color,
    depth_colors,
)
from bevdepth_core.visualization.depth import DepthMaps, draw_depth_on_image
from bevdepth_core.visualization.drawing import draw_dashed, draw_text, paste

CAMERA_GRID = (
    ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'),
    ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'),
)
"""Places of the nuScenes cameras in ``compose``; ``camera_places`` decides whether these places
are used."""

GroundTruth = tuple[Boxes3D, np.ndarray]
"""Boxes in the ego frame and their labels (n,)."""

_NO_BOXES = Boxes3D(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2)))


def compose(
    frame: Frame,
    detections: Detections3D | None,
    *,
    ground_truth: GroundTruth | None = None,
    depth: DepthMaps | None = None,
    title: str = 'BEVDepth',
    caption: str = '',
    width: int = 1920,
) -> np.ndarray:
    """Return one image: camera images in rows of at most three, the bird's-eye view beside them,
    and the legend and the caption below.

    Each camera image shows the boxes at the positions that they have at the exposure time of this
    image. The height of the result is even, because video encoders require this.

    Args:
        frame: frame with the camera images. If it has more than three cameras, and all cameras
            have names of nuScenes, each camera is drawn at its place in ``CAMERA_GRID``. Otherwise
            the cameras fill the grid in the order of the rig.
        detections: detections of this frame; None: no detections are drawn.
        ground_truth: annotated boxes in the frame of the detections, drawn with dashed lines.
        depth: depth maps, drawn over the camera images.
        title: text at the top left.
        caption: text at the bottom right, such as the latency.
        width: width of the result, pixels, even. The height follows from the width.
    """
    names, columns = camera_places(frame.rig.names)
    layout = _Layout.for_width(width, len(names), columns)
    canvas = np.full((layout.height, width, 3), BACKGROUND, np.uint8)
    for place, name in enumerate(names):
        if name is not None:
            index = frame.rig.names.index(name)
            panel = camera_panel(frame, index, detections, ground_truth, depth, layout.panel_size)
            paste(canvas, panel, *layout.panel_corner(place, panel))
    bev_size = (width - layout.grid_width, layout.grid_height)
    bev = _bev_panel(bev_size, detections, ground_truth)
    paste(canvas, bev, layout.grid_width, layout.header)
    _write_header(canvas, layout.header, title, detections, ground_truth)
    _write_footer(canvas, layout.footer, caption, detections, ground_truth, depth)
    return canvas


@dataclass(frozen=True)
class _Layout:
    """Layout of the composed image, pixels. From top to bottom, the image contains the header, the
    camera grid with the bird's-eye view beside it, and the footer.

    Attributes:
        header: height of the header.
        footer: height of the footer.
        gap: space between two camera panels.
        columns: number of columns of the camera grid.
        rows: number of rows of the camera grid.
        panel_size: largest width and height of a camera panel.
    """

    header: int
    footer: int
    gap: int
    columns: int
    rows: int
    panel_size: tuple[int, int]

    @classmethod
    def for_width(cls, width: int, places: int, columns: int) -> _Layout:
        """Return the layout of an image of ``width`` pixels with ``places`` camera places.

        The bird's-eye view beside the grid is a square with the height of the grid. The width of a
        panel therefore follows from the width of the image.
        """
        header, footer, gap = round(width * 0.024), round(width * 0.026), max(2, width // 480)
        rows = -(-places // columns)
        panel_width = round((width - (columns + 1) * gap) / (columns + rows * 9 / 16))
        layout = cls(
            header, footer, gap, columns, rows, (panel_width, round(panel_width * 9 / 16))
        )
        return replace(layout, footer=footer + layout.height % 2)  # video encoders need even sizes

    @property
    def grid_width(self) -> int:
        """Width of the camera grid, with a gap to the right of each column."""
        return self.columns * (self.panel_size[0] + self.gap)

    @property
    def grid_height(self) -> int:
        """Height of the camera grid."""
        return self.rows * self.panel_size[1] + (self.rows - 1) * self.gap

    @property
    def height(self) -> int:
        """Height of the whole image."""
        return self.header + self.grid_height + self.footer

    def panel_corner(self, place: int, panel: np.ndarray) -> tuple[int, int]:
        """Return x and y of the upper left corner of ``panel``, which is centered in grid cell
        ``place``.
        """
        row, column = divmod(place, self.columns)
        width, height = self.panel_size
        x = column * (width + self.gap) + (width - panel.shape[1]) // 2
        y = self.header + row * (height + self.gap) + (height - panel.shape[0]) // 2
        return x, y


def camera_places(names: tuple[str, ...]) -> tuple[list[str | None], int]:
    """Return the list of camera names, row by row and with None for an empty place, and the number
    of columns.
    """
    arranged = [name for row in CAMERA_GRID for name in row]
    if set(names) <= set(arranged) and len(names) > 3:
        return [name if name in names else None for name in arranged], 3
    return list(names), min(len(names), 3)


def camera_panel(
    frame: Frame,
    index: int,
    detections: Detections3D | None,
    ground_truth: GroundTruth | None,
    depth: DepthMaps | None,
    size: tuple[int, int],
) -> np.ndarray:
    """Return the image of one camera with its name and boxes, scaled to fit into ``size`` (width,
    height).
    """
    image = frame.images[index]
    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    panel = cv2.resize(
        image,
        (round(image.shape[1] * scale), round(image.shape[0] * scale)),
        interpolation=cv2.INTER_AREA,
    )
    if depth is not None:
        height, width = image.shape[:2]
        panel = draw_depth_on_image(panel, depth, index, (width, height))
    intrinsics = np.diag((scale, scale, 1)) @ frame.rig.intrinsics[index]
    camera_from_ego = camera_from_mean_ego(frame, index)
    delay_s = (frame.stamps_ns[index] - frame.stamp_ns) * 1e-9
    if ground_truth is not None:
        boxes, labels = ground_truth
        panel = draw_boxes_on_image(
            panel, moved(boxes, delay_s), labels, intrinsics, camera_from_ego, ground_truth=True
        )
    if detections is not None:
        boxes, names = moved(detections.boxes, delay_s), detections.class_names
        panel = draw_boxes_on_image(
            panel,
            boxes,
            detections.labels,
            intrinsics,
            camera_from_ego,
            class_names=names,
            track_ids=detections.track_ids,
        )
    draw_text(panel, frame.rig.names[index], (8, 6), max(12, size[0] // 32), TEXT, shadow=True)
    return panel


def _bev_panel(
    size: tuple[int, int], detections: Detections3D | None, ground_truth: GroundTruth | None
) -> np.ndarray:
    if detections is None:
        return draw_bev(size, _NO_BOXES, np.zeros(0, int), ground_truth=ground_truth)
    return draw_bev(
        size,
        detections.boxes,
        detections.labels,
        class_names=detections.class_names,
        ground_truth=ground_truth,
        track_ids=detections.track_ids,
    )


def _write_header(
    canvas: np.ndarray,
    header: int,
    title: str,
    detections: Detections3D | None,
    ground_truth: GroundTruth | None,
) -> None:
    size = round(header * 0.46)
    draw_text(canvas, title, (size // 2, (header - size * 1.25) / 2), round(size * 1.1), TEXT)
    counts = [f'{len(detections)} detections'] if detections is not None else []
    counts += [f'{len(ground_truth[0])} annotated boxes'] if ground_truth is not None else []
    draw_text(
        canvas,
        '  ·  '.join(counts),
        (canvas.shape[1] - size // 2, (header - size * 1.1) / 2),
        size,
        FAINT,
        align_right=True,
    )


def _write_footer(
    canvas: np.ndarray,
    footer: int,
    caption: str,
    detections: Detections3D | None,
    ground_truth: GroundTruth | None,
    depth: DepthMaps | None,
) -> None:
    height, width = canvas.shape[:2]
    size = round(width * 0.011)
    x, y = float(size // 2), height - footer + (footer - size * 1.1) / 2
    for name in NUSCENES_CLASSES if detections is None else detections.class_names:
        corners = (round(x), round(y + 0.2 * size)), (round(x + 0.7 * size), round(y + 0.9 * size))
        cv2.rectangle(canvas, *corners, class_color(name), cv2.FILLED)
        x += (
            size * 1.1
            + draw_text(canvas, name.replace('_', ' '), (x + size, y), round(size * 0.9), TEXT)
            + size * 0.9
        )
    if ground_truth is not None:
        draw_dashed(
            canvas,
            np.array((((x, y + 0.55 * size), (x + 2 * size, y + 0.55 * size)),)),
            TRUTH,
            thickness=2,
        )
        x += size * 3.6 + draw_text(
            canvas, 'ground truth', (x + 2.4 * size, y), round(size * 0.9), TEXT
        )
    if depth is not None:
        _draw_depth_legend(canvas, depth, (x, y), size)
    draw_text(canvas, caption, (width - size // 2, y), round(size * 0.9), FAINT, align_right=True)


def _draw_depth_legend(
    canvas: np.ndarray, depth: DepthMaps, position: tuple[float, float], size: int
) -> None:
    """Draw the color scale of the depth."""
    x, y = position
    nearest, farthest = depth.bins.start, depth.bins.stop
    x += draw_text(canvas, f'{nearest:g} m', position, round(size * 0.9), TEXT) + 0.4 * size
    bar = depth_colors(np.geomspace(nearest, farthest, 6 * size), nearest, farthest)
    paste(canvas, np.repeat(bar[None], round(0.7 * size), axis=0), round(x), round(y + 0.2 * size))
    draw_text(canvas, f'{farthest:g} m', (x + 6.4 * size, y), round(size * 0.9), TEXT)
