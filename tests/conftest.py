"""For all tests."""

import signal
from pathlib import Path

import pytest

# A background job of a script starts with SIGINT ignored, and so would everything that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let workers share the tests: all that need a ROS graph go to one, the others by file, which keeps their fixtures together."""
    item.add_marker(pytest.mark.xdist_group('graph' if _needs_graph(item) else item.nodeid.partition('::')[0]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that need a ROS graph, since they are one worker's, and take longest."""
    items.sort(key=lambda item: not _needs_graph(item))


def _needs_graph(item: pytest.Item) -> bool:
    return item.path.relative_to(Path(__file__).parent).parts[0] in ('ros', 'faults', 'soak')
