"""Official and own checkpoints load completely or are refused with a sentence."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from bevdepth_core.checkpoint import (
    CheckpointError,
    load_checkpoint,
    main,
    save_checkpoint,
    save_official,
)
from bevdepth_core.config import load_model_config
from bevdepth_core.model import BEVDepth
from bevdepth_core.official_layout import official_state_dict
from tests.reference import DATA, PRESETS, ROOT, filled_model

LAYOUTS = {
    '1key': 'bev_depth_lss_r50_256x704_128x128_24e',
    '2key': 'bev_depth_lss_r50_256x704_128x128_24e_2key',
    '2key_da': 'bev_depth_lss_r50_256x704_128x128_20e_cbgs_2key_da',
}


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """The 2key model's file in the official layout, and the model."""
    model = filled_model('2key')
    path = tmp_path_factory.mktemp('official') / '2key.pth'
    save_official(model, path)
    return path, model


@pytest.fixture(scope='module')
def small():
    return BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')).eval()


def assert_same_weights(ours, theirs):
    assert ours.config == theirs.config
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize('case', LAYOUTS)
def test_names_and_shapes_are_the_official_ones(case):
    layout = json.loads((DATA / f'state_dict_{LAYOUTS[case]}.json').read_text())
    expected = {name: (shape, dtype) for name, shape, dtype in layout['entries']}
    state = official_state_dict(
        BEVDepth(load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[case]}.yaml'))
    )
    assert {
        f'model.{name}': (list(value.shape), str(value.dtype).removeprefix('torch.'))
        for name, value in state.items()
    } == expected


@pytest.mark.parametrize('case', LAYOUTS)
def test_deterministic_fill_is_the_references(case):
    expected = json.loads((DATA / f'fill_check_{case}.json').read_text())
    state = official_state_dict(filled_model(case))
    for name, numbers in expected.items():
        assert state[name].double().abs().sum().item() == pytest.approx(
            numbers['abssum'], rel=1e-6, abs=1e-9
        ), name
        assert state[name].double().mean().item() == pytest.approx(
            numbers['mean'], rel=1e-5, abs=1e-9
        ), name


def test_official_file_round_trip(official):
    path, model = official
    assert_same_weights(load_checkpoint(path), model)


def test_official_full_lightning_file_and_bare_state_dict_load(official, tmp_path):
    path, model = official
    content = torch.load(path, weights_only=True)
    torch.save(
        {
            **content,
            'callbacks': {},
            'optimizer_states': [{'state': {}}],
            'hyper_parameters': {'gpus': 8},
        },
        tmp_path / 'full.ckpt',
    )
    torch.save(content['state_dict'], tmp_path / 'bare.pth')
    for name in ('full.ckpt', 'bare.pth'):
        assert_same_weights(load_checkpoint(tmp_path / name), model)


def test_averaged_file_keeps_its_own_drifted_frustum(official, tmp_path):
    content = torch.load(official[0], weights_only=True)
    content['state_dict']['model.backbone.frustum'][..., 0] *= 1 + 1e-5
    torch.save(content, tmp_path / 'ema.pth')
    loaded = load_checkpoint(tmp_path / 'ema.pth')
    assert torch.equal(
        loaded.view_transform.frustum_u,
        content['state_dict']['model.backbone.frustum'][0, 0, :, 0],
    )
    assert loaded.config == official[1].config


@pytest.mark.parametrize('case', ['1key', '2key_da'])
def test_other_official_variants_are_recognised(case, tmp_path):
    model = BEVDepth(load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[case]}.yaml'))
    save_official(model, tmp_path / 'model.pth')
    assert_same_weights(load_checkpoint(tmp_path / 'model.pth'), model)


def test_own_file_round_trip_keeps_config_and_metadata(small, tmp_path):
    save_checkpoint(small, tmp_path / 'small.safetensors', {'weights': 'random'})
    loaded = load_checkpoint(tmp_path / 'small.safetensors')
    assert_same_weights(loaded, small)
    assert loaded.metadata == {'weights': 'random'} and not loaded.training


def test_command_converts_both_ways(official, tmp_path):
    command = [sys.executable, '-m', 'bevdepth_core.checkpoint', 'convert']
    subprocess.run([*command, official[0], tmp_path / 'a.safetensors'], check=True, cwd=ROOT)
    subprocess.run(
        [*command, tmp_path / 'a.safetensors', tmp_path / 'b.pth'], check=True, cwd=ROOT
    )
    assert_same_weights(load_checkpoint(tmp_path / 'b.pth'), official[1])


def test_command_says_in_one_line_why_it_refuses(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'bevdepth_core.checkpoint',
            'convert',
            tmp_path / 'none.pth',
            tmp_path / 'o.safetensors',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and 'no such checkpoint file' in done.stderr
        and done.stderr.count('\n') == 1
    )


def test_command_writes_the_same_random_weights_for_the_same_seed(tmp_path):
    preset = str(ROOT / 'config' / 'models' / 'small.yaml')
    for name, seed in (('a', '1'), ('b', '1'), ('c', '2')):
        main(['untrained', preset, str(tmp_path / f'{name}.safetensors'), '--seed', seed])
    a, b, c = (load_checkpoint(tmp_path / f'{name}.safetensors') for name in 'abc')
    assert_same_weights(a, b)
    assert a.metadata == {'weights': 'random, seed 1'}
    assert not torch.equal(a.head.shared[0].weight, c.head.shared[0].weight)


def test_command_refuses_an_unknown_preset_and_a_foreign_suffix(tmp_path):
    with pytest.raises(SystemExit, match='no_such'):
        main(['untrained', str(tmp_path / 'no_such.yaml'), str(tmp_path / 'a.safetensors')])
    with pytest.raises(SystemExit):
        main(['convert', 'in.pth', str(tmp_path / 'out.txt')])


