"""The viewer's page. It shows boxes around the vehicle in 3D, the camera images on a wall in front
of the vehicle, and controls.
"""

from __future__ import annotations

import html
import time
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
import viser

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.visualization import (
    BOX_EDGES,
    EGO_OUTLINE,
    MIN_ARROW_MPS,
    camera_places,
    class_color,
)
from bevdepth_ros.rendering.scene import SHOWN_SCORE
from bevdepth_ros.viewer.access import Access, restricted
from bevdepth_ros.viewer.colors import browser_color, line_color
from bevdepth_ros.viewer.moments import PANEL_SIZE, Moment

TRUTH_COLOR, RING_COLOR, EGO_COLOR, CABIN_COLOR = (
    (255, 255, 255),
    (96, 106, 122),
    (196, 204, 216),
    (70, 78, 92),
)
EGO_HEIGHT_M = 1.6
RINGS_M = (10, 20, 30, 40, 50)
WALL_DISTANCE_M, WALL_BOTTOM_M, WALL_GAP_M = 62.0, 2.0, 0.8
PANEL_WIDTH_M = 46.0
VIEW_FROM, VIEW_AT = (-34.0, 0.0, 30.0), (20.0, 0.0, 9.0)
_FACES = np.array(
    ((0, 1, 2, 3), (5, 4, 7, 6), (4, 5, 1, 0), (3, 2, 6, 7), (1, 5, 6, 2), (4, 0, 3, 7))
)
"""The four corners of each face of a box, as indices into ``Boxes3D.corners``. Seen from outside
the box, the corners of a face are in counter-clockwise order."""
SENDING_S = 0.3
"""Time, in seconds, that ``Page.close`` waits while the thread of the server sends the last
content."""
_ENDED = (
    '<div style="padding:0.8em 1em">The live view has ended, because the viewer was stopped. '
    'Start the launch again. With loop:=true, the launch repeats a bag until you end the launch.'
    '</div>'
)
_TRIANGLES = np.concatenate((_FACES[:, (0, 1, 2)], _FACES[:, (0, 2, 3)]))
_FACING_BACK = (0.5, -0.5, 0.5, -0.5)
"""Orientation (w, x, y, z) of an upright image that faces the vehicle from the front."""


