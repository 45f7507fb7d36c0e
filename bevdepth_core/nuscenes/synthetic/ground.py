"""The ground: grass, pavement, asphalt with its markings, shadows, grain, all in the plane z = 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from bevdepth_core.nuscenes.synthetic.road import CROSS_CURB, CROSS_SIDEWALK_END, CROSSING_STOP, LANE_WIDTH, Road
from bevdepth_core.nuscenes.synthetic.scene import Light, Scene
from bevdepth_core.nuscenes.synthetic.sky import smooth_noise
from bevdepth_core.nuscenes.synthetic.view import NEAR, View, fill, fixed_point, plain_image

_GRASS, _VERGE_GREEN, _PAVING, _CURB, _JOINT = (104, 116, 74), (126, 128, 102), (178, 174, 166), (202, 200, 194), (156, 152, 146)
_PARKING, _ASPHALT, _TRACK, _PATCH, _TAR = (124, 123, 121), (112, 113, 116), (103, 104, 107), (97, 98, 101), (66, 66, 68)
_PAINT_WHITE, _CONTACT = (232, 232, 228), (40, 40, 43)
_VERGE = 3.0
_DASH, _DASH_PERIOD = 3.0, 9.0
_STRIPE_WIDTH = 0.14
_PAVING_JOINT, _PAVING_SIGHT = 3.0, 45.0
_SIGHT, _CELL, _CROSS_REACH = 130.0, 10.0, 150.0
_HORIZON_DISTANCE = 500.0
_TEXTURE_SIZE = 512
_GRAIN_PER_M, _STAINS_PER_M = 60, 7
_GRAIN_FADE, _STAINS_FADE = 7.0, 60.0
_SMOOTH_WIDTH = 400
"""Pixels across for shadows, stains and haze, which images interpolate; grain has twice as many."""


@dataclass(frozen=True, eq=False)
class Flat:
    """Outlines on the ground.

    Attributes:
        points: (p, 3) world, one outline after the other.
        ends: (n + 1,) where outlines begin and end.
    """

    points: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, outlines: list[np.ndarray]) -> Flat:
        """Return the (k, 2) world outlines together."""
        flat = np.concatenate([np.zeros((0, 2)), *outlines])
        return cls(np.column_stack((flat, np.zeros(len(flat)))), np.cumsum([0, *(len(outline) for outline in outlines)]))


def paint_ground(image: np.ndarray, view: View, scene: Scene, shadows: list[np.ndarray], contacts: list[np.ndarray]) -> None:
    """Paint everything below the horizon of ``image``.

    Args:
        image: (height, width, 3) uint8 that shows the sky.
        view: the camera.
        scene: for the road and the light.
        shadows: outlines on the ground, each (n, 2) world.
        contacts: outlines of what stands so low that no light gets below it.
    """
    first, whole = _rows_with_ground(view)
    if first == view.height:
        return
    lower = view.part(first)
    canvas = plain_image(lower, _lit(_GRASS, scene.light))
    nearest = scene.road.along[np.argmin(((scene.road.center - view.position[:2]) ** 2).sum(axis=1))]
    flat, colours = _flat_layers(scene, round(nearest / _CELL) * _CELL)
    _fill_flat(canvas, lower, flat, colours)
    _fill_flat(canvas, lower, Flat.of(contacts), [_lit(_CONTACT, scene.light)] * len(contacts))
    smooth = lower.resized(_SMOOTH_WIDTH)
    ground = _ground_under_pixels(smooth)
    gain, haze = _gain(smooth, *ground, scene.light, shadows), _haze(ground[0], scene.light)
    gain, haze = (cv2.resize(layer, canvas.shape[1::-1]) for layer in (gain, haze))
    cv2.add(cv2.multiply(canvas, gain, dst=canvas, scale=1 / 128), haze, dst=canvas)
    if whole > first:
        cv2.copyTo(canvas[: whole - first], _below_horizon(view, first, whole), image[first:whole])
    image[whole:] = canvas[whole - first :]


def _lit(colour, light: Light) -> tuple[float, ...]:
    gain = np.array(light.ambient) + np.array(light.sun) * light.to_sun[2]
    return tuple(float(value) for value in np.minimum(np.array(colour) * gain, 250))


def _rows_with_ground(view: View) -> tuple[int, int]:
    """Return the first row that sees ground somewhere, and the first one, even, that does everywhere; the height for none."""
    rise = view.rise(np.array((0, view.width - 1)), np.arange(view.height))
    first, whole = (np.append(np.flatnonzero(seen), view.height)[0] for seen in ((rise < 0).any(axis=1), (rise < 0).all(axis=1)))
    return int(first), int(whole)


def _below_horizon(view: View, first: int, stop: int) -> np.ndarray:
    """Return (rows, width) uint8, 1 where the ground is."""
    return (view.rise(np.arange(view.width), np.arange(first, stop)) < 0).astype(np.uint8)


def _ground_under_pixels(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance over ground and world x and y relative to the camera; each (height, width) float32."""
    rays = view.world_rays(np.arange(view.width), np.arange(view.height))
    depth = np.float32(view.position[2]) / np.maximum(-rays[..., 2], np.float32(view.position[2] / _HORIZON_DISTANCE))
    x, y = rays[..., 0] * depth, rays[..., 1] * depth
    return cv2.magnitude(x, y), x, y


