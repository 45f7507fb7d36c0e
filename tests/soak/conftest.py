"""Provides the fixture that runs the soak test in a separate ROS domain."""

from tests.ros.conftest import domain_id

__all__ = ['domain_id']