class Page:
    """One page for all browsers; only one thread may call ``show``."""

    def __init__(
        self, host: str, port: int, history_s: float, image_topics: Sequence[str] = ()
    ) -> None:
        """Start the server.

        Args:
            host: address to listen on; if it is not a loopback address, a token is required.
            port: first port to try; 0: any free port.
            history_s: length of the timeline, seconds.
            image_topics: topics that the page lists until the first image arrives.
        """
        self._access = Access(host)
        with restricted(self._access):
            self._server = viser.ViserServer(host, port, label='BEVDepth', verbose=False)
        self._server.gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, control_width='medium'
        )
        self._server.initial_camera.position, self._server.initial_camera.look_at = (
            VIEW_FROM,
            VIEW_AT,
        )
        self._drawn: tuple | None = None
        self._panels: dict[str, viser.ImageHandle] = {}
        self._track_ids: list[viser.LabelHandle] = []
        self._add_surroundings()
        self._add_controls(history_s, _waiting(image_topics))

    @property
    def port(self) -> int:
        """The port of the server."""
        return self._server.get_port()

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token if one is required."""
        return self._access.url(self.port)

    @property
    def has_viewers(self) -> bool:
        """True if a browser is connected."""
        return bool(self._server.get_clients())

    @property
    def is_paused(self) -> bool:
        """True if the user has paused the page."""
        return self._hold.value

    @property
    def seconds_back(self) -> float:
        """Time that the user has selected on the timeline, as seconds before the newest moment."""
        return -self._back.value

    def close(self) -> None:
        """Show that the live view has ended, and stop the server. Browsers continue to show the
        last content.
        """
        if self.has_viewers:
            self._readout.content = _ENDED
            self._server.flush()
            time.sleep(SENDING_S)
        self._server.stop()

    def show(self, moment: Moment) -> None:
        """Show a moment. If the page already shows this moment with the current values of the
        controls, do nothing.
        """
        wanted = (
            moment,
            self._score.value,
            self._with_truth.value,
            self._with_velocities.value,
            self._with_images.value,
        )
        if self._drawn is not None and all(
            new is old for new, old in zip(wanted, self._drawn, strict=True)
        ):
            return
        self._drawn = wanted
        found = None if moment.detections is None else moment.detections.above(self._score.value)
        with self._server.atomic():
            self._show_detections(found)
            self._show_truth(moment if self._with_truth.value else None)
            self._show_panels(moment)
            self._readout.content = _readout(moment, found)

    def _add_surroundings(self) -> None:
        scene = self._server.scene
        scene.set_up_direction('+z')
        scene.add_grid(
            '/grid',
            120,
            120,
            cell_size=10,
            section_size=10,
            cell_color=(52, 58, 68),
            section_color=(52, 58, 68),
        )
        scene.add_line_segments(
            '/rings', _rings(), browser_color(RING_COLOR), thickness=1.5, thickness_units='screen'
        )
        for radius in RINGS_M[1::2]:
            scene.add_label(
                f'/rings/{radius}',
                f'{radius} m',
                position=(0.71 * radius, -0.71 * radius, 0),
                font_screen_scale=0.7,
            )
        self._add_ego()
        # The lines start with one color per point, because the page ignores a later change from
        # one color for all points to one color per point.
        nothing, white = np.zeros((1, 2, 3), np.float32), np.full((1, 2, 3), 255, np.uint8)
        self._edges, self._truth = (
            scene.add_line_segments(
                name, nothing, white, thickness=width, thickness_units='screen', visible=False
            )
            for name, width in (('/detections/edges', 2.5), ('/ground_truth', 1.5))
        )
        self._arrows = scene.add_arrows(
            '/detections/velocities',
            nothing,
            white[:, 0],
            shaft_radius=0.07,
            head_radius=0.25,
            head_length=0.6,
            visible=False,
        )

    def _add_ego(self) -> None:
        """Add a body and a cabin at the position of the vehicle."""
        front, rear, half = EGO_OUTLINE[0][0], EGO_OUTLINE[2][0], EGO_OUTLINE[0][1]
        length, middle, height = front - rear, (front + rear) / 2, EGO_HEIGHT_M
        body, cabin = (length, 2 * half, 0.5 * height), (0.5 * length, 1.7 * half, 0.4 * height)
        self._server.scene.add_box(
            '/ego/body', EGO_COLOR, body, position=(middle, 0, 0.35 * height)
        )
        self._server.scene.add_box(
            '/ego/cabin', CABIN_COLOR, cabin, position=(middle - 0.2, 0, 0.8 * height)
        )

    def _add_controls(self, history_s: float, readout: str) -> None:
        gui = self._server.gui
        self._readout = gui.add_html(readout)
        with gui.add_folder('Timeline'):
            self._back = gui.add_slider(
                'seconds back', -float(history_s), 0.0, 0.1, 0.0, hint='0 is live'
            )
            self._hold = gui.add_checkbox('hold', False, hint='Pause the page')
        with gui.add_folder('Show'):
            self._score = gui.add_slider(
                'score from',
                0.0,
                1.0,
                0.01,
                SHOWN_SCORE,
                hint='Lowest score of the boxes in 3D; camera images show boxes with a score of '
                f'at least {SHOWN_SCORE}',
            )
            self._with_truth = gui.add_checkbox('ground truth', True)
            self._with_velocities = gui.add_checkbox('velocities', True)
            self._with_images = gui.add_checkbox('cameras', True)

    def _show_detections(self, found: Detections3D | None) -> None:
        names = [] if found is None else [found.class_names[label] for label in found.labels]
        colors = np.array([line_color(class_color(name)) for name in names], np.uint8).reshape(
            -1, 3
        )
        self._edges.visible = self._arrows.visible = False
        for name in set(NUSCENES_CLASSES) | set(names):
            chosen = np.array([each == name for each in names], bool)
            self._show_faces(name, found.boxes[chosen] if found is not None else None)
        self._show_track_ids(found)
        if found is None or not names:
            return
        corners = found.boxes.corners()
        lines = np.concatenate((corners[:, BOX_EDGES], _noses(corners)), axis=1)
        self._edges.points = lines.reshape(-1, 2, 3)
        self._edges.colors = np.repeat(colors, 2 * lines.shape[1], axis=0).reshape(-1, 2, 3)
        self._edges.visible = True
        speeds = np.linalg.norm(found.boxes.velocity, axis=1)
        moving = speeds > MIN_ARROW_MPS
        if moving.any() and self._with_velocities.value:
            self._arrows.points = _arrows(found.boxes[moving])
            self._arrows.colors = colors[moving]
            self._arrows.visible = True

    def _show_track_ids(self, found: Detections3D | None) -> None:
        """Write the track id above every tracked box."""
        for label in self._track_ids:
            label.remove()
        self._track_ids.clear()
        if found is None or found.track_ids is None:
            return
        for row in np.nonzero(found.track_ids)[0].tolist():
            x, y, z = found.boxes.center[row].tolist()
            self._track_ids.append(
                self._server.scene.add_label(
                    f'/detections/track_ids/{row}',
                    f'#{found.track_ids[row]}',
                    position=(x, y, z + float(found.boxes.size[row, 2]) / 2 + 0.3),
                    font_screen_scale=0.6,
                )
            )

    def _show_faces(self, name: str, boxes: Boxes3D | None) -> None:
        path = f'/detections/faces/{name}'
        if boxes is None or not len(boxes):
            self._server.scene.remove_by_name(path)
            return
        corners = boxes.corners()
        triangles = (_TRIANGLES[None] + 8 * np.arange(len(corners))[:, None, None]).reshape(-1, 3)
        self._server.scene.add_mesh_simple(
            path,
            corners.reshape(-1, 3),
            triangles,
            color=browser_color(class_color(name)),
            opacity=0.18,
            side='double',
            flat_shading=True,
            cast_shadow=False,
            receive_shadow=False,
        )

    def _show_truth(self, moment: Moment | None) -> None:
        boxes = None if moment is None or moment.ground_truth is None else moment.ground_truth[0]
        self._truth.visible = False
        if boxes is not None and len(boxes):
            self._truth.visible = True
            self._truth.points = boxes.corners()[:, BOX_EDGES].reshape(-1, 2, 3)
            self._truth.colors = np.full((len(self._truth.points), 2, 3), TRUTH_COLOR, np.uint8)

    def _show_panels(self, moment: Moment) -> None:
        """Show the camera images on the wall. Hide the panels of cameras that have no image in
        this moment.
        """
        for name in set(self._panels) - set(moment.panels):
            self._panels[name].visible = False
        for name, jpeg in moment.panels.items():
            if name not in self._panels:
                self._panels[name] = self._add_panel(name)
                self._arrange()
            self._panels[name].visible = self._with_images.value
            if self._with_images.value:
                self._panels[name].image = cv2.imdecode(
                    np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR
                )[..., ::-1]

    def _add_panel(self, name: str) -> viser.ImageHandle:
        height = PANEL_WIDTH_M * PANEL_SIZE[1] / PANEL_SIZE[0]
        black = np.zeros((PANEL_SIZE[1], PANEL_SIZE[0], 3), np.uint8)
        return self._server.scene.add_image(
            f'/cameras/{name}',
            black,
            PANEL_WIDTH_M,
            height,
            format='jpeg',
            jpeg_quality=85,
            cast_shadow=False,
            receive_shadow=False,
            wxyz=_FACING_BACK,
        )

    def _arrange(self) -> None:
        names, columns = camera_places(tuple(self._panels))
        height = PANEL_WIDTH_M * PANEL_SIZE[1] / PANEL_SIZE[0]
        rows = -(-len(names) // columns)
        for place, name in enumerate(names):
            if name is not None:
                row, column = divmod(place, columns)
                y = ((columns - 1) / 2 - column) * (PANEL_WIDTH_M + WALL_GAP_M)
                z = WALL_BOTTOM_M + height / 2 + (rows - 1 - row) * (height + WALL_GAP_M)
                self._panels[name].position = (WALL_DISTANCE_M, y, z)


def _arrows(boxes: Boxes3D) -> np.ndarray:
    """Return (n, 2, 3) start and end of velocity arrows: the center of each box, and its
    predicted center one second later.
    """
    tips = boxes.center.copy()
    tips[:, :2] += boxes.velocity
    return np.stack((boxes.center, tips), axis=1)


def _noses(corners: np.ndarray) -> np.ndarray:
    """Return one (2, 3) line per box as (n, 1, 2, 3). The line goes from the center of the top
    face to the middle of its front edge, and shows the heading.
    """
    front, rear = corners[:, :2].mean(axis=1), corners[:, 4:6].mean(axis=1)
    return np.stack(((front + rear) / 2, front), axis=1)[:, None]


def _rings() -> np.ndarray:
    """Return (n, 2, 3) segments of circles on the ground."""
    angles = np.linspace(0, 2 * np.pi, 97)
    circle = np.stack((np.cos(angles), np.sin(angles), np.full_like(angles, 0.01)), axis=-1)
    circles = [circle * (radius, radius, 1) for radius in RINGS_M]
    return np.concatenate(
        [np.stack((points[:-1], points[1:]), axis=1) for points in circles]
    ).astype(np.float32)


def _waiting(image_topics: Sequence[str]) -> str:
    topics = '<br/>'.join(html.escape(topic) for topic in image_topics)
    return (
        '<div style="padding:0.8em 1em">Waiting for images with CameraInfo and tf:<br/>'
        f'{topics}</div>'
    )


def _readout(moment: Moment, found: Detections3D | None) -> str:
    """Return time, latency, rate and legend as HTML. Class names are escaped, because they come
    from messages.
    """
    seconds, nanoseconds = divmod(moment.stamp_ns, 10**9)
    clock = time.strftime('%H:%M:%S', time.gmtime(seconds)) + f'.{nanoseconds // 10**8}'
    truth = '' if moment.ground_truth is None else f' · {len(moment.ground_truth[0])} annotated'
    counts = (
        'no detections: is the detector active?' if found is None else f'{len(found)} boxes{truth}'
    )
    numbers = (
        Counter() if found is None else Counter(found.class_names[label] for label in found.labels)
    )
    rows = ''.join(
        _legend_row(name, numbers[name])
        for name in (NUSCENES_CLASSES if found is None else found.class_names)
    )
    return (
        '<div style="padding:0.6em 1em"><div '
        f'style="font-size:1.7em;font-variant-numeric:tabular-nums">{clock}</div>'
        f'<div style="opacity:0.75;margin-bottom:0.6em">{html.escape(moment.figures)}<br/>{counts}'
        f'</div>{rows}</div>'
    )


def _legend_row(name: str, count: int) -> str:
    red, green, blue = class_color(name)
    square = (
        '<span style="display:inline-block;width:0.8em;height:0.8em;margin-right:0.6em;'
        f'background:rgb({red},{green},{blue})"></span>'
    )
    shade = '' if count else ';opacity:0.45'
    title = html.escape(name.replace('_', ' '))
    return (
        f'<div style="font-size:0.9em{shade}">{square}{title}<span '
        f'style="float:right">{count or ""}</span></div>'
    )
