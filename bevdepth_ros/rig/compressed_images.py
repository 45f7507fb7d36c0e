"""Converts sensor_msgs/CompressedImage to RGB, interprets the format string of image_transport,
and limits the work of decoding.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_ros.rig.color_conversion import rgb_from_pixels
from bevdepth_ros.rig.raw_images import ENCODINGS, Packed, Yuv, require_at_most

try:
    import simplejpeg
except ImportError:  # ROS without pip packages; Pillow decodes to the same values
    simplejpeg = None

MAX_JPEG_SCANS = 20
"""Largest number of scans in a JPEG file. Progressive encoders write about 10. A decoder processes
all pixels once per scan."""
_START_OF_SCAN = 0xDAFF  # little endian
MAX_PNG_CHUNKS = 256
"""A PNG file may have at most this number of chunks, plus one chunk per kilobyte. Encoders write
chunks of at least 8 kB."""
PADDING_BYTES = 16
"""Largest allowed number of padding bytes before the end marker of a JPEG file. USB cameras write
a few."""
RESTART_PADDING_BYTES = 4
"""Largest allowed number of padding bytes before a restart marker. Some USB cameras write such
bytes. Damage is still detected: in a test of 2,000 files with one wrong bit each, all files with
extraneous bytes before a restart marker had more than this number."""
_PADDED = re.compile(r'Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd([0-79])')
FILE_CODECS = ('', 'jpeg', 'jpg', 'png', 'tiff', 'tif', 'webp')
"""Names of the supported codecs in format strings."""
PILLOW_MEGAPIXELS = 178
"""Pillow opens no image with more megapixels than this. The limit is twice Pillow's
``MAX_IMAGE_PIXELS``."""
_TRANSPORTS = {'h264': 'ffmpeg', 'h265': 'ffmpeg', 'hevc': 'ffmpeg', 'av1': 'ffmpeg'}
"""Maps a codec in a format string to the transport of image_transport, if the names differ."""


@dataclass(frozen=True)
class Format:
    """Format string of image_transport: ``ENCODING; CODEC compressed COLORS``, or only the codec.

    The codec is detected from the data of the file, because the codec in the string is often
    wrong.

    Attributes:
        encoding: encoding of the image before compression; empty if not given.
        rest: codec and color order of the compressed data.
    """

    encoding: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> Format:
        encoding, separator, rest = text.partition(';')
        return cls(encoding.strip(), rest.strip()) if separator else cls('', text.strip())

    @property
    def bayer(self) -> str | None:
        """8-bit Bayer encoding of the image before compression; None if the image was not a Bayer
        mosaic.
        """
        layout = ENCODINGS.get(self.encoding)
        if isinstance(layout, Packed) and layout.meaning.startswith('bayer_'):
            return layout.meaning
        return None

    @property
    def is_color(self) -> bool:
        """True if the image had colors before compression and was not a Bayer mosaic."""
        is_yuv = isinstance(ENCODINGS.get(self.encoding), Yuv)
        return is_yuv or self.encoding.startswith(('rgb', 'bgr'))

    @property
    def is_swapped(self) -> bool:
        """True if red and blue are swapped in the file.

        The encoder requires BGR. If the format string contains ``compressed bgr``, the encoder
        received BGR. Otherwise it received RGB, and the subscriber of image_transport must swap
        red and blue.
        """
        return self.is_color and 'compressed bgr' not in self.rest


@dataclass(frozen=True)
class DecodedImage:
    """Pixels of one camera.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, perhaps at a reduced size; a tensor if a GPU decoded it.
        width: width of the image as it was sent, pixels.
        height: height of the image as it was sent, pixels.
        warning: description of suspicious data; empty if nothing is suspicious. It begins with a
            verb, because the camera's name is written before it.
    """

    pixels: np.ndarray | torch.Tensor
    width: int
    height: int
    warning: str = ''


def decode_compressed(
    message: CompressedImage, max_pixels: int, min_width: int = 0
) -> DecodedImage:
    """Decode a JPEG, PNG, TIFF or WebP file. JPEG files give the same pixels as with Pillow.

    Args:
        message: contains one of these files. The codec in its format string may be wrong.
        max_pixels: larger images are rejected before they are decoded.
        min_width: smallest width of the result, pixels. A JPEG file that is at least twice as wide
            may be decoded at half, a quarter or an eighth of its size. With 0, files are always
            decoded at full size.

    Raises:
        ValueError: the image is invalid. The message begins with a verb, because the caller writes
            the camera's name before it.
    """
    data, image_format = bytes(message.data), Format.parse(message.format)
    kind = _file_kind(data)
    if kind is None:
        raise ValueError(_unsupported(message))
    _bound_work(data, kind)
    header = _turbo_header(data) if kind == 'JPEG' else None
    if header is None:
        pixels = _decoded_by_pillow(data, kind, max_pixels)
        height, width = pixels.shape[:2]
    else:
        width, height, colors = header
        require_at_most(max_pixels, width, height)
        reduced = 0 if image_format.bayer else min_width
        pixels = _decoded_by_turbo(data, colors, reduced if width >= 2 * reduced else 0)
    return DecodedImage(
        _rgb(pixels, image_format), width, height, _lost_colors(pixels, image_format)
    )


def is_jpeg(message: CompressedImage | Image) -> bool:
    """Return True if ``message`` contains a JPEG file."""
    return isinstance(message, CompressedImage) and _file_kind(bytes(message.data[:12])) == 'JPEG'


def is_color_jpeg(message: CompressedImage, max_pixels: int) -> bool:
    """Return True if a GPU may decode ``message``: it contains a JPEG file in color, without
    swapped colors, and with at most ``max_pixels`` pixels and ``MAX_JPEG_SCANS`` scans.
    """
    data = message.data
    header = _turbo_header(data)
    if header is None or Format.parse(message.format).is_swapped:
        return False
    width, height, colors = header
    return colors != 'Gray' and width * height <= max_pixels and _scans(data) <= MAX_JPEG_SCANS


def _file_kind(data: bytes) -> str | None:
    if data.startswith(b'\xff\xd8'):
        return 'JPEG'
    if data.startswith(b'\x89PNG\r\n\x1a\n'):
        return 'PNG'
    if data.startswith((b'II*\0', b'MM\0*')):
        return 'TIFF'
    return 'WEBP' if data.startswith(b'RIFF') and data[8:12] == b'WEBP' else None


def _unsupported(message: CompressedImage) -> str:
    """Return the error message for data that are in none of the supported file formats."""
    fault = (
        f'is not a JPEG, PNG, TIFF or WebP file ({len(message.data)} bytes, format '
        f'{message.format!r})'
    )
    words = re.findall(r'[\w-]+', Format.parse(message.format).rest)
    codec = words[0] if words else ''
    if codec.lower() in FILE_CODECS:
        return fault
    transport = _TRANSPORTS.get(codec.lower(), codec)
    return (
        f'{fault}; decode the images with `ros2 run image_transport republish {transport} raw '
        f'--ros-args -p in_transport:={transport} -p out_transport:=raw '
        f'-r in/{transport}:=<this topic> -r out:=<new topic>`, then set image_transport to raw '
        'and image_topics to the new topic'
    )


def _bound_work(data: bytes, kind: str) -> None:
    """Raise ValueError for small files that would keep a decoder busy for long."""
    if kind == 'JPEG' and _scans(data) > MAX_JPEG_SCANS:
        raise ValueError(
            f'is a JPEG with {_scans(data)} scans, more than the allowed {MAX_JPEG_SCANS}'
        )
    if kind == 'PNG' and _has_more_chunks_than(MAX_PNG_CHUNKS + len(data) // 1024, data):
        raise ValueError(f'is a PNG with too many chunks for its {len(data)} bytes')


def _scans(data: bytes) -> int:
    """Return the number of start-of-scan markers. Compressed image data never contains such a
    marker.
    """
    pairs = (np.frombuffer(data, '<u2', (len(data) - start) // 2, start) for start in (0, 1))
    return sum(
        np.count_nonzero(array == _START_OF_SCAN) for array in pairs
    )  # takes a tenth of the time of data.count


def _has_more_chunks_than(limit: int, data: bytes) -> bool:
    position, count = 8, 0
    while position + 8 <= len(data) and count <= limit:
        position += 12 + int.from_bytes(data[position : position + 4], 'big')
        count += 1
    return count > limit


def _turbo_header(data: bytes) -> tuple[int, int, str] | None:
    """Return width, height and color space of a JPEG; None if libjpeg-turbo cannot decode it."""
    if simplejpeg is None:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # Pillow decodes rare subsamplings, and reports what is damaged
        return None
    return (width, height, colors) if colors in ('YCbCr', 'RGB', 'Gray') else None


def _decoded_by_turbo(data: bytes, colors: str, min_width: int) -> np.ndarray:
    """Return (H, W) or (H, W, 3) uint8. Raise ValueError for damaged data, although libjpeg only
    warns about such data.
    """
    options = {'colorspace': 'GRAY' if colors == 'Gray' else 'RGB', 'min_width': min_width}
    if min_width:
        options['min_factor'] = 2
    try:
        pixels = simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        if not _is_padding(str(error)):
            raise ValueError(f'is a damaged or unsupported JPEG: {error}') from error
        pixels = simplejpeg.decode_jpeg(data, strict=False, **options)
    return pixels[..., 0] if colors == 'Gray' else pixels


def _is_padding(warning: str) -> bool:
    """Return True if a warning of libjpeg is about the padding that USB cameras write."""
    padding = _PADDED.match(warning)
    if padding is None:
        return False
    return int(padding[1]) <= (PADDING_BYTES if padding[2] == '9' else RESTART_PADDING_BYTES)


def _decoded_by_pillow(data: bytes, kind: str, max_pixels: int) -> np.ndarray:
    """Return (H, W) or (H, W, 3) uint8. Of 16-bit values, the upper byte is used."""
    try:
        image = PillowImage.open(io.BytesIO(data), formats=(kind,))
    except PillowImage.DecompressionBombError as error:
        raise ValueError(
            f'has more than {PILLOW_MEGAPIXELS} megapixels, which Pillow does not decode'
        ) from error
    except Exception as error:  # Pillow raises many types on invalid bytes
        raise ValueError(f'is a damaged or unsupported {kind}: {error}') from error
    with image:
        require_at_most(max_pixels, image.width, image.height)
        if image.mode in ('I', 'F'):
            raise ValueError(
                f'is a {kind} of 32-bit values, whose range is not defined; publish 8-bit or '
                '16-bit values'
            )
        try:
            if image.mode.startswith('I;16'):  # Pillow would cut the values off at 255
                return (np.asarray(image) >> 8).astype(np.uint8)
            return np.asarray(image if image.mode == 'L' else image.convert('RGB'))
        except Exception as error:
            raise ValueError(f'is a damaged or unsupported {kind}: {error}') from error


def _lost_colors(pixels: np.ndarray, image_format: Format) -> str:
    """Return a warning if the compression made a color image gray. image_transport does this with
    YUV images (issue 170 of image_transport_plugins).
    """
    if pixels.ndim == 3 or not image_format.is_color:
        return ''
    return (
        f'sends gray images, although their encoding is {image_format.encoding}: the compression '
        'removed the colors, and without colors the network detects less; compress rgb8 images'
    )


def _rgb(pixels: np.ndarray, image_format: Format) -> np.ndarray:
    """Return (H, W, 3) RGB of the pixels of the file."""
    if pixels.ndim == 2:
        return rgb_from_pixels(pixels, image_format.bayer or 'mono8')
    return rgb_from_pixels(pixels, 'bgr8' if image_format.is_swapped else 'rgb8')
