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
"""Smallest similarity, as difflib computes it, at which a known name is suggested for an unknown
name. SURELY_MEANT applies to blocks that may contain parameters of other nodes."""


class ParametersError(RuntimeError):
    """The parameters of the nodes are invalid; the message gives the reason."""


def check_file(path: str) -> None:
    """Check that ``path`` is a YAML file in which all parameters are in blocks of nodes and have
    values.

    Raises:
        ParametersError: the file is not valid.
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
        names: fully qualified names. The first name is the node for which the file was most
            likely written.

    Raises:
        ParametersError: no block applies to any of the nodes.
    """
    patterns = [pattern for pattern, _ in _blocks(_document(path))]
    if patterns and not any(_matches(pattern, name) for pattern in patterns for name in names):
        raise ParametersError(
            f'{path} has parameters for {", ".join(patterns)}, but none for {names[0]}: rename '
            'the block to /**, or set namespace:= so that the names are equal'
        )


def check_names(path: str, node: str, known: Collection[str]) -> None:
    """Check that ``node`` has all parameters that a file sets for this node.

    A block with a wildcard may also contain parameters of other nodes. In such a block, an unknown
    name is an error only if it is similar to a known name.

    Args:
        path: a valid file.
        node: fully qualified name of the node.
        known: names of the parameters of the node; for a name with dots, only the part before the
            first dot.

    Raises:
        ParametersError: the file sets an unknown parameter.
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
    """Yield the names of the parameters that have no value or an empty list. A block
    ``ros__parameters`` may be empty.
    """
    for key, value in block.items():
        if isinstance(value, dict):
            yield from _empty(value)
        elif value in (None, []) and key != HEADER:
            yield str(key)


def _blocks(block: dict, prefix: str = '') -> Iterator[tuple[str, dict]]:
    """Yield, for each block ``ros__parameters``, the name of the node, which may contain
    wildcards, and the parameters.
    """
    for key, value in block.items():
        if key == HEADER:
            yield prefix, value if isinstance(value, dict) else {}
        elif isinstance(value, dict):
            yield from _blocks(value, f'{prefix}/{str(key).strip("/")}')


def _matches(pattern: str, name: str) -> bool:
    """Return True if rcl applies a block called ``pattern`` to the node ``name``. In a pattern,
    /* stands for one token of the name, and /** for any number of tokens.
    """
    tokens = {'/**': r'(/\w+)*', '/*': r'/\w+'}
    parts = re.split(r'(/\*\*|/\*)', pattern)
    return (
        re.fullmatch(''.join(tokens.get(part, re.escape(part)) for part in parts), name)
        is not None
    )
