"""Writes pictures as MP4, GIF, numbered PNG files or one PNG, by the name of what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from bevdepth_core.visualization import CLASS_COLORS

CONSTANT_QUALITY = '20'
"""x264's scale, lower is better."""
GIF_COLORS = 256
MILLISECOND = Fraction(1, 1000)


class PictureWriter:
    """Takes (height, width, 3) uint8 RGB pictures of one size with the time that each is shown; a
    context manager.

    ``drive.mp4`` is H.264 that browsers play, ``drive.gif`` repeats for ever, ``picture.png``
    holds the first image, a name without suffix becomes a folder of PNG files. A file gets its
    name when it is complete.

    Args:
        path: what to write.

    Raises:
        ValueError: the suffix is none of these.

    Attributes:
        count: pictures taken.
        full: whether further pictures would have no place.
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
    def full(self) -> bool:
        return self._path.suffix.lower() == '.png' and self.count == 1

    def __enter__(self) -> PictureWriter:
        self._stack = ExitStack()
        self._temporary = self._path.with_name(f'.{self._path.name}.part')
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write = self._start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if self._temporary.is_file():
            if kind is None and self.count:
                self._temporary.replace(self._path)
            else:
                self._temporary.unlink()

    def add(self, picture: np.ndarray, moment_s: float) -> None:
        """Take the picture of a moment, seconds, later than the one before."""
        self._write(picture, moment_s)
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

        def write(picture: np.ndarray, moment_s: float) -> None:
            if not first_s:
                first_s.append(moment_s)
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            frame.pts, frame.time_base = round((moment_s - first_s[0]) * 1000), MILLISECOND
            container.mux(stream.encode(frame))

        return write

    def _start_gif(self) -> Callable[[np.ndarray, float], None]:
        pictures: list[Image.Image] = []
        moments: list[float] = []

        def write(picture: np.ndarray, moment_s: float) -> None:
            pictures.append(_with_few_colors(Image.fromarray(picture)))
            moments.append(moment_s)

        def save() -> None:
            if pictures:
                steps = np.diff(
                    [*moments, moments[-1] + (moments[-1] - moments[0]) / max(len(moments) - 1, 1)]
                )
                rest = {
                    'append_images': pictures[1:],
                    'duration': (steps * 1000).round().tolist(),
                    'loop': 0,
                    'optimize': True,
                }
                pictures[0].save(self._temporary, 'GIF', save_all=True, **rest)

        self._stack.callback(save)
        return write

    def _start_png(self) -> Callable[[np.ndarray, float], None]:
        return lambda picture, _: Image.fromarray(picture).save(self._temporary, 'PNG')

    def _start_folder(self) -> Callable[[np.ndarray, float], None]:
        self._path.mkdir(parents=True, exist_ok=True)
        return lambda picture, _: Image.fromarray(picture).save(
            self._path / f'{self.count:05d}.png'
        )


def _with_few_colors(picture: Image.Image) -> Image.Image:
    """Return ``picture`` with a palette that keeps the colours of the classes, which are small in
    it and must be told apart.
    """
    kept = [share for color in CLASS_COLORS.values() for share in color]
    frequent = picture.quantize(GIF_COLORS - len(CLASS_COLORS)).getpalette()[
        : 3 * (GIF_COLORS - len(CLASS_COLORS))
    ]
    palette = Image.new('P', (1, 1))
    palette.putpalette(frequent + kept)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)
