from __future__ import annotations

import array
import io

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image as PillowImage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevdepth_ros.rig.conversions import (
    image_from_message,
    intrinsics_from_file,
    intrinsics_from_info,
)
from bevdepth_ros.rig.undistortion import Distortion
from tests.reference import reference_path

LIMIT = 10**6
K = np.array([[1266.4, 0, 816.2], [0, 1266.4, 491.5], [0, 0, 1]])
P = np.array([[1200.0, 0, 800, 0], [0, 1210, 450, 0], [0, 0, 1, 0]])


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def compressed(data: bytes, kind: str = 'jpeg') -> CompressedImage:
    return CompressedImage(format=kind, data=array.array('B', data))


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def raw(
    encoding: str, rows: np.ndarray, width: int, padding: int = 0, bigendian: bool = False
) -> Image:
    """Return a raw image of (H, width, channels) ``rows`` with ``padding`` bytes of noise at the
    end of each."""
    rows = rows.astype(rows.dtype.newbyteorder('>' if bigendian else '<'))
    lines = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), -1)
    lines = np.pad(lines, ((0, 0), (0, padding)), constant_values=77)
    return Image(
        height=len(rows),
        width=width,
        encoding=encoding,
        step=lines.shape[1],
        is_bigendian=bigendian,
        data=array.array('B', lines.tobytes()),
    )


def test_a_real_jpeg_becomes_the_very_pixels_that_pillow_decodes():
    path = next(reference_path('nuscenes_sample').rglob('*.jpg'))
    pixels = image_from_message(compressed(path.read_bytes()), 2 * LIMIT)
    assert np.array_equal(pixels, np.asarray(PillowImage.open(path)))


def test_a_png_comes_back_without_loss():
    assert np.array_equal(
        image_from_message(compressed(encoded(picture(), 'PNG'), 'png'), LIMIT), picture()
    )


def test_a_grey_jpeg_becomes_three_equal_channels():
    pixels = image_from_message(compressed(encoded(picture()[..., 0], 'JPEG')), LIMIT)
    assert pixels.shape == (24, 40, 3)
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize('channels', [1, 3])
def test_a_png_of_16_bits_keeps_the_upper_byte(channels: int):
    deep = picture()[..., :channels].astype(np.uint16) * 256 + 77
    pixels = image_from_message(
        compressed(cv2.imencode('.png', deep[..., ::-1])[1].tobytes(), 'png'), LIMIT
    )
    assert np.array_equal(pixels, np.broadcast_to(picture()[..., :channels], (24, 40, 3)))


@pytest.mark.parametrize('kept', [0, 2, 300, -200])
def test_a_truncated_jpeg_is_refused(kept: int):
    with pytest.raises(ValueError, match=r'is no JPEG or PNG|is a broken JPEG'):
        image_from_message(compressed(encoded(picture(200, 300), 'JPEG')[:kept]), LIMIT)


def test_other_picture_formats_are_refused():
    with pytest.raises(ValueError, match='is no JPEG or PNG'):
        image_from_message(compressed(encoded(picture(), 'BMP')), LIMIT)


def test_a_large_picture_is_refused_before_it_is_decoded():
    header_only = encoded(picture(300, 400), 'JPEG')[:700]
    with pytest.raises(ValueError, match='is 400x300, more than max_image_megapixels'):
        image_from_message(compressed(header_only), 300 * 400 - 1)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'channels'),
    [
        ('rgb8', (0, 1, 2)),
        ('bgr8', (2, 1, 0)),
        ('rgba8', (0, 1, 2, 0)),
        ('bgra8', (2, 1, 0, 0)),
        ('8UC3', (2, 1, 0)),
    ],
)
def test_every_channel_order_ends_in_the_same_rgb(
    encoding: str, channels: tuple[int, ...], padding: int
):
    pixels = image_from_message(raw(encoding, picture()[..., channels], 40, padding), LIMIT)
    assert np.array_equal(pixels, picture())


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'channels'),
    [
        ('rgb16', (0, 1, 2)),
        ('bgr16', (2, 1, 0)),
        ('rgba16', (0, 1, 2, 0)),
        ('bgra16', (2, 1, 0, 0)),
    ],
)
def test_sixteen_bit_colours_keep_their_upper_byte_in_both_byte_orders(
    encoding: str, channels: tuple[int, ...], bigendian: bool
):
    values = picture().astype(np.uint16) * 256 + 9
    assert np.array_equal(
        image_from_message(raw(encoding, values[..., channels], 40, 4, bigendian), LIMIT),
        picture(),
    )


@pytest.mark.parametrize(
    ('encoding', 'scale'), [('mono8', 1), ('8UC1', 1), ('mono16', 256), ('16UC1', 256)]
)
def test_a_grey_image_fills_all_three_channels(encoding: str, scale: int):
    grey = picture()[..., :1]
    values = grey if scale == 1 else grey.astype(np.uint16) * 256
    assert np.array_equal(
        image_from_message(raw(encoding, values, 40, 3), LIMIT), np.repeat(grey, 3, axis=2)
    )


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_bayer_image_of_one_colour_has_that_colour(pattern: str, bits: int):
    colour = {'r': 200, 'g': 120, 'b': 30}
    tile = np.array([colour[letter] for letter in pattern], np.uint8).reshape(2, 2)
    mosaic = np.tile(tile, (12, 20))[..., None]
    values = mosaic if bits == 8 else mosaic.astype(np.uint16) * 256
    pixels = image_from_message(raw(f'bayer_{pattern}{bits}', values, 40), LIMIT)
    assert (pixels[2:-2, 2:-2] == (200, 120, 30)).all()


