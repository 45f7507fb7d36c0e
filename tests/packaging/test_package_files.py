"""Compares package.xml with setup.py and with the imports of the source files."""

from __future__ import annotations

import importlib.metadata

from catkin_pkg.package import parse_package

from tests.imports import ROOT, imported_names, is_ros

PACKAGE = parse_package(ROOT / 'package.xml')


def test_package_xml_is_valid_and_agrees_with_setup_py():
    installed = importlib.metadata.metadata('bevdepth_ros')
    maintainer = PACKAGE.maintainers[0]
    described = (
        PACKAGE.name,
        PACKAGE.version,
        PACKAGE.description,
        PACKAGE.licenses[0],
        maintainer.name,
        maintainer.email,
    )
    fields = ('Name', 'Version', 'Summary', 'License', 'Maintainer', 'Maintainer-email')
    assert described == tuple(installed[field] for field in fields)
    assert PACKAGE.get_build_type() == 'ament_python'


def test_package_xml_declares_every_ros_package_that_is_imported():
    declared = {dependency.name for dependency in [*PACKAGE.exec_depends, *PACKAGE.build_depends]}
    paths = [
        path for folder in ('bevdepth_ros', 'launch') for path in (ROOT / folder).rglob('*.py')
    ]
    names = {
        name
        for path in paths
        for name in imported_names(path.read_text(), path.relative_to(ROOT))
        if is_ros(name)
    }
    assert {name.split('.')[0] for name in names} - declared == set()


def test_every_console_script_calls_a_function_that_exists():
    scripts = importlib.metadata.distribution('bevdepth_ros').entry_points.select(
        group='console_scripts'
    )
    assert {script.name for script in scripts} >= {'detector', 'player', 'demo'}
    for script in scripts:
        assert callable(script.load())
