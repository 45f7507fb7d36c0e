"""Head maps become the right boxes."""

import dataclasses

import numpy as np
import torch

from bevdepth_core.config import HeadTask, ModelConfig
from bevdepth_core.decode import ScoredBoxes, decode, suppress_circles
from bevdepth_core.types import Boxes3D, TaskMaps
from tests.reference import golden

CONFIG = ModelConfig()


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


def test_known_cell_becomes_the_known_box():
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


def test_nothing_above_the_threshold_is_no_box():
    assert [len(sample.boxes) for sample in decode(empty_maps(2), CONFIG)] == [0, 0]


def test_batch_equals_single_samples():
    torch.manual_seed(0)
    tasks = [
        TaskMaps(**{name: torch.randn_like(value) for name, value in vars(maps).items()})
        for maps in empty_maps(2)
    ]
    both = decode(tasks, CONFIG)
    for index, sample in enumerate(both):
        alone = decode(
            [
                TaskMaps(**{name: value[index : index + 1] for name, value in vars(maps).items()})
                for maps in tasks
            ],
            CONFIG,
        )[0]
        assert np.array_equal(sample.boxes.center, alone.boxes.center) and np.array_equal(
            sample.labels, alone.labels
        )
    assert len(both[0].boxes) > 100


def test_boxes_come_best_first_and_capped_per_task():
    torch.manual_seed(0)
    tasks = empty_maps()
    tasks[0].heatmap.normal_()
    tasks[5].heatmap.normal_()
    (found,) = decode(tasks, CONFIG)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.labels == 0).sum() <= 83 and (found.labels >= 8).sum() == 83


def test_values_that_are_no_box_are_dropped():
    tasks = empty_maps()
    put(tasks[0], 0, 10, 10, 0.9, dim=(1e3, 0, 0))
    put(tasks[0], 0, 40, 10, 0.9, dim=(-1e3, 0, 0))
    put(tasks[0], 0, 70, 10, 0.9, dim=(float('nan'), 0, 0))
    put(tasks[0], 0, 90, 10, 0.9)
    tasks[0].height[0, 0, 90, 10] = 10.5
    put(tasks[0], 0, 110, 10, 0.8)
    (found,) = decode(tasks, CONFIG)
    assert np.allclose(found.scores, 0.8)


def candidates(centers, scores) -> ScoredBoxes:
    count = len(centers)
    boxes = Boxes3D(
        np.c_[np.array(centers, float), np.zeros(count)],
        np.ones((count, 3)),
        np.zeros(count),
        np.zeros((count, 2)),
    )
    return ScoredBoxes(boxes, np.array(scores, np.float32), np.zeros(count, int))


def test_suppression_compares_squared_distance_and_keeps_the_border_out():
    line = candidates([(0, 0), (2, 0), (2.01, 0), (4.02, 0)], [0.9, 0.8, 0.7, 0.6])
    assert suppress_circles(line, HeadTask(('car',), 4.0), 83).tolist() == [0, 2, 3]


def test_a_suppressed_box_suppresses_nobody():
    line = candidates([(0, 0), (1.5, 0), (3, 0)], [0.9, 0.8, 0.7])
    assert suppress_circles(line, HeadTask(('car',), 4.0), 83).tolist() == [0, 2]


def test_suppression_stops_at_the_most():
    line = candidates([(10 * index, 0) for index in range(5)], [0.9, 0.8, 0.7, 0.6, 0.5])
    assert suppress_circles(line, HeadTask(('car',), 4.0), 3).tolist() == [0, 1, 2]


def test_suppression_equals_the_official_one_on_its_own_candidates():
    """The official candidates of every task, suppressed by us, are the official boxes."""
    arrays = golden('synth_2key')[1]
    expected, kept = arrays['out/b0/boxes'], []
    for number, task in enumerate(CONFIG.head.tasks):
        before = {
            name: arrays[f'out/b0/pre_nms_task{number}/{name}'] for name in ('boxes', 'scores')
        }
        order = np.argsort(-before['scores'], kind='stable')
        boxes = before['boxes'][order]
        ordered = ScoredBoxes(
            Boxes3D(boxes[:, :3], boxes[:, 3:6], boxes[:, 6], boxes[:, 7:]),
            before['scores'][order],
            np.zeros(len(order), int),
        )
        kept.append(boxes[suppress_circles(ordered, task, CONFIG.decode.boxes_per_task)])
    assert np.array_equal(np.concatenate(kept), expected)


def test_threshold_is_exclusive_and_configurable():
    tasks = empty_maps()
    put(tasks[0], 0, 10, 10, 0.3)
    strict = dataclasses.replace(
        CONFIG, decode=dataclasses.replace(CONFIG.decode, score_threshold=0.35)
    )
    assert len(decode(tasks, CONFIG)[0].boxes) == 1 and len(decode(tasks, strict)[0].boxes) == 0