def _gain(view: View, distance: np.ndarray, x: np.ndarray, y: np.ndarray, light: Light, shadows: list[np.ndarray]) -> np.ndarray:
    """Return what the colours of the ground are multiplied with, in 128ths: uint8, three channels, twice the view's size."""
    mask = np.zeros((view.height, view.width), np.uint8)
    _fill_flat(mask, view, Flat.of(shadows), [(255.0,)] * len(shadows))
    shade = cv2.multiply(_shade(mask, light), cv2.merge([_clear(distance, light)] * 3), scale=1, dtype=cv2.CV_8U)
    size = (2 * view.width, 2 * view.height)
    return cv2.multiply(cv2.resize(shade, size), cv2.merge([_grain(distance, x, y, size)] * 3), scale=1 / 255)


def _clear(distance: np.ndarray, light: Light) -> np.ndarray:
    """Return how much of the contrast is left."""
    return cv2.exp(distance * np.float32(-1 / light.haze_distance))


def _haze(distance: np.ndarray, light: Light) -> np.ndarray:
    """Return the light that haze adds, (height, width, 3) uint8."""
    hazy = 1 - _clear(distance, light)
    return cv2.merge([cv2.convertScaleAbs(hazy, alpha=part) for part in light.horizon])


@lru_cache(maxsize=16)
def _flat_layers(scene: Scene, nearest: float) -> tuple[Flat, list[tuple[float, ...]]]:
    """Return outlines, bottom first, and their lit colours, around a place on the road."""
    road = scene.road
    along = np.arange(max(nearest - _SIGHT, road.along[0]), min(nearest + _SIGHT, road.along[-1]), 2.0)
    walk, curb, drive = road.sidewalk_end, road.curb, road.driving_half_width
    joints = np.arange(np.ceil(along[0] / _PAVING_JOINT) * _PAVING_JOINT, along[-1], _PAVING_JOINT)
    joints = joints[np.abs(joints - nearest) < _PAVING_SIGHT]
    lanes = [lane * LANE_WIDTH + offset for lane in range(-road.lanes, road.lanes) for offset in (0.85, 2.55)]
    layers = [
        ([_strip(road, along, -walk - _VERGE, walk + _VERGE)], _VERGE_GREEN),
        ([_strip(road, along, -walk, walk), *_crossing(road, CROSS_SIDEWALK_END)], _PAVING),
        ([_rectangle(road, a, a + 0.03, *side) for a in joints for side in ((curb, walk), (-walk, -curb))], _JOINT),
        ([_strip(road, along, -curb - 0.18, curb + 0.18), *_crossing(road, CROSS_CURB + 0.18)], _CURB),
        ([_strip(road, along, -curb, curb)], _PARKING),
        ([_strip(road, along, -drive, drive), *_crossing(road, CROSS_CURB)], _ASPHALT),
        ([_strip(road, along, lateral - 0.3, lateral + 0.3) for lateral in lanes], _TRACK),
        (_patches(scene, along), _PATCH),
        (_cracks(scene, along), _TAR),
        (_markings(scene, along), _PAINT_WHITE),
    ]
    colours = [_lit(colour, scene.light) for outlines, colour in layers for _ in outlines]
    return Flat.of([outline for outlines, _ in layers for outline in outlines]), colours


