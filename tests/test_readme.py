"""Tests that the documentation pages agree with the code."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from bevdepth_ros.detector.parameters import Settings
from tests.faults.cases import CASES
from tests.imports import ROOT
from tests.markdown import PAGES, anchors, commands, links, page, table_rows

NODE = page('docs/NODE.md')


def launch_arguments() -> list[str]:
    spec = importlib.util.spec_from_file_location('detect', ROOT / 'launch' / 'detect.launch.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [
        argument.name for argument in module.generate_launch_description().get_launch_arguments()
    ]


def test_docs_node_md_documents_exactly_the_arguments_of_the_launch_file() -> None:
    assert set(table_rows(NODE, 'argument')) == set(launch_arguments())


def test_docs_node_md_documents_exactly_the_camera_presets_in_config() -> None:
    files = {path.stem for path in (ROOT / 'config' / 'cameras').glob('*.yaml')}
    assert set(table_rows(NODE, 'preset')) == files


def test_every_output_topic_of_the_node_is_documented() -> None:
    sources = [path.read_text() for path in (ROOT / 'bevdepth_ros' / 'detector').glob('*.py')]
    topics = {topic for text in sources for topic in re.findall(r"'(~/\w+|/diagnostics)'", text)}
    assert {'~/detections', '~/objects', '/diagnostics'} <= topics
    assert topics <= set(table_rows(NODE, 'topic'))


@pytest.mark.parametrize('name', ['README.md', 'CHANGELOG.md'])
def test_the_documented_number_of_faults_equals_the_number_in_the_matrix(name: str) -> None:
    counts = re.findall(r'(\d+)\s+faults', page(name))
    assert counts == [str(len(CASES))]


def test_package_xml_setup_py_changelog_and_citation_agree_on_version_and_description() -> None:
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    described = [package.findtext(tag) for tag in ('name', 'version', 'description')]
    printed = subprocess.run(
        [sys.executable, 'setup.py', '--name', '--version', '--description'],
        cwd=ROOT,
        env={**os.environ, 'BEVDEPTH_CUDA': '0'},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.splitlines()[-3:] == described
    releases = re.findall(r'^## ([\d.]+)', page('CHANGELOG.md'), re.MULTILINE)
    assert releases[0] == described[1]
    assert f'\nversion: {described[1]}\n' in page('CITATION.cff')
    assert f'\nabstract: {described[2]}\n' in page('CITATION.cff')


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_point_to_existing_files_and_headings(path: Path) -> None:
    for target, anchor in links(path):
        assert target.exists(), f'{path.name}: {target}'
        if anchor:
            assert anchor in anchors(target.read_text()), f'{path.name}: {target.name}#{anchor}'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_on_a_page_exists(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r'^([\w-]+):', page('Makefile'), re.MULTILINE))
    programs = set(re.findall(r"'(\w+) = bevdepth_\w+\.", page('setup.py')))
    launch_files = {file.name for file in (ROOT / 'launch').iterdir()}
    assert commands(text, 'make') <= targets
    assert commands(text, 'ros2 run bevdepth_ros') <= programs
    assert commands(text, 'ros2 launch bevdepth_ros') <= launch_files
    for module in commands(text, 'python -m'):
        assert module in ('pytest', 'mypy') or importlib.util.find_spec(module), module
    for start in ('python', 'pytest', 'bash'):
        for file in commands(text, start):
            assert '/' not in file or (ROOT / file).exists(), file


def test_make_distclean_keeps_the_results_in_out(tmp_path: Path) -> None:
    for name in ('out/training', 'out/docs', 'build', '.venv'):
        (tmp_path / name).mkdir(parents=True)
    command = ['make', '-f', str(ROOT / 'Makefile'), 'distclean']
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*')} == {
        'out',
        'out/training',
    }


def test_the_readme_names_make_demo_and_make_test_and_has_at_most_200_lines() -> None:
    text = page('README.md')
    assert {'demo', 'test'} <= commands(text, 'make')
    lines = text.splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 120


def test_the_api_pages_contain_every_public_module() -> None:
    pages = [path.read_text() for path in (ROOT / 'docs' / 'api').glob('*.md')]
    documented = {name for text in pages for name in re.findall(r'^::: (\S+)', text, re.MULTILINE)}
    core = {f'bevdepth_core.{path.stem}' for path in (ROOT / 'bevdepth_core').glob('[!_]*.py')}
    ros = {
        f'bevdepth_ros.{part}.{path.stem}'
        for part in ('rig', 'detections')
        for path in (ROOT / 'bevdepth_ros' / part).glob('[!_]*.py')
    }
    packages = {'bevdepth_core.visualization', 'bevdepth_core.tracking'}
    internal = {'bevdepth_core.official_layout'}
    assert documented == (core | ros | packages) - internal


def test_the_architecture_page_lists_exactly_the_modules_of_the_packages() -> None:
    layout = page('docs/ARCHITECTURE.md').split('```')[1]
    for package in ('bevdepth_core', 'bevdepth_ros'):
        section = re.search(rf'^{package}/.*\n((?:  .*\n)*)', layout, re.MULTILINE)
        documented = set(re.findall(r'^  ([\w.]+)/? ', section.group(1), re.MULTILINE))
        present = {
            path.name
            for path in (ROOT / package).iterdir()
            if not path.name.startswith('_') and path.suffix in ('', '.py')
        }
        shared = {f'{name}.py' for name in ('signals', 'process', 'programs', 'launching')}
        assert documented == present - shared


def test_every_thread_of_the_node_is_on_the_architecture_page() -> None:
    documented = set(table_rows(page('docs/ARCHITECTURE.md'), 'thread'))
    sources = ' '.join(path.read_text() for path in (ROOT / 'bevdepth_ros').rglob('*.py'))
    names = re.findall(r"SlotThread(?:\[\w.]+\])?\(\s*'(\w+)'", sources)
    names += re.findall(r"thread_name_prefix=f?'(\w+)", sources)
    assert {'detection', 'publication'} <= set(names)
    for name in names:
        assert any(row.startswith(name) for row in documented), name


def test_the_documented_parameter_file_for_own_cameras_is_valid() -> None:
    block = re.search(r'^```yaml\n(.*?)^```', NODE, re.MULTILINE | re.DOTALL).group(1)
    values = yaml.safe_load(block)['/**']['ros__parameters']
    settings = Settings(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )
    assert [source.image_topic for source in settings.camera_sources] == [
        f'/sensing/{camera}/image_raw' for camera in values['cameras']
    ]


def test_the_python_example_in_the_readme_runs_and_prints_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = re.findall(r'^```python\n(.*?)^```', page('README.md'), re.MULTILINE | re.DOTALL)
    exec(block, {})
    assert capsys.readouterr().out


def test_contributing_names_the_steps_that_ci_runs() -> None:
    steps = re.findall(r'^step make ([\w-]+)', page('.ci/run'), re.MULTILINE)
    paragraph = page('CONTRIBUTING.md').split('**CI.**')[1].split('.github')[0]
    assert re.findall(r'`make ([\w-]+)`', paragraph) == steps
