"""Arrays and tensors are uploaded in order, each with its resize plan."""

import numpy as np
import torch

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.engine.upload import ImageUploader
from bevdepth_core.ops.image_resize import resize_reference
from bevdepth_core.preprocess import preprocess

SPEC = ImageSpec(32, 96)
CONFIG = ModelConfig(image=SPEC)


def images(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size, np.uint8) for size in ((60, 120, 3), (45, 160, 3))]


def test_arrays_and_tensors_are_uploaded_in_order():
    first, second = images(0)
    mixed = [first, torch.from_numpy(second), second]
    tensors, plans = ImageUploader(CONFIG, torch.device('cpu')).upload(mixed)
    for tensor, image in zip(tensors, (first, second, second), strict=True):
        assert np.array_equal(tensor.numpy(), image)
    assert plans[1] is plans[2] and plans[0] is not plans[1]


def test_resizing_with_the_plans_gives_the_pixels_of_preprocess():
    sources = images(1)
    tensors, plans = ImageUploader(CONFIG, torch.device('cpu')).upload(sources)
    expected, _ = preprocess(sources, SPEC)
    for tensor, plan, crop in zip(tensors, plans, expected, strict=True):
        assert np.array_equal(resize_reference(tensor, plan).numpy(), crop)


def test_the_next_frame_reuses_plans_and_replaces_images():
    uploader = ImageUploader(CONFIG, torch.device('cpu'))
    _, before = uploader.upload(images(2))
    sources = images(3)
    tensors, plans = uploader.upload(sources)
    assert all(new is old for new, old in zip(plans, before, strict=True))
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(tensors, sources, strict=True))
    swapped, _ = uploader.upload(sources[::-1])  # each camera now has an image of another size
    assert [tuple(tensor.shape) for tensor in swapped] == [(45, 160, 3), (60, 120, 3)]
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(swapped, sources[::-1], strict=True))
