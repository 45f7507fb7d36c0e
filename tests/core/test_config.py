"""The presets are complete. The message about an invalid model config names the invalid value."""

import dataclasses

import pytest
import yaml

from bevdepth_core.config import (
    MAX_CANDIDATES,
    MAX_CELLS,
    MAX_CHANNELS,
    MAX_CLASSES,
    MAX_FRUSTUM_POINTS,
    MAX_IMAGE_PIXELS,
    NUSCENES_CLASSES,
    BEVEncoderConfig,
    BEVGrid,
    DecodeConfig,
    DepthBins,
    DepthNetConfig,
    HeadConfig,
    HeadTask,
    ImageEncoderConfig,
    ImageSpec,
    ModelConfig,
    ScaleNMSConfig,
    SizeAwareNMSConfig,
    StereoConfig,
    load_model_config,
    model_config_from_dict,
    model_config_to_dict,
    save_model_config,
)
from tests.reference import ROOT

PRESETS = sorted((ROOT / 'config' / 'models').glob('*.yaml'))


def test_all_presets_exist():
    names = {path.stem for path in PRESETS}
    assert names == {
        'r50_256x704_1key',
        'r50_256x704_2key',
        'r50_256x704_2key_da',
        'r50_512x1408_2key',
        'r50_640x1600_2key',
        'small',
        'stereo_r50_256x704_2key',
        'stereo_r50_256x704_2key_da',
        'stereo_r50_256x704_key4',
    }


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_complete_and_is_equal_after_saving_and_loading(path, tmp_path):
    config = load_model_config(path)
    assert yaml.safe_load(path.read_text()) == model_config_to_dict(config)
    save_model_config(config, tmp_path / 'copy.yaml')
    assert load_model_config(tmp_path / 'copy.yaml') == config
    assert config.class_names == NUSCENES_CLASSES


def test_the_default_config_equals_the_preset_r50_256x704_2key():
    assert load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_2key.yaml') == ModelConfig()


def test_presets_differ_only_where_the_official_experiments_differ():
    official = ModelConfig()
    one_key = load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_1key.yaml')
    refined = load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_2key_da.yaml')
    large = load_model_config(ROOT / 'config' / 'models' / 'r50_640x1600_2key.yaml')
    assert one_key == dataclasses.replace(official, key_frames=1)
    assert refined == dataclasses.replace(
        official, depth_net=dataclasses.replace(official.depth_net, refinement=True)
    )
    assert large == dataclasses.replace(official, image=ImageSpec(640, 1600))


def test_stereo_presets_differ_from_plain_presets_only_by_stereo_and_size_aware_nms():
    folder = ROOT / 'config' / 'models'
    for name in ('r50_256x704_2key', 'r50_256x704_2key_da'):
        plain = load_model_config(folder / f'{name}.yaml')
        nms = dataclasses.replace(plain.decode, size_aware_nms=SizeAwareNMSConfig())
        assert load_model_config(folder / f'stereo_{name}.yaml') == dataclasses.replace(
            plain, stereo=StereoConfig(), decode=nms
        )
    assert load_model_config(folder / 'stereo_r50_256x704_key4.yaml') == load_model_config(
        folder / 'stereo_r50_256x704_2key.yaml'
    )


@pytest.mark.parametrize(
    ('values', 'named'),
    [
        ({'imagee': {}}, 'imagee'),
        ({'image': {'heigth': 256}}, 'heigth'),
        ({'image': {'height': 250}}, 'image.height must be .* got 250; .* are 224 and 256$'),
        ({'image': {'width': 20}}, 'image.width .* got 20; .* are 32$'),
        ({'image': {'width': -64}}, 'image.width .* got -64; use 32 or more$'),
        ({'image': {'height': 'tall'}}, 'height'),
        ({'key_frames': 3}, 'key_frames'),
        ({'depth_bins': {'start': 5.0, 'stop': 2.0}}, 'depth_bins'),
        ({'grid': {'z': [-5.0, 3.0, 4.0]}}, 'grid.z'),
        ({'head': {'tasks': [{'classes': ['car']}]}}, 'nms_distance_squared'),
        ({'image_encoder': {'depth': 51}}, 'image_encoder.depth'),
    ],
)
def test_the_message_about_an_invalid_value_contains_the_name_of_the_option(values, named):
    with pytest.raises(ValueError, match=named):
        model_config_from_dict(values)


