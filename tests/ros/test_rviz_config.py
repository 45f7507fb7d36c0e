from __future__ import annotations

import yaml

from bevdepth_ros.detector.parameters import Settings
from tests.reference import ROOT

DISPLAYS = {
    display['Name']: display
    for display in yaml.safe_load((ROOT / 'config' / 'rviz' / 'bevdepth.rviz').read_text())[
        'Visualization Manager'
    ]['Displays']
}


def test_the_rviz_config_shows_the_markers_of_the_node_and_tf():
    assert DISPLAYS['Detections']['Topic']['Value'] == '/bevdepth_detector/markers'
    assert set(DISPLAYS['Detections']['Namespaces']) == {'boxes', 'labels', 'velocities'}
    assert DISPLAYS['tf']['Class'] == 'rviz_default_plugins/TF'


def test_the_rviz_config_shows_every_camera_with_the_boxes_over_it():
    cameras = {
        name: display
        for name, display in DISPLAYS.items()
        if display['Class'] == 'rviz_default_plugins/Camera'
    }
    assert set(cameras) == set(Settings().cameras)
    for name, display in cameras.items():
        assert display['Topic']['Value'] == f'/{name}/image_rect'
        assert display['Visibility']['Detections']
        assert set(display['Visibility']) - {'Value'} <= set(DISPLAYS)
