"""Converts bags to datasets, continues interrupted conversions, and checks error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.recording import SceneRecording, read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_ros.bags.bag_to_nuscenes import main
from bevdepth_ros.bags.conversion import file_writer
from bevdepth_ros.bags.conversion.sensor_files import write_image
from bevdepth_ros.bags.conversion.unfinished import UnfinishedDataset
from bevdepth_ros.bags.scene_bag import Target, write_bag
from tests.ros.bags.conftest import SCENES
from tests.ros.bags.small_bags import compress, write_small_bag

VERSION = 'v1.0-own'
MS = 1_000_000


@pytest.fixture(autouse=True)
def signals_kept() -> Iterator[None]:
    """Restore the signal handlers of the test process after the test."""
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope='module')
def bag(recording: SceneRecording, dataroot: Path, tmp_path_factory) -> Path:
    return write_bag(recording, Target(dataroot, tmp_path_factory.mktemp('bags')))


def test_converting_a_dataset_to_a_bag_and_back_restores_the_dataset(
    bag: Path, recording: SceneRecording, dataroot: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'own'
    main(['--bag', str(bag), '--out', str(out)])
    found = read_recording(open_devkit(out, VERSION), SCENES[0])
    streams = {stream.channel: stream for stream in found.streams}
    assert set(streams) == {stream.channel for stream in recording.streams}
    for stream in recording.streams:
        found_stream = streams[stream.channel]
        np.testing.assert_array_equal(found_stream.stamps_ns, stream.stamps_ns)
        np.testing.assert_array_equal(found_stream.intrinsics, stream.intrinsics)
        assert (found_stream.modality, found_stream.image_size) == (
            stream.modality,
            stream.image_size,
        )
        np.testing.assert_allclose(
            found.mounts[stream.channel], recording.mounts[stream.channel], atol=1e-9
        )
        for name, expected in zip(found_stream.filenames, stream.filenames, strict=True):
            assert (out / name).read_bytes() == (dataroot / expected).read_bytes()
            assert name.split('/')[0] == expected.split('/')[0]
    np.testing.assert_array_equal(found.pose_stamps_ns, recording.pose_stamps_ns)
    for own_pose, pose in zip(found.poses, recording.poses, strict=True):
        np.testing.assert_allclose(own_pose.matrix(), pose.matrix(), atol=1e-9)
    for own_moment, moment in zip(found.moments, recording.moments, strict=True):
        assert own_moment.stamp_ns == moment.stamp_ns
        order, own_order = np.lexsort(moment.center.T), np.lexsort(own_moment.center.T)
        assert [moment.class_names[i] for i in order] == [
            own_moment.class_names[i] for i in own_order
        ]
        np.testing.assert_allclose(own_moment.center[own_order], moment.center[order], atol=1e-6)
        np.testing.assert_allclose(own_moment.size[own_order], moment.size[order], atol=1e-9)
    assert len(found.moments) == len(recording.moments) == 2
    index = load_index(out, VERSION, 'own_train', tmp_path / 'cache')
    assert len(index) == 2
    assert np.isfinite(index[1].annotations.velocity).any()


def convert_small(tmp_path: Path, *arguments: str, **content) -> Path:
    write_small_bag(tmp_path / 'drive', **content)
    out = tmp_path / 'own'
    main(['--bag', str(tmp_path / 'drive'), '--out', str(out), *arguments])
    return out


@pytest.mark.parametrize('raw', [False, True])
def test_distorted_images_keep_their_distortion_in_a_bag_and_are_undistorted_in_the_dataset(
    recording: SceneRecording, dataroot: Path, tmp_path: Path, raw: bool
) -> None:
    lens = (-0.3, 0.1, 0.0, 0.0)
    front = next(stream for stream in recording.streams if stream.channel == 'CAM_FRONT')
    only = replace(recording, streams=(replace(front, distortion=lens),))
    path = write_bag(only, Target(dataroot, tmp_path / 'bags', raw=raw))
    out = tmp_path / 'own'
    main(['--bag', str(path), '--out', str(out), '--key-frames'])
    found = read_recording(open_devkit(out, VERSION), SCENES[0]).streams[0]
    assert found.distortion == ()
    np.testing.assert_array_equal(found.intrinsics, front.intrinsics)
    original = cv2.imread(str(dataroot / front.filenames[0]))
    expected = cv2.undistort(original, front.intrinsics, np.array(lens)).astype(int)
    stored = cv2.imread(str(out / found.filenames[0])).astype(int)
    assert np.abs(stored - expected).mean() < 0.4 * np.abs(original - expected).mean()


def test_raw_images_without_a_lidar_are_converted(tmp_path: Path) -> None:
    out = convert_small(tmp_path)
    index = load_index(out, VERSION, 'own_train', tmp_path / 'cache')
    assert (index.channels.cameras, index.channels.lidar, len(index)) == (('front',), None, 2)
    assert index[0].cameras[0].image_size == (80, 60)


def test_raw_images_with_distortion_are_undistorted(tmp_path: Path) -> None:
    pixels = write_small_bag(tmp_path / 'drive', coefficients=(-0.3,))
    out = convert_small(tmp_path, coefficients=(-0.3,))
    matrix = np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    expected = cv2.undistort(pixels, matrix, np.array((-0.3, 0, 0, 0, 0)))
    stored = cv2.imread(str(next((out / 'samples' / 'front').iterdir())))[..., ::-1]
    assert np.abs(stored.astype(int) - expected)[5:-5, 5:-5].mean() < 4
    assert np.abs(pixels.astype(int) - expected)[5:-5, 5:-5].mean() > 10


@pytest.mark.parametrize(
    ('missing', 'arguments', 'message'),
    [
        ({'info': False}, ['--cameras', '/front/image_raw'], 'camera front has no CameraInfo'),
        ({'mount': False}, [], 'camera front: tf has no base_link <- front'),
        ({'pose': False}, [], 'there are no ego poses: tf has no map <- base_link'),
        ({}, ['--cameras', '/rear/image_raw'], 'no .* on /rear/image_raw; it has /front'),
        ({}, ['--lidar', '/points'], '--lidar: the bag has no .*PointCloud2 on /points'),
    ],
)
def test_missing_input_is_reported_by_name_and_no_output_remains(
    tmp_path: Path, missing: dict, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        convert_small(tmp_path, *arguments, **missing)
    assert [path.name for path in tmp_path.iterdir()] == ['drive']


def test_an_existing_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / 'own').mkdir()
    with pytest.raises(SystemExit, match='own exists: choose another folder'):
        convert_small(tmp_path)


def converted(out: Path, *bags: Path) -> list[str]:
    main(['--bag', *map(str, bags), '--out', str(out)])
    return json.loads((out / VERSION / 'splits.json').read_text())['own_train']


def test_if_several_bags_are_converted_each_bag_becomes_a_scene(tmp_path: Path) -> None:
    bags = [tmp_path / name for name in ('b 1', 'a')]
    for bag in bags:
        write_small_bag(bag)
    assert converted(tmp_path / 'own', *bags) == ['b_1', 'a']
    index = load_index(tmp_path / 'own', VERSION, 'own_train', tmp_path / 'cache')
    assert [record.scene for record in index] == ['b_1', 'b_1', 'a', 'a']


def test_bags_with_equal_names_or_with_different_sensors_are_rejected(tmp_path: Path) -> None:
    write_small_bag(tmp_path / 'x' / 'drive')
    write_small_bag(tmp_path / 'y' / 'drive')
    write_small_bag(tmp_path / 'other', camera='rear')
    with pytest.raises(SystemExit, match='y/drive: another bag also creates the scene drive'):
        converted(tmp_path / 'own', tmp_path / 'x/drive', tmp_path / 'y/drive')
    with pytest.raises(SystemExit, match='other: the bag has the sensors rear, but the first'):
        converted(tmp_path / 'own', tmp_path / 'x/drive', tmp_path / 'other')
    assert not list(tmp_path.glob('own*'))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_compressed_bag_is_converted(tmp_path: Path, storage: str) -> None:
    write_small_bag(tmp_path / 'drive', storage=storage)
    compress(tmp_path / 'drive')
    assert converted(tmp_path / 'own', tmp_path / 'drive') == ['drive']


def test_with_the_option_odometry_the_ego_poses_equal_the_poses_of_the_odometry_messages(
    tmp_path: Path,
) -> None:
    out = convert_small(tmp_path, '--odometry', '/odom', pose=False, odometry=True)
    index = load_index(out, VERSION, 'own_train', tmp_path / 'cache')
    positions = [record.cameras[0].world_from_ego.translation.tolist() for record in index]
    assert positions == [[0, 0, 0], [3, 0, 0]]


def test_annotations_below_min_score_are_left_out_and_all_other_annotations_keep_their_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = convert_small(tmp_path, '--min-score', '0.5', scores=(0.49, 0.5, 0.9, float('nan')))
    rows = json.loads((out / VERSION / 'sample_annotation.json').read_text())
    assert sorted(row['score'] for row in rows) == [0.5, 0.5, 0.9, 0.9]
    assert '4 annotations are left out: score below 0.5' in capsys.readouterr().err


class InterruptingWriter:
    """Replaces ``write_image``. Raises KeyboardInterrupt, as Ctrl-C does, in the third call."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, path: Path, *arguments) -> None:
        if len(self.names) == 2:
            path.write_bytes(b'half')
            raise KeyboardInterrupt
        self.names.append(path.name)
        write_image(path, *arguments)


