"""Tests the rendered image of the visualizer and the topics in the RViz and Foxglove layouts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import yaml
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.visualization import class_color
from bevdepth_ros.bags.writer import ANNOTATION_MARKER_TOPIC
from bevdepth_ros.detections.messages import objects_cloud
from bevdepth_ros.detector.node import NODE_NAME as DETECTOR_NAME
from bevdepth_ros.detector.outputs import Outputs
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.rendering.visualizer import NODE_NAME, Visualizer
from bevdepth_ros.rig.conversions import image_from_message
from tests.reference import ROOT
from tests.ros.camera_rig import SIZE, Rig
from tests.ros.graph import Graph, wait_until

CAMERAS = ('left', 'right')
BUS_COLOR = class_color('bus')


def overrides(values: dict) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def visualizer(graph: Graph) -> Iterator[Visualizer]:
    values = {
        'cameras': list(CAMERAS),
        'image_topics': ['/{camera}/image'],
        'rate_hz': 20.0,
        'width': 960,
    }
    node = graph.add(Visualizer(parameter_overrides=overrides(values)))
    yield node
    graph.stop()
    node.destroy_node()


def a_bus_ahead(stamp_ns: int) -> PointCloud2:
    boxes = Boxes3D([(14, 0.2, 1.6)], [(11, 2.9, 3.4)], [0], [(5, 0)])
    label = NUSCENES_CLASSES.index('bus')
    return objects_cloud(
        Detections3D(boxes, [0.8], [label], NUSCENES_CLASSES, stamp_ns, stamp_ns), 'base_link'
    )


def pixels_of_a_bus(message: CompressedImage) -> int:
    image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert image.shape[1] == 960
    return int((np.abs(image.astype(int) - BUS_COLOR).max(axis=-1) < 40).sum())


def stamp_of(image: CompressedImage) -> int:
    return image.header.stamp.sec * 10**9 + image.header.stamp.nanosec


def connected(
    graph: Graph, visualizer: Visualizer
) -> tuple[list[CompressedImage], Rig, Publisher]:
    """Wait until all topics have subscribers. Return the list of rendered images, the simulated
    cameras, and the publisher of the detected objects.
    """
    images = graph.collect(CompressedImage, f'/{NODE_NAME}/image/compressed')
    rig = Rig(graph.node, CAMERAS)
    rig.wait_for_detector()
    objects = graph.node.create_publisher(PointCloud2, f'/{DETECTOR_NAME}/objects', 10)
    wait_until(
        lambda: (
            objects.get_subscription_count()
            and visualizer.count_subscribers(f'/{NODE_NAME}/image/compressed')
        ),
        'connections',
    )
    return images, rig, objects


def test_camera_images_are_rendered_before_boxes_arrive_and_boxes_are_drawn_when_they_arrive(
    graph: Graph, visualizer: Visualizer
) -> None:
    images, rig, objects = connected(graph, visualizer)
    rig.send_all(0.0)
    wait_until(lambda: images, 'an image without detections')
    without = pixels_of_a_bus(images[-1])
    objects.publish(PointCloud2(height=1, width=1, point_step=3))
    rig.send_images(0.05, data={'left': b'no image'})
    rig.send_all(0.1)
    stamp_ns = rig.mean_stamp_ns(0.1)
    objects.publish(a_bus_ahead(stamp_ns))
    wait_until(
        lambda: any(
            pixels_of_a_bus(image) > without + 200 and stamp_of(image) == stamp_ns
            for image in images
        ),
        'a rendered image that shows the bus and has the stamp of the camera images',
    )
    assert (
        SIZE[0] < cv2.imdecode(np.frombuffer(images[-1].data, np.uint8), cv2.IMREAD_COLOR).shape[0]
    )


def test_the_raw_output_shows_the_same_image_as_the_compressed_output(
    graph: Graph, visualizer: Visualizer
) -> None:
    images = graph.collect(Image, f'/{NODE_NAME}/image')
    files = graph.collect(CompressedImage, f'/{NODE_NAME}/image/compressed')
    rig = Rig(graph.node, CAMERAS)
    rig.wait_for_detector()
    wait_until(
        lambda: all(
            visualizer.count_subscribers(f'/{NODE_NAME}/{topic}')
            for topic in ('image', 'image/compressed')
        ),
        'connections',
    )
    rig.send_all(0.0)
    wait_until(lambda: images and files, 'both outputs')
    raw, file = (image_from_message(message, 10**7) for message in (images[0], files[0]))
    assert images[0].header == files[0].header
    assert np.abs(raw.astype(int) - file).mean() < 8  # JPEG reduces the resolution of colors


def test_boxes_that_arrive_before_their_images_are_drawn_on_these_images(
    graph: Graph, visualizer: Visualizer
) -> None:
    images, rig, objects = connected(graph, visualizer)
    stamp_ns = rig.mean_stamp_ns(0.0)
    objects.publish(a_bus_ahead(stamp_ns))
    wait_until(lambda: visualizer._listener.store.newest_detections_ns() == stamp_ns, 'the boxes')
    assert visualizer._listener.next_scene() is None
    rig.send_extrinsics()
    rig.send_infos()
    rig.send_images(
        0.0,
        data=dict.fromkeys(
            CAMERAS, cv2.imencode('.jpg', np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
        ),
    )
    wait_until(lambda: images, 'an image')
    assert stamp_of(images[0]) == stamp_ns
    assert pixels_of_a_bus(images[0]) > 200


def test_every_topic_in_the_rviz_and_foxglove_layouts_is_published(graph: Graph) -> None:
    detector = LifecycleNode(DETECTOR_NAME)
    outputs = Outputs(detector)
    drawn = Visualizer()
    cameras = [
        topic
        for source in Settings().camera_sources
        for topic in (source.image_topic, source.info_topic)
    ]
    decoded = [f'/{camera}/image_decoded' for camera in Settings().cameras]
    published = {*cameras, *decoded, '/LIDAR_TOP', ANNOTATION_MARKER_TOPIC, '/diagnostics'}
    for node in (detector, drawn):
        published |= {
            name for name, _ in node.get_publisher_names_and_types_by_node(node.get_name(), '/')
        }
    rviz = set(
        re.findall(r'Value: (/\S+)', (ROOT / 'config' / 'rviz' / 'bevdepth.rviz').read_text())
    )
    foxglove = set(
        topics_of(json.loads((ROOT / 'config' / 'foxglove' / 'bevdepth.json').read_text()))
    )
    outputs.close()
    detector.destroy_node()
    drawn.destroy_node()
    assert rviz - published == set()
    assert foxglove - published == set()
    for shown in (rviz, foxglove):
        assert {
            f'/{DETECTOR_NAME}/markers',
            f'/{DETECTOR_NAME}/depth_points',
            f'/{NODE_NAME}/image/compressed',
            ANNOTATION_MARKER_TOPIC,
        } <= shown
    assert set(cameras) <= foxglove


def topics_of(layout) -> Iterator[str]:
    """Yield every topic name in a Foxglove layout."""
    if isinstance(layout, dict):
        yield from layout.get('topics', {})
        for key, value in layout.items():
            if key in ('imageTopic', 'calibrationTopic', 'topicToRender'):
                yield value
            yield from topics_of(value)


def test_every_configured_panel_appears_in_the_foxglove_layout() -> None:
    layout = json.loads((ROOT / 'config' / 'foxglove' / 'bevdepth.json').read_text())

    def leaves(node) -> list[str]:
        return [node] if isinstance(node, str) else leaves(node['first']) + leaves(node['second'])

    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])


def test_the_visualizer_accepts_the_parameters_of_the_detector(graph: Graph) -> None:
    values = yaml.safe_load((ROOT / 'config' / 'detector.yaml').read_text())['/**'][
        'ros__parameters'
    ]
    node = Visualizer(parameter_overrides=overrides(values))
    topics = {name for name, _ in node.get_topic_names_and_types()}
    node.destroy_node()
    assert {source.image_topic for source in Settings().camera_sources} <= topics
    with pytest.raises(ValueError, match='cameras must be'):
        Visualizer(parameter_overrides=overrides({'cameras': ['a', 'a']}))
