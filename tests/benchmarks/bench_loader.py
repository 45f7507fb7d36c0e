"""Measures how many images per second our training loader and the official loader read on one CPU
core, and how many samples per second our loader reads.

    python -m tests.benchmarks.bench_loader [--draws N]

The two loaders alternate in one run. The official loader decodes, resizes, crops, flips and
rotates with Pillow and normalizes with numpy to float32. Our loader returns uint8, which is
normalized on the device. The images are the six images of the reference sample, with the
augmentations of training. All times are CPU times of one thread, as medians over random
augmentations.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from bevdepth_core.config import ImageSpec
from bevdepth_core.nuscenes.augment import Augmentation, ImageAugmentation
from bevdepth_core.nuscenes.dataset import NuScenesDataset
from bevdepth_core.nuscenes.images import read_crop, read_crop_fast
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.preprocess import ImageTransform
from tests.core.nuscenes.dataroot import SPLIT, VERSION, make_dataroot
from tests.reference import reference_path
from tests.sample import sample_paths

SIZES = {  # network input, and resize factors of the augmentation for images of 1600x900
    '128x352': (ImageSpec(128, 352), ImageAugmentation(scale=(0.193, 0.275))),
    '256x704': (ImageSpec(), ImageAugmentation()),
    '512x1408': (ImageSpec(512, 1408), ImageAugmentation(scale=(0.772, 1.1))),
}


def official_crop(path: Path, transform: ImageTransform, spec: ImageSpec) -> np.ndarray:
    """Return the (H, W, 3) float32 pixels that the official loader computes."""
    image = Image.open(path)
    image = image.resize((int(image.width * transform.scale), int(image.height * transform.scale)))
    left, top = transform.crop_x, transform.crop_y
    image = image.crop((left, top, left + transform.width, top + transform.height))
    if transform.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image.rotate(transform.rotation_deg)).astype(np.float32)[..., ::-1]
    return (pixels - np.float32(spec.mean)) / np.float32(spec.std)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def print_images(size: str, draws: int) -> None:
    spec, augmentation = SIZES[size]
    paths = sample_paths(reference_path('nuscenes_sample'))
    ways = {
        'official path': lambda path, transform: official_crop(path, transform, spec),
        'ours, exact (validation)': read_crop,
        'ours, fast (training)': read_crop_fast,
    }
    seconds = {name: [] for name in ways}
    for draw in range(draws):
        transform = augmentation.draw(np.random.default_rng(draw), (1600, 900), spec)
        for name, read in ways.items():
            seconds[name].append(
                cpu_seconds(
                    lambda read=read, transform=transform: [
                        read(path, transform) for path in paths
                    ]
                )
            )
    medians = {name: statistics.median(values) / len(paths) for name, values in seconds.items()}
    print(f'\nread one 1600x900 image to {size}, {draws} draws of {len(paths)} images')
    for name, median in medians.items():
        print(
            f'{name:26s} {median * 1e3:6.2f} ms {1 / median:7.1f} images/s  '
            f'x{medians["official path"] / median:.2f}'
        )


def print_samples(draws: int) -> None:
    spec, augmentation = SIZES['256x704']
    with tempfile.TemporaryDirectory() as folder:
        root = make_dataroot(Path(folder) / 'dataset')
        index = load_index(root, VERSION, SPLIT, Path(folder) / 'cache')
        dataset = NuScenesDataset(index, root, spec, 2, Augmentation(image=augmentation))
        seconds = [
            cpu_seconds(lambda draw=draw: dataset.sample(1, np.random.default_rng(draw)))
            for draw in range(draws)
        ]
    median = statistics.median(seconds)
    print(
        '\na training sample of 2 x 6 images at 256x704, matrices, boxes and lidar depth (30,000 '
        f'points), {draws} draws'
    )
    print(f'{"ours":26s} {median * 1e3:6.1f} ms {1 / median:7.1f} samples/s')


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--draws', type=int, default=20)
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for size in SIZES:
        print_images(size, draws)
    print_samples(draws)


if __name__ == '__main__':
    main()
