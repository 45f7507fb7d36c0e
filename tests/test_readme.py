"""The README names what there is, and nothing that is not."""

import importlib.util
import re

import pytest

from bevdepth_ros.detector.parameters import FIELDS
from tests.reference import ROOT

README = (ROOT / 'README.md').read_text()
CODE = set(re.findall(r'`([^`\n]+)`', README))


def launch_arguments() -> list[str]:
    spec = importlib.util.spec_from_file_location(
        'detect_launch', ROOT / 'launch' / 'detect.launch.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [argument.name for argument in module.ARGUMENTS]


@pytest.mark.parametrize('name', FIELDS)
def test_every_parameter_is_documented(name):
    assert name in CODE


def test_every_launch_argument_is_documented():
    assert set(launch_arguments()) <= CODE


def test_every_camera_preset_is_documented():
    assert {path.stem for path in (ROOT / 'config' / 'cameras').glob('*.yaml')} <= CODE


@pytest.mark.parametrize(
    'topic', ['~/detections', '~/objects', '~/markers', '~/label_info', '/diagnostics']
)
def test_every_output_topic_is_documented(topic):
    assert topic in CODE


def test_links_lead_to_files():
    for page in [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md')]:
        links = re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text())
        missing = [link for link in links if not (page.parent / link).exists()]
        assert not missing, f'{page.name}: {missing}'


def test_make_commands_exist():
    targets = set(re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    named = set(re.findall(r'\bmake ([a-z]+)', README))
    assert {'demo', 'test'} <= named <= targets