def refused(path, *words):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert path.name in message and '\n' not in message, message
    assert all(word in message for word in words), message


def test_missing_file_is_refused(tmp_path):
    refused(tmp_path / 'nowhere.pth', 'no such checkpoint file')


@pytest.mark.parametrize('part', [0.0, 0.001, 0.5, 0.999])
def test_truncated_official_file_is_refused(official, tmp_path, part):
    content = official[0].read_bytes()
    (tmp_path / 'cut.pth').write_bytes(content[: int(len(content) * part)])
    refused(tmp_path / 'cut.pth', 'truncated')


@pytest.mark.parametrize('part', [0.0, 0.001, 0.5, 0.999])
def test_truncated_own_file_is_refused(small, tmp_path, part):
    save_checkpoint(small, tmp_path / 'whole.safetensors')
    content = (tmp_path / 'whole.safetensors').read_bytes()
    (tmp_path / 'cut.safetensors').write_bytes(content[: int(len(content) * part)])
    refused(tmp_path / 'cut.safetensors', 'truncated')


def test_file_of_something_else_is_refused(tmp_path):
    (tmp_path / 'text.pth').write_text('hello')
    refused(tmp_path / 'text.pth', 'not a PyTorch checkpoint')
    torch.save([1, 2], tmp_path / 'list.pth')
    refused(tmp_path / 'list.pth', 'state_dict')
    torch.save({'layer.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    refused(tmp_path / 'other.pth', 'backbone.voxel_size is missing')


def changed_official(official, tmp_path, change):
    content = torch.load(official[0], weights_only=True)
    change(content['state_dict'])
    torch.save(content, tmp_path / 'changed.pth')
    return tmp_path / 'changed.pth'


def test_missing_unexpected_and_misshapen_weights_are_refused(official, tmp_path):
    name = 'model.backbone.depth_net.reduce_conv.0.weight'
    refused(
        changed_official(official, tmp_path, lambda state: state.pop(name)),
        'depth_net.reduce.0.weight is missing',
    )
    refused(
        changed_official(
            official, tmp_path, lambda state: state.update({'model.extra': torch.zeros(1)})
        ),
        'extra is unexpected',
    )
    refused(
        changed_official(official, tmp_path, lambda state: state.update({name: torch.zeros(2)})),
        'has shape (2,) instead of (512, 512, 3, 3)',
    )
    refused(
        changed_official(official, tmp_path, lambda state: state[name].fill_(float('nan'))),
        'holds NaN',
    )


@pytest.mark.parametrize('shape', [(3,), (112, 16, 44), (0, 0, 0, 4), (112, 16, 44, 4)])
def test_nonsense_geometry_is_refused(official, tmp_path, shape):
    change = changed_official(
        official,
        tmp_path,
        lambda state: state.update({'model.backbone.frustum': torch.rand(shape)}),
    )
    refused(change, 'BEVDepth')


def test_a_frustum_with_one_point_beside_its_grid_is_refused(official, tmp_path):
    change = changed_official(
        official, tmp_path, lambda state: state['model.backbone.frustum'][3, 2, 1, 0].add_(0.1)
    )
    refused(change, 'backbone.frustum is not a grid')


class Foreign:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (print, ('unpickled',))


def test_foreign_pickle_is_refused_and_not_run(official, tmp_path, capsys):
    torch.save({'state_dict': {}, 'callbacks': Foreign()}, tmp_path / 'foreign.ckpt')
    refused(tmp_path / 'foreign.ckpt', 'print', 'never loaded')
    assert 'unpickled' not in capsys.readouterr().out


def test_own_file_without_our_header_is_refused(tmp_path):
    safetensors.torch.save_file({'a': torch.zeros(1)}, tmp_path / 'plain.safetensors')
    refused(tmp_path / 'plain.safetensors', 'bevdepth-1')
    safetensors.torch.save_file(
        {'a': torch.zeros(1)},
        tmp_path / 'broken.safetensors',
        {'format': 'bevdepth-1', 'config': '{"imagee": {}}'},
    )
    refused(tmp_path / 'broken.safetensors', 'imagee')


def test_failed_save_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / 'kept.safetensors'
    save_checkpoint(small, path)
    before = path.read_bytes()
    monkeypatch.setattr(
        safetensors.torch, 'save_file', lambda *args: (_ for _ in ()).throw(OSError('disk full'))
    )
    with pytest.raises(OSError, match='disk full'):
        save_checkpoint(small, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_half_precision_halves_the_file_and_loads_as_float32(small, tmp_path):
    small.metadata = {}
    save_checkpoint(small, tmp_path / 'full.safetensors')
    main(
        [
            'convert',
            str(tmp_path / 'full.safetensors'),
            str(tmp_path / 'half.safetensors'),
            '--half',
        ]
    )
    full, half = (
        load_checkpoint(tmp_path / f'{name}.safetensors').state_dict() for name in ('full', 'half')
    )
    assert (tmp_path / 'half.safetensors').stat().st_size < 0.52 * (
        tmp_path / 'full.safetensors'
    ).stat().st_size
    assert all(half[name].dtype == full[name].dtype for name in full)
    assert all(torch.equal(half[name], full[name]) for name in full if full[name].dim() <= 1)
    assert all(torch.allclose(half[name], full[name], rtol=5e-4, atol=1e-7) for name in full)


def test_a_name_of_no_shipped_weights_is_refused_with_those_that_ship():
    with pytest.raises(
        CheckpointError,
        match=r'huge: no weights of this name ship; give one that does \(.*\) or a file',
    ):
        load_checkpoint('huge')
