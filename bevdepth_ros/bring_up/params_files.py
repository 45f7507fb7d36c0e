"""Checks parameter files, because the errors of rcl's parser do not say how to fix a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import yaml

HEADER = 'ros__parameters'
REMEDY = f"begin the file with the lines '/**:' and '  {HEADER}:', and indent the parameters"
PERHAPS_MEANT, SURELY_MEANT = 0.6, 0.8
"""Similarity of two names, as of difflib, from which one is suggested in place of the other; the
higher one in blocks that may contain parameters of other nodes."""


class ParametersError(RuntimeError):
    """The parameters of the nodes are invalid; the message gives the reason."""


def check_file(path: str) -> None:
    """Check that ``path`` is a YAML file with all parameters in blocks of nodes, and no empty
    value.

    Raises:
        ParametersError: it is not.
    """
    document = _document(path)
    if HEADER in document:
        raise ParametersError(f'{path}: {HEADER} must be inside the block of a node; {REMEDY}')
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
    patterns = [pattern for pattern, _ in _blocks(_document(path))]
    if patterns and not any(_matches(pattern, name) for pattern in patterns for name in names):
        raise ParametersError(
            f'{path} has parameters of {", ".join(patterns)}, but none of {names[0]}: rename the '
            'block to /**, or set namespace:= so that the names are equal'
        )


def check_names(path: str, node: str, known: Collection[str]) -> None:
    """Check that the parameters for ``node`` in a file exist.

    A block with a wildcard may also contain parameters of other nodes. There, only a name that is
    similar to a known one is an error.

    Args:
        path: a valid file.
        node: fully qualified.
        known: names of its parameters; of those with dots, the part before the first dot.

    Raises:
        ParametersError: a name is unknown.
    """
    problems = []
    for pattern, parameters in _blocks(_document(path)):
        is_shared = pattern.endswith('*')
        for name in parameters if _matches(pattern, node) else ():
            word = str(name).split('.')[0]
            similarity = SURELY_MEANT if is_shared else PERHAPS_MEANT
            nearest = difflib.get_close_matches(word, known, 1, similarity)
            if word not in known and (nearest or not is_shared):
                hint = f' (did you mean {nearest[0]}?)' if nearest else ''
                problems.append(f'{node} has no parameter {name}{hint}')
    if problems:
        raise ParametersError(
            f'{path}: {"; ".join(problems)}; config/detector.yaml lists all parameters'
        )


def parameter_names(path: str) -> list[str]:
    """Return the names of the parameters in a valid file."""
    return [name for _, parameters in _blocks(_document(path)) for name in parameters]


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


def _blocks(block: dict, prefix: str = '') -> Iterator[tuple[str, dict]]:
    """Yield the names of nodes, with wildcards, and the parameters that a file has for them."""
    for key, value in block.items():
        if key == HEADER:
            yield prefix, value if isinstance(value, dict) else {}
        elif isinstance(value, dict):
            yield from _blocks(value, f'{prefix}/{str(key).strip("/")}')


def _matches(pattern: str, name: str) -> bool:
    """True if rcl applies a block to a node: /* stands for one token, /** for any number."""
    tokens = {'/**': r'(/\w+)*', '/*': r'/\w+'}
    parts = re.split(r'(/\*\*|/\*)', pattern)
    return (
        re.fullmatch(''.join(tokens.get(part, re.escape(part)) for part in parts), name)
        is not None
    )
