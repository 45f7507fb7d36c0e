"""Checkpoints in the official format and in our format load completely, or are rejected with a
message."""

import copy
import dataclasses
import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from bevdepth_core.checkpoint import (
    CheckpointError,
    load_checkpoint,
    main,
    save_checkpoint,
    save_official,
    untrained,
)
from bevdepth_core.config import load_model_config
from bevdepth_core.model import BEVDepth
from bevdepth_core.official_layout import official_state_dict
from bevdepth_core.uncertainty import UncertaintyModel
from tests.reference import DATA, PRESETS, ROOT, filled_model

LAYOUTS = {
    '1key': 'bev_depth_lss_r50_256x704_128x128_24e',
    '2key': 'bev_depth_lss_r50_256x704_128x128_24e_2key',
    '2key_da': 'bev_depth_lss_r50_256x704_128x128_20e_cbgs_2key_da',
    'stereo_2key': 'bev_stereo_lss_r50_256x704_128x128_24e_2key',
    'stereo_key4': 'bev_stereo_lss_r50_256x704_128x128_24e_key4',
    'stereo_2key_da': 'bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da',
}
FILLED = ('1key', '2key', '2key_da')


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """Return the path of a 2key checkpoint in the official layout, and its model."""
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
def test_weights_have_the_names_shapes_and_types_of_the_official_checkpoint(case):
    layout = json.loads((DATA / f'state_dict_{LAYOUTS[case]}.json').read_text())
    expected = {name: (shape, dtype) for name, shape, dtype in layout['entries']}
    state = official_state_dict(
        BEVDepth(load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[case]}.yaml'))
    )
    assert {
        f'model.{name}': (list(value.shape), str(value.dtype).removeprefix('torch.'))
        for name, value in state.items()
    } == expected


@pytest.mark.parametrize('case', FILLED)
def test_deterministic_weights_have_the_sums_and_means_of_the_official_run(case):
    expected = json.loads((DATA / f'fill_check_{case}.json').read_text())
    state = official_state_dict(filled_model(case))
    for name, numbers in expected.items():
        assert state[name].double().abs().sum().item() == pytest.approx(
            numbers['abssum'], rel=1e-6, abs=1e-9
        ), name
        assert state[name].double().mean().item() == pytest.approx(
            numbers['mean'], rel=1e-5, abs=1e-9
        ), name


def test_a_saved_official_file_loads_with_the_same_weights(official):
    path, model = official
    assert_same_weights(load_checkpoint(path), model)


def test_an_official_lightning_file_and_a_bare_state_dict_load(official, tmp_path):
    path, model = official
    content = torch.load(path, weights_only=True)
    torch.save(
        {
            **content,
            'callbacks': {},
            'optimizer_states': [{'state': {}}],
            'hyper_parameters': {'gpus': 8},
            'lr_schedulers': [{'milestones': Counter([19, 23])}],
        },
        tmp_path / 'full.ckpt',
    )
    torch.save(content['state_dict'], tmp_path / 'bare.pth')
    torch.save({'model': content['state_dict']}, tmp_path / 'model.pth')
    for name in ('full.ckpt', 'bare.pth', 'model.pth'):
        assert_same_weights(load_checkpoint(tmp_path / name), model)


@pytest.mark.parametrize('prefix', ['module.', 'model.module.', 'model._orig_mod.', ''])
def test_prefixes_of_ddp_and_compile_wrappers_are_removed(official, tmp_path, prefix):
    content = torch.load(official[0], weights_only=True)['state_dict']
    renamed = {prefix + name.removeprefix('model.'): value for name, value in content.items()}
    torch.save({'state_dict': renamed}, tmp_path / 'wrapped.pth')
    assert_same_weights(load_checkpoint(tmp_path / 'wrapped.pth'), official[1])


def test_prefixes_of_ddp_and_compile_wrappers_are_removed_from_files_in_our_format(
    small, tmp_path
):
    save_checkpoint(small, tmp_path / 'plain.safetensors')
    with safetensors.safe_open(tmp_path / 'plain.safetensors', framework='pt') as file:
        header = file.metadata()
    state = {f'module.{name}': value for name, value in small.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / 'wrapped.safetensors', header)
    assert_same_weights(load_checkpoint(tmp_path / 'wrapped.safetensors'), small)


