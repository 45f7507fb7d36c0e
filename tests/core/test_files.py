"""An interrupted write leaves no partial file."""

import os
from pathlib import Path

import pytest

from bevdepth_core.files import write_atomically


def test_a_file_appears_only_after_it_is_complete_and_missing_folders_are_created(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'file.txt'
    seen = []

    def write(target: str) -> None:
        seen.append((Path(target).parent, path.exists()))
        Path(target).write_text('content')

    write_atomically(path, write)
    assert path.read_text() == 'content' and seen == [(path.parent, False)]
    assert os.listdir(path.parent) == ['file.txt']
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    write_atomically(str(path), lambda target: Path(target).write_text('new') and None)
    assert path.read_text() == 'new'


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_after_a_failed_write_only_the_old_file_exists(tmp_path, error):
    path = tmp_path / 'file.txt'
    path.write_text('old')

    def fail(target: str) -> None:
        Path(target).write_text('half')
        raise error

    with pytest.raises(error):
        write_atomically(path, fail)
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['file.txt']