def test_a_file_that_is_not_a_mapping_is_rejected(tmp_path):
    (tmp_path / 'list.yaml').write_text('- 1\n')
    with pytest.raises(ValueError, match=r'list\.yaml'):
        load_model_config(tmp_path / 'list.yaml')


@pytest.mark.parametrize(
    ('section', 'good', 'bad'),
    [
        (ImageSpec, {'height': 288}, {'height': 272}),
        (ImageSpec, {'width': 32}, {'width': 16}),
        (ImageSpec, {'width': 32}, {'width': 0}),
        (ImageSpec, {'height': 32}, {'height': -32}),
        (ImageSpec, {'height': 4096, 'width': 4096}, {'height': 4096, 'width': 4128}),
        (ImageSpec, {'std': (1e-3, 1.0, 1.0)}, {'std': (0.0, 1.0, 1.0)}),
        (ImageSpec, {'mean': (0.0, 0.0, 0.0)}, {'mean': (0.0, float('nan'), 0.0)}),
        (ImageSpec, {'std': (1.0, 1.0, 1.0)}, {'std': (1.0, 1.0, float('inf'))}),
        (DepthBins, {'start': 0.1}, {'start': 0.0}),
        (DepthBins, {'stop': 2.5}, {'stop': 2.0}),
        (DepthBins, {'step': 0.1}, {'step': 0.0}),
        (DepthBins, {'step': 0.1}, {'step': -0.5}),
        (DepthBins, {'stop': 60.0}, {'stop': float('inf')}),
        (DepthBins, {'step': 1e-5}, {'step': 56.0 / MAX_FRUSTUM_POINTS}),
        (BEVGrid, {'x': (0.0, 102.4, 0.8)}, {'x': (0.0, 0.0, 0.8)}),
        (BEVGrid, {'x': (0.0, 8.0, 0.8)}, {'x': (8.0, 0.0, 0.8)}),
        (BEVGrid, {'x': (0.0, 8.0, 0.8)}, {'x': (0.0, 8.0, -0.8)}),
        (BEVGrid, {'y': (0.0, 8.0, 0.8)}, {'y': (0.0, 8.0, 0.0)}),
        (BEVGrid, {'y': (0.0, 8.0, 0.8)}, {'y': (0.0, float('inf'), 0.8)}),
        (BEVGrid, {'y': (0.0, 9.6, 0.8)}, {'y': (0.0, 10.0, 0.8)}),
        (BEVGrid, {'y': (0.0, 0.8, 0.8)}, {'y': (0.0, 0.1, 0.8)}),
        (BEVGrid, {'z': (-5.0, 5.0, 10.0)}, {'z': (-5.0, 5.0, 5.0)}),
        (
            BEVGrid,
            {'x': (0.0, 2048.0, 1.0), 'y': (0.0, 2048.0, 1.0)},
            {'x': (0.0, 2048.0, 1.0), 'y': (0.0, 2049.0, 1.0)},
        ),
        (BEVGrid, {'x': (0.0, 1e3, 1.0)}, {'x': (0.0, 1e300, 1.0)}),
        (ImageEncoderConfig, {'depth': 34}, {'depth': 52}),
        (ImageEncoderConfig, {'stride': 4}, {'stride': 32}),
        (ImageEncoderConfig, {'stride': 8}, {'stride': 2}),
        (ImageEncoderConfig, {'width': 1}, {'width': 0}),
        (ImageEncoderConfig, {'width': MAX_CHANNELS}, {'width': MAX_CHANNELS + 1}),
        (ImageEncoderConfig, {'neck_channels': 1}, {'neck_channels': 0}),
        (DepthNetConfig, {'mid_channels': 1}, {'mid_channels': -1}),
        (DepthNetConfig, {'context_channels': 1}, {'context_channels': 0}),
        (BEVEncoderConfig, {'base_channels': 1}, {'base_channels': 0}),
        (BEVEncoderConfig, {'neck_channels': 1}, {'neck_channels': MAX_CHANNELS + 1}),
        (HeadConfig, {'channels': 1}, {'channels': 0}),
        (HeadConfig, {'tasks': (HeadTask(('a',), 1.0),)}, {'tasks': ()}),
        (HeadConfig, {'tasks': (HeadTask(('a',), 1.0),)}, {'tasks': (HeadTask((), 1.0),)}),
        (
            HeadConfig,
            {'tasks': (HeadTask(('a',), 1.0), HeadTask(('b',), 1.0))},
            {'tasks': (HeadTask(('a',), 1.0), HeadTask(('a',), 1.0))},
        ),
        (
            HeadConfig,
            {'tasks': (HeadTask(tuple(map(str, range(MAX_CLASSES))), 1.0),)},
            {'tasks': (HeadTask(tuple(map(str, range(MAX_CLASSES + 1))), 1.0),)},
        ),
        (
            HeadConfig,
            {'tasks': (HeadTask(('a',), 0.0),)},
            {'tasks': (HeadTask(('a',), float('nan')),)},
        ),
        (DecodeConfig, {'candidates': 1}, {'candidates': 0}),
        (DecodeConfig, {'candidates': MAX_CANDIDATES}, {'candidates': MAX_CANDIDATES + 1}),
        (DecodeConfig, {'boxes_per_task': 1}, {'boxes_per_task': 0}),
        (DecodeConfig, {'score_threshold': 0.0}, {'score_threshold': float('nan')}),
        (
            DecodeConfig,
            {'center_range': (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)},
            {'center_range': (-1.0, -1.0, -1.0, 1.0, 1.0, float('inf'))},
        ),
        (ScaleNMSConfig, {'factors': (0.1,)}, {'factors': (0.0,)}),
        (ScaleNMSConfig, {'factors': (0.1,)}, {'factors': (float('nan'),)}),
        (ScaleNMSConfig, {'max_overlap': 0.0}, {'max_overlap': -0.1}),
        (ScaleNMSConfig, {'max_overlap': 1.0}, {'max_overlap': 1.1}),
    ],
)
def test_values_at_a_limit_are_accepted_and_values_beyond_the_limit_are_rejected(
    section, good, bad
):
    section(**good)
    with pytest.raises(ValueError, match='|'.join((*bad, 'must'))):
        section(**bad)


