from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from bevdepth_ros.rig import compressed_images
from bevdepth_ros.rig.compressed_images import (
    MAX_JPEG_SCANS,
    PADDING_BYTES,
    RESTART_PADDING_BYTES,
    decode_compressed,
    is_color_jpeg,
)
from bevdepth_ros.rig.conversions import image_from_message
from tests.ros.messages import compressed, encoded, with_damage_inside, with_scans
from tests.ros.rig.image_messages import LIMIT, noise, smooth

RED, BLUE = (200, 30, 30), (30, 60, 210)


def halves() -> np.ndarray:
    """Return an image with a red left half and a blue right half."""
    image = np.empty((120, 160, 3), np.uint8)
    image[:, :80], image[:, 80:] = RED, BLUE
    return image


def mosaic(pattern: str, rgb: np.ndarray) -> np.ndarray:
    values = np.empty(rgb.shape[:2], np.uint8)
    for place, letter in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        values[rows, columns] = rgb[rows, columns, 'rgb'.index(letter)]
    return values


def assert_halves(pixels: np.ndarray) -> None:
    left, right = pixels[30:90, 20:60].astype(int), pixels[30:90, 100:140].astype(int)
    assert np.abs(left - RED).max() <= 12
    assert np.abs(right - BLUE).max() <= 12


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')


@pytest.mark.parametrize('subsampling', [0, 1, 2])
@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('size', [(120, 160), (91, 161)])
def test_a_jpeg_is_decoded_to_exactly_the_pixels_that_pillow_decodes(
    size, progressive, subsampling
):
    data = encoded(smooth(*size), 'JPEG', subsampling=subsampling, progressive=progressive)
    pixels = image_from_message(compressed(data), LIMIT)
    assert np.array_equal(pixels, np.asarray(PillowImage.open(io.BytesIO(data))))


def test_a_jpeg_is_decoded_to_the_same_pixels_with_and_without_simplejpeg(
    monkeypatch: pytest.MonkeyPatch,
):
    message = compressed(encoded(smooth(), 'JPEG'))
    expected = image_from_message(message, LIMIT)
    monkeypatch.setattr(compressed_images, 'simplejpeg', None)
    assert np.array_equal(image_from_message(message, LIMIT), expected)


def test_a_cmyk_jpeg_is_decoded_to_the_rgb_pixels_that_pillow_computes():
    buffer = io.BytesIO()
    PillowImage.fromarray(smooth()).convert('CMYK').save(buffer, 'JPEG')
    expected = np.asarray(PillowImage.open(buffer).convert('RGB'))
    assert np.array_equal(image_from_message(compressed(buffer.getvalue()), LIMIT), expected)


def test_a_gray_jpeg_is_decoded_to_three_equal_channels():
    data = encoded(smooth()[..., 0], 'JPEG')
    pixels = image_from_message(compressed(data), LIMIT)
    assert np.array_equal(pixels[..., 1], np.asarray(PillowImage.open(io.BytesIO(data))))
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize(
    ('image_format', 'warns'),
    [
        ('yuv422_yuy2; jpeg compressed mono8', True),
        ('rgb8; jpeg compressed mono8', True),
        ('mono8; jpeg compressed ', False),
        ('bayer_rggb8; jpeg compressed ', False),
        ('jpeg', False),
    ],
)
def test_a_gray_jpeg_causes_a_warning_if_its_format_string_has_a_color_encoding(
    image_format: str, warns: bool
):
    gray = decode_compressed(compressed(encoded(smooth()[..., 0], 'JPEG'), image_format), LIMIT)
    assert ('the compression removed the colors' in gray.warning) is warns
    color = decode_compressed(compressed(encoded(smooth(), 'JPEG'), image_format), LIMIT)
    assert color.warning == ''


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('image_format', ['jpeg', 'png', 'unknown', 'rgb8; png compressed bgr8'])
def test_a_lossless_file_is_decoded_exactly_for_every_format_string(kind: str, image_format: str):
    options = {'lossless': True} if kind == 'WEBP' else {}
    message = compressed(encoded(noise(), kind, **options), image_format)
    assert np.array_equal(image_from_message(message, LIMIT), noise())


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
@pytest.mark.parametrize('channels', [1, 3])
def test_only_the_upper_byte_of_each_value_is_used_if_a_file_has_16_bits_per_value(
    channels: int, suffix: str
):
    deep = noise()[..., :channels].astype(np.uint16) * 256 + 77
    message = compressed(
        cv2.imencode(suffix, deep[..., ::-1])[1].tobytes(), 'mono16; png compressed '
    )
    expected = np.broadcast_to(noise()[..., :channels], (24, 40, 3))
    assert np.array_equal(image_from_message(message, LIMIT), expected)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize(
    ('codec', 'rest'),
    [('JPEG', 'jpeg compressed '), ('PNG', 'png compressed '), ('JPEG', 'jpeg compressed mono8')],
)
def test_a_bayer_mosaic_is_demosaiced_by_the_pattern_in_the_format_string(pattern, codec, rest):
    options = {'quality': 98} if codec == 'JPEG' else {}
    data = encoded(mosaic(pattern, halves()), codec, **options)
    assert_halves(image_from_message(compressed(data, f'bayer_{pattern}8; {rest}'), LIMIT))


