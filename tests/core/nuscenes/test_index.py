"""The index of a nuScenes-format dataset: records, cache, splits and incomplete datasets."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from nuscenes import NuScenes

import bevdepth_core.nuscenes.index as index_module
from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.nuscenes.completeness import OPTIONAL_TABLES, TABLES, DatasetIncompleteError
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.records import Pose, mean_pose
from bevdepth_core.nuscenes.splits import split_scenes
from tests.core.nuscenes.dataroot import SCENE, SPLIT, TOKEN, VERSION, make_dataroot
from tests.sample import LABELS


@pytest.fixture
def root(tmp_path):
    return make_dataroot(tmp_path / 'dataset', scenes=3)


def load(root, split=SPLIT):
    return load_index(root, VERSION, split, root.parent / 'cache')


def cached(root):
    return sorted((root.parent / 'cache').rglob('*.npz'))


def test_records_have_the_values_that_the_devkit_reads(root):
    record = load(root)[1]
    devkit = NuScenes(VERSION, str(root), verbose=False)
    sample = devkit.get('sample', TOKEN)
    assert (record.token, record.scene, record.stamp_ns) == (
        TOKEN,
        SCENE,
        sample['timestamp'] * 1000,
    )
    for channel, sensor in zip((*CAMERAS, LIDAR), (*record.cameras, record.lidar), strict=True):
        data = devkit.get('sample_data', sample['data'][channel])
        calibration = devkit.get('calibrated_sensor', data['calibrated_sensor_token'])
        ego = devkit.get('ego_pose', data['ego_pose_token'])
        assert (sensor.filename, sensor.stamp_ns) == (data['filename'], data['timestamp'] * 1000)
        assert sensor.image_size == (data['width'], data['height'])
        assert sensor.ego_from_sensor.quaternion.tolist() == calibration['rotation']
        assert sensor.ego_from_sensor.translation.tolist() == calibration['translation']
        assert sensor.world_from_ego.quaternion.tolist() == ego['rotation']
        assert sensor.world_from_ego.translation.tolist() == ego['translation']
        assert sensor.intrinsics.tolist() == (
            calibration['camera_intrinsic'] or np.zeros((3, 3)).tolist()
        )


def test_annotations_keep_their_order_and_exclude_categories_without_a_class(root):
    annotations = load(root)[1].annotations
    assert annotations.label[:10].tolist() == list(LABELS)
    assert len(annotations) == 11 and annotations.points[10] == 0


def test_samples_are_ordered_by_scene_and_then_by_time(root):
    index = load(root)
    assert index.scenes() == [range(0, 2), range(2, 4), range(4, 6)]
    assert [record.scene for record in index] == [
        f'{SCENE}{suffix}' for suffix in ('', '', '-1', '-1', '-2', '-2')
    ]
    assert all(index[start].stamp_ns < index[start + 1].stamp_ns for start in (0, 2, 4))
    assert index.tokens()[1] == TOKEN and index[-1].token == f'{TOKEN}-2'
    with pytest.raises(IndexError):
        index[6]


def test_the_first_frame_of_a_scene_is_its_own_past_frame(root):
    index = load(root)
    assert [index.position_in_past(position, 1) for position in range(6)] == [0, 0, 2, 2, 4, 4]


def test_the_second_frame_is_its_own_past_frame_if_the_past_frame_should_be_two_frames_earlier(
    root,
):
    assert load(root).position_in_past(1, 2) == 1


def test_a_second_load_reads_the_cache_instead_of_the_tables(root, monkeypatch):
    first = load(root)
    monkeypatch.delattr(index_module, 'open_devkit')
    second = load(root)
    assert second.tokens() == first.tokens() and second.filenames() == first.filenames()
    assert np.array_equal(second[3].annotations.center, first[3].annotations.center)


def test_interrupted_indexing_continues_where_it_stopped(root, monkeypatch):
    original = index_module.scene_columns

    def interrupted(devkit, scene, channels):
        if scene['name'] == f'{SCENE}-2':
            raise KeyboardInterrupt
        return original(devkit, scene, channels)

    monkeypatch.setattr(index_module, 'scene_columns', interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(root)
    done = {path: path.stat().st_mtime_ns for path in cached(root)}
    assert len(done) == 2
    monkeypatch.setattr(index_module, 'scene_columns', original)
    assert len(load(root)) == 6
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_changed_tables_are_indexed_again(root):
    before = load(root)[1].annotations.points
    table = root / VERSION / 'sample_annotation.json'
    size = table.stat().st_size
    table.write_text(table.read_text().replace('"num_lidar_pts": 171', '"num_lidar_pts": 555'))
    assert table.stat().st_size == size
    assert (load(root)[1].annotations.points - before).max() == 555 - 171


def test_only_the_scenes_of_the_split_are_indexed(root):
    (root / VERSION / 'splits.json').write_text(json.dumps({'some': [f'{SCENE}-2', SCENE]}))
    index = load(root, 'some')
    assert len(cached(root)) == 2
    assert [index[rows[0]].scene for rows in index.scenes()] == [SCENE, f'{SCENE}-2']


def test_the_cache_file_of_a_scene_is_smaller_than_20_kilobytes(root):
    load(root)
    assert max(path.stat().st_size for path in cached(root)) < 20_000


@pytest.mark.parametrize('table', sorted(set(TABLES) - set(OPTIONAL_TABLES)))
def test_a_missing_table_is_reported_by_name(root, table):
    (root / VERSION / f'{table}.json').unlink()
    with pytest.raises(DatasetIncompleteError, match=f'{table}.json') as rejected:
        load(root)
    assert rejected.value.missing == (f'{VERSION}/{table}.json',)


def test_a_dataset_without_the_optional_tables_and_without_the_maps_folder_is_indexed(root):
    before = load(root)
    for table in OPTIONAL_TABLES:
        (root / VERSION / f'{table}.json').unlink()
    shutil.rmtree(root / 'maps')
    table = root / VERSION / 'sample_annotation.json'
    rows = json.loads(table.read_text())
    table.write_text(json.dumps([row | {'attribute_tokens': []} for row in rows]))
    assert load(root).tokens() == before.tokens()


def test_missing_images_and_sweeps_are_listed_by_folder(root):
    files = load(root)[0].cameras[1].filename, load(root)[0].lidar.filename
    for file in files:
        (root / file).unlink()
    (root / files[1]).parent.rmdir()
    with pytest.raises(
        DatasetIncompleteError, match=r'(?s)samples/CAM_FRONT: .*samples/LIDAR_TOP: '
    ) as rejected:
        load(root)
    assert set(rejected.value.missing) == set(files)


def test_a_wrong_root_or_version_is_reported(root):
    with pytest.raises(
        DatasetIncompleteError,
        match=r'no folder v1\.0-trainval: the root contains v1\.0-mini; set the version',
    ):
        load_index(root, 'v1.0-trainval', 'train')
    with pytest.raises(DatasetIncompleteError, match=f'set the dataset root to {root}'):
        load_index(root / VERSION, 'v1.0-trainval', 'train')
    with pytest.raises(DatasetIncompleteError, match='unpack the metadata of this version'):
        load_index(root.parent, 'v1.0-trainval', 'train')


@pytest.mark.parametrize('name', ['ego_pose', 'sensor', 'scene'])
def test_a_truncated_table_is_reported(root, name):
    table = root / VERSION / f'{name}.json'
    table.write_text(table.read_text()[:-10])
    with pytest.raises(DatasetIncompleteError, match='truncated'):
        load(root)


def test_a_sample_without_data_of_a_sensor_is_reported_by_name(root):
    table = root / VERSION / 'sample_data.json'
    table.write_text(
        json.dumps(
            [row for row in json.loads(table.read_text()) if row['token'] != f'{TOKEN}-CAM_BACK']
        )
    )
    with pytest.raises(ValueError, match=f'{TOKEN} has no key frame of CAM_BACK'):
        load(root)


def test_the_message_about_an_unknown_split_lists_the_splits_of_the_dataset(root):
    with pytest.raises(
        ValueError, match=f"'nothing' is unknown or empty; .* has the splits {SPLIT};"
    ):
        split_scenes(root, VERSION, 'nothing')


@pytest.mark.parametrize(
    ('split', 'nearest'), [('own_vla', 'own_val'), ('val', 'own_val'), ('train', 'own_train')]
)
def test_the_message_about_a_split_that_does_not_exist_suggests_a_similar_name(
    root, split, nearest
):
    splits = {'own_train': [SCENE], 'own_val': [SCENE], 'incomplete': ['scene-0001']}
    (root / VERSION / 'splits.json').write_text(json.dumps(splits))
    with pytest.raises(
        ValueError, match=rf"has the splits own_train, own_val \(did you mean '{nearest}'\?\)"
    ):
        split_scenes(root, VERSION, split)


def test_the_message_about_an_official_split_without_its_scenes_lists_the_existing_splits(root):
    with pytest.raises(ValueError, match=f'needs 150 scenes that .* has the splits {SPLIT};'):
        split_scenes(root, VERSION, 'val')


def test_the_message_about_a_dataset_without_a_complete_split_shows_an_example(root):
    (root / VERSION / 'splits.json').unlink()
    with pytest.raises(ValueError, match=r'no complete split: define one in .*splits\.json, such'):
        split_scenes(root, VERSION, 'train')


def test_the_message_about_a_custom_split_with_an_official_name_suggests_to_rename_the_split(root):
    (root / VERSION / 'splits.json').write_text(json.dumps({'val': [SCENE]}))
    with pytest.raises(
        ValueError, match=r'takes precedence over the split in .*splits\.json: rename the split'
    ):
        split_scenes(root, VERSION, 'val')


def test_a_dataset_without_annotations_is_indexed(root):
    for table in ('sample_annotation', 'instance'):
        (root / VERSION / f'{table}.json').write_text('[]')
    assert len(load(root)[1].annotations) == 0


def test_the_mean_pose_averages_positions_and_quaternions():
    poses = [Pose(np.array(q), np.array(t)) for q, t in (
        ((1.0, 0, 0, 0), (0.0, 2, 4)), ((0.6, 0, 0, 0.8), (2.0, 4, 8)),
    )]  # fmt: skip
    mean = mean_pose(poses)
    assert np.allclose(mean.translation, (1, 3, 6), atol=1e-12)
    assert np.allclose(mean.quaternion, (0.8, 0, 0, 0.4))


def test_the_mean_of_a_quaternion_and_its_negative_is_the_quaternion():
    pose = Pose(np.array([0.6, 0, 0, 0.8]), np.zeros(3))
    other = Pose(-pose.quaternion, np.ones(3))
    assert np.array_equal(mean_pose([pose, other]).quaternion, pose.quaternion)
