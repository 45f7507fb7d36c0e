from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.export.writing import export_onnx
from bevdepth_core.model import BEVDepth
from tests.networks import export_model


@pytest.fixture(scope='session')
def model() -> BEVDepth:
    return export_model()


@pytest.fixture(scope='session')
def exported(model: BEVDepth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the plain export of ``model``."""
    folder = tmp_path_factory.mktemp('exported')
    export_onnx(model, folder, name='tiny')
    return folder
