"""Downloads of official weights from a local server: complete, resumed, failed, and through a
proxy."""

from __future__ import annotations

import fcntl
import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors
import torch

from bevdepth_core import weights
from bevdepth_core.checkpoint import CheckpointError, load_checkpoint, save_official
from bevdepth_core.config import load_model_config
from bevdepth_core.downloads import LICENSE, download, main, verify
from bevdepth_core.http_file import DownloadError, fetch
from bevdepth_core.model import BEVDepth
from bevdepth_core.weights import OFFICIAL, WeightsError, cache_folder, locate
from tests.core.file_server import FileServer, serving
from tests.networks import write_tiny_checkpoint
from tests.reference import ROOT

WEIGHTS = OFFICIAL['2key_da_ema']
CONTENT = bytes(range(256)) * 1000
"""Content of the served files. The content is not a checkpoint; ``fetch`` does not check it."""


@pytest.fixture(scope='module')
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[BEVDepth, bytes]:
    """Return a model with random weights, and the content of its file in the official layout."""
    path = tmp_path_factory.mktemp('official') / 'official.pth'
    torch.manual_seed(0)
    model = BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'r50_256x704_2key.yaml'))
    save_official(model, path)
    return model, path.read_bytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Return a server that sends ``CONTENT`` for the name of each official file."""
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY', 'no_proxy', 'NO_PROXY'):
        monkeypatch.delenv(name, raising=False)
    with serving({entry.file: CONTENT for entry in OFFICIAL.values()}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'bevdepth' / 'weights'


@pytest.fixture
def part(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder / f'{WEIGHTS.file}.part'


def get(server: FileServer, part: Path) -> None:
    fetch(f'{server.url}/{WEIGHTS.file}', part, lambda text: None)


def put_weights(folder: Path) -> Path:
    """Write the weights of a tiny network, and the record of their hash, to ``folder``."""
    path = write_tiny_checkpoint(folder / '2key_da_ema.safetensors')
    record = {'bytes': 1, 'sha256': 'x', 'safetensors_sha256': sha256(path.read_bytes())}
    (folder / 'records.json').write_text(json.dumps({'2key_da_ema': record}))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_official_checkpoint_is_converted_and_loaded_by_its_short_name(
    server: FileServer,
    folder: Path,
    official: tuple[BEVDepth, bytes],
    capsys: pytest.CaptureFixture,
):
    model, content = official
    server.files[WEIGHTS.file] = content
    main(['download', '2key_da_ema', '--url', server.url])
    output = capsys.readouterr().out
    for words in ('release v0.0.2', LICENSE, '100 %', 'checkpoint:=2key_da_ema'):
        assert words in output
    path = folder / '2key_da_ema.safetensors'
    assert path == locate('2key_da_ema')
    loaded, expected = load_checkpoint('2key_da_ema').state_dict(), model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    with safetensors.safe_open(path, framework='pt') as file:
        about = file.metadata()
    assert WEIGHTS.file in about['origin'] and about['license'] == LICENSE
    record = json.loads((folder / 'records.json').read_text())['2key_da_ema']
    assert (record['bytes'], record['sha256']) == (len(content), sha256(content))
    assert sorted(file.name for file in folder.iterdir()) == [path.name, 'records.json']
    main(['verify'])
    output = capsys.readouterr().out
    assert output == '2key_da_ema: the file has the recorded hash and can be loaded\n'


def test_a_checkpoint_given_with_the_option_file_is_converted_and_kept(
    folder: Path, tmp_path: Path, official: tuple[BEVDepth, bytes]
):
    checkpoint = tmp_path / 'own.pth'
    checkpoint.write_bytes(official[1])
    main(['download', '2key', '--file', str(checkpoint)])
    assert checkpoint.read_bytes() == official[1]
    load_checkpoint('2key')


@pytest.mark.parametrize('name', OFFICIAL)
def test_each_name_downloads_its_file_and_a_file_that_is_no_checkpoint_is_downloaded_again(
    server: FileServer, folder: Path, name: str
):
    for _ in range(2):
        with pytest.raises(DownloadError, match=r'cannot be converted: .*; the file was kept'):
            download(OFFICIAL[name], folder, server.url, lambda text: None)
        assert not list(folder.glob('*.safetensors')) and not list(folder.glob('*.part'))
    assert (folder / OFFICIAL[name].file).read_bytes() == CONTENT
    assert server.targets == 2 * [f'/{OFFICIAL[name].file}']
    assert server.range_headers == [None, None]


def test_the_urls_of_official_weights_are_the_files_that_the_authors_released():
    files = {
        '2key': '24e_2key.pth',
        '2key_ema': '24e_2key_ema.pth',
        '2key_da': '20e_cbgs_2key_da.pth',
        '2key_da_ema': '20e_cbgs_2key_da_ema.pth',
    }
    size, github = 'lss_r50_256x704_128x128', 'https://github.com/Megvii-BaseDetection'
    expected = {}
    for prefix, repository, kind in (
        ('', 'BEVDepth', 'depth'),
        ('stereo_', 'BEVStereo', 'stereo'),
    ):
        release = f'{github}/{repository}/releases/download/v0.0.2'
        for name, file in files.items():
            expected[prefix + name] = f'{release}/bev_{kind}_{size}_{file}'
    assert {name: f'{entry.release}/{entry.file}' for name, entry in OFFICIAL.items()} == expected


def test_existing_weights_are_not_downloaded_again(server: FileServer, folder: Path, part: Path):
    path = put_weights(folder)
    assert download(WEIGHTS, folder, server.url, lambda text: None) == path
    assert server.targets == []


def test_an_interrupted_download_is_resumed_at_the_first_missing_byte(
    server: FileServer, part: Path
):
    server.send_until = 100_000
    with pytest.raises(DownloadError, match='run the same command again, which resumes'):
        get(server, part)
    assert part.read_bytes() == CONTENT[:100_000]
    server.send_until = None
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert server.range_headers == [None, 'bytes=100000-']


def test_a_download_is_complete_if_the_server_ignores_the_range_and_sends_the_whole_file(
    server: FileServer, part: Path
):
    part.write_bytes(b'x' * 100)
    server.supports_ranges = False
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_complete_file_is_not_downloaded_again(server: FileServer, part: Path):
    part.write_bytes(CONTENT)
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert server.range_headers == [f'bytes={len(CONTENT)}-']


def test_a_partial_file_longer_than_the_served_file_is_downloaded_again(
    server: FileServer, part: Path
):
    part.write_bytes(CONTENT + b'x')
    with pytest.raises(DownloadError, match=r'has changed .*: run the same command again'):
        get(server, part)
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_the_progress_shows_the_size_and_ends_with_100_percent(server: FileServer, part: Path):
    part.write_bytes(CONTENT[:56_000])
    lines: list[str] = []
    fetch(f'{server.url}/{WEIGHTS.file}', part, lines.append)
    assert lines[0].endswith(': 0.3 MB, 0.1 MB present')
    assert lines[-1] == '100 %, 0.3 MB'


def test_a_file_whose_hash_differs_from_the_recorded_hash_is_reported_and_removed(
    server: FileServer, folder: Path, part: Path
):
    known = {'bytes': len(CONTENT), 'sha256': 'old'}
    (folder / 'records.json').write_text(json.dumps({WEIGHTS.name: known}))
    with pytest.raises(DownloadError) as caught:
        download(WEIGHTS, folder, server.url, lambda text: None)
    assert f'is {sha256(CONTENT)}, but old was recorded: run the same' in str(caught.value)
    assert not part.exists()


def test_a_local_file_whose_hash_differs_from_the_recorded_hash_is_reported_and_kept(
    folder: Path, tmp_path: Path
):
    local = tmp_path / 'local.pth'
    local.write_bytes(CONTENT)
    folder.mkdir(parents=True, exist_ok=True)
    known = {'bytes': len(CONTENT), 'sha256': 'old'}
    (folder / 'records.json').write_text(json.dumps({WEIGHTS.name: known}))
    with pytest.raises(DownloadError, match=f'check that {local} is the published file'):
        download(WEIGHTS, folder, file=local, report=lambda text: None)
    assert local.read_bytes() == CONTENT


def test_the_proxy_of_the_environment_is_used(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv('http_proxy', server.url)
    fetch(f'http://weights.invalid/v0/{WEIGHTS.file}', part, lambda text: None)
    assert server.targets == [f'http://weights.invalid/v0/{WEIGHTS.file}']
    assert part.read_bytes() == CONTENT


def test_without_a_network_the_message_names_the_cause_and_the_option_file(
    server: FileServer, part: Path
):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError) as caught:
        get(server, part)
    assert 'check the network and https_proxy' in str(caught.value)
    assert 'set --file to its path' in str(caught.value)


def test_a_failed_write_is_reported_with_its_remedy(server: FileServer, part: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DownloadError, match=r'cannot be written \(.*\): free disk space'):
            get(server, part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    get(server, part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ('status', 'remedy'),
    [(407, 'password in https_proxy'), (503, 'command again later'), (404, 'check the URL')],
)
def test_each_error_status_of_a_server_is_reported_with_its_remedy(
    server: FileServer, part: Path, status: int, remedy: str
):
    server.error_status = status
    with pytest.raises(DownloadError, match=f': {status} .*{remedy}'):
        get(server, part)
    server.error_status = None
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_download_fails_while_another_process_downloads_the_same_file(
    server: FileServer, part: Path
):
    with part.open('ab') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match='another process downloads'):
            get(server, part)
    get(server, part)


def test_verify_reports_changed_and_missing_files_of_weights(folder: Path, part: Path):
    path = put_weights(folder)
    verify('2key_da_ema', folder)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DownloadError, match='differs from its record: delete it'):
        verify('2key_da_ema', folder)
    with pytest.raises(DownloadError, match='2key is not downloaded'):
        verify('2key', folder)


def test_the_list_shows_bundled_and_downloaded_weights_and_their_licenses(
    folder: Path, part: Path, capsys: pytest.CaptureFixture
):
    put_weights(folder)
    main(['list'])
    lines = capsys.readouterr().out.splitlines()
    assert 'small               bundled with this package' in lines
    assert f'2key_da_ema         downloaded: {WEIGHTS.file}' in lines
    assert f'2key                not downloaded: {OFFICIAL["2key"].file}' in lines
    assert f'stereo_2key_da_ema  not downloaded: {OFFICIAL["stereo_2key_da_ema"].file}' in lines
    assert f'license: {LICENSE}' in lines and f'folder: {folder}' in lines


def test_the_list_prints_no_error_if_its_output_pipe_is_closed():
    script = 'from bevdepth_core import downloads; downloads.main(["list"])'
    process = subprocess.Popen(
        [sys.executable, '-c', script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ('', 0)


def test_a_misspelled_name_of_a_download_is_reported_with_a_suggestion(
    capsys: pytest.CaptureFixture,
):
    with pytest.raises(SystemExit):
        main(['download', '2kye'])
    assert '2kye is not a name of official weights: did you mean 2key?' in capsys.readouterr().err


def test_a_failed_download_ends_the_command_with_a_message(server: FileServer, folder: Path):
    server.files.clear()
    with pytest.raises(SystemExit, match=r'weights: .*404'):
        main(['download', '2key', '--url', server.url])


def test_the_message_about_missing_weights_contains_the_command_that_downloads_them(folder: Path):
    command = r'run `ros2 run bevdepth_ros weights download 2key_ema`'
    with pytest.raises(WeightsError, match=command):
        locate('2key_ema')
    with pytest.raises(CheckpointError, match=command):
        load_checkpoint('2key_ema')


def test_a_misspelled_name_of_weights_is_reported_with_a_suggestion(folder: Path):
    with pytest.raises(WeightsError, match=r'did you mean 2key_da_ema\?'):
        locate('2key_da_em')


def test_an_existing_file_takes_precedence_over_the_name_of_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert locate('small') == weights.BUNDLED / 'small.safetensors'
    (tmp_path / 'small').touch()
    assert locate('small') == Path('small')


def test_an_empty_or_relative_xdg_cache_home_is_replaced_by_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv('HOME', str(tmp_path))
    for relative in ('', 'relative'):
        monkeypatch.setenv('XDG_CACHE_HOME', relative)
        assert cache_folder() == tmp_path / '.cache' / 'bevdepth' / 'weights'
    (tmp_path / 'own.pth').touch()
    assert locate('~/own.pth') == tmp_path / 'own.pth'
