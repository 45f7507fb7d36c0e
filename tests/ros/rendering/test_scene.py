"""Tests scenes that are combined from the messages of a simulated rig."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.bags.recorded_transforms import RecordedTransforms
from bevdepth_ros.detections.messages import objects_cloud
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.rendering import scene as scene_module
from bevdepth_ros.rendering.scene import Scene, SceneStore
from bevdepth_ros.rig.transforms import Transforms
from tests.ros.camera_rig import SIZE, SPEED, Rig, jpeg
from tests.ros.graph import Graph, wait_until
from tests.ros.messages import compressed, encoded, with_claimed_size
from tests.ros.rig.image_messages import camera_info

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
        """Return the scene of a trigger cycle after both images of the cycle were received."""
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


def test_scenes_of_a_restarted_bag_have_the_poses_that_arrived_before_the_images(make_setup):
    setup = make_setup()
    for _ in range(3):
        for time_s in (0.0, 30.0):
            setup.rig.send_extrinsics()
            setup.rig.send_infos()
            setup.rig.send_poses(time_s)
            wait_until(
                lambda time_s=time_s: setup.transforms.has_transform(
                    'map', 'base_link', setup.rig.stamps_ns(time_s)[-1]
                ),
                'the poses',
            )
            setup.rig.send_images(time_s)
            assert setup.scene(time_s).frame.world_from_ego is not None


def test_a_late_image_does_not_clear_the_stored_images(make_setup):
    setup = make_setup()
    setup.rig.send_all(0.0)
    setup.rig.send_all(0.2)
    setup.scene(0.2)
    setup.rig.send_images(0.1)
    setup.rig.send_all(0.3)
    setup.scene(0.3)
    assert setup.store.scene(setup.rig.mean_stamp_ns(0.0)) is not None


def test_objects_in_another_frame_are_transformed_to_the_base_frame(make_setup):
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


def test_an_image_with_900_megapixels_in_its_header_is_not_decoded(make_setup):
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
        'the distortion must move the point by more than 5 pixels'
    )


START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


def pose(parent: str, child: str, stamp_ns: int, x: float) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    message.transform.translation.x, message.transform.rotation.w = x, 1.0
    return message


class DirectStore:
    """A scene store to which messages are added without topics. The vehicle moves at 1 m/s along
    the x axis of the tf frame map.
    """

    def __init__(self, transport: str = 'compressed') -> None:
        self.transforms = RecordedTransforms(1000.0)
        self.store = SceneStore(
            Settings(cameras=CAMERAS, image_transport=transport), self.transforms, 16
        )
        mounts = [pose('base_link', camera, 0, 1.0) for camera in CAMERAS]
        self.transforms.add(TFMessage(transforms=mounts), static=True)
        for second in (0, 10):
            self.add_pose(1000 * second)
        for camera in CAMERAS:
            k = np.array([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
            self.store.add_info(camera, camera_info(k=k, p=np.zeros(12), size=(32, 32)))
        self.data = encoded(np.zeros((32, 32, 3), np.uint8), 'JPEG')

    def add_pose(self, time_ms: float) -> None:
        message = pose('map', 'base_link', START_NS + round(time_ms * MS), time_ms / 1000)
        self.transforms.add(TFMessage(transforms=[message]), static=False)

    def send(self, camera: str, *times_ms: float) -> None:
        for time_ms in times_ms:
            message = compressed(self.data)
            message.header.frame_id = camera
            message.header.stamp = Time(nanoseconds=START_NS + round(time_ms * MS)).to_msg()
            self.store.add_image(camera, message)

    def names(self, time_ms: float) -> tuple[str, ...]:
        """Return the names of the cameras in the scene at ``time_ms``."""
        scene = self.store.scene(START_NS + round(time_ms * MS))
        return () if scene is None else scene.frame.rig.names

    def detect(self, *times_ms: float) -> None:
        boxes = Boxes3D([[9.0, 0, 1]], [[4.0, 2, 1.5]], [0.0], [[0.0, 0]])
        for time_ms in times_ms:
            stamp_ns = START_NS + round(time_ms * MS)
            found = Detections3D(boxes, [0.9], [0], NUSCENES_CLASSES, stamp_ns)
            self.store.add_detections(found)


@pytest.fixture
def direct() -> Iterator[DirectStore]:
    setup = DirectStore()
    yield setup
    setup.store.close()


def test_a_scene_contains_only_images_within_60_ms_of_the_requested_time(direct: DirectStore):
    direct.send('left', 1000)
    direct.send('right', 1010)
    assert direct.names(1060) == CAMERAS
    assert direct.names(1061) == ('right',)
    assert direct.names(950) == CAMERAS
    assert direct.names(949) == ('left',)
    assert direct.names(1071) == ()


def test_a_scene_contains_the_image_that_is_nearest_to_the_requested_time(direct: DirectStore):
    direct.send('left', 1000, 1080, 1160)
    for time_ms, nearest_ms in ((1035, 1000), (1045, 1080), (1130, 1160)):
        scene = direct.store.scene(START_NS + time_ms * MS)
        assert scene.frame.stamps_ns.tolist() == [START_NS + nearest_ms * MS]
        assert scene.stamp_ns == scene.frame.stamp_ns
        assert scene.detections is None
        assert scene.latency_s is None


@pytest.mark.parametrize(('back_ms', 'is_kept'), [(250, True), (251, False)])
def test_an_image_that_is_more_than_250_ms_older_than_the_last_image_clears_the_stored_images(
    direct: DirectStore, back_ms: int, is_kept: bool
):
    direct.send('right', 1000)
    direct.send('left', 1000)
    direct.send('left', 1000 - back_ms)
    assert direct.names(1000) == (CAMERAS if is_kept else ())
    assert direct.names(1000 - back_ms) == (() if is_kept else ('left',))


@pytest.mark.parametrize(('transport', 'count'), [('compressed', 64), ('raw', 8)])
def test_only_the_newest_64_compressed_or_8_raw_images_of_a_camera_are_stored(
    transport: str, count: int
):
    direct = DirectStore(transport)
    direct.send('left', *(100 * number for number in range(count + 1)))
    assert direct.names(0) == ()
    assert direct.names(100) == ('left',)
    direct.store.close()


def test_the_detection_rate_is_computed_from_the_last_ten_results(
    direct: DirectStore, monkeypatch: pytest.MonkeyPatch
):
    now_s = [100.0]
    monkeypatch.setattr(scene_module.time, 'monotonic', lambda: now_s[0])
    assert direct.store.detection_rate_hz is None
    direct.detect(0)
    direct.detect(1)
    assert direct.store.detection_rate_hz is None  # both results arrived at the same time
    for number in range(10):
        now_s[0] += 0.5
        direct.detect(2 + number)
    assert direct.store.detection_rate_hz == pytest.approx(2.0)
    assert direct.store.detections_arrived == now_s[0]


def test_the_latency_is_the_time_from_the_arrival_of_the_last_image_to_the_detections(
    direct: DirectStore, monkeypatch: pytest.MonkeyPatch
):
    now_s = [100.0]
    monkeypatch.setattr(scene_module.time, 'monotonic', lambda: now_s[0])
    direct.send('left', 1000)
    now_s[0] += 0.02
    direct.send('right', 1000)
    now_s[0] += 0.1
    direct.detect(1000)
    scene = direct.store.scene(START_NS + 1000 * MS)
    assert scene.latency_s == pytest.approx(0.1)
    assert scene.stamp_ns == START_NS + 1000 * MS
    assert len(scene.detections) == 1


def test_detections_with_tf_are_preferred_if_newer_detections_are_at_most_400_ms_newer(
    direct: DirectStore,
):
    assert direct.store.newest_detections_ns() is None
    direct.detect(9900, 9990, 10_100)
    assert direct.store.newest_detections_ns() == START_NS + 9990 * MS
    direct.detect(10_391)  # 401 ms after the newest detections with tf
    assert direct.store.newest_detections_ns() == START_NS + 10_391 * MS
    direct.store.clear()
    assert direct.store.newest_detections_ns() is None


def test_newest_images_ns_is_the_last_stamp_of_the_publishing_camera_that_is_farthest_behind(
    direct: DirectStore,
):
    assert direct.store.newest_images_ns() is None
    direct.send('left', 1000, 1100)
    assert direct.store.newest_images_ns() == START_NS + 1100 * MS
    direct.send('right', 1010)
    assert direct.store.newest_images_ns() == START_NS + 1010 * MS


def annotations(time_ms: float, frame: str, names: tuple[str, ...]) -> Detection3DArray:
    message = Detection3DArray()
    message.header.frame_id = frame
    message.header.stamp = Time(nanoseconds=START_NS + round(time_ms * MS)).to_msg()
    for name in names:
        box = Detection3D(id=f'id of {name}', results=[ObjectHypothesisWithPose()])
        box.results[0].hypothesis.class_id = name
        box.bbox.center.position.x, box.bbox.center.orientation.w = 20.0, 1.0
        box.bbox.size.x = box.bbox.size.y = box.bbox.size.z = 2.0
        message.detections.append(box)
    return message


@pytest.mark.parametrize(('frame', 'x'), [('map', 19.0), ('base_link', 20.0)])
def test_annotations_of_known_classes_are_shown_in_the_base_frame(
    direct: DirectStore, frame: str, x: float
):
    direct.send('left', 1000)
    assert direct.store.scene(START_NS + 1000 * MS).ground_truth is None
    direct.store.add_annotations(annotations(1000, frame, ('bus', 'animal', 'car')))
    boxes, labels = direct.store.scene(START_NS + 1000 * MS).ground_truth
    assert labels.tolist() == [NUSCENES_CLASSES.index('bus'), 0]
    np.testing.assert_allclose(boxes.center[:, 0], x, rtol=1e-6)


def test_annotations_wait_until_tf_has_poses_before_and_after_their_stamp(
    direct: DirectStore,
):
    direct.store.add_annotations(annotations(10_150, 'base_link', ('car',)))
    direct.send('left', 10_150, 10_600)
    assert direct.store.scene(START_NS + 10_150 * MS).ground_truth is None
    direct.add_pose(10_100)
    assert direct.store.scene(START_NS + 10_150 * MS).ground_truth is None
    direct.add_pose(10_450)
    boxes, _ = direct.store.scene(START_NS + 10_150 * MS).ground_truth
    np.testing.assert_allclose(boxes.center[0, 0], 20.0, rtol=1e-6)
