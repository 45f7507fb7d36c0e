"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the text `` (did you mean 'x'?)``. x is the string in ``names`` that is most similar
    to ``name``. If no string is similar, x is the string that contains ``name``, provided that
    there is only one such string. If there is no x, the text is empty.
    """
    names = list(names)
    longer = [each for each in names if name and name in each]
    near = difflib.get_close_matches(name, names, 1) or (longer if len(longer) == 1 else [])
    return f" (did you mean '{near[0]}'?)" if near else ''
