"""Injections of faults. An injection is a function that accepts a bench and returns a context
manager. Inside the context, messages are changed before the node receives them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from bevdepth_ros.rig.stamps import stamp_ns
from tests.faults.bench import Bench
from tests.ros.messages import stamped

BACK, FRONT, LEFT = 'CAM_BACK', 'CAM_FRONT', 'CAM_BACK_LEFT'
SECOND_NS = 10**9


def image_fault(change: Callable, *cameras: str) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection that applies ``change`` to the images of ``cameras``, or to the images
    of all cameras if no camera is given.
    """

    def hook(camera: str, message) -> list:
        if cameras and camera not in cameras:
            return [message]
        changed = change(message)
        return (
            changed
            if isinstance(changed, list)
            else [stamped(changed, message.header.frame_id, stamp_ns(message))]
        )

    return lambda bench: bench.stream.fault(image=hook)


def info_fault(change: Callable, *cameras: str) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection that applies ``change`` to the CameraInfo of ``cameras``, or to the
    CameraInfo of all cameras if no camera is given.
    """

    def hook(camera: str, info) -> list:
        if not cameras or camera in cameras:
            change(info)
        return [info]

    return lambda bench: bench.stream.fault(info=hook)


def pose_fault(change: Callable) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection that replaces each ego pose by the list of transforms that ``change``
    returns for this pose.
    """
    return lambda bench: bench.stream.fault(pose=change)


def setting(**values) -> Callable:
    """Return a function that sets the fields ``values`` of a message."""

    def change(message):
        for name, value in values.items():
            setattr(message, name, value)
        return message

    return change
