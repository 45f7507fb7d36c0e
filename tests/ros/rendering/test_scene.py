"""Tests scenes that are combined from the messages of a simulated rig."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.detections.messages import objects_cloud
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.rendering.scene import Scene, SceneStore
from bevdepth_ros.rig.transforms import Transforms
from tests.ros.camera_rig import SIZE, SPEED, Rig, jpeg
from tests.ros.graph import Graph, wait_until
from tests.soak.stream import with_claimed_size

CAMERAS = ('left', 'right')
K = np.array([(0.8 * SIZE[1], 0, SIZE[1] / 2), (0, 0.8 * SIZE[1], SIZE[0] / 2), (0, 0, 1)])
LENS = np.array([-0.3, 0.1, 0.0, 0.0, 0.0])


class StoreSetup:
    """A scene store that receives the messages of a simulated rig."""

    def __init__(self, graph: Graph, panel_width: int, **settings):
        self.transforms = Transforms(graph.node, 10.0, lambda kind, sentence: None)
        self.store = SceneStore(
            Settings(cameras=CAMERAS, **settings), self.transforms, panel_width
        )
        self.rig = Rig(graph.node, CAMERAS)
        for camera in CAMERAS:
            graph.node.create_subscription(
                CompressedImage, f'/{camera}/image', partial(self.store.add_image, camera), 10
            )
            graph.node.create_subscription(
                CameraInfo, f'/{camera}/camera_info', partial(self.store.add_info, camera), 10
            )
        self.rig.wait_for_detector()

    def scene(self, time_s: float) -> Scene:
        """Return the scene of a trigger cycle once both images of it were received."""
        stamp_ns = self.rig.mean_stamp_ns(time_s)

        def whole() -> bool:
            found = self.store.scene(stamp_ns)
            return found is not None and len(found.frame.images) == len(CAMERAS)

        wait_until(whole, f'the images of {time_s} s')
        return self.store.scene(stamp_ns)


@pytest.fixture
def make_setup(graph: Graph) -> Iterator:
    made: list[StoreSetup] = []

    def make(panel_width: int = SIZE[1], **settings) -> StoreSetup:
        made.append(StoreSetup(graph, panel_width, **settings))
        return made[-1]

    yield make
    for setup in made:
        setup.transforms.close()


def test_after_a_bag_restarts_poses_that_precede_its_images_are_used(make_setup):
    setup = make_setup()
    for _ in range(3):
        for time_s in (0.0, 30.0):
            setup.rig.send_extrinsics()
            setup.rig.send_infos()
            setup.rig.send_poses(time_s)
            wait_until(
                lambda time_s=time_s: setup.transforms.knows(
                    'map', 'base_link', setup.rig.stamps_ns(time_s)[-1]
                ),
                'the poses',
            )
            setup.rig.send_images(time_s)
            assert setup.scene(time_s).frame.world_from_ego is not None


def test_a_late_image_does_not_begin_a_new_recording(make_setup):
    setup = make_setup()
    setup.rig.send_all(0.0)
    setup.rig.send_all(0.2)
    setup.scene(0.2)
    setup.rig.send_images(0.1)
    setup.rig.send_all(0.3)
    setup.scene(0.3)
    assert setup.store.scene(setup.rig.mean_stamp_ns(0.0)) is not None


def test_objects_in_another_frame_are_moved_to_the_base_frame(make_setup):
    setup = make_setup()
    setup.rig.send_all(2.0)
    stamp_ns = setup.rig.mean_stamp_ns(2.0)
    boxes = Boxes3D([[30.0, 3, 1]], [[4.0, 2, 1.5]], [0.3], [[1.0, 0]])
    found = Detections3D(boxes, [0.9], [0], NUSCENES_CLASSES, stamp_ns, stamp_ns)
    setup.store.add_objects(objects_cloud(found, 'map'))
    (center,) = setup.scene(2.0).detections.boxes.center
    assert np.allclose(center, (30 - SPEED * 2.004, 3, 1), atol=1e-3)


def test_objects_in_a_frame_that_tf_does_not_have_are_left_out(make_setup):
    setup = make_setup()
    setup.rig.send_all(2.0)
    boxes = Boxes3D([[30.0, 3, 1]], [[4.0, 2, 1.5]], [0.3], [[1.0, 0]])
    found = Detections3D(boxes, [0.9], [0], NUSCENES_CLASSES, setup.rig.mean_stamp_ns(2.0))
    setup.store.add_objects(objects_cloud(found, 'utm'))
    assert setup.scene(2.0).detections is None


def test_an_image_whose_header_claims_900_megapixels_is_not_decoded(make_setup):
    setup = make_setup()
    setup.rig.send_extrinsics()
    setup.rig.send_infos()
    setup.rig.send_images(0.0, data={'left': with_claimed_size(jpeg(), 30_000, 30_000)})
    wait_until(
        lambda: (
            all(setup.store._images.values()) and setup.store.scene(setup.rig.mean_stamp_ns(0.0))
        ),
        'a scene',
    )
    assert setup.store.scene(setup.rig.mean_stamp_ns(0.0)).frame.rig.names == ('right',)


@pytest.mark.parametrize('panel_width', [SIZE[1], SIZE[1] // 2], ids=['full size', 'half size'])
def test_distorted_images_are_undistorted_to_the_pinhole_model_that_projects_the_boxes(
    make_setup, panel_width: int
):
    setup = make_setup(panel_width, images_rectified=False)
    point = np.array([-2.0, 1.0, 5.0])
    spot = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), K, LENS)[0].ravel()
    image = np.zeros((*SIZE, 3), np.uint8)
    cv2.circle(image, tuple(np.rint(spot).astype(int).tolist()), 6, (255, 255, 255), -1)
    setup.rig.send_extrinsics()
    setup.rig.send_poses(0.0)
    setup.rig.send_infos(distortion=LENS.tolist())
    setup.rig.send_images(
        0.0, data=dict.fromkeys(CAMERAS, cv2.imencode('.png', image)[1].tobytes())
    )
    frame = setup.scene(0.0).frame
    bright = np.argwhere(frame.images[0][..., 0] > 128).mean(axis=0)[::-1]
    wanted = frame.rig.intrinsics[0] @ point
    assert np.linalg.norm(bright - wanted[:2] / wanted[2]) < 1.5
    assert np.linalg.norm(spot - (K @ point)[:2] / point[2]) > 5, (
        'the lens moves the point visibly'
    )
