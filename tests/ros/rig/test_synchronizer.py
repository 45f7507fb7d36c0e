from __future__ import annotations

import numpy as np
import pytest
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage

from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.synchronizer import ImageSet, ImageSynchronizer

EXPOSURES_MS = (0.0, 7.6, 15.5, 32.7, 42.6, 23.0)
"""When the six nuScenes cameras expose within a round."""
PERIOD_MS = 83.3
START_NS = 1_531_883_530_404_844_000


def image(offset_ms: float, tag: str = '') -> CompressedImage:
    message = CompressedImage(format=tag)
    message.header.stamp = Time(nanoseconds=START_NS + round(offset_ms * 1e6)).to_msg()
    return message


class Recorder:
    """A synchroniser of ``cameras`` cameras that remembers its sets."""

    def __init__(self, cameras: int = 6, queue_size: int = 10):
        self.sets: list[ImageSet] = []
        self.synchronizer = ImageSynchronizer(cameras, queue_size, 0.06, self.sets.append)

    def rotation(
        self,
        start_ms: float,
        missing: tuple[int, ...] = (),
        shifts_ms: dict[int, float] | None = None,
    ) -> None:
        for camera in sorted(range(len(EXPOSURES_MS)), key=EXPOSURES_MS.__getitem__):
            if camera not in missing:
                offset_ms = start_ms + EXPOSURES_MS[camera] + (shifts_ms or {}).get(camera, 0.0)
                self.synchronizer.add(camera, image(offset_ms, str(camera)))

    def rotations(self, first: int, count: int, **options) -> None:
        for number in range(first, first + count):
            self.rotation(PERIOD_MS * number, **options)

    def require_single_rotations(self) -> None:
        """Fail when a set's images are not of one rotation."""
        for images in self.sets:
            offsets_ms = [EXPOSURES_MS[camera] for camera in images.cameras]
            starts_ms = (images.stamps_ns - START_NS) / 1e6 - offsets_ms
            assert np.ptp(starts_ms) < 1


def test_six_images_of_a_rotation_make_a_set_in_camera_order():
    recorder = Recorder()
    recorder.rotation(0)
    (images,) = recorder.sets
    assert images.cameras == (0, 1, 2, 3, 4, 5)
    assert [message.format for message in images.messages] == list('012345')
    assert list(images.stamps_ns) == [START_NS + round(offset * 1e6) for offset in EXPOSURES_MS]
    assert images.spread_s == pytest.approx(0.0426)


def test_one_camera_makes_a_set_by_itself():
    recorder = Recorder(cameras=1)
    recorder.synchronizer.add(0, image(0))
    recorder.synchronizer.add(0, image(83))
    assert [len(images.messages) for images in recorder.sets] == [1, 1]


def test_a_set_never_mixes_two_rotations():
    recorder = Recorder()
    for number in range(12):
        recorder.rotation(PERIOD_MS * number, missing=(number % 7,))
    recorder.require_single_rotations()
    assert len(recorder.sets) == sum(number % 7 == 6 for number in range(12))


def test_without_a_silent_camera_sets_go_on_and_with_its_return_they_are_complete_again():
    recorder = Recorder()
    recorder.rotations(0, 3)
    recorder.rotations(3, 3, missing=(4,))
    assert len(recorder.sets) == 3
    recorder.synchronizer.keep({0, 1, 2, 3, 5})
    recorder.rotations(6, 3, missing=(4,))
    recorder.rotations(9, 6)
    assert [len(images.cameras) for images in recorder.sets] == [6] * 3 + [5] * 7 + [6] * 3
    recorder.require_single_rotations()


def test_the_first_and_the_last_camera_of_a_rotation_alone_never_mix_two_rotations():
    """The last image of a rotation is nearer to the first of the next one than to the first of its
    own."""
    recorder = Recorder()
    recorder.rotations(0, 2)
    recorder.synchronizer.keep({0, 3, 4})
    recorder.synchronizer.keep({0, 4})
    recorder.rotations(2, 1, missing=(0, 1, 2, 3, 5))
    recorder.rotations(3, 4, missing=(1, 2, 3, 5))
    assert [images.cameras for images in recorder.sets[2:]] == [(0, 4)] * 4
    recorder.require_single_rotations()


def test_a_camera_whose_stamps_fit_no_other_is_left_out_by_the_majority():
    recorder = Recorder()
    recorder.rotations(0, 4, shifts_ms={1: 3000.0})
    assert not recorder.sets
    assert recorder.synchronizer.leave_outsiders(set()) == {1}
    recorder.rotations(4, 2, shifts_ms={1: 3000.0})
    assert recorder.sets[-1].cameras == (0, 2, 3, 4, 5)


def test_of_two_cameras_that_do_not_agree_none_is_left_out():
    recorder = Recorder(cameras=2)
    recorder.synchronizer.add(0, image(0))
    recorder.synchronizer.add(1, image(500))
    assert recorder.synchronizer.leave_outsiders(set()) == set()


def test_when_only_cameras_that_were_left_out_speak_they_take_part():
    recorder = Recorder()
    recorder.synchronizer.keep({0, 1})
    recorder.synchronizer.keep({2})
    assert recorder.synchronizer.members == {2}


def test_a_camera_that_starts_again_at_another_place_of_the_rotation_is_taken_back():
    recorder = Recorder()
    recorder.rotations(0, 2)
    recorder.rotations(2, 3, shifts_ms={0: 40.0})
    assert len(recorder.sets) == 2
    assert recorder.synchronizer.leave_outsiders(set()) == set()
    recorder.rotations(5, 2, shifts_ms={0: 40.0})
    assert len(recorder.sets) == 4


def test_sets_go_on_after_the_stamps_went_back_although_the_queues_were_full_of_the_future():
    recorder = Recorder(queue_size=4)
    for number in range(8):
        recorder.rotation(5000 + PERIOD_MS * number, missing=(2,))
    recorder.rotation(0)
    recorder.rotation(PERIOD_MS)
    assert [images.stamps_ns[0] for images in recorder.sets] == [
        START_NS,
        START_NS + round(PERIOD_MS * 1e6),
    ]


def test_repeated_and_late_images_are_left_out():
    recorder = Recorder(cameras=1)
    added = [
        recorder.synchronizer.add(0, image(time_ms)) for time_ms in (0, 0, 200, 100, 300, 200, 400)
    ]
    assert added == [True, False, True, False, True, False, True]
    assert len(recorder.sets) == 4


def test_two_older_images_in_a_row_are_a_jump_however_small():
    recorder = Recorder(cameras=1)
    added = [recorder.synchronizer.add(0, image(time_ms)) for time_ms in (400, 200, 300, 400)]
    assert added == [True, False, True, True]


def test_a_stamp_keeps_its_nanoseconds():
    assert stamp_ns(image(0.000001)) == START_NS + 1
