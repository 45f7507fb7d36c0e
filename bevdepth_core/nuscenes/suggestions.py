"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` with the most similar known name, or an empty string."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean '{near[0]}'?)" if near else ''