@pytest.mark.parametrize(
    ('good', 'bad', 'named'),
    [
        ({'key_frames': 1}, {'key_frames': 0}, 'key_frames'),
        (
            {'grid': BEVGrid(x=(0.0, 89.6, 0.8))},  # 112 cells
            {'grid': BEVGrid(x=(0.0, 80.0, 0.8))},  # 100 cells
            r'grid\.x must contain a multiple of 8 cells',
        ),
        (
            {'grid': BEVGrid(y=(0.0, 6.4, 0.8))},
            {'grid': BEVGrid(y=(0.0, 3.2, 0.8))},
            r'grid\.y must contain a multiple of 8 cells',
        ),
        (
            {'decode': DecodeConfig(center_range=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))},
            {'decode': DecodeConfig(center_range=(-51.1, -51.2, -5.0, 51.2, 51.2, 3.0))},
            'center_range .* x from -51.1 to 51.2 m',
        ),
        ({}, {'decode': DecodeConfig(center_range=(-60, -60, -5, 60, 51.1, 3))}, ' y from'),
        ({}, {'decode': DecodeConfig(center_range=(-60, -60, -5, 60, 60, 2.9))}, ' z from'),
        (
            {'grid': BEVGrid(x=(0.0, 102.4, 0.8))},
            {
                'grid': BEVGrid(x=(0.0, 102.4, 0.8)),
                'decode': DecodeConfig(center_range=(-61.2, -61.2, -10, 61.2, 61.2, 10)),
            },
            'center_range',
        ),
        (
            {'decode': DecodeConfig(scale_nms=ScaleNMSConfig())},
            {'decode': DecodeConfig(scale_nms=ScaleNMSConfig(factors=(1.0,) * 9))},
            'one number for each of the 10 classes car',
        ),
        (
            {'image': ImageSpec(1024, 2048), 'depth_bins': DepthBins(2.0, 1026.0, 0.5)},
            {'image': ImageSpec(1024, 2048), 'depth_bins': DepthBins(2.0, 1026.5, 0.5)},
            'points per camera',
        ),
        (
            {
                'image': ImageSpec(1024, 2048),
                'depth_bins': DepthBins(2.0, 258.0, 0.5),
                'image_encoder': ImageEncoderConfig(stride=8),
            },
            {
                'image': ImageSpec(1024, 2048),
                'depth_bins': DepthBins(2.0, 258.5, 0.5),
                'image_encoder': ImageEncoderConfig(stride=8),
            },
            'points per camera',
        ),
    ],
)
def test_configs_with_contradictory_sections_are_rejected(good, bad, named):
    ModelConfig(**good)
    with pytest.raises(ValueError, match=named):
        ModelConfig(**bad)