def test_the_same_command_continues_an_interrupted_conversion_and_leaves_no_partial_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = [tmp_path / name for name in ('a', 'b')]
    for bag in bags:
        write_small_bag(bag)
    converted(tmp_path / 'expected', *bags)
    writer = InterruptingWriter()
    monkeypatch.setattr(file_writer, 'write_image', writer)
    with pytest.raises(SystemExit) as ended:
        converted(tmp_path / 'own', *bags)
    assert ended.value.code == 130
    part = tmp_path / 'own.part'
    assert f'run the same command again to continue in {part}' in capsys.readouterr().err
    images = sorted((part / 'samples').rglob('*.jpg'))
    assert len(images) == 2 and not (tmp_path / 'own').exists()
    written = {path: path.stat().st_mtime_ns for path in images}
    monkeypatch.setattr(file_writer, 'write_image', write_image)
    converted(tmp_path / 'own', *bags)
    assert not part.exists()
    for path, stamp in written.items():
        assert (tmp_path / 'own' / path.relative_to(part)).stat().st_mtime_ns == stamp
    files = {path.relative_to(tmp_path / 'own') for path in (tmp_path / 'own').rglob('*')}
    expected = tmp_path / 'expected'
    assert files == {path.relative_to(expected) for path in expected.rglob('*')}
    for name in files:
        path = expected / name
        assert path.is_dir() or path.read_bytes() == (tmp_path / 'own' / name).read_bytes()


def test_a_command_with_different_options_deletes_the_files_of_the_interrupted_command(
    tmp_path: Path,
) -> None:
    unfinished = UnfinishedDataset(tmp_path / 'own', {'cameras': ['a']})
    unfinished.begin()
    file = unfinished.path / 'samples' / 'a' / 'file'
    file.parent.mkdir(parents=True)
    file.write_bytes(b'')
    same = UnfinishedDataset(tmp_path / 'own', {'cameras': ['a']})
    same.begin()
    assert same.is_continued and same.has_files()
    other = UnfinishedDataset(tmp_path / 'own', {'cameras': ['b']})
    other.begin()
    assert not other.is_continued and not file.exists()
