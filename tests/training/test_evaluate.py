"""Tests the evaluation program on a small dataset in the format of nuScenes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import ModelConfig, load_model_config
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.evaluation import PUBLISHED
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.training.evaluate import (
    EvaluationConfig,
    EvaluationData,
    main,
    published_score,
    score,
    stream,
)
from tests.core.nuscenes.dataroot import SPLIT, VERSION, make_dataroot
from tests.networks import TINY
from tests.reference import ROOT

SECOND_US = 1_000_000


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    """Return a file of untrained weights. The score threshold is 0, so the network detects boxes
    in every frame.
    """
    path = tmp_path_factory.mktemp('weights') / 'untrained.safetensors'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_checkpoint(
            BEVDepth(replace(TINY, decode=replace(TINY.decode, score_threshold=0.0))), path
        )
    return path


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return make_dataroot(tmp_path_factory.mktemp('data') / 'dataset', scenes=3)


def data_of(root: Path, **changes) -> EvaluationData:
    values = {
        'version': VERSION,
        'split': SPLIT,
        'cache_dir': str(root.parent / 'cache'),
        'workers': 0,
    } | changes
    return EvaluationData(str(root), **values)


@pytest.fixture(scope='module')
def scored(root: Path, checkpoint: Path, tmp_path_factory) -> tuple[Path, str]:
    """Evaluate in one process, and return the output folder and the text that is printed."""
    output, threads = tmp_path_factory.mktemp('scored') / 'new' / 'folder', torch.get_num_threads()
    torch.set_num_threads(1)
    config = EvaluationConfig(str(checkpoint), data_of(root), str(output), 'cpu', tracking=True)
    text = score(config)
    torch.set_num_threads(threads)
    return output, text


def results_in(output: Path) -> dict[str, list[dict]]:
    return json.loads((output / 'results.json').read_text())['results']


def test_every_sample_of_the_split_has_boxes_and_the_table_shows_every_class(
    root: Path, scored: tuple[Path, str]
) -> None:
    output, text = scored
    tokens = load_index(root, VERSION, SPLIT, root.parent / 'cache').tokens()
    assert list(results_in(output)) == tokens and len(tokens) == 6
    assert all(results_in(output).values())
    assert text.startswith('mAP 0.') and all(f'| {name} |' in text for name in TINY.class_names)
    assert (output / 'table.md').read_text() == text + '\n'
    assert '| class | AMOTA | AMOTP | recall | MOTA | IDS | FRAG |' in text
    assert list(results_in(output / 'tracking')) == tokens
    assert {'mean_ap', 'nd_score', 'tp_errors'} <= json.loads(
        (output / 'metrics_summary.json').read_text()
    ).keys()


def test_two_processes_have_the_same_results_as_one_process(
    root: Path,
    checkpoint: Path,
    scored: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    options = {
        '--checkpoint': checkpoint,
        '--output': tmp_path,
        '--device': 'cpu,cpu',
        '--data.root': root,
        '--data.version': VERSION,
        '--data.split': SPLIT,
        '--data.cache_dir': root.parent / 'cache',
        '--data.workers': 0,
        '--tracking': 'true',
    }
    main([str(word) for option in options.items() for word in option])
    assert capsys.readouterr().out == scored[1] + '\n'
    assert (tmp_path / 'results.json').read_text() == (scored[0] / 'results.json').read_text()


@pytest.mark.parametrize('age_us', [SECOND_US // 2, 3 * SECOND_US])
def test_the_past_frame_is_the_previous_key_frame_of_the_scene_even_if_it_is_seconds_old(
    tmp_path: Path, checkpoint: Path, age_us: int
) -> None:
    """Outside of the evaluation, the detector uses no past frame that is three seconds old."""
    root = make_dataroot(tmp_path / 'dataset', scenes=2)
    make_earlier(root / VERSION, age_us - SECOND_US // 2)
    index = load_index(root, VERSION, SPLIT, tmp_path / 'cache')
    assert index[1].stamp_ns - index[0].stamp_ns == age_us * 1000
    fused = [
        found.past_stamp_ns
        for _, found in stream(
            Detector.from_checkpoint(checkpoint), index, index.scenes(), data_of(root)
        )
    ]
    assert [stamp is not None for stamp in fused] == [False, True, False, True]


def make_earlier(tables: Path, shift_us: int) -> None:
    """Subtract ``shift_us`` microseconds from the stamps of the first key frame of every scene."""
    samples = json.loads((tables / 'sample.json').read_text())
    first = {sample['token'] for sample in samples if not sample['prev']}
    for name, key in (('sample', 'token'), ('sample_data', 'sample_token')):
        records = json.loads((tables / f'{name}.json').read_text())
        changed = [
            record | {'timestamp': record['timestamp'] - shift_us * (record[key] in first)}
            for record in records
        ]
        (tables / f'{name}.json').write_text(json.dumps(changed))


def test_a_split_without_annotations_gets_results_but_no_scores(
    tmp_path: Path, checkpoint: Path
) -> None:
    root = make_dataroot(tmp_path / 'dataset')
    for name in ('sample_annotation', 'instance'):
        (root / VERSION / f'{name}.json').write_text('[]')
    text = score(EvaluationConfig(str(checkpoint), data_of(root), str(tmp_path / 'out'), 'cpu'))
    assert 'has no annotations' in text and len(results_in(tmp_path / 'out')) == 2


def error_message(checkpoint: Path, root: Path, *arguments: str) -> str:
    data = [
        '--data.root',
        str(root),
        '--data.version',
        VERSION,
        '--data.cache_dir',
        str(root.parent / 'cache'),
    ]
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                '--checkpoint',
                str(checkpoint),
                '--output',
                str(root.parent / 'rejected'),
                *data,
                *arguments,
            ]
        )
    return stopped.value.code


def test_invalid_evaluation_arguments_are_rejected_with_one_message(
    tmp_path: Path, root: Path, checkpoint: Path
) -> None:
    (foreign := tmp_path / 'foreign.safetensors').write_bytes(b'no weights')
    assert 'truncated or not safetensors' in error_message(foreign, root, '--data.split', SPLIT)
    torch.save({'state_dict': {'model.weight': torch.ones(1)}}, tmp_path / 'last.ckpt')
    assert 'training/export_weights.py exports the weights' in error_message(
        tmp_path / 'last.ckpt', root, '--data.split', SPLIT
    )
    assert 'no such checkpoint file' in error_message(
        tmp_path / 'absent.safetensors', root, '--data.split', SPLIT
    )
    assert "split 'unknown' is unknown or empty" in error_message(
        checkpoint, root, '--data.split', 'unknown'
    )
    assert "split 'val' needs 150 scenes" in error_message(checkpoint, root)
    no_folder = error_message(checkpoint, tmp_path, '--data.split', SPLIT)
    assert 'has no folder' in no_folder
    assert '(options --data.root and --data.version)' in no_folder
    absent = tmp_path / 'absent'
    assert f'{absent} does not exist' in error_message(checkpoint, absent, '--data.split', SPLIT)


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (('--device', 'tpu'), "there is no device 'tpu': choose auto, or one or more of cpu"),
        (('--device', 'cpu,cuda:99'), "there is no device 'cuda:99'"),
        (('--device', 'cpu', '--precision', 'fp16'), 'precision fp16 needs a GPU'),
        (('--device', 'cpu', '--onnx_folder', 'nothing'), 'nothing'),
        (('--device', 'cpu', '--output', '/dev/null/out'), '/dev/null'),
    ],
)
def test_device_precision_and_output_are_checked_before_the_data_is_read(
    tmp_path: Path, checkpoint: Path, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in error_message(checkpoint, tmp_path / 'no dataset', *arguments)


def test_an_unreadable_image_ends_the_evaluation_with_a_message_that_names_the_image(
    tmp_path: Path, root: Path, checkpoint: Path
) -> None:
    copy = tmp_path / 'dataset'
    shutil.copytree(root, copy, symlinks=True)
    image_path = next(copy.glob('samples/CAM_BACK/*'))
    image_path.unlink()
    image_path.write_bytes(b'not an image')
    message = error_message(
        checkpoint, copy, '--data.split', SPLIT, '--device', 'cpu,cpu', '--data.workers', '0'
    )
    assert f'{image_path} cannot be read as an image' in message


def test_published_scores_are_printed_only_for_official_networks_on_nuscenes_val() -> None:
    plain, nuscenes = ModelConfig(), EvaluationData()
    refined = replace(plain, depth_net=replace(plain.depth_net, refinement=True))
    assert published_score(plain, False, nuscenes) == PUBLISHED['r50_256x704_2key']
    assert published_score(plain, True, nuscenes) == PUBLISHED['r50_256x704_2key_ema']
    assert published_score(refined, True, nuscenes) == PUBLISHED['r50_256x704_2key_da_ema']
    assert published_score(TINY, False, nuscenes) is None
    for name in ('stereo_r50_256x704_2key', 'stereo_r50_256x704_2key_da'):
        network = load_model_config(ROOT / 'config' / 'models' / f'{name}.yaml')
        clamped = replace(network, stereo=replace(network.stereo, clamp_mean=True))
        for each in (network, clamped):
            assert published_score(each, False, nuscenes) == PUBLISHED[name]
            assert published_score(each, True, nuscenes) == PUBLISHED[f'{name}_ema']
    assert published_score(plain, False, replace(nuscenes, split='mini_val')) is None