def test_the_message_about_a_checkpoint_of_mmdetection3d_contains_the_name_mmdetection3d(tmp_path):
    path = tmp_path / 'bevdet.pth'
    torch.save({'state_dict': {'img_backbone.conv1.weight': torch.zeros(2)}}, path)
    require_rejected(path, 'a checkpoint of mmdetection3d or BEVDet')


def test_a_file_that_contains_a_weight_with_and_without_prefix_is_rejected(official, tmp_path):
    name = 'backbone.depth_net.reduce_conv.0.bias'
    change = changed_official(
        official, tmp_path, lambda state: state.update({f'module.{name}': torch.zeros(512)})
    )
    require_rejected(change, f'contains {name} twice')


def test_the_frustum_of_a_file_with_averaged_weights_is_loaded_exactly_as_it_is_stored(
    official, tmp_path
):
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
def test_the_config_of_official_1key_and_2key_da_files_is_recognized(case, tmp_path):
    model = BEVDepth(load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[case]}.yaml'))
    save_official(model, tmp_path / 'model.pth')
    assert_same_weights(load_checkpoint(tmp_path / 'model.pth'), model)


@pytest.mark.parametrize('case', ['stereo_2key', 'stereo_2key_da'])
def test_official_stereo_files_load_with_clamp_mean_true(case, tmp_path):
    config = load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[case]}.yaml')
    assert not config.stereo.clamp_mean
    config = dataclasses.replace(
        config, stereo=dataclasses.replace(config.stereo, clamp_mean=True)
    )
    model = BEVDepth(config)
    save_official(model, tmp_path / 'model.pth')
    assert_same_weights(load_checkpoint(tmp_path / 'model.pth'), model)


def test_the_option_no_clamp_mean_disables_the_clamp_of_stereo_weights(tmp_path):
    preset = ROOT / 'config' / 'models' / f'{PRESETS["stereo_2key"]}.yaml'
    model = BEVDepth(load_model_config(preset))
    save_official(model, tmp_path / 'a.pth')
    for name, options, clamp in (('on', [], True), ('off', ['--no-clamp-mean'], False)):
        target = tmp_path / f'{name}.safetensors'
        main(['convert', str(tmp_path / 'a.pth'), str(target), *options])
        assert load_checkpoint(target).config.stereo.clamp_mean is clamp


def test_the_option_no_clamp_mean_is_rejected_for_weights_without_stereo(small, tmp_path):
    save_checkpoint(small, tmp_path / 'a.safetensors')
    arguments = [str(tmp_path / 'a.safetensors'), str(tmp_path / 'b.safetensors')]
    with pytest.raises(SystemExit, match='not a stereo model'):
        main(['convert', *arguments, '--no-clamp-mean'])


def test_saving_and_loading_in_our_format_keeps_config_and_metadata(small, tmp_path):
    save_checkpoint(small, tmp_path / 'small.safetensors', {'weights': 'random'})
    loaded = load_checkpoint(tmp_path / 'small.safetensors')
    assert_same_weights(loaded, small)
    assert loaded.metadata == {'weights': 'random'} and not loaded.training


def test_the_command_converts_to_our_format_and_back_to_the_official_format(official, tmp_path):
    for source, target in ((official[0], 'a.safetensors'), (tmp_path / 'a.safetensors', 'b.pth')):
        main(['convert', str(source), str(tmp_path / target)])
    assert_same_weights(load_checkpoint(tmp_path / 'b.pth'), official[1])


def test_a_model_that_the_official_layout_cannot_store_is_rejected(small, tmp_path):
    save_checkpoint(small, tmp_path / 'a.safetensors')
    with pytest.raises(SystemExit) as error:
        main(['convert', str(tmp_path / 'a.safetensors'), str(tmp_path / 'b.pth')])
    message = str(error.value)
    for section in ('image_encoder', 'depth_net', 'bev_encoder', 'head'):
        assert section in message
    assert 'key_frames' not in message and 'grid' not in message and 'decode' not in message
    assert 'convert to .safetensors' in message
    assert not (tmp_path / 'b.pth').exists()


def test_the_command_reports_an_error_in_one_line(tmp_path):
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


