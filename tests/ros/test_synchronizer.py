from __future__ import annotations

import threading
import time

import pytest
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage

from bevdepth_ros.synchronizer import ImageSet, ImageSynchronizer, LatestSlot, stamp_ns

EXPOSURES_MS = (0.0, 7.6, 15.5, 32.7, 42.6, 23.0)
"""When the six nuScenes cameras expose within a round."""
START_NS = 1_531_883_530_404_844_000


def image(offset_ms: float, tag: str = '') -> CompressedImage:
    message = CompressedImage(format=tag)
    message.header.stamp = Time(nanoseconds=START_NS + round(offset_ms * 1e6)).to_msg()
    return message


class Recorder:
    """A synchroniser of ``cameras`` cameras that remembers what it was told."""

    def __init__(self, cameras: int = 6, queue_size: int = 10, fail: bool = False):
        self.sets: list[ImageSet] = []
        self.errors: list[Exception] = []
        self.jumps = 0
        self.fail = fail
        self.synchronizer = ImageSynchronizer(cameras, queue_size, 0.06, self._on_set, self.errors.append, self._on_jump)

    def _on_set(self, images: ImageSet) -> None:
        self.sets.append(images)
        if self.fail:
            raise RuntimeError('a broken receiver')

    def _on_jump(self) -> None:
        self.jumps += 1

    def round(self, start_ms: float, missing: tuple[int, ...] = ()) -> None:
        for camera in sorted(range(len(EXPOSURES_MS)), key=EXPOSURES_MS.__getitem__):
            if camera not in missing:
                self.synchronizer.add(camera, image(start_ms + EXPOSURES_MS[camera], str(camera)))


def test_six_images_of_a_round_make_a_set_in_camera_order():
    recorder = Recorder()
    recorder.round(0)
    (images,) = recorder.sets
    assert [message.format for message in images.messages] == list('012345')
    assert list(images.stamps_ns) == [START_NS + round(offset * 1e6) for offset in EXPOSURES_MS]
    assert images.spread_s == pytest.approx(0.0426)


def test_one_camera_makes_a_set_by_itself():
    recorder = Recorder(cameras=1)
    recorder.synchronizer.add(0, image(0))
    recorder.synchronizer.add(0, image(83))
    assert [len(images.messages) for images in recorder.sets] == [1, 1]


def test_a_set_never_mixes_two_rounds():
    recorder = Recorder()
    for number in range(12):
        recorder.round(83.3 * number, missing=(number % 7,))
    for images in recorder.sets:
        assert images.spread_s < 0.0427
    assert len(recorder.sets) == sum(number % 7 == 6 for number in range(12))


def test_a_receiver_that_raises_does_not_end_the_sets():
    recorder = Recorder(fail=True)
    for number in range(3):
        recorder.round(83.3 * number)
    assert len(recorder.sets) == 3
    assert [str(error) for error in recorder.errors] == ['a broken receiver'] * 3


def test_sets_go_on_after_the_stamps_went_back_although_the_queues_were_full_of_the_future():
    recorder = Recorder(queue_size=4)
    for number in range(8):
        recorder.round(5000 + 83.3 * number, missing=(2,))
    recorder.round(0)
    recorder.round(83.3)
    assert recorder.jumps == 1
    assert [images.stamps_ns[0] for images in recorder.sets] == [START_NS, START_NS + 83_300_000]


def test_a_repeated_image_is_no_jump():
    recorder = Recorder()
    recorder.round(0)
    recorder.round(0)
    assert recorder.jumps == 0


def test_a_stamp_keeps_its_nanoseconds():
    assert stamp_ns(image(0.000001)) == START_NS + 1


def test_only_the_newest_item_is_handed_over():
    slot: LatestSlot[int] = LatestSlot()
    assert [slot.put(item) for item in (1, 2, 3)] == [False, True, True]
    assert slot.take() == 3
    assert not slot.put(4)


def test_a_closed_slot_gives_its_last_item_and_then_nothing():
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    slot.close()
    assert [slot.take(), slot.take()] == [1, None]


def test_a_slot_closed_with_discard_gives_nothing():
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    slot.close(discard=True)
    assert slot.take() is None


def test_closing_wakes_who_waits():
    slot: LatestSlot[int] = LatestSlot()
    taken: list = []
    waiting = threading.Thread(target=lambda: taken.append(slot.take()))
    waiting.start()
    slot.close()
    waiting.join(10)
    assert taken == [None]


def test_under_fire_every_item_is_either_taken_in_order_or_counted_as_replaced():
    slot: LatestSlot[int] = LatestSlot()
    taken: list[int] = []

    def take_all() -> None:
        while (item := slot.take()) is not None:
            taken.append(item)
            time.sleep(0.0001)

    taker = threading.Thread(target=take_all)
    taker.start()
    replaced = sum(slot.put(item) for item in range(1, 20_001))
    slot.close()
    taker.join()
    assert taken == sorted(set(taken))
    assert taken[-1] == 20_000
    assert len(taken) + replaced == 20_000
