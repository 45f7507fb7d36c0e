from tests.ros.conftest import domain_id

__all__ = ['domain_id']
