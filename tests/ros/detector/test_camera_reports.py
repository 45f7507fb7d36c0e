"""Tests the sentences of reports about cameras."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rclpy.qos import ReliabilityPolicy

from bevdepth_ros.detector.camera_reports import PROFILE_VARIABLES, CameraReports
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.rig.settings import IMAGE_TYPES


@pytest.mark.parametrize(
    ('distance_ns', 'has_jumped', 'sentence'),
    [
        (200_000_000, False, 'right is +0.200 s away from the newest stamps of the other cameras'),
        (1_000_000, False, 'no image set was formed for 12 s, although the newest stamps'),
        (1_000_000, True, 'no image set was formed for 12 s: the stamps of left, front, right ju'),
    ],
)
def test_stamps_are_reported_as_cause_of_missing_sets_only_if_the_stamps_disagree_or_jumped(
    distance_ns: int, has_jumped: bool, sentence: str
):
    synchronizer = SimpleNamespace(
        jitters=False,
        members=[0, 1, 2],
        cameras=[
            SimpleNamespace(newest_ns=10**18 + shift, may_have_jumped=has_jumped)
            for shift in (0, 0, distance_ns)
        ],
    )
    monitor = SimpleNamespace(seconds_since_last_set=lambda: 12.0)
    settings = Settings(cameras=('left', 'front', 'right'))
    reports = CameraReports(None, settings, monitor, synchronizer)
    assert sentence in reports._unmatched_sentence()


@pytest.mark.parametrize(
    ('transport', 'variable', 'is_hinted'),
    [
        ('raw', '', True),
        ('raw', 'FASTRTPS_DEFAULT_PROFILES_FILE', False),
        ('raw', 'CYCLONEDDS_URI', False),
        ('compressed', '', False),
    ],
)
def test_the_report_of_missing_raw_images_suggests_a_middleware_profile_if_none_is_set(
    monkeypatch: pytest.MonkeyPatch, transport: str, variable: str, is_hinted: bool
):
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, '/profile.xml' if name == variable else '')
    settings = Settings(cameras=('left',), image_transport=transport)
    [source] = settings.camera_sources
    publisher = SimpleNamespace(
        topic_type=f'sensor_msgs/msg/{IMAGE_TYPES[transport].__name__}',
        qos_profile=SimpleNamespace(reliability=ReliabilityPolicy.RELIABLE),
    )
    node = SimpleNamespace(
        resolve_topic_name=str, get_publishers_info_by_topic=lambda topic: [publisher]
    )
    monitor = SimpleNamespace(silence_s=lambda name: 1.5)
    sentence = CameraReports(node, settings, monitor, None)._silence_sentence(source)
    assert 'although the topic has a publisher' in sentence
    assert ('raw images need a middleware profile, and none is set' in sentence) is is_hinted
