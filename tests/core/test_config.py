"""Model configs are complete, strict and say what is wrong."""

import dataclasses

import pytest
import yaml

from bevdepth_core.config import (
    NUSCENES_CLASSES,
    BEVGrid,
    DepthBins,
    ImageSpec,
    ModelConfig,
    load_model_config,
    model_config_from_dict,
    model_config_to_dict,
    save_model_config,
)
from tests.reference import ROOT

PRESETS = sorted((ROOT / 'config' / 'models').glob('*.yaml'))


def test_all_presets_are_there():
    names = {path.stem for path in PRESETS}
    assert names == {
        'r50_256x704_1key',
        'r50_256x704_2key',
        'r50_256x704_2key_da',
        'r50_512x1408_2key',
        'r50_640x1600_2key',
        'small',
    }


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_preset_is_complete_and_survives_a_round_trip(path, tmp_path):
    config = load_model_config(path)
    assert yaml.safe_load(path.read_text()) == model_config_to_dict(config)
    save_model_config(config, tmp_path / 'copy.yaml')
    assert load_model_config(tmp_path / 'copy.yaml') == config
    assert config.class_names == NUSCENES_CLASSES


def test_defaults_are_the_papers():
    assert load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_2key.yaml') == ModelConfig()


def test_presets_differ_only_where_the_experiments_do():
    official = ModelConfig()
    one = load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_1key.yaml')
    refined = load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_2key_da.yaml')
    large = load_model_config(ROOT / 'config' / 'models' / 'r50_640x1600_2key.yaml')
    assert one == dataclasses.replace(official, key_frames=1)
    assert refined == dataclasses.replace(
        official, depth_net=dataclasses.replace(official.depth_net, refinement=True)
    )
    assert large == dataclasses.replace(official, image=ImageSpec(640, 1600))


@pytest.mark.parametrize(
    ('values', 'named'),
    [
        ({'imagee': {}}, 'imagee'),
        ({'image': {'heigth': 256}}, 'heigth'),
        ({'image': {'height': 250}}, 'image.height'),
        ({'image': {'height': 'tall'}}, 'height'),
        ({'key_frames': 3}, 'key_frames'),
        ({'depth_bins': {'start': 5.0, 'stop': 2.0}}, 'depth_bins'),
        ({'grid': {'z': [-5.0, 3.0, 4.0]}}, 'grid.z'),
        ({'head': {'tasks': [{'classes': ['car']}]}}, 'nms_distance_squared'),
        ({'image_encoder': {'depth': 51}}, 'image_encoder.depth'),
    ],
)
def test_mistakes_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        model_config_from_dict(values)


def test_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / 'list.yaml').write_text('- 1\n')
    with pytest.raises(ValueError, match=r'list\.yaml'):
        load_model_config(tmp_path / 'list.yaml')


def test_derived_numbers():
    assert DepthBins().count == 112
    assert DepthBins(1.0, 2.0, 0.3).count == 4
    assert BEVGrid().shape == (128, 128, 1)
    assert BEVGrid().lower == (-51.2, -51.2, -5.0)