def test_the_command_writes_the_same_random_weights_for_the_same_seed(tmp_path):
    preset = str(ROOT / 'config' / 'models' / 'small.yaml')
    for name, seed in (('a', '1'), ('b', '1'), ('c', '2')):
        main(['untrained', preset, str(tmp_path / f'{name}.safetensors'), '--seed', seed])
    a, b, c = (load_checkpoint(tmp_path / f'{name}.safetensors') for name in 'abc')
    assert_same_weights(a, b)
    assert a.metadata == {'weights': 'random, seed 1'}
    assert not torch.equal(a.head.shared[0].weight, c.head.shared[0].weight)


def test_the_command_writes_random_weights_in_the_official_layout(tmp_path):
    preset = str(ROOT / 'config' / 'models' / 'r50_256x704_2key.yaml')
    main(['untrained', preset, str(tmp_path / 'random.pth'), '--seed', '3'])
    assert_same_weights(load_checkpoint(tmp_path / 'random.pth'), untrained(preset, 3))


def test_the_command_rejects_models_and_types_that_the_official_layout_cannot_store(
    tmp_path, official
):
    preset = str(ROOT / 'config' / 'models' / 'small.yaml')
    with pytest.raises(SystemExit, match=r'official layout .*convert to \.safetensors'):
        main(['untrained', preset, str(tmp_path / 'random.pth')])
    with pytest.raises(SystemExit, match=r'--half needs .*\.safetensors'):
        main(['convert', str(official[0]), str(tmp_path / 'half.pth'), '--half'])
    assert not list(tmp_path.iterdir())


def test_the_command_rejects_an_unknown_preset_and_an_unknown_suffix(tmp_path, capsys):
    with pytest.raises(SystemExit, match='no_such'):
        main(['untrained', str(tmp_path / 'no_such.yaml'), str(tmp_path / 'a.safetensors')])
    with pytest.raises(SystemExit):
        main(['convert', 'in.pth', str(tmp_path / 'out.txt')])
    assert 'out.txt must end in .safetensors, .pth or .ckpt' in capsys.readouterr().err


def require_rejected(path, *words):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert path.name in message and '\n' not in message, message
    assert all(word in message for word in words), message


def test_a_missing_file_is_rejected(tmp_path):
    require_rejected(tmp_path / 'nowhere.pth', 'no such checkpoint file')


