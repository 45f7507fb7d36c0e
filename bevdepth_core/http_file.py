"""Downloads large files; an interrupted download can be resumed."""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class DownloadError(Exception):
    """A file could not be downloaded or verified; the message names the remedy."""


def fetch(url: str, part: Path, report: Callable[[str], None]) -> None:
    """Download ``url`` to ``part``; bytes that ``part`` already contains are not downloaded again.

    Args:
        url: http or https address. Environment variables such as ``https_proxy`` set the proxy.
        part: file for the received bytes. After a failure it is kept, and the next call resumes
            the download. It is emptied if it is longer than the file on the server, or if the
            server cannot resume a download.
        report: receives progress messages.

    Raises:
        DownloadError: the server or the connection failed, the disk is full, or another process
            downloads the file.
        OSError: ``part`` cannot be opened.
    """
    try:
        _fetch(url, part, report)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise DownloadError(
            f'{part} cannot be written ({error.strerror}): free disk space, or set XDG_CACHE_HOME '
            'to a folder on another disk, then run the same command again'
        ) from error


def _fetch(url: str, part: Path, report: Callable[[str], None]) -> None:
    with part.open('ab') as file, _lock(file, part):
        present = file.tell()
        headers = {'Range': f'bytes={present}-'} if present else {}
        try:
            request = urllib.request.Request(url, headers=headers)
            with urllib.request.build_opener().open(request, timeout=TIMEOUT_S) as response:
                _receive(response, file, url, report)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise DownloadError(
                    f'{url}: {error.code} {error.reason}; {_remedy(error.code)}'
                ) from error
            # If the sizes are equal, an earlier call has downloaded the complete file.
            if _total(error.headers) != present:
                file.truncate(0)
                raise DownloadError(
                    f'the file at {url} has changed since the download began: run the same '
                    'command again, which restarts the download'
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, 'errno', None) in _DISK_ERRORS:
                raise
            reason = getattr(error, 'reason', error)
            raise DownloadError(
                f'{url} was not downloaded ({reason}): check the network and https_proxy, then '
                'run the same command again, which resumes the download; or download the file on '
                'another machine and set --file to its path on this machine'
            ) from error


def _remedy(status: int) -> str:
    """Return what to do about a response with this HTTP status."""
    if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return 'check user and password in https_proxy'
    if status == http.HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        return 'the server has a problem: run the same command again later'
    return 'check the URL'


@contextmanager
def _lock(file: BinaryIO, part: Path) -> Iterator[None]:
    """Prevent other processes from writing to the same file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DownloadError(
            f'another process downloads {part}: wait until the other process ends'
        ) from error
    yield


def _receive(response: Any, file: BinaryIO, url: str, report: Callable[[str], None]) -> None:
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # the server sends the complete file
        file.truncate(0)
    total = _total(response.headers)
    done, shown = file.seek(0, os.SEEK_END), -1
    report(f'{url}: {_megabytes(total)}' + (f', {_megabytes(done)} present' if done else ''))
    while chunk := response.read(CHUNK_BYTES):
        file.write(chunk)
        done += len(chunk)
        percent = 100 * done // total if total else 0
        if percent // 10 > shown:
            shown = percent // 10
            report(f'{percent:3d} %, {_megabytes(done)}')
    if total is not None and done != total:
        raise ConnectionError(
            f'the connection ended after {_megabytes(done)} of {_megabytes(total)}'
        )


def _total(headers: Any) -> int | None:
    """Return the size of the complete file; None if the headers do not contain this size."""
    span = headers.get('Content-Range', '').rpartition('/')[2]
    text = span or headers.get('Content-Length', '')
    return int(text) if text.isdecimal() else None


def _megabytes(count: int | None) -> str:
    return 'unknown size' if count is None else f'{count / 1e6:.1f} MB'
