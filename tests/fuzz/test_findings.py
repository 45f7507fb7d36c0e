"""Regression tests: minimal inputs for defects that fuzzing and a security review found."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from rosbags.rosbag2 import Writer

from bevdepth_core.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_official,
)
from bevdepth_core.config import ImageSpec, load_model_config, model_config_to_dict
from bevdepth_core.files import write_atomically
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.completeness import read_json
from bevdepth_core.nuscenes.images import read_image
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.recording import read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.preprocess import ImageTransform
from bevdepth_ros.bags.mcap_file import McapFile
from bevdepth_ros.bags.message_classes import message_class
from bevdepth_ros.bags.messages import message_types
from bevdepth_ros.bags.nuscenes_to_bag import chosen_scenes
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.bags.sqlite_file import SqliteFile
from bevdepth_ros.rig.conversions import intrinsics_from_file
from tests.fuzz.small_inputs import make_tables
from tests.networks import TINY
from tests.ros.bags.text_bags import STORAGES, qos, storage_file, write_bag


@pytest.fixture
def dataroot(tmp_path):
    """Return the folder of a small dataset, and the tables of this dataset."""
    return tmp_path / 'root', make_tables(tmp_path / 'root')


def rewrite(root, name, records):
    (root / 'v1.0-mini' / f'{name}.json').write_text(json.dumps(records))


def load(root):
    return load_index(root, 'v1.0-mini', 'all', root.parent / 'cache')


# Weights


@pytest.fixture(scope='module')
def official_state(tmp_path_factory):
    path = tmp_path_factory.mktemp('official') / 'weights.pth'
    save_official(BEVDepth(TINY), path)
    return torch.load(path, weights_only=True)['state_dict']


def test_a_checkpoint_with_a_huge_tensor_that_stores_one_number_is_rejected(
    official_state, tmp_path
):
    name = 'model.backbone.frustum'
    torch.save(
        official_state | {name: torch.zeros(1).expand(10**4, 10**4, 10**4, 4)},
        tmp_path / 'bomb.pth',
    )
    with pytest.raises(CheckpointError, match='neither a'):
        load_checkpoint(tmp_path / 'bomb.pth')


def test_a_checkpoint_with_compressed_weights_is_rejected(official_state, tmp_path):
    torch.save(official_state, tmp_path / 'plain.pth')
    with (
        zipfile.ZipFile(tmp_path / 'plain.pth') as plain,
        zipfile.ZipFile(tmp_path / 'packed.pth', 'w', zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(CheckpointError, match='compressed or overlapping'):
        load_checkpoint(tmp_path / 'packed.pth')


def test_a_checkpoint_that_is_a_pickle_file_without_zip_archive_is_rejected(tmp_path):
    (tmp_path / 'bare.pth').write_bytes(pickle.dumps({'state_dict': {}}))
    with pytest.raises(CheckpointError, match='not a PyTorch checkpoint'):
        load_checkpoint(tmp_path / 'bare.pth')


def test_weight_names_that_are_not_strings_are_rejected(official_state, tmp_path):
    torch.save(official_state | {7: torch.zeros(1)}, tmp_path / 'odd.pth')
    with pytest.raises(CheckpointError, match='neither a'):
        load_checkpoint(tmp_path / 'odd.pth')


@pytest.mark.parametrize(
    'config',
    [
        {'image': {'height': 320_000, 'width': 320_000}}, {'grid': {'x': [-1e9, 1e9, 0.01]}},
         {'depth_bins': {'step': 1e-9}},
        {'head': {'tasks': []}}, {'head': {'channels': -4}},
         {'bev_encoder': {'base_channels': 10**9}}, {'decode': {'candidates': 10**12}},
        {'grid': {'x': [float('nan'), 1.0, 1.0]}}, {'image': {'std': [float('inf')] * 3}},
         {'image': 7}, [], {'grid': {'x': {}}},
    ],
)  # fmt: skip
def test_a_stored_config_that_is_invalid_or_needs_too_much_memory_is_rejected(config, tmp_path):
    metadata = {'format': 'bevdepth-1', 'config': json.dumps(config)}
    safetensors.torch.save_file({'a': torch.zeros(1)}, tmp_path / 'bomb.safetensors', metadata)
    with pytest.raises(CheckpointError, match='its model config cannot be read'):
        load_checkpoint(tmp_path / 'bomb.safetensors')


@pytest.mark.parametrize('kind', [torch.complex64, torch.float8_e4m3fn, torch.int64, torch.bool])
def test_the_message_about_a_weight_of_an_invalid_data_type_names_weight_and_type(kind, tmp_path):
    path, model = tmp_path / 'odd.safetensors', BEVDepth(TINY)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    name = 'image_encoder.backbone.conv1.weight'
    state[name] = torch.zeros_like(state[name], dtype=kind)
    safetensors.torch.save_file(
        state,
        path,
        {'format': 'bevdepth-1', 'config': json.dumps(model_config_to_dict(model.config))},
    )
    with pytest.raises(CheckpointError, match=f'{name} has type {kind} instead of torch.float32'):
        load_checkpoint(path)


def test_a_checkpoint_with_a_header_length_beyond_the_end_of_the_file_is_rejected(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_checkpoint(BEVDepth(TINY), path)
    content = path.read_bytes()
    for length in (2**63, 2**40, len(content)):
        path.write_bytes(struct.pack('<Q', length) + content[8:])
        with pytest.raises(CheckpointError, match='truncated or not safetensors'):
            load_checkpoint(path)


# YAML


@pytest.mark.parametrize(
    'text',
    [
        '{',
        'a: [',
        '&a [*a]',
        '[' * 3000,
        '!!python/object/apply:os.getcwd []',
        'a: 2001-99-99',
        '\x00',
        '7',
        "a: !!int ''",
    ],
)
def test_an_invalid_model_preset_raises_a_value_error(text, tmp_path):
    (tmp_path / 'model.yaml').write_text(text)
    with pytest.raises(ValueError, match=r'model|YAML'):
        load_model_config(tmp_path / 'model.yaml')


@pytest.mark.parametrize('width', ['.inf', '1e400', '[]', '2001-99-99', "!!int ''"])
def test_a_calibration_file_with_an_invalid_image_width_is_rejected(width, tmp_path):
    (tmp_path / 'front.yaml').write_text(
        f'image_width: {width}\nimage_height: 96\ncamera_matrix: {{data: [{{}}]}}\n'
    )
    with pytest.raises(ValueError, match='not a calibration file'):
        intrinsics_from_file(tmp_path / 'front.yaml', True)


# Images


def test_an_image_that_is_too_thin_to_be_resized_is_rejected():
    with pytest.raises(ValueError, match='65535x1 pixels is too extreme'):
        ImageTransform.for_inference(65535, 1, ImageSpec())


@pytest.mark.parametrize('side', [20_000, 11_000])
def test_the_message_about_an_image_with_too_many_pixels_says_that_it_is_too_large(side, tmp_path):
    buffer = io.BytesIO()
    Image.new('L', (8, 8)).save(buffer, 'PNG')
    content = buffer.getvalue()
    header = content[12:16] + struct.pack('>II', side, side) + content[24:29]
    checksum = struct.pack('>I', zlib.crc32(header))
    (tmp_path / 'bomb.png').write_bytes(content[:12] + header + checksum + content[33:])
    with pytest.raises(OSError, match=r'bomb\.png .*it is too large .*pixels'):
        read_image(tmp_path / 'bomb.png')


def test_an_image_that_is_neither_jpeg_nor_png_is_rejected(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'image.tiff')
    with pytest.raises(OSError, match='cannot be read as an image'):
        read_image(tmp_path / 'image.tiff')


# Datasets


@pytest.mark.parametrize(
    'filename', ['../secret.jpg', '/etc/hostname', 'samples/../../secret.jpg', 'a\0b']
)
def test_a_dataset_that_names_files_outside_its_folder_is_rejected(dataroot, filename):
    root, tables = dataroot
    (root.parent / 'secret.jpg').write_bytes(b'secret')
    tables['sample_data'][0]['filename'] = filename
    rewrite(root, 'sample_data', tables['sample_data'])
    with pytest.raises(ValueError, match='outside of this folder'):
        load(root)


@pytest.mark.parametrize('name', ['../evil', '/tmp/evil', 'a/b', '', '.hidden', 'x' * 300, 7])
def test_a_scene_name_that_is_unsafe_as_a_folder_name_is_rejected(dataroot, name):
    root, tables = dataroot
    tables['scene'][0]['name'] = name
    rewrite(root, 'scene', tables['scene'])
    rewrite(root, 'splits', {'all': [name]} if isinstance(name, str) else {'all': ['x']})
    with pytest.raises(ValueError, match='contains a scene called'):
        load(root)
    with pytest.raises(ValueError, match='contains a scene called'):
        chosen_scenes(root, 'v1.0-mini', None)


def test_samples_that_refer_to_each_other_in_a_cycle_are_rejected(dataroot):
    root, tables = dataroot
    tables['sample'][1]['next'] = 'sample0'
    rewrite(root, 'sample', tables['sample'])
    with pytest.raises(ValueError, match='cycle'):
        load(root)
    with pytest.raises(ValueError, match='cycle'):
        read_recording(open_devkit(root, 'v1.0-mini'), 'scene-0001')


@pytest.mark.parametrize('link', ['prev', 'next'])
def test_a_cycle_of_prev_links_is_rejected_and_a_cycle_of_next_links_is_ignored(dataroot, link):
    root, tables = dataroot
    first = next(row for row in tables['sample_data'] if row['token'] == 'data-CAM_FRONT-0')
    first[link] = first['token']
    rewrite(root, 'sample_data', tables['sample_data'])
    devkit = open_devkit(root, 'v1.0-mini')
    if link == 'prev':
        with pytest.raises(ValueError, match='cycle'):
            read_recording(devkit, 'scene-0001')
    else:
        assert len(read_recording(devkit, 'scene-0001').streams[0].filenames) == 2


@pytest.mark.parametrize(
    ('table', 'records'),
    [('sample_annotation', [7]), ('sample', {}), ('ego_pose', []), ('sensor', [{'token': 1}]),
     ('splits', ['all']), ('splits', {'all': 7}),
     ('scene', [{}]), ('attribute', [7]), ('category', None)],
)  # fmt: skip
def test_tables_with_invalid_or_missing_rows_raise_a_value_error(dataroot, table, records):
    root, _ = dataroot
    rewrite(root, table, records)
    with pytest.raises(ValueError, match=r'tables|splits|split|names the file'):
        load(root)


def test_a_deeply_nested_table_is_rejected(tmp_path):
    (tmp_path / 'scene.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match='truncated'):
        read_json(tmp_path / 'scene.json')


# Bags


def test_topics_are_read_although_the_channel_metadata_have_a_wrong_length(
    tmp_path,
):
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 4, 'mcap'))
    data = bytearray(file.read_bytes())
    place = data.index(b'offered_qos_profiles') - 8
    data[place : place + 4] = b'\xff\xff\xff\x7f'
    data[place + 4 : place + 8] = b'\xff\xff\xff\x7f'
    file.write_bytes(data)
    assert [topic.name for topic in McapFile(file).topics] == ['/a']


@pytest.mark.parametrize('storage', STORAGES)
def test_invalid_quality_of_service_in_a_bag_is_ignored(tmp_path, storage):
    file = storage_file(write_bag(tmp_path / 'bag', {'/a': qos()}, 4, storage))
    file.write_bytes(file.read_bytes().replace(b'history: ', b'\x00{\x01}[[[{:'))
    (topic,) = (McapFile if storage == 'mcap' else SqliteFile)(file).topics
    assert (topic.name, topic.profiles, topic.count) == ('/a', (), 4)


def test_a_chunk_that_is_too_large_after_decompression_is_skipped_and_reported(
    tmp_path, monkeypatch
):
    monkeypatch.setattr('bevdepth_ros.bags.mcap_records.MAX_CONTENT_BYTES', 10_000)
    file = storage_file(
        write_bag(tmp_path / 'bag', {'/a': qos()}, 4, 'mcap', padding=100_000, compressed=True)
    )
    opened = McapFile(file)
    assert list(opened.messages({'/a'}, 0, 2**63 - 1)) == []
    assert 'more than any recorder writes' in opened.problem


@pytest.mark.parametrize('storage', STORAGES)
def test_empty_messages_in_a_bag_are_omitted(tmp_path, storage):
    with Writer(tmp_path / 'bag', version=8, storage_plugin=STORAGES[storage]) as writer:
        topic = writer.add_connection('/a', 'sensor_msgs/msg/Image', typestore=message_types())
        for number, data in enumerate((b'', b'\x00', b'\x00\x01\x00\x03', b'\x00\x01\x00\x00a')):
            writer.write(topic, number, data)
    reports = []
    with Bag(tmp_path / 'bag', reports.append) as bag:
        assert [data for _, _, data in bag.messages(['/a'], 0, 10)] == [b'\x00\x01\x00\x00a']
    assert len(reports) == 1 and '3 messages on /a are left out' in reports[0]


def test_a_bag_is_read_although_metadata_has_a_string_in_place_of_a_list(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 2, 'mcap')
    metadata = yaml.safe_load((bag / 'metadata.yaml').read_text())
    metadata['rosbag2_bagfile_information']['files'] = 'text'
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    with Bag(bag, pytest.fail) as opened:
        assert opened.topics['/a'].count == 2


@pytest.mark.parametrize('entry', [{'name': {'x': 1}}, {'type': [0]}, {'serialization_format': 7}])
def test_a_bag_is_read_although_a_topic_in_its_metadata_has_a_value_of_a_wrong_type(
    tmp_path, entry
):
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 2, 'mcap')
    metadata = yaml.safe_load((bag / 'metadata.yaml').read_text())
    metadata['rosbag2_bagfile_information']['topics_with_message_count'][0]['topic_metadata'] |= (
        entry
    )
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    with Bag(bag, [].append) as opened:
        assert opened.topics['/a'].count == 2


def test_metadata_that_lists_files_outside_the_bag_is_ignored(tmp_path):
    outside = write_bag(tmp_path / 'outside', {'/secret': qos()}, 2, 'mcap')
    bag = write_bag(tmp_path / 'bag', {'/a': qos()}, 2, 'mcap')
    metadata = (
        (bag / 'metadata.yaml')
        .read_text()
        .replace(storage_file(bag).name, f'../outside/{storage_file(outside).name}')
    )
    (bag / 'metadata.yaml').write_text(metadata)
    with Bag(bag, [].append) as opened:
        assert opened.topics.keys() == {'/a'}


@pytest.mark.parametrize(
    'name',
    [
        'antigravity/msg/Image',
        'os/msg/path',
        '../x/msg/Y',
        'this',
        '',
        'sensor_msgs/msg/Nothing',
        'sensor_msgs/srv/SetCameraInfo',
    ],
)
def test_a_type_name_that_is_not_an_installed_message_type_is_rejected(name):
    with pytest.raises(ValueError, match=r'is not (installed|the name)|has no attribute|Nothing'):
        message_class(name)


# Written files


def test_an_interrupted_write_keeps_the_previous_file(tmp_path):
    path = tmp_path / 'folder' / 'file'
    write_atomically(path, lambda target: Path(target).write_bytes(b'complete') and None)

    def fail(target):
        Path(target).write_bytes(b'half')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert [entry.name for entry in path.parent.iterdir()] == ['file']
    assert path.read_bytes() == b'complete'
