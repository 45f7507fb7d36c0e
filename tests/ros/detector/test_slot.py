from __future__ import annotations

import threading
import time

from bevdepth_ros.detector.slot import LatestSlot, SlotThread


def test_a_slot_returns_only_its_newest_item():
    slot: LatestSlot[int] = LatestSlot()
    assert [slot.put(item) for item in (1, 2, 3)] == [False, True, True]
    assert slot.take() == 3
    assert not slot.put(4)


def test_a_closed_slot_returns_its_last_item_and_then_none():
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    slot.close()
    assert [slot.take(), slot.take()] == [1, None]


def test_a_slot_that_was_closed_with_discard_returns_none():
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    slot.close(discard=True)
    assert slot.take() is None


def test_closing_a_slot_ends_the_wait_of_a_thread():
    slot: LatestSlot[int] = LatestSlot()
    taken: list = []
    waiting = threading.Thread(target=lambda: taken.append(slot.take()))
    waiting.start()
    slot.close()
    waiting.join(10)
    assert taken == [None]


def test_under_load_every_item_is_either_taken_in_order_or_counted_as_replaced():
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


def test_stop_waits_for_a_busy_thread_at_most_for_the_timeout():
    began, goes_on = threading.Event(), threading.Event()

    def work(items) -> None:
        for _ in items:
            began.set()
            goes_on.wait(60)

    thread: SlotThread[int] = SlotThread('slow', work)
    thread.put(1)
    assert began.wait(60)
    thread.stop(discard=True, timeout_s=0.05)
    assert thread.is_alive()
    goes_on.set()
    thread.stop(discard=True)
    assert not thread.is_alive()


def test_a_thread_of_a_slot_does_not_keep_the_process_alive():
    thread: SlotThread[int] = SlotThread('processing', list)
    (found,) = [thread for thread in threading.enumerate() if thread.name == 'processing']
    assert found.daemon
    thread.stop(discard=False)