@pytest.mark.parametrize('encoding', ['yuv422', '32FC1', 'bayer_xyzw8', 'bayer_rggb12', ''])
def test_an_unknown_encoding_is_refused_by_name(encoding: str):
    with pytest.raises(ValueError, match=f"encoding '{encoding}'"):
        image_from_message(raw(encoding, picture(), 40), LIMIT)


@pytest.mark.parametrize(
    ('field', 'value'),
    [('step', 119), ('step', 121), ('height', 25), ('height', 0), ('width', 0), ('width', 41)],
)
def test_a_size_that_does_not_fit_the_data_is_refused(field: str, value: int):
    message = raw('rgb8', picture(), 40)
    setattr(message, field, value)
    with pytest.raises(ValueError, match='does not fit its 2880 bytes'):
        image_from_message(message, LIMIT)


def test_a_large_raw_image_is_refused():
    with pytest.raises(ValueError, match='more than max_image_megapixels'):
        image_from_message(raw('rgb8', picture(), 40), 24 * 40 - 1)


def info(k=K, p=P, d=(0.0,) * 5) -> CameraInfo:
    """Return a CameraInfo with the singular r of some nuScenes bags."""
    return CameraInfo(width=1600, height=900, k=np.ravel(k), p=np.ravel(p), d=list(d), r=[0.0] * 9)


def test_a_rectified_image_projects_with_p():
    assert np.array_equal(intrinsics_from_info(info(), rectified=True).matrix, P[:, :3])


@pytest.mark.parametrize('p', [np.zeros((3, 4)), P * np.nan])
def test_a_rectified_image_projects_with_k_where_p_is_not_filled_in(p: np.ndarray):
    assert np.array_equal(intrinsics_from_info(info(p=p), rectified=True).matrix, K)


def test_an_unrectified_image_projects_with_k_and_has_distortion():
    intrinsics = intrinsics_from_info(info(d=(0.1, 0, 0, 0, 0)), rectified=False)
    assert np.array_equal(intrinsics.matrix, K)
    assert intrinsics.distortion == Distortion('plumb_bob', (0.1, 0, 0, 0, 0))
    assert intrinsics_from_info(info(), rectified=False).distortion is None
    assert intrinsics_from_info(info(d=(0.1, 0, 0, 0, 0)), rectified=True).distortion is None


CORNER = K * np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]])
"""The principal point is not filled in."""
FAR_OUT = K + np.array([[0, 0, 4000], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    'k', [np.zeros((3, 3)), K * np.nan, -K, K + np.eye(3)[[2, 1, 0]], CORNER, FAR_OUT]
)
def test_a_camera_that_is_not_calibrated_is_refused(k: np.ndarray):
    with pytest.raises(ValueError, match='is not calibrated'):
        intrinsics_from_info(info(k=k, p=np.zeros((3, 4))), rectified=True)


def test_a_cropped_image_may_have_its_principal_point_outside():
    cropped = K - np.array([[0, 0, 0], [0, 0, 600], [0, 0, 0]])
    assert np.array_equal(intrinsics_from_info(info(k=cropped), rectified=False).matrix, cropped)


def test_an_image_of_another_size_than_its_calibration_is_refused():
    intrinsics = intrinsics_from_info(info(), rectified=True)
    intrinsics.require_size(np.zeros((900, 1600, 3), np.uint8))
    with pytest.raises(ValueError, match='is 800x450, but its calibration is for 1600x900'):
        intrinsics.require_size(np.zeros((450, 800, 3), np.uint8))


def test_a_calibration_file_says_the_same_as_camera_info(tmp_path):
    path = tmp_path / 'camera.yaml'
    path.write_text(
        yaml.safe_dump(
            {
                'image_width': 1600,
                'image_height': 900,
                'camera_name': 'cam_front',
                'camera_matrix': {'rows': 3, 'cols': 3, 'data': K.ravel().tolist()},
                'distortion_model': 'plumb_bob',
                'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.0] * 5},
                'rectification_matrix': {'rows': 3, 'cols': 3, 'data': np.eye(3).ravel().tolist()},
                'projection_matrix': {'rows': 3, 'cols': 4, 'data': P.ravel().tolist()},
            }
        )
    )
    for rectified in (True, False):
        from_file, from_info = (
            intrinsics_from_file(path, rectified),
            intrinsics_from_info(info(), rectified),
        )
        assert np.array_equal(from_file.matrix, from_info.matrix)
        assert (from_file.width, from_file.height, from_file.distortion) == (1600, 900, None)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'a: [',
        '[1, 2]',
        'camera_matrix: 3',
        'camera_matrix: {data: [1]}\nimage_width: 1\nimage_height: 1',
        '!!python/name:os.system',
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, text: str):
    path = tmp_path / 'camera.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'is no calibration file|9 and 12'):
        intrinsics_from_file(path, rectified=True)
