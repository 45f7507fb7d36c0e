"""~/depth_points is published only if publish_depth_points is set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray

from bevdepth_ros.detector.node import DetectorNode
from tests.ros.camera_rig import Rig
from tests.ros.graph import Graph, wait_until

CAMERAS = ('left', 'right')


def test_depth_points_need_publish_depth_points_and_lie_in_front_of_the_cameras(
    graph: Graph, small_checkpoint: Path
) -> None:
    values = {
        'cameras': list(CAMERAS),
        'image_topics': ['/{camera}/image'],
        'checkpoint': str(small_checkpoint),
        'device': 'cpu',
    }
    node = DetectorNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
    )
    rig = Rig(graph.node, CAMERAS)
    clouds = graph.collect(PointCloud2, '/bevdepth_detector/depth_points')
    detections = graph.collect(Detection3DArray, '/bevdepth_detector/detections')
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    graph.add(node)
    rig.wait_for_detector()
    wait_until(
        lambda: graph.node.count_publishers('/bevdepth_detector/depth_points'), 'the publisher'
    )
    rig.send_all(0.0)
    wait_until(lambda: detections, 'detections')
    assert not clouds
    assert node.set_parameters([Parameter('publish_depth_points', value=True)])[0].successful
    rig.send_all(0.1)
    wait_until(lambda: clouds and len(detections) > 1, 'depth points')
    graph.stop()
    node.release()
    node.destroy_node()
    points = read_points(clouds[0])
    assert clouds[0].header == detections[-1].header
    # Both cameras look forward from x = 1.5 m; the depth bins lie 2 m to 58 m in front of them.
    assert points['x'].min() > 1.5 + 2
    assert points['x'].max() < 1.5 + 58
    colors = np.ascontiguousarray(points['rgb']).view(np.uint32)
    assert len(points) > 300
    assert len(np.unique(colors)) > 50
    assert (colors >> 24 == 0).all()
