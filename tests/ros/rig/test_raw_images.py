"""Compares converted raw images with formulas in numpy that share no code with the conversion."""

from __future__ import annotations

import array
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bevdepth_ros.rig import color_conversion
from bevdepth_ros.rig.color_conversion import image_message, jpeg_message, rgb_from_message
from bevdepth_ros.rig.compressed_images import decode_compressed
from bevdepth_ros.rig.conversions import image_from_message
from bevdepth_ros.rig.raw_images import ENCODINGS, Packed
from tests.ros.rig.image_messages import LIMIT, noise, raw, smooth

CHANNELS = {'rgb': (0, 1, 2), 'bgr': (2, 1, 0), 'rgba': (0, 1, 2, 0), 'bgra': (2, 1, 0, 0)}
CHANNELS |= {'C3': CHANNELS['bgr'], 'C4': CHANNELS['bgra']}
VIEWABLE = {
    *(f'{order}{bits}' for order in ('rgb', 'bgr', 'rgba', 'bgra', 'mono') for bits in (8, 16)),
    *(f'{bits}UC{count}' for bits in (8, 16) for count in (1, 3, 4)),
    *(f'bayer_{name}{bits}' for name in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)),
    'uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv12', 'nv21', 'nv24',
}  # fmt: skip
"""Encodings of sensor_msgs/image_encodings with a defined brightness or color."""
COLORS = [(200, 40, 40), (40, 80, 210), (30, 160, 60), (250, 250, 250), (5, 5, 5)]


def values_of(encoding: str, rgb: np.ndarray) -> np.ndarray:
    """Return ``rgb`` in a packed encoding. The lower byte of each 16-bit value is 9, and the
    conversion must ignore this byte.
    """
    is_wide = '16' in encoding
    order = next(
        (CHANNELS[name] for name in sorted(CHANNELS, key=len)[::-1] if name in encoding), (0,)
    )
    values = rgb[..., order]
    return values.astype(np.uint16) * 256 + 9 if is_wide else values


