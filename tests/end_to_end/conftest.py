"""Fixtures of the node tests and of the bag tests, for the end-to-end tests."""

from __future__ import annotations

from tests.ros.bags.conftest import dataroot, recording
from tests.ros.conftest import domain_id, small_checkpoint, tiny_checkpoint

__all__ = ['dataroot', 'domain_id', 'recording', 'small_checkpoint', 'tiny_checkpoint']
