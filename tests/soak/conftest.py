"""The ROS domain of the soak test."""

from tests.ros.conftest import domain_id

__all__ = ['domain_id']
