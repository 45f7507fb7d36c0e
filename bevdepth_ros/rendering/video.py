"""Writes images as MP4, GIF, one PNG or numbered PNG files, chosen by the suffix of the path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from PIL import Image

from bevdepth_core.visualization import CLASS_COLORS

CONSTANT_QUALITY = '20'
"""Constant rate factor of x264. A lower value means a better quality."""
GIF_COLORS = 256
MILLISECOND = Fraction(1, 1000)


class ImageWriter:
    """Context manager that writes (height, width, 3) uint8 RGB images of one size.

    A path that ends in .mp4 gives an H.264 video that browsers can play, and .gif gives an
    animation that repeats forever. A .png file contains one image, so the caller must stop when
    ``is_full`` is True. A path without suffix is a folder for PNG files. A file is written under a
    temporary name and renamed when it is complete.

    Args:
        path: file or folder to write.

    Raises:
        ValueError: the suffix is not supported.

    Attributes:
        count: number of images written.
        is_full: True if no further image can be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        starts = {
            '.mp4': self._start_mp4,
            '.gif': self._start_gif,
            '.png': self._start_png,
            '': self._start_folder,
        }
        suffix = path.suffix.lower()
        if suffix not in starts and not path.is_dir():
            raise ValueError(
                f'{path}: {suffix} cannot be written; use .mp4, .gif, .png, or a name without '
                'suffix for a folder of PNG files'
            )
        self._start: Callable[[], Callable[[np.ndarray, float], None]] = starts.get(
            suffix, self._start_folder
        )

    @property
    def is_full(self) -> bool:
        return self._path.suffix.lower() == '.png' and self.count == 1

    def __enter__(self) -> ImageWriter:
        self._stack = ExitStack()
        self._temporary = self._path.with_name(f'.{self._path.name}.part')
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write = self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        if self._temporary.is_file():
            if kind is None and self.count:
                self._temporary.replace(self._path)
            else:
                self._temporary.unlink()

    def add(self, image: np.ndarray, moment_s: float) -> None:
        """Write an image. ``moment_s`` is the time of the image in seconds. It must be later than
        the time of the previous image.
        """
        self._write(image, moment_s)
        self.count += 1

    def _start_mp4(self) -> Callable[[np.ndarray, float], None]:
        container = self._stack.enter_context(
            av.open(str(self._temporary), 'w', format='mp4', options={'movflags': 'faststart'})
        )
        options = {'crf': CONSTANT_QUALITY, 'preset': 'medium'}
        stream = container.add_stream('libx264', rate=30, options=options)
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.time_base = MILLISECOND
        self._stack.callback(lambda: container.mux(stream.encode()) if self.count else None)
        first_s: list[float] = []

        def write(image: np.ndarray, moment_s: float) -> None:
            if not first_s:
                first_s.append(moment_s)
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.pts, frame.time_base = round((moment_s - first_s[0]) * 1000), MILLISECOND
            container.mux(stream.encode(frame))

        return write

    def _start_gif(self) -> Callable[[np.ndarray, float], None]:
        images: list[Image.Image] = []
        moments: list[float] = []

        def write(image: np.ndarray, moment_s: float) -> None:
            images.append(_with_few_colors(Image.fromarray(image)))
            moments.append(moment_s)

        def save() -> None:
            if images:
                steps = np.diff(
                    [*moments, moments[-1] + (moments[-1] - moments[0]) / max(len(moments) - 1, 1)]
                )
                rest = {
                    'append_images': images[1:],
                    'duration': (steps * 1000).round().tolist(),
                    'loop': 0,
                    'optimize': True,
                }
                images[0].save(self._temporary, 'GIF', save_all=True, **rest)

        self._stack.callback(save)
        return write

    def _start_png(self) -> Callable[[np.ndarray, float], None]:
        return lambda image, _: Image.fromarray(image).save(self._temporary, 'PNG')

    def _start_folder(self) -> Callable[[np.ndarray, float], None]:
        self._path.mkdir(parents=True, exist_ok=True)
        return lambda image, _: Image.fromarray(image).save(self._path / f'{self.count:05d}.png')


def _with_few_colors(image: Image.Image) -> Image.Image:
    """Return ``image`` with a palette that contains the exact class colors. The class colors cover
    few pixels, so a usual palette would only approximate them.
    """
    kept = [share for color in CLASS_COLORS.values() for share in color]
    free = GIF_COLORS - len(CLASS_COLORS)
    frequent = image.quantize(free).getpalette() or []
    palette = Image.new('P', (1, 1))
    palette.putpalette(frequent[: 3 * free] + kept)
    return image.quantize(palette=palette, dither=Image.Dither.NONE)
