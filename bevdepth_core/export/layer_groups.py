"""Defines groups of layers that may have reduced precision in an exported graph.

The nodes of all other layers stay in float32:

* the MLP of the camera vector, and the squeeze-and-excitation gates that use the output of the MLP
* GridSample in the deformable convolution (the convolution that computes the offsets belongs to
  the group ``depth_deform``)
* the softmax over depth
* the decoding of boxes
"""

from __future__ import annotations

GROUPS = {
    'image_stem': ('/image_encoder/backbone/conv1', '/image_encoder/backbone/layer1/'),
    'image_layer2': ('/image_encoder/backbone/layer2/',),
    'image_layer3': ('/image_encoder/backbone/layer3/',),
    'image_layer4': ('/image_encoder/backbone/layer4/',),
    'image_neck': ('/image_encoder/neck/',),
    'depth_reduce': ('/depth_net/reduce/',),
    'depth_blocks': ('/depth_net/depth_blocks/',),
    'depth_pyramid': ('/depth_net/pyramid/',),
    'depth_deform': ('/depth_net/deform/offset/', '/depth_net/deform/Conv'),
    'context_head': ('/depth_net/context_head/',),
    'depth_head': ('/depth_net/depth_head/',),
    'bev_stem': ('/bev_encoder/trunk/conv1', '/bev_encoder/trunk/layer1/'),
    'bev_layer2': ('/bev_encoder/trunk/layer2/',),
    'bev_layer3': ('/bev_encoder/trunk/layer3/',),
    'bev_neck': ('/bev_encoder/neck/',),
    'head_shared': ('/head/shared/',),
    'head_tasks': ('/head/tasks',),
}
"""Maps the name of a group to the prefixes of the names of its nodes."""


def group_of(node: str) -> str | None:
    """Return the group of the node with the name ``node``; None if the node is in no group."""
    names = [name for name, prefixes in GROUPS.items() if node.startswith(prefixes)]
    return names[0] if names else None
