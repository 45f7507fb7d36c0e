"""Tests functions of the program behind ``make demo``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.synthetic import make_scene
from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S
from bevdepth_core.types import Detections3D
from bevdepth_ros.demo import (
    SLOWEST_RATE,
    START_NS,
    DemoSubscriber,
    launch_command,
    main,
    next_steps,
    render_drive,
    render_figure,
    run,
    slower,
)
from bevdepth_ros.detections.messages import objects_cloud
from bevdepth_ros.detector.parameters import FIELDS
from tests.ros.graph import Graph


def test_the_figure_is_rendered_for_a_result_without_velocities(graph: Graph) -> None:
    snapshots = render_drive(make_scene(8, 0.5), 0.5, (320, 180))
    (snapshot,) = snapshots
    found = Detections3D(
        snapshot.boxes,
        np.full(len(snapshot.boxes), 0.9),
        snapshot.labels,
        NUSCENES_CLASSES,
        snapshot.stamp_ns,
        None,
    )
    subscriber = DemoSubscriber(graph.node)
    subscriber.objects[snapshot.stamp_ns] = objects_cloud(found, 'base_link')
    assert not subscriber.objects[snapshot.stamp_ns].is_dense
    assert render_figure(snapshots, subscriber).std() > 30


def test_a_result_is_assigned_to_its_image_set_even_if_a_camera_is_missing(graph: Graph) -> None:
    subscriber = DemoSubscriber(graph.node)
    assert subscriber.result_stamp(START_NS) is None
    subscriber.objects = {START_NS + 20_000_000: None, START_NS + 490_000_000: None}
    assert subscriber.result_stamp(START_NS) == START_NS + 20_000_000
    assert subscriber.result_stamp(START_NS + 500_000_000) == START_NS + 490_000_000
    assert subscriber.result_stamp(START_NS + 1_000_000_000) is None


def test_each_set_of_the_drive_except_the_first_has_a_past_frame_half_a_second_earlier() -> None:
    snapshots = render_drive(make_scene(0, 1.5), 1.5, size=(160, 90))
    stamps = [snapshot.stamp_ns for snapshot in snapshots]
    assert np.diff(stamps).tolist() == pytest.approx([500_000_000] * 2, abs=1_000_000)
    assert all(image.shape == (90, 160, 3) for image in snapshots[0].frame().images)


def test_a_repeated_replay_is_slower_and_the_time_between_sets_is_at_least_twice_the_latency() -> (
    None
):
    assert slower(0.5, 0.1) == 0.25
    assert slower(0.5, 2.0) == 0.125
    assert slower(0.5, 0.0) == 0.25
    assert slower(0.5, 4.69307) == 0.053


def test_the_printed_commands_quote_a_folder_whose_name_contains_a_space() -> None:
    arguments = ['bag:=/my out/demo_bag', 'rate:=0.161']
    assert launch_command(arguments).endswith(
        "detect.launch.py 'bag:=/my out/demo_bag' rate:=0.161"
    )
    assert next_steps(arguments).endswith('rate:=0.161 viewer:=web loop:=true')


def test_the_error_about_an_invalid_seed_names_the_option(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(['--seed', '-1'])
    assert 'argument --seed: must be an integer of at least 0, got -1' in capsys.readouterr().err


def test_at_the_slowest_rate_the_time_between_images_of_a_set_is_below_camera_timeout_s() -> None:
    assert slower(0.5, 60.0) == slower(SLOWEST_RATE, 0.0) == SLOWEST_RATE
    seconds = sorted(EXPOSURE_OFFSET_S.values())
    assert max(np.diff(seconds)) / SLOWEST_RATE < FIELDS['camera_timeout_s'].default


@pytest.mark.parametrize(
    ('device', 'checkpoint', 'message'),
    [('cuda:99', 'small', 'cuda:99 is not available'), ('cpu', 'smal', 'did you mean small')],
)
def test_device_and_checkpoint_are_checked_before_the_drive_is_rendered(
    tmp_path: Path, device: str, checkpoint: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(Namespace(out=tmp_path / 'out', device=device, checkpoint=checkpoint))
    assert not (tmp_path / 'out').exists()
