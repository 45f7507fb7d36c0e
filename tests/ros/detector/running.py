"""Creates the node under test, a simulated rig that publishes the input of the node, and
subscribers to the outputs of the node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from bevdepth_ros.detector.node import DetectorNode
from tests.ros.camera_rig import Rig
from tests.ros.graph import Diagnostics, Graph, wait_until

CAMERAS = ('left', 'right')
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)


class Detector:
    """The node under test, with a simulated rig and subscribers to the outputs of the node."""

    def __init__(
        self,
        graph: Graph,
        checkpoint: Path,
        cameras: tuple[str, ...] = CAMERAS,
        rig: Rig | None = None,
        cli_args: list[str] | None = None,
        **parameters,
    ):
        values = {
            'cameras': list(cameras), 'image_topics': ['/{camera}/image'],
            'checkpoint': str(checkpoint), 'device': 'cpu',
            'score_threshold': 0.0, 'geometry_timeout_s': 0.5, 'camera_startup_s': 0.5,
            **parameters,
        }  # fmt: skip
        self.graph = graph
        self._clients: dict = {}
        self.rig = Rig(graph.node, cameras) if rig is None else rig
        self.node = graph.add(
            DetectorNode(
                cli_args=cli_args,
                parameter_overrides=[
                    Parameter(name, value=value) for name, value in values.items()
                ],
            )
        )
        self.detections = graph.collect(Detection3DArray, '/bevdepth_detector/detections')
        self.objects = graph.collect(PointCloud2, '/bevdepth_detector/objects')
        self.markers = graph.collect(MarkerArray, '/bevdepth_detector/markers')
        self.diagnostics: Diagnostics = graph.diagnostics()

    def change(self, transition_id: int) -> bool:
        """Request a transition; return True if it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition_id))
        return self._call(ChangeState, 'change_state', request).success

    def state(self) -> int:
        return self._call(GetState, 'get_state', GetState.Request()).current_state.id

    def set(self, name: str, value) -> str:
        """Set a parameter. Return the reason if the value is rejected, otherwise an empty
        string."""
        message: ParameterMessage = Parameter(name, value=value).to_parameter_msg()
        result = self._call(
            SetParameters, 'set_parameters', SetParameters.Request(parameters=[message])
        ).results[0]
        assert result.successful == (result.reason == '')
        return result.reason

    def start(self) -> None:
        """Configure, activate and wait until all publishers and subscribers are connected."""
        assert self.change(CONFIGURE)
        assert self.change(ACTIVATE)
        self.rig.wait_for_detector()
        count = self.graph.node.count_publishers
        for name in ('detections', 'objects', 'markers'):
            wait_until(lambda name=name: count(f'/bevdepth_detector/{name}') == 1, name)

    def wait_for_detections(self, count: int) -> None:
        """Wait until all topics have results of ``count`` image sets."""
        for messages in (self.detections, self.objects, self.markers):
            wait_until(lambda messages=messages: len(messages) >= count, f'{count} messages')

    def velocities(self) -> np.ndarray:
        points = read_points(self.objects[-1])
        return np.column_stack((points['vx'], points['vy']))

    def _call(self, kind, name: str, request):
        if name not in self._clients:
            self._clients[name] = self.graph.node.create_client(kind, f'/bevdepth_detector/{name}')
        client = self._clients[name]
        assert client.wait_for_service(60)
        future = client.call_async(request)
        wait_until(future.done, name)
        return future.result()