def test_a_16_bit_bayer_mosaic_is_demosaiced():
    deep = mosaic('rggb', halves()).astype(np.uint16) * 256
    data = cv2.imencode('.png', deep)[1].tobytes()
    message = compressed(data, 'bayer_rggb16; png compressed ')
    assert_halves(image_from_message(message, LIMIT))


def test_a_color_file_of_a_bayer_camera_is_not_demosaiced():
    data = encoded(halves(), 'PNG')
    message = compressed(data, 'bayer_rggb8; png compressed bgr8')
    assert np.array_equal(image_from_message(message, LIMIT), halves())


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'yuv422', 'nv12'])
@pytest.mark.parametrize(
    ('rest', 'is_swapped'),
    [
        ('jpeg compressed bgr8', False),
        ('png compressed bgr16', False),
        ('png compressed rgb8', True),
        ('jpeg compressed ', True),
    ],
)
def test_red_and_blue_are_swapped_if_the_encoder_received_rgb(encoding, rest, is_swapped):
    data = encoded(halves(), 'PNG')
    pixels = image_from_message(compressed(data, f'{encoding}; {rest}'), LIMIT)
    assert np.array_equal(pixels, halves()[..., ::-1] if is_swapped else halves())


@pytest.mark.parametrize('kept', [2, 300, -200, -2])
def test_a_truncated_jpeg_is_rejected(kept: int):
    with pytest.raises(ValueError, match='is a damaged or unsupported JPEG'):
        image_from_message(compressed(encoded(noise(200, 300), 'JPEG')[:kept]), LIMIT)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP'])
def test_a_truncated_png_tiff_or_webp_file_is_rejected(kind: str):
    with pytest.raises(ValueError, match=f'is a damaged or unsupported {kind}'):
        image_from_message(compressed(encoded(noise(100, 150), kind)[:-400]), LIMIT)


def test_a_jpeg_with_damaged_image_data_is_rejected_although_pillow_accepts_it():
    data = with_damage_inside(encoded(smooth(), 'JPEG'))
    PillowImage.open(io.BytesIO(data)).load()
    with pytest.raises(ValueError, match=r'is a damaged or unsupported JPEG: .*Corrupt JPEG data'):
        image_from_message(compressed(data), LIMIT)


def test_a_little_padding_before_the_end_marker_is_accepted_and_more_is_rejected():
    data = encoded(smooth(), 'JPEG')
    expected = image_from_message(compressed(data), LIMIT)
    padded = data[:-2] + bytes(PADDING_BYTES) + data[-2:]
    assert np.array_equal(image_from_message(compressed(padded), LIMIT), expected)
    with pytest.raises(ValueError, match='extraneous bytes'):
        image_from_message(compressed(data[:-2] + bytes(40) + data[-2:]), LIMIT)


def test_a_little_padding_before_restart_markers_is_accepted_and_more_is_rejected():
    _, file = cv2.imencode('.jpg', smooth(), (cv2.IMWRITE_JPEG_RST_INTERVAL, 5))
    data = file.tobytes()
    place = data.index(b'\xff\xd1')

    def padded(count: int) -> bytes:
        return data[:place] + bytes(count) + data[place:]

    expected = image_from_message(compressed(data), LIMIT)
    found = image_from_message(compressed(padded(RESTART_PADDING_BYTES)), LIMIT)
    assert np.array_equal(found, expected)
    with pytest.raises(ValueError, match='extraneous bytes'):
        image_from_message(compressed(padded(RESTART_PADDING_BYTES + 1)), LIMIT)


@pytest.mark.parametrize('data', [b'', b'noise' * 600, b'GIF89a' + bytes(50), b'BM' + bytes(99)])
def test_the_message_about_an_unsupported_file_lists_the_supported_formats(data: bytes):
    with pytest.raises(ValueError, match=f'not a JPEG, PNG, TIFF or WebP file .{len(data)} bytes'):
        image_from_message(compressed(data), LIMIT)