@pytest.mark.parametrize('part', [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_official_file_is_rejected(official, tmp_path, part):
    content = official[0].read_bytes()
    (tmp_path / 'cut.pth').write_bytes(content[: int(len(content) * part)])
    require_rejected(tmp_path / 'cut.pth', 'truncated')


@pytest.mark.parametrize('part', [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_in_our_format_is_rejected(small, tmp_path, part):
    save_checkpoint(small, tmp_path / 'whole.safetensors')
    content = (tmp_path / 'whole.safetensors').read_bytes()
    (tmp_path / 'cut.safetensors').write_bytes(content[: int(len(content) * part)])
    require_rejected(tmp_path / 'cut.safetensors', 'truncated')


def test_a_file_without_weights_is_rejected(tmp_path):
    (tmp_path / 'text.pth').write_text('hello')
    require_rejected(tmp_path / 'text.pth', 'not a PyTorch checkpoint')
    torch.save([1, 2], tmp_path / 'list.pth')
    require_rejected(tmp_path / 'list.pth', 'state_dict')
    torch.save({'layer.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    require_rejected(tmp_path / 'other.pth', 'backbone.voxel_size is missing')


def changed_official(official, tmp_path, change):
    content = torch.load(official[0], weights_only=True)
    change(content['state_dict'])
    torch.save(content, tmp_path / 'changed.pth')
    return tmp_path / 'changed.pth'


def test_missing_unexpected_and_wrongly_shaped_weights_are_rejected(official, tmp_path):
    name = 'model.backbone.depth_net.reduce_conv.0.weight'
    require_rejected(
        changed_official(official, tmp_path, lambda state: state.pop(name)),
        'depth_net.reduce.0.weight is missing',
    )
    require_rejected(
        changed_official(
            official, tmp_path, lambda state: state.update({'model.extra': torch.zeros(1)})
        ),
        'extra is unexpected',
    )
    require_rejected(
        changed_official(official, tmp_path, lambda state: state.update({name: torch.zeros(2)})),
        'has shape (2,) instead of (512, 512, 3, 3)',
    )
    require_rejected(
        changed_official(official, tmp_path, lambda state: state[name].fill_(float('nan'))),
        'contains NaN',
    )


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_weights_with_a_single_nan_or_infinite_value_are_rejected(official, tmp_path, value):
    name = 'model.head.shared_conv.conv.weight'
    change = changed_official(
        official, tmp_path, lambda state: state[name].view(-1)[1234:1235].fill_(value)
    )
    require_rejected(change, 'weight head.shared.0.weight contains NaN or infinity;')


def test_the_message_about_missing_weights_names_one_weight_and_counts_the_others(
    official, tmp_path
):
    def lose(state):
        for name in ('weight', 'bias', 'running_mean'):
            del state[f'model.head.shared_conv.bn.{name}']

    require_rejected(changed_official(official, tmp_path, lose), 'head.shared.1.', '(and 2 more)')


def test_a_weight_with_an_integer_data_type_is_rejected(official, tmp_path):
    name = 'model.head.shared_conv.conv.weight'
    change = changed_official(
        official, tmp_path, lambda state: state.update({name: state[name].int()})
    )
    require_rejected(change, 'head.shared.0.weight has type torch.int32 instead of torch.float32')


def test_float64_and_bfloat16_weights_load_as_float32(official, tmp_path):
    def cast(state):
        for name, value in state.items():
            if value.is_floating_point() and name.startswith('model.head'):
                state[name] = value.double()
            elif value.is_floating_point() and 'img_' in name:
                state[name] = value.bfloat16()

    loaded = load_checkpoint(changed_official(official, tmp_path, cast))
    theirs = official[1].state_dict()
    assert all(value.dtype == theirs[name].dtype for name, value in loaded.state_dict().items())
    assert torch.equal(loaded.head.shared[0].weight, official[1].head.shared[0].weight)


def test_expanded_sparse_and_meta_tensors_and_text_are_rejected_as_weights(official, tmp_path):
    name = 'model.head.shared_conv.conv.weight'
    for tensor in (
        torch.zeros(1, 1, 1, 1).expand(64, 256, 3, 3),
        torch.zeros(64, 256, 3, 3).to_sparse(),
        torch.zeros(64, 256, 3, 3, device='meta'),
        'text',
    ):
        change = changed_official(
            official, tmp_path, lambda state, tensor=tensor: state.update({name: tensor})
        )
        require_rejected(change, 'changed.pth')


def rewritten(source, target, compress=(), extra=()):
    """Copy an archive. Compress each entry whose name ends with one of the strings in
    ``compress``, and add an entry for each (name, content) pair in ``extra``.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for entry in old.infolist():
            packed = entry.filename.endswith(tuple(compress)) and bool(compress)
            kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            new.writestr(entry.filename, old.read(entry), kind)
        for name, content in extra:
            new.writestr(name, content)
    return target


def test_a_checkpoint_with_a_single_compressed_entry_is_rejected(official, tmp_path):
    names = zipfile.ZipFile(official[0]).namelist()
    number = next(name for name in names if name.endswith('/data/7'))
    require_rejected(rewritten(official[0], tmp_path / 'packed.pth', (number,)), 'compressed')
    stored = rewritten(official[0], tmp_path / 'stored.pth')
    assert_same_weights(load_checkpoint(stored), official[1])


def test_a_checkpoint_with_a_too_large_pickled_part_is_rejected(official, tmp_path, monkeypatch):
    entries = zipfile.ZipFile(official[0]).infolist()
    size = sum(entry.file_size for entry in entries if entry.filename.endswith('.pkl'))
    monkeypatch.setattr('bevdepth_core.checkpoint.MAX_PICKLE_BYTES', size - 1)
    require_rejected(official[0], 'contains much more than tensors')
    monkeypatch.setattr('bevdepth_core.checkpoint.MAX_PICKLE_BYTES', size)
    assert_same_weights(load_checkpoint(official[0]), official[1])


def test_a_name_selects_bundled_weights_unless_a_file_of_that_name_exists(
    small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert not load_checkpoint('small').training
    require_rejected(Path('models/small'), 'no such checkpoint file')
    require_rejected(Path('small.pth'), 'no such checkpoint file')
    (tmp_path / 'small').write_text('hello')
    require_rejected(Path('small'), 'not a PyTorch checkpoint')


def test_the_bundled_weights_have_the_config_of_their_preset(small):
    assert load_checkpoint('small').config == small.config


def test_the_bundled_weights_contain_a_fitted_covariance_and_its_origin(small):
    metadata = load_checkpoint('small').metadata
    model = UncertaintyModel.from_metadata(metadata, small.config.class_names)
    assert model is not None
    assert (np.diff(model.along[0]) > 0).mean() > 0.5  # errors of cars grow with the range
    assert 'boxes in 560 samples' in metadata['uncertainty_origin']


def test_files_in_our_format_need_the_suffix_safetensors(small, tmp_path):
    with pytest.raises(CheckpointError, match=r'must end|end in \.safetensors'):
        save_checkpoint(small, tmp_path / 'model.bin')
    assert not list(tmp_path.iterdir())


def test_save_checkpoint_prefers_the_given_metadata_to_the_metadata_of_the_model(small, tmp_path):
    model = copy.deepcopy(small)
    model.metadata = {'data': 'mini', 'recipe': 'old', 'format': 'ours', 'config': 'none'}
    save_checkpoint(model, tmp_path / 'a.safetensors', {'recipe': 'new'})
    loaded = load_checkpoint(tmp_path / 'a.safetensors')
    assert loaded.metadata == {'data': 'mini', 'recipe': 'new'}


def test_official_files_contain_the_entries_that_lightning_reads(official):
    content = torch.load(official[0], weights_only=True)
    assert content.keys() == {'epoch', 'global_step', 'state_dict'}
    assert content['epoch'] == content['global_step'] == 0
    assert all(name.startswith('model.') for name in content['state_dict'])
    assert not load_checkpoint(official[0]).training


def test_random_weights_do_not_change_the_global_random_state_and_have_seed_0_by_default(tmp_path):
    preset = ROOT / 'config' / 'models' / 'small.yaml'
    before = torch.random.get_rng_state()
    assert untrained(preset).metadata == {'weights': 'random, seed 0'}
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize('shape', [(3,), (112, 16, 44), (0, 0, 0, 4), (112, 16, 44, 4)])
def test_a_frustum_of_invalid_shape_or_content_is_rejected(official, tmp_path, shape):
    change = changed_official(
        official,
        tmp_path,
        lambda state: state.update({'model.backbone.frustum': torch.rand(shape)}),
    )
    require_rejected(change, 'BEVDepth')


def test_a_frustum_with_one_point_off_the_grid_is_rejected(official, tmp_path):
    change = changed_official(
        official, tmp_path, lambda state: state['model.backbone.frustum'][3, 2, 1, 0].add_(0.1)
    )
    require_rejected(change, 'backbone.frustum is not a grid')


class Foreign:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return (print, ('unpickled',))


def test_a_pickle_with_code_is_rejected_and_not_executed(official, tmp_path, capsys):
    torch.save({'state_dict': {}, 'callbacks': Foreign()}, tmp_path / 'foreign.ckpt')
    require_rejected(tmp_path / 'foreign.ckpt', 'print', 'never loaded')
    assert 'unpickled' not in capsys.readouterr().out


def test_a_safetensors_file_without_our_metadata_is_rejected(tmp_path):
    safetensors.torch.save_file({'a': torch.zeros(1)}, tmp_path / 'plain.safetensors')
    require_rejected(tmp_path / 'plain.safetensors', 'bevdepth-1')
    safetensors.torch.save_file(
        {'a': torch.zeros(1)},
        tmp_path / 'unknown_key.safetensors',
        {'format': 'bevdepth-1', 'config': '{"imagee": {}}'},
    )
    require_rejected(tmp_path / 'unknown_key.safetensors', 'imagee')


def test_a_failed_save_keeps_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / 'kept.safetensors'
    save_checkpoint(small, path)
    before = path.read_bytes()
    monkeypatch.setattr(
        safetensors.torch, 'save_file', lambda *args: (_ for _ in ()).throw(OSError('disk full'))
    )
    with pytest.raises(OSError, match='disk full'):
        save_checkpoint(small, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_half_precision_halves_the_file_size_and_the_weights_load_as_float32(small, tmp_path):
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


def test_the_message_about_an_unknown_name_of_weights_lists_the_known_names():
    with pytest.raises(
        CheckpointError,
        match=r'huge: neither a checkpoint file nor a name of weights; known names: small, 2key',
    ):
        load_checkpoint('huge')
