"""The fixtures of the node's tests."""

from tests.ros.conftest import domain_id, graph, module_graph, tiny_checkpoint

__all__ = ['domain_id', 'graph', 'module_graph', 'tiny_checkpoint']
