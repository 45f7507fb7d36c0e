"""Compares the boxes of a network compiled for C++ with the boxes of the Detector."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.export.check import MATCHED_SHARE, compare, matched_boxes, random_frames
from bevdepth_core.export.command_line import main
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import Boxes3D, Detections3D, Frame
from tests.networks import export_model
from tests.packaging.shell import ROOT

# Compiling takes about 80 s on a free core, and several times as long while other programs run.
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope='module')
def model() -> BEVDepth:
    return export_model()


@pytest.fixture(scope='module')
def exported(model: BEVDepth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pt2')
    save_checkpoint(model, folder / 'tiny.safetensors')
    main([str(folder / 'tiny.safetensors'), '--format', 'pt2', '--out', str(folder / 'exported')])
    return folder / 'exported'


@pytest.fixture(scope='module')
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the C++ example as docs/EXPORT.md describes, and return the path of the program."""
    folder = tmp_path_factory.mktemp('build')
    torch_folder = Path(torch.__file__).parent
    source = str(ROOT / 'csrc' / 'examples')
    subprocess.run(
        ['cmake', '-S', source, '-B', str(folder), f'-DTORCH={torch_folder}'], check=True
    )
    subprocess.run(['cmake', '--build', str(folder)], check=True)
    return folder / 'detect'


def write_frame(folder: Path, frame: Frame) -> tuple[Path, Frame]:
    """Write ``frame`` as input files of the example, with images of different sizes. Return the
    input file, and the frame with the images as they are decoded from the JPEG files."""
    folder.mkdir()
    lines = [words(frame.world_from_ego[0])]
    images = []
    for index, image in enumerate(frame.images):
        path = folder / f'{index}.jpg'
        Image.fromarray(image[: 450 - 10 * index, : 800 - 30 * index]).save(path)
        images.append(np.asarray(Image.open(path)))
        k = frame.rig.intrinsics[index]
        pinhole = ' '.join(repr(float(number)) for number in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
        lines.append(f'{path} {pinhole} {words(frame.rig.ego_from_camera[index])}')
    (folder / 'frame.txt').write_text('\n'.join(lines))
    stored = Frame(tuple(images), frame.rig, frame.stamps_ns, frame.world_from_ego)
    return folder / 'frame.txt', stored


def words(pose: np.ndarray) -> str:
    return ' '.join(repr(float(number)) for number in pose[:3].flatten())


def run(program: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def require_equal(text: str, expected: Detections3D) -> None:
    """Compare the boxes that the example printed with the boxes of the Detector. As in
    ``--check``, boxes with nearly equal scores may be in a different order. A task returns only
    its best boxes, so the last boxes of a task may differ, too.
    """
    rows = [line.split() for line in text.splitlines()]
    numbers = np.array([row[1:] for row in rows], np.float32)
    labels = np.array([expected.class_names.index(row[0]) for row in rows])
    boxes = Boxes3D(numbers[:, 1:4], numbers[:, 4:7], numbers[:, 7], numbers[:, 8:10])
    found = replace(expected, boxes=boxes, scores=numbers[:, 0], labels=labels)
    pairs = matched_boxes(expected, found)
    assert len(rows) == len(expected.scores) > 50
    assert len(pairs) >= MATCHED_SHARE['fp32'] * len(rows)
    assert (np.diff(found.scores) <= 0).all()
    for one, other in (
        (expected.scores, found.scores),
        (expected.boxes.center, boxes.center),
        (expected.boxes.size, boxes.size),
        (expected.boxes.velocity, boxes.velocity),
    ):
        np.testing.assert_allclose(one[pairs[:, 0]], other[pairs[:, 1]], rtol=1e-3, atol=1e-3)
    # The network predicts yaw as a vector of any length. If the vector is short, rounding errors
    # have a large effect on yaw.
    turned = expected.boxes.yaw[pairs[:, 0]] - boxes.yaw[pairs[:, 1]]
    distances = np.abs(np.exp(1j * turned) - 1)
    assert (distances < 1e-3).mean() > 0.98
    assert distances.max() < 0.02


def test_the_check_accepts_the_packages_with_one_and_with_six_cameras(
    model: BEVDepth, exported: Path
) -> None:
    report = compare(model, exported, (1, 6))
    assert report.problems == []
    assert max(report.errors.values()) < 5e-6
    assert report.boxes > 100
    assert report.matched == report.boxes == report.exported_boxes


def test_the_example_prints_the_boxes_of_the_detector(
    model: BEVDepth, exported: Path, program: Path, tmp_path: Path
) -> None:
    frames = random_frames(6, np.random.default_rng(1))
    (past_file, past), (key_file, key) = (
        write_frame(tmp_path / str(index), frame) for index, frame in enumerate(frames)
    )
    detector = Detector(model)
    detector(past)
    expected = detector(key)
    assert expected.past_stamp_ns is not None
    outcome = run(program, exported, key_file, past_file)
    assert (outcome.returncode, outcome.stderr) == (0, '')
    require_equal(outcome.stdout, expected)
    detector.reset()
    require_equal(run(program, exported, key_file).stdout, detector(key))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('1 0 0', 'cannot read the pose world_from_ego'),
        ('1 0 0 0 0 1 0 0 0 0 1 0\n', 'has no cameras'),
        ('1 0 0 0 0 1 0 0 0 0 1 0\n0.jpg 500 500 400', 'cannot read the numbers of 0.jpg'),
        (
            '1 0 0 0 0 1 0 0 0 0 1 0\n/missing.jpg 500 500 400 225 1 0 0 0 0 1 0 0 0 0 1 0',
            'cannot open /missing.jpg',
        ),
    ],
)
def test_the_example_reports_invalid_input(
    exported: Path, program: Path, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / 'frame.txt').write_text(content)
    outcome = run(program, exported, tmp_path / 'frame.txt')
    assert outcome.returncode == 1
    assert message in outcome.stderr
    assert outcome.stdout == ''


def test_the_example_reports_a_folder_without_packages(program: Path, tmp_path: Path) -> None:
    outcome = run(program, tmp_path, tmp_path / 'frame.txt')
    assert outcome.returncode == 1
    assert f'{tmp_path}: has no packages; write them with' in outcome.stderr


def test_a_compiled_network_with_depth_refinement_passes_the_check(tmp_path: Path) -> None:
    model = export_model(refinement=True)
    save_checkpoint(model, tmp_path / 'tiny.safetensors')
    words = [str(tmp_path / 'tiny.safetensors'), '--format', 'pt2', '--out', str(tmp_path / 'out')]
    main([*words, '--check', '--cameras', '2'])