def _crossing(road: Road, half_width: float) -> list[np.ndarray]:
    """Return the crossing street, ``half_width`` metres to both sides."""
    if road.crossing is None:
        return []
    return [_rectangle(road, road.crossing - half_width, road.crossing + half_width, -_CROSS_REACH, _CROSS_REACH)]


def _patches(scene: Scene, along: np.ndarray) -> list[np.ndarray]:
    """Return mended pieces of road."""
    rng = np.random.default_rng(scene.seed)
    road, reach = scene.road, scene.road.curb - 2
    places = zip(np.arange(road.along[0], road.along[-1], 21.0), rng.uniform((-reach, 1.5, 0.8), (reach, 5.0, 1.6), (100, 3)), strict=False)
    return [
        _rectangle(road, a, a + length, middle - width, middle + width) for a, (middle, length, width) in places if along[0] < a < along[-1]
    ]


def _cracks(scene: Scene, along: np.ndarray) -> list[np.ndarray]:
    """Return tarred cracks, winding along the road."""
    rng = np.random.default_rng(scene.seed + 1)
    road, outlines = scene.road, []
    for start in np.arange(road.along[0], road.along[-1] - 12, 17.0):
        lateral = rng.uniform(-road.curb, road.curb) + np.cumsum(rng.normal(0, 0.18, 9))
        if along[0] < start < along[-1]:
            steps = start + np.linspace(0, 10, 9)
            outlines.append(np.concatenate((road.pose(steps, lateral)[0], road.pose(steps[::-1], lateral[::-1] + 0.05)[0])))
    return outlines


def _markings(scene: Scene, along: np.ndarray) -> list[np.ndarray]:
    """Return everything painted white, crosswalks included."""
    road, outlines = scene.road, []
    for piece in _pieces(road, along):
        outlines += _lines_along(road, piece)
    for crosswalk in scene.crosswalks:
        if along[0] < crosswalk < along[-1]:
            outlines += _crosswalk(road, crosswalk)
    if road.crossing is not None and along[0] < road.crossing < along[-1]:
        outlines += _crossing_lines(road)
    return outlines


def _pieces(road: Road, along: np.ndarray) -> list[np.ndarray]:
    """Return ``along`` without the crossing."""
    if road.crossing is None:
        return [along]
    pieces = (along[along < road.crossing - CROSSING_STOP], along[along > road.crossing + CROSSING_STOP])
    return [piece for piece in pieces if len(piece) > 1]


def _lines_along(road: Road, along: np.ndarray) -> list[np.ndarray]:
    half, drive = _STRIPE_WIDTH / 2, road.driving_half_width
    edges = (drive, drive + road.bike_lane) if road.bike_lane else (drive,)
    outlines = [_strip(road, along, side * edge - half, side * edge + half) for side in (-1, 1) for edge in edges]
    outlines += [_strip(road, along, offset - half, offset + half) for offset in (-0.14, 0.14)]
    dashes = np.arange(np.ceil(along[0] / _DASH_PERIOD) * _DASH_PERIOD, along[-1] - _DASH, _DASH_PERIOD)
    dividers = [side * lane * LANE_WIDTH for lane in range(1, road.lanes) for side in (-1, 1)]
    return outlines + [_rectangle(road, a, a + _DASH, lateral - half, lateral + half) for a in dashes for lateral in dividers]


def _crosswalk(road: Road, middle: float) -> list[np.ndarray]:
    """Return zebra stripes, and where vehicles stop unless they do so for the crossing."""
    curb, drive = road.curb, road.driving_half_width
    outlines = [_rectangle(road, middle - 1.8, middle + 1.8, a, a + 0.5) for a in np.arange(0.45 - curb, curb - 0.6, 1.0)]
    before, beyond = (
        _rectangle(road, middle + a, middle + a + 0.4, *side) for a, side in ((-3.0, (-drive + 0.2, -0.4)), (2.6, (0.4, drive - 0.2)))
    )
    if not road.near_crossing(middle, CROSSING_STOP):
        return [*outlines, before, beyond]
    return [*outlines, before if middle < road.crossing else beyond]


