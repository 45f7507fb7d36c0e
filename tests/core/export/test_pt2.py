"""A compiled package gives the results of the part of the network from which it was compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import ScaleNMSConfig
from bevdepth_core.engine.exported import ExportError
from bevdepth_core.engine.pt2 import pt2_graph
from bevdepth_core.export.command_line import main
from bevdepth_core.export.parts import network_parts
from bevdepth_core.export.pt2_graphs import package_numbers, write_package
from bevdepth_core.export.writing import export_pt2
from bevdepth_core.model import BEVDepth
from tests.core.export.inputs import splat_inputs


@pytest.mark.timeout(3600)  # on a busy machine the compiler takes minutes
def test_a_compiled_splat_accepts_any_number_of_cameras_and_any_strides(
    model: BEVDepth, tmp_path: Path
) -> None:
    part = network_parts(model, 'whole', True)[1]
    write_package(part, tmp_path / 'splat.pt2', {})
    graph = pt2_graph(tmp_path / 'splat.pt2')
    for cameras in (1, 3, 8):
        depth, context, matrices = splat_inputs(model, cameras)
        strided = context.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        expected = part.module(depth, context, matrices)
        (found,) = graph(depth, strided, matrices)
        assert expected.count_nonzero() > 100
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_error_about_a_damaged_package_contains_the_export_option(tmp_path: Path) -> None:
    (tmp_path / 'splat.pt2').write_bytes(b'no package')
    with pytest.raises(ExportError, match=r'splat.pt2: cannot be loaded .*--format pt2'):
        pt2_graph(tmp_path / 'splat.pt2')


def test_the_error_about_a_missing_compiler_contains_the_install_command(
    model: BEVDepth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('CXX', str(tmp_path / 'missing'))
    with pytest.raises(ExportError, match=r'missing is not installed: run `apt install g\+\+`'):
        export_pt2(model, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'option', [('--pooling', 'plain'), ('--precision', 'fp16'), ('--deformable', 'native')]
)
def test_an_option_that_only_onnx_supports_is_an_error_with_pt2(
    model: BEVDepth, tmp_path: Path, option: tuple[str, str]
) -> None:
    save_checkpoint(model, tmp_path / 'tiny.safetensors')
    words = [str(tmp_path / 'tiny.safetensors'), '--out', str(tmp_path / 'out')]
    with pytest.raises(SystemExit, match='pt2 does not support these options: leave out'):
        main([*words, '--format', 'pt2', *option])


def test_a_package_contains_the_config_as_plain_words_so_that_c_plus_plus_needs_no_json_parser(
    model: BEVDepth,
) -> None:
    config = model.config
    numbers = package_numbers(config)
    assert numbers['input_size'] == '32 96'
    assert numbers['classes'].split(',') == list(config.class_names)
    assert [float(word) for word in numbers['mean'].split()] == list(config.image.mean)
    assert len(numbers['nms_distance_squared'].split()) == len(config.head.tasks)
    assert numbers['scale_nms'] == ''
    scaling = ScaleNMSConfig(max_overlap=0.25)
    changed = replace(config, decode=replace(config.decode, scale_nms=scaling))
    assert package_numbers(changed)['scale_nms'].split()[:2] == ['0.25', '1.0']