def test_the_default_center_range_depends_on_the_grid_and_a_given_range_does_not():
    assert ModelConfig().center_range == (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    far = ModelConfig(grid=BEVGrid(x=(0.0, 102.4, 0.8), y=(-8.0, 4.8, 0.8), z=(-12.0, 14.0, 26.0)))
    assert far.center_range == pytest.approx((-10.0, -18.0, -12.0, 112.4, 14.8, 14.0))
    wide = (-100.0, -100.0, -10.0, 100.0, 100.0, 10.0)
    assert ModelConfig(decode=DecodeConfig(center_range=wide)).center_range == wide


def test_a_config_file_with_the_default_center_range_as_numbers_equals_the_default_config():
    stored = {'decode': {'center_range': [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]}}
    assert model_config_from_dict(stored) == ModelConfig()


def test_scale_nms_is_read_from_a_config_and_has_a_default_factor_for_each_class():
    values = {'decode': {'scale_nms': {'max_overlap': 0.3}}}
    assert model_config_from_dict(values).decode.scale_nms == ScaleNMSConfig(max_overlap=0.3)
    assert ModelConfig().decode.scale_nms is None
    factors = dict(zip(NUSCENES_CLASSES, ScaleNMSConfig().factors, strict=True))
    assert factors['pedestrian'] == 4.5 and factors['traffic_cone'] == 9.0
    assert factors['car'] == factors['motorcycle'] == factors['bicycle'] == 1.0
    assert factors['truck'] == factors['construction_vehicle'] == 0.7
    assert (factors['bus'], factors['trailer'], factors['barrier']) == (0.4, 0.55, 1.1)
    assert ScaleNMSConfig().max_overlap == 0.2


def test_the_limits_have_fixed_values():
    assert MAX_IMAGE_PIXELS == MAX_FRUSTUM_POINTS == 16_777_216
    assert (MAX_CELLS, MAX_CHANNELS, MAX_CANDIDATES) == (4_194_304, 16_384, 100_000)


def test_a_config_that_is_not_a_mapping_and_unknown_sections_are_reported():
    with pytest.raises(ValueError, match='must be a mapping, got list'):
        model_config_from_dict([])
    with pytest.raises(ValueError, match='unknown key gird, heda'):
        model_config_from_dict({'heda': {}, 'gird': {}, 'key_frames': 2})


def test_the_message_about_a_file_that_is_not_yaml_contains_the_file_name(tmp_path):
    (tmp_path / 'damaged.yaml').write_text('image: {')
    with pytest.raises(ValueError, match=r'damaged\.yaml: not YAML'):
        load_model_config(tmp_path / 'damaged.yaml')
    with pytest.raises(FileNotFoundError):
        load_model_config(tmp_path / 'missing.yaml')


def test_counts_shapes_and_limits_are_derived_from_depth_bins_and_grid():
    assert DepthBins(0.1, 0.4, 0.1).count == 3
    assert BEVGrid(x=(0.0, 8.0, 0.4), y=(-1.0, 1.0, 0.5), z=(-2.0, 1.0, 3.0)).shape == (20, 4, 1)
    assert BEVGrid().upper == (51.2, 51.2, 3.0)
    assert BEVGrid(x=(0.0, 8.0, 0.4), y=(-1.0, 1.0, 0.5)).cell == (0.4, 0.5, 8.0)
    assert DepthBins().count == 112
    assert DepthBins(1.0, 2.0, 0.3).count == 4
    assert BEVGrid().shape == (128, 128, 1)
    assert BEVGrid().lower == (-51.2, -51.2, -5.0)