def _crossing_lines(road: Road) -> list[np.ndarray]:
    """Return the crossing street's centre line, zebra stripes and stop lines."""
    outlines, half, curb = [], _STRIPE_WIDTH / 2, road.curb
    for side in (-1, 1):
        ends = sorted((side * (curb + 5.5), side * _CROSS_REACH))
        outlines.append(_rectangle(road, road.crossing - half, road.crossing + half, *ends))
        walk, stop = sorted((side * (curb + 0.6), side * (curb + 3.2))), sorted((side * (curb + 4.4), side * (curb + 4.8)))
        for a in np.arange(0.3 - CROSS_CURB, CROSS_CURB - 0.6, 1.0):
            outlines.append(_rectangle(road, road.crossing + a, road.crossing + a + 0.5, *walk))
        incoming = sorted((road.crossing - side * 0.3, road.crossing - side * (CROSS_CURB - 0.3)))
        outlines.append(_rectangle(road, *incoming, *stop))
    return outlines


def _strip(road: Road, along: np.ndarray, right: float, left: float) -> np.ndarray:
    return np.concatenate((road.pose(along, right)[0], road.pose(along[::-1], left)[0]))


def _rectangle(road: Road, start: float, stop: float, right: float, left: float) -> np.ndarray:
    return road.pose((start, stop, stop, start), (right, right, left, left))[0]


def _fill_flat(canvas: np.ndarray, view: View, flat: Flat, colours: list[tuple[float, ...]]) -> None:
    """Fill outlines on the ground, one after the other."""
    if not colours:
        return
    points = view.to_camera(flat.points)
    across, depth = points @ view.intrinsics[0], points[:, 2]
    outside = np.stack((depth < NEAR, across < 0, across > view.width * depth), axis=-1)
    unseen = np.logical_and.reduceat(outside, flat.ends[:-1]).any(axis=1)
    cut = np.logical_or.reduceat(outside[:, 0], flat.ends[:-1])
    pixels = fixed_point(view.project(np.maximum(points, (-np.inf, -np.inf, NEAR))))
    for number in np.flatnonzero(~unseen).tolist():
        part = slice(flat.ends[number], flat.ends[number + 1])
        outline = view.outline_pixels(points[part]) if cut[number] else pixels[part]
        fill(canvas, [outline], colours[number])


@lru_cache(maxsize=4)
def _texture(seed: int, octaves: tuple[int, ...], contrast: float) -> np.ndarray:
    """Return a uint8 texture around 128 that tiles: its last row and column are the first ones."""
    texture = np.clip(128 + contrast * smooth_noise(seed, _TEXTURE_SIZE, octaves), 0, 255).astype(np.uint8)
    return np.pad(texture, ((0, 1), (0, 1)), mode='wrap')


def _grain(distance: np.ndarray, x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (height, width) uint8 around 128 for a larger ``size``: asphalt grain and stains, each fading before it would flicker."""
    stains = _sampled(_texture(2, (8, 16, 32, 64, 128), 5.0), x * _STAINS_PER_M, y * _STAINS_PER_M) * _fade(distance / _STAINS_FADE)
    fine_x, fine_y, fade, stains = (
        cv2.resize(layer, size) for layer in (x * _GRAIN_PER_M, y * _GRAIN_PER_M, _fade(distance / _GRAIN_FADE), stains)
    )
    fine = _sampled(_texture(1, (128, 256, 512), 7.0), fine_x, fine_y)
    return cv2.convertScaleAbs(cv2.add(cv2.multiply(fine, fade), stains) + 128)


def _sampled(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return float32 around 0."""
    whole, fraction = cv2.convertMaps(x, y, cv2.CV_16SC2)
    return cv2.remap(texture, whole & (_TEXTURE_SIZE - 1), fraction, cv2.INTER_LINEAR).astype(np.float32) - 128


def _fade(distance: np.ndarray) -> np.ndarray:
    square = distance * distance
    return 1 / (1 + square * square)


def _shade(mask: np.ndarray, light: Light) -> np.ndarray:
    """Return (height, width, 3) uint8, 255 in the light, less where ``mask`` is 255."""
    lit = np.array(light.ambient) + np.array(light.sun) * light.to_sun[2]
    darkest = np.array(light.ambient) * 0.95 / lit
    gains = np.rint(255 - np.arange(256)[:, None] * (1 - darkest)).astype(np.uint8)
    return cv2.LUT(cv2.merge([cv2.blur(mask, (3, 3))] * 3), gains[None])
