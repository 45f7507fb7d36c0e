"""Checks parameter files, because the errors of rcl's parser do not say how to fix a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

HEADER = 'ros__parameters'
REMEDY = f"begin the file with the lines '/**:' and '  {HEADER}:', and indent the parameters"


class ParametersError(RuntimeError):
    """The parameters of the nodes are invalid; the message gives the reason."""


def check_file(path: str) -> None:
    """Check that ``path`` is a YAML file whose values are all in blocks of nodes, and not empty.

    Raises:
        ParametersError: it is not.
    """
    document = _document(path)
    outside = list(_outside(document))
    if outside:
        raise ParametersError(
            f'{path}: {", ".join(outside)} must be inside a block {HEADER}; {REMEDY}'
        )
    empty = list(_empty(document))
    if empty:
        raise ParametersError(
            f'{path}: {", ".join(empty)} has an empty list or no value, which ROS 2 rejects: '
            'write [""], or leave the line out'
        )


def check_blocks(path: str, names: Sequence[str]) -> None:
    """Check that a file has a block for at least one of the nodes ``names``.

    Args:
        path: a valid file.
        names: fully qualified; the first is the node that the file is most likely written for.

    Raises:
        ParametersError: no block applies to any of them.
    """
    patterns = list(_patterns(_document(path)))
    if patterns and not any(_matches(pattern, name) for pattern in patterns for name in names):
        raise ParametersError(
            f'{path} has parameters of {", ".join(patterns)}, but none of {names[0]}: rename the '
            'block to /**, or set namespace:= so that the names are equal'
        )


def _document(path: str) -> dict:
    try:
        document = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ParametersError(f'{path} cannot be read: {error}') from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParametersError(f'{path} is not a YAML file of parameters: {error}') from error
    if not isinstance(document, dict):
        raise ParametersError(f'{path} contains no parameters; {REMEDY}')
    return document


def _outside(block: dict) -> Iterator[str]:
    """Yield the keys outside of all blocks ``ros__parameters``."""
    for key, value in block.items():
        if key == HEADER:
            continue
        if isinstance(value, dict):
            yield from _outside(value)
        else:
            yield str(key)


def _empty(block: dict) -> Iterator[str]:
    """Yield the parameters without a value; a block of a node may be empty."""
    for key, value in block.items():
        if isinstance(value, dict):
            yield from _empty(value)
        elif value in (None, []) and key != HEADER:
            yield str(key)


def _patterns(block: dict, prefix: str = '') -> Iterator[str]:
    """Yield the names of nodes, with wildcards, that a file has blocks for."""
    for key, value in block.items():
        if key == HEADER:
            yield prefix
        elif isinstance(value, dict):
            yield from _patterns(value, f'{prefix}/{str(key).strip("/")}')


def _matches(pattern: str, name: str) -> bool:
    """True if rcl applies a block to a node: /* stands for one token, /** for any number."""
    tokens = {'/**': r'(/\w+)*', '/*': r'/\w+'}
    parts = re.split(r'(/\*\*|/\*)', pattern)
    return (
        re.fullmatch(''.join(tokens.get(part, re.escape(part)) for part in parts), name)
        is not None
    )
