"""Tests RViz configuration and Foxglove layout for the default cameras and other cameras."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bevdepth_ros.bring_up.scope import ResolvedDetector, resolve_detector
from bevdepth_ros.bring_up.views import (
    foxglove_layout,
    rviz_cameras,
    rviz_config,
    write_view,
)
from tests.reference import ROOT
from tests.ros.bring_up.contexts import launch_context

RVIZ = (ROOT / 'config' / 'rviz' / 'bevdepth.rviz').read_text()
FOXGLOVE = (ROOT / 'config' / 'foxglove' / 'bevdepth.json').read_text()
CAMERA, IMAGE = 'rviz_default_plugins/Camera', 'rviz_default_plugins/Image'


def displays(text: str) -> dict[str, dict]:
    config = yaml.safe_load(text)['Visualization Manager']
    return {display['Name']: display for display in config['Displays']}


def detector(tmp_path: Path, namespace: str = '', **parameters) -> ResolvedDetector:
    path = tmp_path / 'own.yaml'
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': parameters}}))
    return resolve_detector(launch_context(), namespace, [str(path)] if parameters else [])


@pytest.fixture
def own_rig(domain_id: int, tmp_path: Path) -> ResolvedDetector:
    """Return a detector in a namespace, with four cameras that publish raw images. The source
    of the calibration differs between the cameras."""
    return detector(
        tmp_path,
        'robot',
        cameras=['beside', 'apart', 'file', 'odd'],
        image_transport='raw',
        image_topics=['/beside/image', '/apart/driver/image', '/file/image', 'odd/image'],
        camera_info_topics=['/beside/camera_info', '/apart/camera_info', '', '/odd/calibration'],
        camera_info_files=['', '', 'a.yaml', ''],
        camera_frames=['', '', 'lens', ''],
        base_frame='axle',
    )


def test_the_rviz_template_equals_the_configuration_of_the_default_parameters(
    domain_id: int, tmp_path: Path
):
    assert yaml.safe_load(rviz_config(RVIZ, detector(tmp_path))) == yaml.safe_load(RVIZ)


def test_the_foxglove_template_equals_the_layout_of_the_default_parameters(
    domain_id: int, tmp_path: Path
):
    assert json.loads(foxglove_layout(FOXGLOVE, detector(tmp_path))) == json.loads(FOXGLOVE)


def test_rviz_shows_tf_and_shows_the_boxes_in_every_camera():
    found = displays(RVIZ)
    assert set(found['Detections']['Namespaces']) == {'boxes', 'labels', 'velocities'}
    assert found['tf']['Class'] == 'rviz_default_plugins/TF'
    for display in found.values():
        if display['Class'] == CAMERA:
            assert display['Visibility']['Detections']
            assert set(display['Visibility']) - {'Value'} <= set(found)


def test_compressed_images_are_republished_on_a_topic_next_to_their_camera_info_topic(
    domain_id: int, tmp_path: Path
):
    for camera in rviz_cameras(detector(tmp_path)):
        name = camera.source.name
        assert (camera.topic, camera.has_calibration, camera.transport) == (
            f'/{name}/image_decoded',
            True,
            'compressed',
        )


def test_raw_images_are_republished_only_if_image_and_camera_info_have_different_namespaces(
    own_rig: ResolvedDetector,
):
    assert [
        (camera.topic, camera.has_calibration, camera.transport)
        for camera in rviz_cameras(own_rig)
    ] == [
        ('/beside/image', True, ''),
        ('/apart/image_decoded', True, 'raw'),
        ('/file/image', False, ''),
        ('/robot/odd/image', False, ''),
    ]


def test_compressed_images_without_calibration_are_republished_on_a_separate_topic(
    domain_id: int, tmp_path: Path
):
    config = detector(tmp_path, camera_info_topics=[''], camera_info_files=['{camera}.yaml'])
    camera = rviz_cameras(config)[0]
    assert camera.topic == '/CAM_FRONT_LEFT/image_rect_compressed/image_decoded'
    assert (camera.has_calibration, camera.transport) == (False, 'compressed')


def test_rviz_shows_configured_cameras_and_frames_and_the_topics_of_a_namespace(
    own_rig: ResolvedDetector,
):
    text = rviz_config(RVIZ, own_rig)
    found = displays(text)
    assert [name for name, display in found.items() if display['Class'] == CAMERA] == [
        'beside',
        'apart',
    ]
    assert {'file', 'odd'} <= {
        name for name, display in found.items() if display['Class'] == IMAGE
    }
    assert found['apart']['Topic']['Value'] == '/apart/image_decoded'
    assert found['Detections']['Topic']['Value'] == '/robot/bevdepth_detector/markers'
    assert found['Depth']['Topic']['Value'] == '/robot/bevdepth_detector/depth_points'
    assert found['Overview']['Topic']['Value'] == '/robot/bevdepth_visualizer/image/compressed'
    manager = yaml.safe_load(text)['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == 'axle'
    assert manager['Views']['Current']['Target Frame'] == 'axle'
    assert not any(name in text for name in ('CAM_', 'base_link', 'LIDAR_TOP'))
    assert 'Visibility' not in found['file']


def test_foxglove_shows_configured_cameras_and_frames_and_the_topics_of_a_namespace(
    own_rig: ResolvedDetector,
):
    text = foxglove_layout(FOXGLOVE, own_rig)
    panels = json.loads(text)['configById']
    modes = {name: panel['imageMode'] for name, panel in panels.items() if 'Image!' in name}
    assert modes['Image!beside']['imageTopic'] == '/beside/image'
    assert modes['Image!beside']['calibrationTopic'] == '/beside/camera_info'
    assert 'calibrationTopic' not in modes['Image!file']
    assert panels['Image!file']['followTf'] == 'lens'
    assert panels['Image!odd']['followTf'] == 'odd'
    assert panels['Image!odd']['foxglovePanelTitle'] == 'odd'
    assert '/robot/bevdepth_detector/markers' in panels['Image!odd']['topics']
    assert '/robot/bevdepth_detector/depth_points' in panels['3D!scene']['topics']
    assert panels['3D!scene']['followTf'] == 'axle'
    assert not any(name in text for name in ('CAM_', '"/bevdepth', 'LIDAR_TOP'))


@pytest.mark.parametrize(
    ('count', 'rows'), [(1, [1]), (2, [2]), (3, [3]), (4, [2, 2]), (5, [3, 2])]
)
def test_the_foxglove_layout_arranges_one_to_five_cameras_in_rows(
    domain_id: int, tmp_path: Path, count: int, rows: list[int]
):
    config = detector(tmp_path, cameras=[f'c{number}' for number in range(count)])
    layout = json.loads(foxglove_layout(FOXGLOVE, config))

    def leaves(node) -> list[str]:
        return [node] if isinstance(node, str) else leaves(node['first']) + leaves(node['second'])

    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
    top = layout['layout']['first']
    parts = [top['first'], top['second']] if len(rows) > 1 else [top]
    assert [len(leaves(part)) for part in parts] == rows
    if count == 3:
        assert (top['splitPercentage'], top['second']['splitPercentage']) == (33.3, 50.0)


def test_each_detector_of_a_launch_has_its_own_configuration_file(domain_id: int, tmp_path: Path):
    paths = [
        write_view(text, tmp_path, detector(tmp_path, namespace), '.rviz')
        for text, namespace in (('a', ''), ('b', 'r1/front'))
    ]
    assert [path.name for path in paths] == [
        'bevdepth_detector.rviz',
        'r1_front_bevdepth_detector.rviz',
    ]
    assert [path.read_text() for path in paths] == ['a', 'b']
