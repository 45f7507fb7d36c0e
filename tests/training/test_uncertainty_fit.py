"""Tests how many errors the fitted covariance covers, how a checkpoint's metadata stores the fit,
and that invalid metadata is rejected.
"""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bevdepth_core.training.uncertainty_fit import (
    _bound,
    coverage_table,
    errors_of,
    fit,
    store,
)
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import METADATA_KEY, UncertaintyModel

NAMES = ('car', 'pedestrian')


ROWS = 11
"""Number of rows of the coverage table. For each of the two classes, there are five rows, each for
a range bin of 10 m. One more row is for all errors."""


def sample(seed: int, count: int = 12_000) -> tuple[Detections3D, Boxes3D]:
    """Return detections around the vehicle, and the true box of each detection.

    The standard deviation of the position error grows with the range. The standard deviation
    across the line of sight is 0.3 times the standard deviation along the line of sight.
    """
    rng = np.random.default_rng(seed)
    distance, angle = rng.uniform(2, 48, count), rng.uniform(-np.pi, np.pi, count)
    direction = np.column_stack((np.cos(angle), np.sin(angle)))
    left = np.column_stack((-np.sin(angle), np.cos(angle)))
    labels = rng.integers(0, 2, count)
    spread = (0.1 + 0.03 * distance) * np.where(labels == 0, 1.0, 0.6)
    along, across = spread * rng.normal(size=count), 0.3 * spread * rng.normal(size=count)
    center = np.column_stack((distance[:, None] * direction, np.zeros(count)))
    offset = along[:, None] * direction + across[:, None] * left
    truth = center + np.column_stack((offset, rng.normal(0, 0.2, count)))
    size = np.ones((count, 3))
    found = Boxes3D(center, size, np.zeros(count), np.zeros((count, 2)))
    true_boxes = Boxes3D(truth, size, rng.normal(0, 0.1, count), rng.normal(0, 0.5, (count, 2)))
    return Detections3D(found, np.full(count, 0.5), labels, NAMES, 0, 0), true_boxes


def test_fitted_ellipses_contain_93_to_97_percent_of_new_errors_in_every_bin():
    model = fit(errors_of(*sample(1)), NAMES)
    found, truth = sample(2)
    rows = coverage_table(errors_of(found, truth), found, model.covariance(found)).splitlines()[2:]
    assert len(rows) == ROWS
    for row in rows:
        assert 93 <= float(row.split('|')[4].removesuffix(' % ')) <= 97, row
    spread = model.spreads(found)
    far = (found.boxes.center[:, 0] > 35) & (found.labels == 0)
    assert (spread['along'] > 2.5 * spread['across'])[far].all()
    assert np.allclose(spread['height'], 0.2, rtol=0.2)
    assert np.allclose(spread['yaw'], 0.1, rtol=0.2)
    assert np.allclose(spread['velocity'], 0.5, rtol=0.2)


def test_a_model_read_from_a_checkpoint_equals_the_stored_model_and_weights_are_unchanged(
    tmp_path,
):
    model, path = fit(errors_of(*sample(1)), NAMES), tmp_path / 'a.safetensors'
    weights = {'w': np.arange(6, dtype=np.float16)}
    save_file(weights, path, {'format': 'x'})
    store(path, model, 'made up')
    with safe_open(path, 'numpy') as file:
        assert file.get_tensor('w').tobytes() == weights['w'].tobytes()
        metadata = file.metadata()
    assert (metadata['format'], metadata['uncertainty_origin']) == ('x', 'made up')
    read = UncertaintyModel.from_metadata(metadata, NAMES)
    found, _ = sample(3, 50)
    np.testing.assert_allclose(
        read.covariance(found).pose, model.covariance(found).pose, rtol=1e-2, atol=1e-4
    )


def test_from_metadata_returns_none_without_a_fit_and_rejects_invalid_metadata():
    metadata = fit(errors_of(*sample(1)), NAMES).to_metadata()
    assert UncertaintyModel.from_metadata({}, NAMES) is None
    with pytest.raises(ValueError, match='for other classes'):
        UncertaintyModel.from_metadata(metadata, ('car', 'truck'))
    for text in ('{', '[]', '{"class_names": ["car"]}'):
        with pytest.raises(ValueError, match='is damaged'):
            UncertaintyModel.from_metadata({METADATA_KEY: text}, NAMES)


def test_a_bound_that_is_computed_from_60_errors_covers_95_percent_of_new_errors_on_average():
    few = np.random.default_rng(4).chisquare(2, (2000, 60))
    # The cumulative distribution of chi-square with 2 degrees of freedom is 1 - exp(-x / 2).
    inside = [1 - np.exp(-_bound(values) / 2) for values in few]
    assert 0.947 <= np.mean(inside) <= 0.953


def test_fewer_errors_than_a_fit_needs_are_rejected():
    with pytest.raises(ValueError, match='are too few'):
        fit(errors_of(*sample(1, 20)), NAMES)
