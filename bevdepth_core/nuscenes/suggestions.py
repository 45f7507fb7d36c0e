"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)``, where x is the most similar of ``names`` or the only one of
    ``names`` that contains ``name``. If there is no such name, return an empty string.
    """
    names = list(names)
    longer = [each for each in names if name and name in each]
    near = difflib.get_close_matches(name, names, 1) or (longer if len(longer) == 1 else [])
    return f" (did you mean '{near[0]}'?)" if near else ''
