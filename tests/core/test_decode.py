"""Head maps are decoded to the correct boxes."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.config import (
    BEVGrid,
    DecodeConfig,
    HeadConfig,
    HeadTask,
    ModelConfig,
    ScaleNMSConfig,
)
from bevdepth_core.decode import BoxDecoder, decode, half_extents, stack_maps
from bevdepth_core.ops.circle_nms import circle_nms
from bevdepth_core.types import BOX_VALUES, TaskMaps
from tests.reference import golden

CONFIG = ModelConfig()


def test_half_extents_enclose_the_rotated_rectangle():
    length, width, yaw = (torch.tensor(values) for values in ((4.0, 4.0), (2.0, 2.0), (0.0, 0.5)))
    corners = torch.tensor([(2.0, 1.0), (2.0, -1.0), (-2.0, 1.0), (-2.0, -1.0)])
    cosine, sine = yaw[1].cos(), yaw[1].sin()
    rotated = corners @ torch.stack((torch.stack((cosine, sine)), torch.stack((-sine, cosine))))
    expected = torch.stack((torch.tensor([2.0, 1.0]), rotated.amax(0)))
    assert torch.allclose(half_extents(length, width, yaw), expected)


def empty_maps(batch: int = 1) -> list[TaskMaps]:
    channels = {'reg': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}
    return [
        TaskMaps(
            **{name: torch.zeros(batch, count, 128, 128) for name, count in channels.items()},
            heatmap=torch.full((batch, len(task.classes), 128, 128), -9.0),
        )
        for task in CONFIG.head.tasks
    ]


def put(
    maps: TaskMaps,
    sample: int,
    row: int,
    column: int,
    score: float,
    label: int = 0,
    dim=(1.5, 0.7, 0.4),
) -> None:
    maps.heatmap[sample, label, row, column] = float(np.log(score / (1 - score)))
    maps.reg[sample, :, row, column] = torch.tensor([0.25, 0.75])
    maps.height[sample, 0, row, column] = -0.5
    maps.dim[sample, :, row, column] = torch.tensor(dim)
    maps.rot[sample, :, row, column] = torch.tensor([0.6, -0.8])
    maps.vel[sample, :, row, column] = torch.tensor([3.0, -1.0])


def test_the_head_values_of_a_cell_are_decoded_to_a_box():
    tasks = empty_maps()
    put(tasks[2], 0, row=100, column=30, score=0.7, label=1)
    (found,) = decode(tasks, CONFIG)
    assert found.labels.tolist() == [CONFIG.class_names.index('trailer')]
    assert np.allclose(found.scores, 0.7)
    assert np.allclose(
        found.boxes.center, [[30.25 * 0.8 - 51.2, 100.75 * 0.8 - 51.2, -0.5]], atol=1e-5
    )
    assert np.allclose(found.boxes.size, np.exp([[1.5, 0.7, 0.4]]))
    assert np.allclose(found.boxes.yaw, np.arctan2(0.6, -0.8))
    assert np.allclose(found.boxes.velocity, [[3, -1]])


def test_maps_whose_scores_are_all_below_the_threshold_give_no_box():
    assert [len(sample.boxes) for sample in decode(empty_maps(2), CONFIG)] == [0, 0]


def test_a_batch_gives_the_same_boxes_as_its_single_samples():
    torch.manual_seed(0)
    tasks = [
        TaskMaps(**{name: torch.randn_like(value) for name, value in vars(maps).items()})
        for maps in empty_maps(2)
    ]
    batch = decode(tasks, CONFIG)
    for index, sample in enumerate(batch):
        single = decode(
            [
                TaskMaps(**{name: value[index : index + 1] for name, value in vars(maps).items()})
                for maps in tasks
            ],
            CONFIG,
        )[0]
        assert np.array_equal(sample.boxes.center, single.boxes.center) and np.array_equal(
            sample.labels, single.labels
        )
    assert len(batch[0].boxes) > 100


def test_boxes_are_sorted_by_score_and_limited_per_task():
    torch.manual_seed(0)
    tasks = empty_maps()
    tasks[0].heatmap.normal_()
    tasks[5].heatmap.normal_()
    (found,) = decode(tasks, CONFIG)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.labels == 0).sum() <= 83 and (found.labels >= 8).sum() == 83


def test_boxes_with_invalid_values_are_dropped():
    tasks = empty_maps()
    put(tasks[0], 0, 10, 10, 0.9, dim=(1e3, 0, 0))
    put(tasks[0], 0, 40, 10, 0.9, dim=(-1e3, 0, 0))
    put(tasks[0], 0, 70, 10, 0.9, dim=(float('nan'), 0, 0))
    put(tasks[0], 0, 90, 10, 0.9)
    tasks[0].height[0, 0, 90, 10] = 10.5
    put(tasks[0], 0, 110, 10, 0.8)
    (found,) = decode(tasks, CONFIG)
    assert np.allclose(found.scores, 0.8)


def test_circle_nms_keeps_the_official_boxes_of_the_official_candidates():
    """From the official candidates of every task, our circle NMS keeps the official boxes."""
    arrays = golden('synth_2key')[1]
    expected, kept = arrays['out/b0/boxes'], []
    for number, task in enumerate(CONFIG.head.tasks):
        before = {
            name: arrays[f'out/b0/pre_nms_task{number}/{name}'] for name in ('boxes', 'scores')
        }
        boxes = before['boxes'][np.argsort(-before['scores'], kind='stable')]
        centers = torch.from_numpy(boxes[None, :, :2])
        valid, limit = torch.ones(1, len(boxes), dtype=torch.bool), [task.nms_distance_squared]
        index = circle_nms(centers, valid, torch.tensor(limit), CONFIG.decode.boxes_per_task)[0]
        kept.append(boxes[index[index >= 0]])
    assert np.array_equal(np.concatenate(kept), expected)


def changed(**decoding) -> ModelConfig:
    return dataclasses.replace(CONFIG, decode=dataclasses.replace(CONFIG.decode, **decoding))


def test_a_box_with_a_score_exactly_at_the_threshold_is_dropped():
    tasks = empty_maps()
    put(tasks[0], 0, 10, 10, 0.3)
    score = float(decode(tasks, CONFIG)[0].scores[0])
    below = float(np.nextafter(np.float32(score), np.float32(0)))
    assert len(decode(tasks, changed(score_threshold=score))[0].boxes) == 0
    assert len(decode(tasks, changed(score_threshold=below))[0].boxes) == 1


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('sign', [-1, 1])
def test_a_box_centered_on_the_border_of_the_range_is_kept_and_a_box_beyond_it_is_dropped(
    axis, sign
):
    limit = (61.2, 61.2, 10.0)[axis]
    for beyond, count in ((0.0, 1), (0.01, 0)):
        tasks = empty_maps()
        put(tasks[0], 0, 64, 64, 0.5)
        if axis == 2:
            tasks[0].height[0, 0, 64, 64] = sign * (limit + beyond)
        else:  # cell 64 begins at 0 m
            tasks[0].reg[0, axis, 64, 64] = sign * (limit + beyond - 1e-3 * (not beyond)) / 0.8
        assert len(decode(tasks, CONFIG)[0].boxes) == count


def test_a_box_in_the_last_cell_of_a_grid_that_ends_at_102_m_is_kept():
    config = dataclasses.replace(CONFIG, grid=BEVGrid(x=(0.0, 102.4, 0.8)))
    tasks = empty_maps()
    put(tasks[0], 0, row=64, column=127, score=0.8)
    (found,) = decode(tasks, config)
    assert found.boxes.center[0, 0] == pytest.approx(127.25 * 0.8)


def test_a_box_below_the_threshold_suppresses_no_other_box():
    tasks = empty_maps()
    put(tasks[0], 0, 64, 64, 0.09)
    put(tasks[0], 0, 64, 66, 0.5)
    put(tasks[0], 0, 66, 66, 0.08)
    assert np.allclose(decode(tasks, CONFIG)[0].scores, 0.5)


def test_boxes_do_not_suppress_boxes_of_other_tasks():
    tasks = empty_maps()
    put(tasks[0], 0, 64, 64, 0.9)
    put(tasks[1], 0, 64, 64, 0.8)
    put(tasks[1], 0, 64, 65, 0.7, label=1)  # 0.8 m from the box of this task with the score 0.8
    assert decode(tasks, CONFIG)[0].labels.tolist() == [0, 1]


def test_only_the_candidates_with_the_highest_scores_become_boxes():
    tasks = empty_maps()
    for column, score in ((10, 0.9), (11, 0.8), (40, 0.7)):
        put(tasks[0], 0, 64, column, score)
    for candidates, count in ((2, 1), (3, 2)):
        assert len(decode(tasks, changed(candidates=candidates))[0].boxes) == count


def test_a_nan_score_gives_no_box():
    tasks = empty_maps()
    tasks[0].heatmap[0, 0, 64, 64] = float('nan')
    put(tasks[0], 0, 64, 66, 0.5)
    assert np.allclose(decode(tasks, CONFIG)[0].scores, 0.5)


def test_every_box_of_a_task_has_one_of_the_classes_of_the_task():
    """The grid has fewer cells than the number of ``candidates``, so every cell of every
    class becomes a candidate.
    """
    config = ModelConfig(
        grid=BEVGrid(x=(-6.4, 6.4, 0.8), y=(-6.4, 6.4, 0.8)),
        head=HeadConfig(tasks=(HeadTask(('a', 'b'), 0.0), HeadTask(('c',), 0.0))),
        decode=DecodeConfig(score_threshold=-0.5, candidates=1000, boxes_per_task=1000),
    )
    tasks = [
        TaskMaps(*(torch.zeros(1, count, 16, 16) for count in (2, 1, 3, 2, 2)), heatmap)
        for heatmap in (torch.zeros(1, 2, 16, 16), torch.full((1, 1, 16, 16), -40.0))
    ]
    (found,) = decode(tasks, config)
    assert np.bincount(found.labels, minlength=3)[2] == 256
    assert found.labels.max() == 2


def test_the_box_table_has_a_fixed_size_and_is_equal_for_both_memory_layouts_of_the_maps():
    torch.manual_seed(0)
    tasks = [
        TaskMaps(**{name: torch.randn_like(value) for name, value in vars(maps).items()})
        for maps in empty_maps(2)
    ]
    maps, decoder = stack_maps(tasks), BoxDecoder(CONFIG)
    assert maps.shape == (2, 6, BOX_VALUES + 2, 128, 128)
    table = decoder(maps)
    assert table.shape == (2, 6 * 83, 11)
    pixels_first = maps.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    assert torch.equal(decoder(pixels_first), table)
    assert decoder(stack_maps(empty_maps())).shape == (1, 6 * 83, 11)


def overlapping_cones() -> list[TaskMaps]:
    tasks = empty_maps()
    for column, score in ((64, 0.9), (65, 0.8), (90, 0.7)):  # a column is 0.8 m wide
        put(tasks[5], 0, 64, column, score, label=1, dim=np.log((0.4, 0.4, 1.0)))
    put(tasks[5], 0, 64, 66, 0.6, label=0, dim=np.log((0.4, 0.4, 1.7)))
    put(tasks[3], 0, 64, 64, 0.5, dim=np.log((2.0, 2.0, 1.0)))
    return tasks


def test_scale_nms_drops_boxes_of_one_task_that_overlap_after_scaling():
    tasks = overlapping_cones()
    assert np.allclose(decode(tasks, CONFIG)[0].scores, (0.9, 0.8, 0.7, 0.6, 0.5))
    (found,) = decode(tasks, changed(scale_nms=ScaleNMSConfig()))
    # The second cone, 0.8 m from the first cone, is dropped. The pedestrian is kept, because it is
    # 1.6 m from the first cone. The barrier is kept, because it belongs to another task.
    assert np.allclose(found.scores, (0.9, 0.7, 0.6, 0.5))
    assert found.labels.tolist() == [9, 9, 8, 5]


def test_scale_nms_uses_the_factor_of_each_class():
    tasks = overlapping_cones()
    factors = (*[1.0] * 8, 9.0, 1.0)  # only pedestrians are enlarged
    (found,) = decode(tasks, changed(scale_nms=ScaleNMSConfig(factors, 0.0)))
    assert np.allclose(found.scores, (0.9, 0.8, 0.7, 0.5))
    (found,) = decode(tasks, changed(scale_nms=ScaleNMSConfig(factors, 0.1)))
    assert np.allclose(found.scores, (0.9, 0.8, 0.7, 0.6, 0.5))


def test_scale_nms_accepts_an_empty_list_of_boxes():
    assert len(decode(empty_maps(), changed(scale_nms=ScaleNMSConfig()))[0].boxes) == 0


def test_the_score_threshold_is_configurable():
    tasks = empty_maps()
    put(tasks[0], 0, 10, 10, 0.3)
    strict = dataclasses.replace(
        CONFIG, decode=dataclasses.replace(CONFIG.decode, score_threshold=0.35)
    )
    assert len(decode(tasks, CONFIG)[0].boxes) == 1 and len(decode(tasks, strict)[0].boxes) == 0