def yuv(rgb: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) YUV values of BT.601, with Y = 16 for black and 235 for white."""
    weights = np.array(
        [(65.738, 129.057, 25.064), (-37.945, -74.494, 112.439), (112.439, -94.154, -18.285)]
    )
    return np.rint(rgb @ weights.T / 256 + (16, 128, 128)).astype(np.uint8)


def yuv_rows(encoding: str, rgb: np.ndarray, padding: int) -> np.ndarray:
    """Return the rows of the data of an Image message that contains ``rgb`` in ``encoding``.

    All pixels of ``rgb`` that share a U and a V value in ``encoding`` must have the same color.
    """
    y, u, v = np.moveaxis(yuv(rgb), -1, 0)
    height, width = y.shape
    u2, v2 = u[:, ::2], v[:, ::2]
    planes = {
        'uyvy': (u2, y[:, ::2], v2, y[:, 1::2]),
        'yuyv': (y[:, ::2], u2, y[:, 1::2], v2),
    }
    if encoding in ('nv12', 'nv21'):
        pair = (u2[::2], v2[::2]) if encoding == 'nv12' else (v2[::2], u2[::2])
        return np.concatenate((y, np.stack(pair, -1).reshape(height // 2, width)))
    if encoding == 'nv24':  # a row of UV has twice the bytes of a row of Y
        color = np.pad(np.stack((u, v), -1).reshape(height, -1), ((0, 0), (0, 2 * padding)))
        luma = np.pad(y, ((0, 0), (0, padding)))
        return np.concatenate((luma, color.reshape(2 * height, -1)))
    name = {'yuv422': 'uyvy', 'yuv422_yuy2': 'yuyv'}.get(encoding, encoding)
    return np.stack(planes[name], -1).reshape(height, 2 * width)


def with_blocks(height: int = 16, width: int = 24) -> np.ndarray:
    """Return an image of blocks of 4x4 pixels; each block has one of COLORS."""
    picks = np.random.default_rng(1).integers(0, len(COLORS), (height // 4, width // 4))
    blocks = np.array(COLORS, np.uint8)[picks]
    return blocks.repeat(4, 0).repeat(4, 1)


def mosaic(encoding: str, rgb: np.ndarray) -> np.ndarray:
    """Return the (H, W) values of a sensor that has the Bayer pattern of ``encoding``."""
    result = np.empty(rgb.shape[:2], np.uint8)
    for place, letter in enumerate(encoding.split('_')[1][:4]):
        row, column = divmod(place, 2)
        result[row::2, column::2] = rgb[row::2, column::2, 'rgb'.index(letter)]
    return result


def message_of(encoding: str, rgb: np.ndarray, padding: int, bigendian: bool) -> Image:
    """Return an Image message that contains ``rgb`` in ``encoding``, a name in ENCODINGS."""
    width = rgb.shape[1]
    if not isinstance(ENCODINGS[encoding], Packed):
        rows = yuv_rows(encoding, rgb, padding)[..., None]
        message = raw(encoding, rows, width, 0 if encoding == 'nv24' else padding)
        message.height = rgb.shape[0]
        return message
    if encoding.startswith('bayer_'):
        values = mosaic(encoding, rgb)[..., None]
        values = values if encoding.endswith('8') else values.astype(np.uint16) * 256 + 9
    else:
        values = values_of(encoding, rgb)
    return raw(encoding, values, width, padding, bigendian)


def difference(encoding: str, padding: int = 0, bigendian: bool = False) -> int:
    """Encode an image, convert it back, and return the largest difference in gray levels.

    A border of two pixels is ignored.
    """
    is_gray = encoding.startswith('mono') or encoding.endswith('C1')
    if encoding.startswith('bayer_'):
        rgb = np.broadcast_to(np.array((200, 120, 30), np.uint8), (16, 24, 3))
    else:
        rgb = with_blocks()
    expected = rgb[..., :1].repeat(3, 2) if is_gray else rgb
    found = image_from_message(message_of(encoding, rgb, padding, bigendian), LIMIT)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    return int(np.abs(found.astype(int) - expected)[2:-2, 2:-2].max())


def documented_table() -> str:
    """Return the table that docs/NODE.md must contain, with newly measured differences."""
    lines = [
        '| encoding | largest difference from the formula, in gray levels from 0 to 255 |',
        '| --- | --- |',
    ]
    return '\n'.join([*lines, *(f'| `{name}` | {difference(name)} |' for name in ENCODINGS)])


def test_exactly_the_encodings_with_a_defined_brightness_or_color_are_supported():
    assert set(ENCODINGS) == VIEWABLE


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', sorted(VIEWABLE))
def test_converted_pixels_agree_with_the_formula_of_their_encoding(encoding: str, padding: int):
    exact = isinstance(ENCODINGS[encoding], Packed)
    assert difference(encoding, padding) <= (0 if exact else 2)


@pytest.mark.parametrize('encoding', sorted(name for name in VIEWABLE if '16' in name))
def test_sixteen_bit_values_are_read_in_both_byte_orders(encoding: str):
    assert difference(encoding, padding=4, bigendian=True) == 0


def test_the_documented_table_of_encodings_equals_the_measured_differences():
    page = (Path(__file__).parents[3] / 'docs' / 'NODE.md').read_text()
    assert documented_table() in page


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_demosaicing_does_not_move_colors_for_any_bayer_pattern(pattern: str):
    rgb = np.empty((16, 24, 3), np.uint8)
    rgb[:, :12], rgb[:, 12:] = COLORS[0], COLORS[1]
    found = image_from_message(message_of(f'bayer_{pattern}8', rgb, 0, False), LIMIT)
    assert (found[2:-2, 2:10] == COLORS[0]).all()
    assert (found[2:-2, 14:-2] == COLORS[1]).all()


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
def test_a_planar_image_without_padding_is_read_if_its_step_is_data_size_divided_by_height(
    encoding: str,
):
    message = message_of(encoding, with_blocks(), 0, False)
    expected = image_from_message(message, LIMIT)
    message.step = len(message.data) // message.height
    assert np.array_equal(image_from_message(message, LIMIT), expected)


@pytest.mark.parametrize(
    ('encoding', 'field'), [('uyvy', 'width'), ('nv12', 'width'), ('nv21', 'height')]
)
def test_a_yuv_image_with_an_odd_width_or_height_is_rejected(encoding: str, field: str):
    message = message_of(encoding, with_blocks(), 0, False)
    setattr(message, field, getattr(message, field) - 1)
    with pytest.raises(ValueError, match=f'but {encoding} needs an even width'):
        image_from_message(message, LIMIT)


@pytest.mark.parametrize(
    'encoding', ['8UC2', '16SC1', '32FC1', '32FC3', 'bayer_xyzw8', 'RGB8', '']
)
def test_an_unsupported_encoding_is_rejected_with_the_list_of_supported_encodings(encoding: str):
    with pytest.raises(ValueError, match=f"encoding '{encoding}'.* one of rgb8, bgr8, .*, nv24"):
        image_from_message(raw(encoding, noise(), 40), LIMIT)


def test_the_most_similar_encoding_is_suggested():
    with pytest.raises(
        ValueError, match=r"'NV12', which is not supported \(did you mean nv12\?\)"
    ):
        image_from_message(raw('NV12', noise(), 40), LIMIT)


@pytest.mark.parametrize(
    ('field', 'value'),
    [('step', 119), ('step', 121), ('height', 25), ('height', 0), ('width', 0), ('width', 41)],
)
def test_a_size_that_does_not_fit_the_data_is_rejected(field: str, value: int):
    message = raw('rgb8', noise(), 40)
    setattr(message, field, value)
    with pytest.raises(ValueError, match='does not fit its 2880 bytes'):
        image_from_message(message, LIMIT)


@pytest.mark.parametrize('encoding', ['yuv422_yuy2', 'nv12', 'bgr8'])
def test_an_image_whose_rows_have_padding_is_rejected_if_step_does_not_include_the_padding(
    encoding: str,
):
    message = message_of(encoding, with_blocks(), 64, False)
    message.step -= 64
    with pytest.raises(ValueError, match='which does not fit its'):
        image_from_message(message, LIMIT)


def test_bytes_after_the_last_row_are_ignored():
    message = message_of('bgr8', with_blocks(), 0, False)
    expected = image_from_message(message, LIMIT)
    message.data = bytes(message.data) + bytes(100)
    assert np.array_equal(image_from_message(message, LIMIT), expected)


def test_an_image_of_the_largest_allowed_size_is_converted_and_a_larger_image_is_rejected():
    message = raw('rgb8', noise(), 40)
    assert image_from_message(message, 24 * 40).shape == (24, 40, 3)
    with pytest.raises(ValueError, match=r'is 40x24, more than 0\.000959 megapixels'):
        image_from_message(message, 24 * 40 - 1)


def test_an_rgb8_image_without_padding_is_not_copied():
    message = raw('rgb8', noise(), 40)
    assert np.shares_memory(
        image_from_message(message, LIMIT), np.frombuffer(message.data, np.uint8)
    )


@pytest.mark.parametrize('encoding', list(color_conversion.COLOR_CODES))
def test_cv_bridge_and_opencv_convert_to_the_same_pixels(encoding: str):
    bridge = color_conversion.load_cv_bridge()
    message = message_of(encoding, noise(16, 24), 0, False)
    assert np.array_equal(rgb_from_message(message, bridge), rgb_from_message(message, None))


@pytest.mark.parametrize('with_bridge', [True, False])
def test_a_published_image_is_read_back_unchanged(with_bridge: bool):
    bridge = color_conversion.load_cv_bridge() if with_bridge else None
    message = image_message(noise(), Header(frame_id='front'), bridge)
    assert (message.encoding, message.width, message.height, message.step) == ('rgb8', 40, 24, 120)
    assert message.header.frame_id == 'front'
    assert isinstance(message.data, array.array)
    assert np.array_equal(image_from_message(message, LIMIT), noise())


def test_a_published_jpeg_has_nearly_the_original_colors_and_is_smaller_at_a_lower_quality():
    message = jpeg_message(smooth(), Header(frame_id='front'), 95)
    found = decode_compressed(message, LIMIT).pixels
    assert np.abs(found.astype(int) - smooth()).mean() < 3
    assert message.header.frame_id == 'front'
    assert len(jpeg_message(smooth(), Header(), 30).data) < len(message.data)


@pytest.mark.parametrize(('converted', 'is_used'), [([3, 2, 1], True), ([1, 2, 3], False)])
def test_cv_bridge_is_used_only_if_cv_bridge_converts_colors_correctly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, converted, is_used: bool
):
    class Bridge:
        def imgmsg_to_cv2(self, message: Image, encoding: str) -> np.ndarray:
            same = (message.encoding, encoding, bytes(message.data)) == ('bgr8', 'rgb8', b'\1\2\3')
            return np.array([[converted if same else [0, 0, 0]]], np.uint8)

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=Bridge))
    assert isinstance(color_conversion.load_cv_bridge(), Bridge) == is_used
    assert ('cv_bridge cannot be used' in caplog.text) != is_used