@pytest.mark.parametrize(
    ('image_format', 'transport'),
    [
        ('h264', 'ffmpeg'),
        ('bgr8; h265 compressed bgr8', 'ffmpeg'),
        ('theora', 'theora'),
        ('16UC1; compressedDepth png', 'compressedDepth'),
        ('zstd', 'zstd'),
    ],
)
def test_the_message_about_an_unsupported_transport_contains_the_republish_command(
    image_format, transport
):
    command = f'ros2 run image_transport republish {transport} raw .*in_transport:={transport} '
    with pytest.raises(ValueError, match=command):
        image_from_message(compressed(b'\0\0\0\1' * 30, image_format), LIMIT)


@pytest.mark.parametrize('image_format', ['jpeg', 'rgb8; jpeg compressed bgr8', 'png', ''])
def test_the_republish_command_is_not_suggested_for_a_supported_codec(image_format: str):
    with pytest.raises(ValueError, match='is not a JPEG') as caught:
        image_from_message(compressed(b'noise', image_format), LIMIT)
    assert 'republish' not in str(caught.value)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
def test_an_image_whose_size_in_the_header_exceeds_the_limit_is_rejected(kind: str):
    data = encoded(smooth(300, 400), kind)
    data = data[:700] if kind == 'JPEG' else data
    with pytest.raises(ValueError, match=r'is 400x300, more than 0\.119999 megapixels'):
        image_from_message(compressed(data), 300 * 400 - 1)
    if kind != 'JPEG':
        assert image_from_message(compressed(data), 300 * 400).shape == (300, 400, 3)


def test_a_jpeg_with_too_many_scans_is_rejected_before_decoding():
    data = encoded(smooth(), 'JPEG', progressive=True)
    allowed = with_scans(data, MAX_JPEG_SCANS)
    assert is_color_jpeg(compressed(allowed), LIMIT)
    with pytest.raises(ValueError, match='Inconsistent progression'):  # raised while decoding
        image_from_message(compressed(allowed), LIMIT)
    bomb = compressed(with_scans(data, MAX_JPEG_SCANS + 1))
    assert not is_color_jpeg(bomb, LIMIT)
    with pytest.raises(ValueError, match='is a JPEG with 21 scans, more than the allowed 20'):
        image_from_message(bomb, LIMIT)


def test_a_png_with_too_many_tiny_chunks_is_rejected():
    data = encoded(noise(), 'PNG')
    few, many = (data[:33] + chunk(b'teXt', b'') * count + data[33:] for count in (200, 300))
    assert np.array_equal(image_from_message(compressed(few), LIMIT), noise())
    with pytest.raises(ValueError, match=r'is a PNG with too many chunks'):
        image_from_message(compressed(many), LIMIT)


def test_a_large_png_in_ordinary_chunks_is_accepted():
    pixels = noise(900, 1200)
    data = cv2.imencode('.png', pixels[..., ::-1])[1].tobytes()
    assert data.count(b'IDAT') > 256
    assert np.array_equal(image_from_message(compressed(data), 2 * LIMIT), pixels)


def test_a_file_with_float_values_is_rejected():
    data = cv2.imencode('.tiff', np.ones((20, 30), np.float32))[1].tobytes()
    with pytest.raises(ValueError, match='is a TIFF of 32-bit values'):
        image_from_message(compressed(data), LIMIT)


@pytest.mark.parametrize(
    ('min_width', 'size'),
    [(0, (120, 160)), (81, (120, 160)), (80, (60, 80)), (79, (60, 80)), (40, (30, 40))],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_is_at_least_min_width_wide(min_width, size):
    message = compressed(encoded(smooth(), 'JPEG', quality=95))
    image = decode_compressed(message, LIMIT, min_width)
    assert (image.width, image.height) == (160, 120)
    assert image.pixels.shape[1] >= min_width
    assert image.pixels.shape == (*size, 3)
    expected = cv2.resize(smooth(), size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.pixels.astype(int) - expected).mean() < 6


def test_a_bayer_mosaic_is_never_decoded_at_a_reduced_size():
    data = encoded(mosaic('rggb', halves()), 'JPEG', quality=98)
    image = decode_compressed(compressed(data, 'bayer_rggb8; jpeg compressed '), LIMIT, 40)
    assert_halves(image.pixels)


def test_is_color_jpeg_is_false_if_a_file_is_gray_too_large_color_swapped_or_not_a_jpeg():
    color, gray = encoded(smooth(), 'JPEG'), encoded(smooth()[..., 0], 'JPEG')
    assert is_color_jpeg(compressed(color), 160 * 120)
    assert not is_color_jpeg(compressed(color), 160 * 120 - 1)
    assert not is_color_jpeg(compressed(gray), LIMIT)
    assert not is_color_jpeg(compressed(color, 'rgb8; jpeg compressed rgb8'), LIMIT)
    assert not is_color_jpeg(compressed(encoded(smooth(), 'PNG')), LIMIT)
    assert not is_color_jpeg(compressed(b''), LIMIT)
