"""Parses YAML of untrusted files; rejects aliases and deep nesting.

The C parser of PyYAML crashes the process on deep nesting, and nested aliases can expand to
a value that fills all memory.
"""

from __future__ import annotations

from typing import Any

import yaml

_DEEPEST = 20


def load_plain_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML document.

    Raises:
        ValueError: the document uses aliases, or is nested too deeply.
        yaml.YAMLError: the document is not valid YAML.
    """
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError('it contains a YAML alias (*name), which is not allowed')
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise ValueError(f'it is nested deeper than {_DEEPEST} levels')
    return yaml.load(text, yaml.CSafeLoader)
