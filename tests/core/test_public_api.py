"""``import bevdepth_core`` provides the public names and does not import torch."""

import subprocess
import sys
from pathlib import Path

import pytest

import bevdepth_core
from tests.reference import ROOT

NAMES = {
    'Boxes3D',
    'CameraRig',
    'Detections3D',
    'Detector',
    'Frame',
    'ModelConfig',
    'load_checkpoint',
}


def test_the_public_names_are_the_objects_of_their_modules():
    from bevdepth_core import checkpoint, config, inference, types

    assert set(bevdepth_core.__all__) == NAMES <= set(dir(bevdepth_core))
    assert bevdepth_core.Detector is inference.Detector
    assert bevdepth_core.ModelConfig is config.ModelConfig
    assert bevdepth_core.load_checkpoint is checkpoint.load_checkpoint
    for name in ('Boxes3D', 'CameraRig', 'Detections3D', 'Frame'):
        assert getattr(bevdepth_core, name) is getattr(types, name)


def test_an_unknown_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="'bevdepth_core' has no attribute 'Detektor'"):
        bevdepth_core.Detektor  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, bevdepth_core; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == 'False'


def test_the_package_contains_the_file_py_typed():
    assert (Path(bevdepth_core.__file__).parent / 'py.typed').is_file()
    assert "'py.typed'" in (ROOT / 'setup.py').read_text()
