"""Downloads the official weights and converts them.

    ros2 run bevdepth_ros weights list
    ros2 run bevdepth_ros weights download 2key_da_ema
    ros2 run bevdepth_ros weights verify

Without ROS, use ``python -m bevdepth_core.downloads``. To resume an interrupted download, run the
same command again. Downloads use the proxy in the environment variable ``https_proxy``. The first
download of a file records its size and hash, and later downloads must have the same size and hash.
The file is converted to safetensors. After that, every program accepts the name of the weights as
checkpoint (``checkpoint:=2key_da_ema``).
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bevdepth_core.files import write_atomically
from bevdepth_core.http_file import CHUNK_BYTES, DownloadError, fetch
from bevdepth_core.weights import (
    COMMAND,
    OFFICIAL,
    SUFFIX,
    OfficialWeights,
    bundled_names,
    cache_folder,
)

LICENSE = (
    'the repositories have a license (BEVDepth: MIT), but state no license for the weights (not '
    'verified); the weights were trained on nuScenes, whose non-commercial terms apply'
)
RECORDS = 'records.json'

Report = Callable[[str], None]


def download(
    weights: OfficialWeights,
    folder: Path,
    url: str | None = None,
    report: Report = print,
    file: Path | None = None,
) -> Path:
    """Download weights, convert them and return the path of the safetensors file.

    Args:
        weights: the weights to download.
        folder: the cache; an interrupted download stays there as ``<file>.part``.
        url: URL of a folder that mirrors the release; None for the release itself.
        report: receives progress messages.
        file: path of the official file, if another program has downloaded it; this file is not
            changed. None to download the file.

    Raises:
        DownloadError: the download failed, the file differs from its record, or the server sent a
            file that cannot be converted.
        CheckpointError: ``file`` does not contain BEVDepth weights.
        OSError: the folder cannot be written, or ``file`` cannot be read.
    """
    target = folder / f'{weights.name}{SUFFIX}'
    if target.is_file() and file is None:
        verify(weights.name, folder)
        report(f'{weights.name} is already downloaded: {target}')
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f'{weights.file}.part'
    source = file or part
    if file is None:
        fetch(f'{url or weights.release}/{weights.file}', part, report)
    record = _recorded(weights.name, folder, source, part if file is None else None)
    report(f'converting to {target}')
    try:
        _convert(source, target, weights)
    except ValueError as error:
        if file is not None:
            raise
        # The next download must not resume this file.
        rejected = part.replace(folder / weights.file)
        raise DownloadError(
            f'the server sent a file that cannot be converted: {error}; the file was kept as '
            f'{rejected}; run the same command again to repeat the download'
        ) from error
    _write_record(folder, weights.name, record | {'safetensors_sha256': _sha256(target)})
    part.unlink(missing_ok=True)
    return target


def verify(name: str, folder: Path) -> None:
    """Check that downloaded weights have the recorded hash and can be loaded.

    Raises:
        DownloadError: the weights are not downloaded, or have changed since the download.
        CheckpointError: the weights cannot be loaded.
    """
    target = folder / f'{name}{SUFFIX}'
    if not target.is_file():
        raise DownloadError(f'{name} is not downloaded: run `{COMMAND} {name}`')
    expected = _records(folder).get(name, {}).get('safetensors_sha256')
    if expected != _sha256(target):
        raise DownloadError(f'{target} differs from its record: delete it and download it again')
    from bevdepth_core.checkpoint import load_checkpoint  # imports torch, which takes seconds

    load_checkpoint(target)


def _recorded(name: str, folder: Path, source: Path, part: Path | None) -> dict[str, Any]:
    """Return size and hash of the official file ``source``.

    Raises:
        DownloadError: an earlier download of the file had another size or hash. ``part``, the file
            that was downloaded now, is then deleted, so that the next download starts from the
            beginning.
    """
    digest = {'bytes': source.stat().st_size, 'sha256': _sha256(source)}
    recorded = _records(folder).get(name, digest)
    if any(recorded.get(key) != value for key, value in digest.items()):
        if part is not None:
            part.unlink()
        remedy = (
            f'check that {source} is the published file'
            if part is None
            else 'run the same command again'
        )
        raise DownloadError(
            f'the hash of {OFFICIAL[name].file} is {digest["sha256"]}, but '
            f'{recorded.get("sha256")} was recorded: {remedy}; if the published file really '
            f'changed, delete the entry {name} in {folder / RECORDS}'
        )
    return digest


def _convert(source: Path, target: Path, weights: OfficialWeights) -> None:
    """Write the official file as safetensors, and check that both files have the same tensors."""
    import torch  # takes seconds, so the command `list` does not import it

    from bevdepth_core.checkpoint import load_checkpoint, save_checkpoint

    model = load_checkpoint(source)
    about = {'weights': weights.description, 'origin': weights.origin}
    save_checkpoint(model, target, about | {'license': LICENSE})
    written = load_checkpoint(target).state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, written[name]):
            target.unlink()
            raise DownloadError(
                f'{target} was written, but its weight {name} differs from {source}: check the '
                'disk for errors, then run the same command again'
            )


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads((folder / RECORDS).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    text = json.dumps(_records(folder) | {name: record}, indent=2)

    def write(path: str) -> None:
        Path(path).write_text(text)

    write_atomically(folder / RECORDS, write)


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def listing(folder: Path) -> str:
    """Return a text that lists the known weights and whether they are downloaded."""
    lines = [f'{name:<20}bundled with this package' for name in bundled_names()]
    for name, weights in OFFICIAL.items():
        is_downloaded = (folder / f'{name}{SUFFIX}').is_file()
        lines.append(
            f'{name:<20}{"downloaded" if is_downloaded else "not downloaded"}: {weights.file}'
        )
        lines.append(f'{"":<20}{weights.description}')
    releases = ' and '.join(dict.fromkeys(weights.release for weights in OFFICIAL.values()))
    return '\n'.join(
        [*lines, '', f'origin: {releases}', f'license: {LICENSE}', f'folder: {folder}']
    )


def _official_name(text: str) -> str:
    if text not in OFFICIAL:
        nearest = difflib.get_close_matches(text, OFFICIAL, 1)
        hint = f'did you mean {nearest[0]}?' if nearest else f'give one of {", ".join(OFFICIAL)}'
        raise argparse.ArgumentTypeError(f'{text} is not a name of official weights: {hint}')
    return text


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser('weights', description='List or download official weights.')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('list', help='list the names, and show which weights are downloaded')
    get = commands.add_parser('download', help='download, convert and verify weights')
    get.add_argument(
        'name', type=_official_name, help=f'name of the weights: {", ".join(OFFICIAL)}'
    )
    get.add_argument('--url', help='URL of a mirror (default: the release of the authors)')
    get.add_argument('--file', type=Path, help='official file that is already on this machine')
    check = commands.add_parser('verify', help='check downloaded weights against their record')
    check.add_argument('names', nargs='*', metavar='name', help='default: all downloaded weights')
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, folder: Path) -> None:
    if options.command == 'list':
        print(listing(folder))
    elif options.command == 'download':
        weights = OFFICIAL[options.name]
        print(f'origin: {weights.origin}\nlicense: {LICENSE}', flush=True)
        path = download(
            weights,
            folder,
            options.url,
            lambda text: print(text, flush=True),
            options.file,
        )
        print(f'to use the weights {path}, set checkpoint:={options.name}')
    else:
        present = [name for name in OFFICIAL if (folder / f'{name}{SUFFIX}').is_file()]
        for name in options.names or present:
            verify(name, folder)
            print(f'{name}: the file has the recorded hash and can be loaded')


def main(argv: list[str] | None = None) -> None:
    """Run the command; a failure ends the process with a message."""
    try:
        _run(_options(argv), cache_folder())
        sys.stdout.flush()
    except BrokenPipeError:  # the reading program has ended, as in `weights list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (DownloadError, ValueError, OSError) as error:
        sys.exit(f'weights: {error}')
    except KeyboardInterrupt:
        sys.exit('weights: interrupted; run the same command again to resume a download')


if __name__ == '__main__':
    main()
