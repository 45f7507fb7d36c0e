"""Tests the rendering of recordings to videos and images."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import Writer

from bevdepth_core.visualization import class_color
from bevdepth_ros.demo import Snapshot
from bevdepth_ros.rendering.recorded_scenes import RecordedScenes
from bevdepth_ros.rendering.render import RenderError, _options, main, render, settings
from tests.ros.rendering.small_drive import detections, draw, record

WIDTH = 960


@pytest.fixture(scope='module')
def drive() -> list[Snapshot]:
    return draw(2.0)


@pytest.fixture(scope='module')
def bags(drive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two bags of the drive: the first without detections, the second with detections."""
    return record(drive, tmp_path_factory.mktemp('drive'))


def run(bag: Path, out: Path, *arguments: str) -> int:
    return render(
        _options(
            ['render', '--bag', str(bag), '--out', str(out), '--width', str(WIDTH), *arguments]
        )
    )


def pixels_of(name: str, image: np.ndarray) -> int:
    return int((np.abs(image.astype(int) - class_color(name)).max(axis=-1) < 12).sum())


def test_a_video_has_one_frame_per_recorded_result_at_the_time_of_the_result(
    bags, drive, tmp_path: Path
) -> None:
    assert run(bags[1], tmp_path / 'drive.mp4') == len(drive)
    with av.open(str(tmp_path / 'drive.mp4')) as film:
        stream = film.streams.video[0]
        frames = [(frame.time, frame.to_ndarray(format='rgb24')) for frame in film.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
    times = np.array([moment.stamp_ns - drive[0].stamp_ns for moment in drive]) * 1e-9
    np.testing.assert_allclose([moment for moment, _ in frames], times, atol=2e-3)
    assert frames[0][1].shape[1] == WIDTH
    assert np.abs(frames[0][1].astype(int) - frames[-1][1]).mean() > 3
    assert [path.name for path in tmp_path.iterdir()] == ['drive.mp4']


def test_a_rendered_image_shows_boxes_if_the_bag_contains_detections(bags, tmp_path: Path) -> None:
    counts = []
    for number, bag in enumerate(bags):
        assert run(bag, tmp_path / f'{number}.png', '--start', '0.9') == 1
        counts.append(pixels_of('car', np.asarray(Image.open(tmp_path / f'{number}.png'))))
    legend, with_boxes = counts
    assert with_boxes > legend + 300


def test_detections_in_a_second_bag_give_the_same_image_as_detections_in_the_bag_of_the_images(
    bags, tmp_path: Path
) -> None:
    together, apart = tmp_path / 'together.png', tmp_path / 'apart.png'
    assert (
        run(bags[1], together, '--start', '0.9')
        == run(bags[0], apart, '--start', '0.9', '--detections', str(bags[1]))
        == 1
    )
    np.testing.assert_array_equal(np.asarray(Image.open(together)), np.asarray(Image.open(apart)))


def test_a_scene_has_recorded_boxes_ground_truth_and_one_ego_pose_per_camera(bags, drive) -> None:
    with RecordedScenes(bags[1], settings(''), '/bevdepth_detector', WIDTH) as recording:
        scenes = list(recording.scenes(0.4, 1.0, None))
    assert [scene.stamp_ns for scene in scenes] == [moment.stamp_ns for moment in drive[1:3]]
    for scene, moment in zip(scenes, drive[1:3], strict=True):
        np.testing.assert_array_equal(
            scene.detections.boxes.corners(), detections(moment).boxes.corners()
        )
        np.testing.assert_allclose(scene.ground_truth[0].center, moment.boxes.center, atol=0.02)
        order = [scene.frame.rig.names.index(name) for name in moment.rig.names]
        np.testing.assert_allclose(
            scene.frame.world_from_ego[order], moment.world_from_ego, atol=1e-6
        )
        np.testing.assert_array_equal(scene.frame.stamps_ns[order], moment.stamps_ns)


def test_with_a_checkpoint_rendering_computes_boxes_and_depth(
    bags, small_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (
        '--checkpoint',
        str(small_checkpoint),
        '--device',
        'cpu',
        '--duration',
        '0.6',
        '--score',
        '0',
        '--depth',
    )
    assert run(bags[0], tmp_path / 'images', *arguments) == 2
    first, second = (
        np.asarray(Image.open(tmp_path / 'images' / f'0000{number}.png')) for number in (0, 1)
    )
    assert first.shape == second.shape
    assert np.abs(first.astype(int) - second).mean() > 1


def test_a_gif_repeats_forever(bags, tmp_path: Path) -> None:
    assert run(bags[1], tmp_path / 'drive.gif', '--fps', '1') == 2
    animation = Image.open(tmp_path / 'drive.gif')
    assert (animation.n_frames, animation.info['loop']) == (2, 0)
    assert animation.info['duration'] == pytest.approx(1000, abs=20)


def test_if_rendering_is_impossible_a_message_is_printed_and_no_file_is_written(
    bags, tmp_path: Path
) -> None:
    with Writer(tmp_path / 'empty', version=8):
        pass
    cases = {
        'contains no complete scene': ['--bag', str(bags[1]), '--start', '9'],
        'contains no /bevdepth_detector/objects': [
            '--bag',
            str(bags[0]),
            '--detections',
            str(bags[0]),
        ],
        '--depth needs --checkpoint': ['--bag', str(bags[1]), '--depth'],
        'render: the bag .*missing cannot be read': ['--bag', str(tmp_path / 'missing')],
    }
    for words, arguments in cases.items():
        with pytest.raises(SystemExit, match=words):
            main(['render', '--out', str(tmp_path / 'none.mp4'), *arguments])
    assert [path.name for path in tmp_path.iterdir()] == ['empty']


@pytest.mark.parametrize('detector', ['/bevdepth_detector', '/other'], ids=['recorded', 'none'])
def test_a_camera_without_topics_is_reported_and_the_other_cameras_are_rendered(
    drive, tmp_path: Path, capsys: pytest.CaptureFixture, detector: str
) -> None:
    _, bag = record(drive[:2], tmp_path, left_out='CAM_BACK')
    assert run(bag, tmp_path / 'out', '--detector', detector) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        'render: CAM_BACK is missing in 2 of 2 rendered images: check images, CameraInfo '
        'and tf of this camera; the bag has no /CAM_BACK/image_rect_compressed, '
        '/CAM_BACK/camera_info (if the topics of the bag have other names, select these names '
        'with --camera-preset)'
    )


def test_an_unknown_preset_and_an_invalid_preset_file_are_reported_with_their_name(
    tmp_path: Path,
) -> None:
    with pytest.raises(RenderError, match=r'--camera-preset nucsenes is neither .* nuscenes, '):
        settings('nucsenes')
    for text in ('cameras: [a]', 'a', '{'):
        (tmp_path / 'own.yaml').write_text(text)
        with pytest.raises(RenderError, match=r'own\.yaml.*(ros__parameters|not a YAML file)'):
            settings(str(tmp_path / 'own.yaml'))


@pytest.mark.parametrize('block', ['/**', '/robot/bevdepth_detector'])
def test_topics_of_a_preset_are_resolved_in_the_namespace_of_the_node(
    domain_id: int, tmp_path: Path, block: str
) -> None:
    (tmp_path / 'own.yaml').write_text(
        f"""{block}:
  ros__parameters:
    cameras: [left, right]
    image_topics: ["{{camera}}/image"]
    camera_info_topics: ["/{{camera}}/info"]
    odometry_topic: odom"""
    )
    rig = settings(str(tmp_path / 'own.yaml'), '/robot/bevdepth_detector')
    assert [(one.image_topic, one.info_topic) for one in rig.camera_sources] == [
        ('/robot/left/image', '/left/info'),
        ('/robot/right/image', '/right/info'),
    ]
    assert rig.odometry_topic == '/robot/odom'


def test_before_the_bag_is_read_an_unknown_suffix_is_rejected_with_the_valid_suffixes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'drive.avi'
    with pytest.raises(SystemExit, match=r'\.avi cannot be written; use \.mp4, \.gif, \.png'):
        main(['render', '--bag', str(tmp_path / 'nowhere'), '--out', str(out)])
    assert list(tmp_path.iterdir()) == []
