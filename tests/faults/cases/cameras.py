"""Cameras that are silent or lose images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.faults.bench import Bench
from tests.faults.cases.case import ALL, NOTHING, Case, without
from tests.faults.injections import BACK, FRONT, LEFT, image_fault
from tests.faults.life import node_parameter
from tests.ros.camera_stream import CAMERAS


def silent(*cameras: str) -> Callable[[Bench], AbstractContextManager]:
    return image_fault(lambda message: [], *cameras)


def every_second_lost(*cameras: str) -> Callable[[Bench], AbstractContextManager]:
    def make(bench: Bench) -> AbstractContextManager:
        counts = dict.fromkeys(CAMERAS, 0)

        def hook(camera: str, message) -> list:
            counts[camera] += 1
            return [message] if camera not in cameras or counts[camera] % 2 else []

        return bench.stream.fault(image=hook)

    return make


def first_and_last_camera_with_losses(bench: Bench) -> AbstractContextManager:
    """Publish images of only the first and the last camera of the trigger cycle, and omit every
    third image of the first camera. The two images of a cycle are 43 ms apart. The image of the
    last camera is only 57 ms older than the image of the first camera in the next cycle.
    """
    kept, count = ('CAM_FRONT_LEFT', LEFT), iter(range(10**9))
    return bench.stream.fault(
        image=lambda camera, m: (
            [m] if camera == kept[1] or (camera == kept[0] and next(count) % 3) else []
        )
    )


CASES = (
    Case(
        'one camera is silent',
        silent(BACK),
        without(BACK),
        ('ERROR', 'cameras', 'no image of CAM_BACK on /CAM_BACK/image'),
    ),
    Case(
        'three cameras are silent',
        silent(BACK, FRONT, LEFT),
        without(BACK, FRONT, LEFT),
        ('ERROR', 'cameras', 'no image of CAM_FRONT'),
    ),
    Case(
        'all cameras but one are silent',
        silent(*CAMERAS[1:]),
        without(*CAMERAS[1:]),
        ('ERROR', 'cameras', f'no image of {CAMERAS[1]}'),
    ),
    Case(
        'all cameras are silent', silent(), NOTHING, ('ERROR', 'cameras', 'no camera sends images')
    ),
    Case(
        'fewer cameras than min_cameras',
        lambda bench: node_parameter(bench, 'min_cameras', 5, silent(BACK, FRONT)(bench)),
        NOTHING,
        ('ERROR', 'sets', '4 of 6 cameras can be used'),
    ),
    Case(
        'every second image of a camera is lost',
        every_second_lost(FRONT),
        ALL,
        ('WARN', 'sets', 'image sets were lost in 5 s: CAM_FRONT sent'),
    ),
    Case(
        'every second image of two cameras is lost, in the same cycles',
        every_second_lost(FRONT, BACK),
        ALL,
        ('WARN', 'sets', 'image sets were lost in 5 s'),
    ),
    Case(
        'only the first and the last camera of a trigger cycle are left, and images are lost',
        first_and_last_camera_with_losses,
        without(*(camera for camera in CAMERAS if camera not in ('CAM_FRONT_LEFT', LEFT))),
        ('ERROR', 'cameras', 'no image of CAM_FRONT'),
    ),
)
