"""Damages bytes and trees of dicts, lists and scalars at random. A random generator with the same
seed gives the same damage."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53 + 1,
    2**63 - 1,
    2**64 - 1,
)
VALUES = (
    None, True, False, *NUMBERS, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-300, 1e300, math.nan,
    math.inf, -math.inf, '', 'x', '0', 'nan',
    '../../etc/passwd', '/etc/passwd', 'a/b', '\x00', '\ud7ff', 'a: b', '{', '&a [*a]', 'x' * 5000,
    [], [[]], [0] * 100, {}, {'': None},
    {'x': {'x': []}},
)  # fmt: skip
"""Values with which ``damaged_tree`` replaces values of a tree."""
MAX_CHANGES = 6


def damaged(rng: Random, data: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Return ``data`` with one to several random changes; sometimes one of ``words`` is
    inserted.
    """
    result = bytearray(data)
    for _ in range(rng.randint(1, MAX_CHANGES)):
        _change(rng, result, words)
    return bytes(result)


def _change(rng: Random, data: bytearray, words: Sequence[bytes]) -> None:
    place = _place(rng, len(data))
    kind = rng.randrange(9 if words else 8)
    if kind == 0:
        data[place : place + 1] = bytes((rng.randrange(256),))
    elif kind == 1 and data:
        data[min(place, len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind in (2, 3):
        size = rng.choice((1, 2, 4, 8))
        number = (rng.choice(NUMBERS) % 256**size).to_bytes(size, rng.choice(('little', 'big')))
        data[place : place + size] = number
    elif kind == 4:
        del data[place : place + rng.choice((1, 2, 4, 8, rng.randint(1, 200)))]
    elif kind == 5:
        other = _place(rng, len(data))
        data[place:place] = data[other : other + rng.randint(1, 64)]
    elif kind == 6:
        data[place:place] = rng.randbytes(rng.randint(1, 16))
    elif kind == 7 and rng.random() < 0.3:
        del data[place:]
    elif words:
        data[place : place + rng.choice((0, 1, 4))] = rng.choice(words)


def _place(rng: Random, length: int) -> int:
    """Return a random position: in half of the cases in the first 400 bytes, where headers are."""
    return rng.randint(0, min(length, 400) if rng.random() < 0.5 else length)


def damaged_tree(rng: Random, tree: Any) -> Any:
    """Return a copy of a tree of dicts and lists in which one to several entries are replaced,
    removed, duplicated or multiplied by a number."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, MAX_CHANGES // 2)):
        tree = _damage_somewhere(rng, tree)
    return tree


def _damage_somewhere(rng: Random, tree: Any) -> Any:
    if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    if isinstance(tree[key], (dict, list)) and tree[key] and rng.random() < 0.85:
        tree[key] = _damage_somewhere(rng, tree[key])
        return tree
    kind = rng.randrange(6)
    if kind == 0:
        del tree[key]
    elif kind == 1 and isinstance(tree, list):
        tree.insert(key, copy.deepcopy(tree[key]))
    elif kind == 1:
        tree[rng.choice(('x', '', '0', key * 2 if isinstance(key, str) else key))] = tree[key]
    elif kind == 2 and isinstance(tree[key], (int, float)) and not isinstance(tree[key], bool):
        tree[key] *= rng.choice((-1, 0, 2, 0.5, 1000, 1e9, 1e-9))
    else:
        tree[key] = copy.deepcopy(rng.choice(VALUES))
    return tree
