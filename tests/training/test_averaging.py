"""Tests the exponential moving average of the weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from bevdepth_core.training.averaging import AveragingSettings, ExponentialAverage
from tests.reference import golden
from tests.training.runs import run, tiny_config


def test_the_decay_ramp_equals_the_official_decay_ramp() -> None:
    official = golden('pipeline')[0]['ema_decay']['updates_0']
    ramp = AveragingSettings(decay=0.9990, ramp_updates=2000)
    assert [ramp.at(update) for update in (1, 10, 100, 1000, 10000)] == pytest.approx(
        official, rel=1e-9
    )


def test_without_a_ramp_the_decay_equals_the_decay_of_the_official_callback() -> None:
    official = golden('pipeline')[0]['ema_decay']['updates_as_started_by_callback']
    assert [AveragingSettings().at(1)] == pytest.approx(official, rel=1e-9)
    assert AveragingSettings().at(100_000) == AveragingSettings().at(1)


class Recorder(Callback):
    """Stores the initial weights, and the weights and their average after each step."""

    def __init__(self) -> None:
        self.weights: list[dict] = []
        self.averages: list[dict] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self.weights.append(copy.deepcopy(pl_module.state_dict()))

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.weights.append(copy.deepcopy(pl_module.state_dict()))
        average = next(
            callback for callback in trainer.callbacks if isinstance(callback, ExponentialAverage)
        )
        self.averages.append(copy.deepcopy(average.averaged.state_dict()))


def test_the_average_starts_with_the_initial_weights_and_includes_all_floating_point_entries(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    config = tiny_config(
        tmp_path, averaging=AveragingSettings(decay=0.7, ramp_updates=3), max_steps=3
    )
    module = run(config, watchers=[recorder])
    expected = recorder.weights[0]
    for update, weights in enumerate(recorder.weights[1:], start=1):
        decay = config.trainer.averaging.at(update)
        expected = {
            name: decay * expected[name] + (1 - decay) * entry
            if entry.is_floating_point()
            else entry
            for name, entry in weights.items()
        }
        torch.testing.assert_close(recorder.averages[update - 1], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.state_dict(), expected, rtol=1e-5, atol=1e-6)
    averaged = [
        name
        for name, tensor in expected.items()
        if not torch.equal(tensor, recorder.weights[-1][name])
    ]
    assert any('running_mean' in name for name in averaged)
    assert not any('frustum' in name for name in averaged)


@pytest.mark.parametrize('update', [1, 5, 20])
def test_the_decay_of_a_ramp_approaches_the_configured_decay(update: int) -> None:
    settings = AveragingSettings(decay=0.9, ramp_updates=10)
    assert settings.at(update) == pytest.approx(0.9 * (1 - math.exp(-update / 10)))
    assert AveragingSettings(decay=0.9).at(update) == 0.9


def test_reading_the_average_before_training_is_an_error() -> None:
    with pytest.raises(RuntimeError, match='before training'):
        _ = ExponentialAverage(AveragingSettings()).averaged
