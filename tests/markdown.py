"""Reads the project's Markdown pages: their code, tables, headings and links."""

from __future__ import annotations

import re
from pathlib import Path

from tests.imports import ROOT

PAGES = sorted(
    [
        *ROOT.glob('*.md'),
        *ROOT.glob('docs/**/*.md'),
        *ROOT.glob('bevdepth_core/**/*.md'),
    ]
)

# A fenced code block: from a line that begins with ``` to the next such line.
_FENCE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """Return the text of the page whose path relative to the repository is ``name``."""
    return (ROOT / name).read_text()


def code_spans(text: str) -> set[str]:
    """Return the texts between single backticks, except in fenced code blocks."""
    return set(re.findall(r'`([^`\n]+)`', _FENCE.sub('', text)))


def commands(text: str, start: str) -> set[str]:
    """Return each word that directly follows ``start`` in the code spans and code blocks of
    ``text``."""
    code = [*_FENCE.findall(text), *code_spans(text)]
    # The command begins a line or follows a space, ``&`` or ``;``.
    pattern = re.compile(rf'(?:^|(?<=[\s&;])){re.escape(start)} +([\w./-]+)', re.MULTILINE)
    return {word.rstrip('.') for part in code for word in pattern.findall(part)}


def table_rows(text: str, first_column: str) -> dict[str, list[str]]:
    """Return the rows of all tables whose first column has the heading ``first_column``. The
    result maps each name in backticks in the first column to the other cells of the row.
    """
    rows: dict[str, list[str]] = {}
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if not line.startswith('|'):
            inside = False
        elif cells[0] == first_column:
            inside = True
        elif inside and not set(cells[0]) <= set('-: '):
            rows.update(dict.fromkeys(re.findall(r'`([^`]+)`', cells[0]), cells[1:]))
    return rows


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub creates for the headings of ``text``."""
    headings = re.findall(r'^#+ +(.+)$', _FENCE.sub('', text), re.MULTILINE)
    plain = [re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower() for heading in headings]
    return {re.sub(r'[^\w\- ]', '', heading).strip().replace(' ', '-') for heading in plain}


def links(path: Path) -> list[tuple[Path, str]]:
    """Return file and anchor of every link in the page ``path`` to a page or file of the project.
    Links with a URL are left out. A link to a whole file has an empty anchor.
    """
    found = re.findall(
        r'\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)', _FENCE.sub('', path.read_text())
    )
    return [((path.parent / name) if name else path, anchor) for name, anchor in found]
