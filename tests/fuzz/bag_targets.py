"""Fuzzing targets that read bags."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import yaml

from bevdepth_ros.bags.mcap_file import McapFile
from bevdepth_ros.bags.reader import Bag, BagError
from tests.fuzz.mutation import damaged, damaged_tree
from tests.ros.bags.text_bags import START_NS, STEP_NS, qos, storage_file, write_bag

MAX_MESSAGES = 1000
MCAP_WORDS = (
    b'zstd',
    b'lz4',
    b'\x06',
    b'\x05',
    b'\x03',
    b'\x04',
    b'\x08',
    b'\x0f',
    b'\x02',
    b'cdr',
    b'\x89MCAP0\r\n',
    b'\xff' * 8,
)
SQLITE_WORDS = (
    b'SQLite format 3\x00',
    b'CREATE TABLE',
    b'messages',
    b'topics',
    b'\x0d',
    b'\x05',
    b'\xff' * 9,
)


def _read(path: Path) -> bool:
    """Read a bag up to ``MAX_MESSAGES`` messages; return True if the bag was accepted."""
    try:
        with Bag(path, str) as bag:
            messages = bag.messages(bag.topics, bag.start_ns, bag.end_ns + 1)
            for name, stamp_ns, data in itertools.islice(messages, MAX_MESSAGES):
                assert name in bag.topics
                assert isinstance(stamp_ns, int)
                assert isinstance(data, bytes)
    except BagError:
        return False
    return True


def _damaged_file(folder: Path, sound: Path, words: tuple[bytes, ...]) -> Callable[[Random], bool]:
    data, target = sound.read_bytes(), folder / f'damaged{sound.suffix}'

    def execute(rng: Random) -> bool:
        target.write_bytes(damaged(rng, data, words))
        return _read(target)

    return execute


def mcap(folder: Path) -> Callable[[Random], bool]:
    bags = [
        write_bag(folder / f'bag_{packed}', {'/a': qos(), '/b': []}, 4, 'mcap', compressed=packed)
        for packed in (False, True)
    ]
    executes = [_damaged_file(folder, storage_file(bag), MCAP_WORDS) for bag in bags]
    return lambda rng: rng.choice(executes)(rng)


def mcap_remains(folder: Path) -> Callable[[Random], bool]:
    """Read damaged files with ``McapFile``, which the target ``mcap`` uses only if the library
    rosbags cannot read a file.
    """
    sound = [
        storage_file(
            write_bag(folder / f'bag_{packed}', {'/a': qos()}, 4, 'mcap', compressed=packed)
        ).read_bytes()
        for packed in (0, 1)
    ]
    target = folder / 'damaged.mcap'

    def execute(rng: Random) -> bool:
        target.write_bytes(damaged(rng, rng.choice(sound), MCAP_WORDS))
        try:
            remains = McapFile(target)
            list(
                remains.messages(
                    [topic.name for topic in remains.topics], START_NS, START_NS + 10 * STEP_NS
                )
            )
        except ValueError:
            return False
        return bool(remains.topics)

    return execute


def sqlite(folder: Path) -> Callable[[Random], bool]:
    return _damaged_file(
        folder,
        storage_file(write_bag(folder / 'bag', {'/a': qos(), '/b': []}, 4, 'sqlite3')),
        SQLITE_WORDS,
    )


def metadata(folder: Path) -> Callable[[Random], bool]:
    bags = [
        write_bag(folder / storage, {'/a': qos()}, 2, storage) for storage in ('mcap', 'sqlite3')
    ]
    texts = [(bag / 'metadata.yaml').read_text() for bag in bags]
    trees = [yaml.safe_load(text) for text in texts]
    shutil.copyfile(storage_file(bags[0]), folder / 'outside.mcap')

    def execute(rng: Random) -> bool:
        number = rng.randrange(len(bags))
        if rng.random() < 0.5:
            content = damaged(
                rng,
                texts[number].encode(),
                (b'../outside.mcap', b'&a', b'*a', b'!!python/object:os.system', b'{', b'[' * 50),
            )
        else:
            content = yaml.safe_dump(damaged_tree(rng, trees[number])).encode()
        (bags[number] / 'metadata.yaml').write_bytes(content)
        return _read(bags[number])

    return execute
