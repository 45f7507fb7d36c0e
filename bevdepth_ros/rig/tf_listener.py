"""Rejects invalid transforms before they reach the tf buffer, and detects conflicting
publishers.

The terms of this module, in the order in which they are built on each other:

* A transform links two tf frames, the child to its parent. A message ``parent <- child`` names
  both frames. The transform converts points from the child frame to the parent frame.
* Transform of a frame: transform whose child is this frame.
* Static transform: arrives on /tf_static, and is valid at every time.
* Moving transform: arrives on /tf or as odometry, and is valid at its stamp.
* Chain: frames from a source frame over its parent, the parent of this parent, and so on, up to
  the child of a target frame.
* Needed frame: frame of a chain that was looked up.
* Ego frame: frame of a chain that was looked up at a stamp. Ego poses are looked up in this way.
  Extrinsics are looked up as the newest transform instead.
* Time of tf: newest stamp of the moving transforms of a frame. It goes back when a bag starts
  again, or when the clock of a publisher is set back. tf2 rejects transforms that are much older
  than the stored transforms, so the stored transforms must then be dropped.
* Conflict: two publishers send transforms of the same frame with different parents, or with
  different times.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformListener

from bevdepth_core.geometry import rigid_from_quaternion, unit_quaternion
from bevdepth_ros.rig.stamps import stamp_ns

BACKWARDS_NS = 250_000_000
"""If a transform is older than the newest transform of its frame by more than this, in
nanoseconds, the time of tf may have gone back (see ``_is_new_time``). If a transform is older by
at most this, it is only late."""
CONFLICT_S = 1.0
"""A conflict of a tf frame is reported if, within this time in seconds, transforms with two
different parents arrived, or the stamps jumped back and forward again. The report ends when this
has not happened for the same time."""
MAX_PARENTS = 4
"""Largest number of parents that are stored per frame. If there are more, the parent whose last
transform is the oldest is removed."""
FARTHEST_M = 1e9
"""Largest valid translation of a transform, meters. No map needs a larger translation, and from
about 1e14 m on, the resolution of float64 is coarser than a centimeter."""
MAX_FRAMES = 2000
"""Largest number of tf frames. Further frames are rejected, because tf2 stores a history of each
frame and never removes a frame."""
MAX_NAME_LENGTH, SHOWN_NAME = 255, 60
"""Longest valid name of a frame, and longest part of a name that a message shows, characters."""
MAX_CHAIN = 20
"""Largest number of frames of a chain that are checked for conflicting publishers."""


def plain_name(frame: str) -> str:
    """Return the name of a frame as tf2 stores it: without the leading slash of ROS 1."""
    return frame.removeprefix('/')


def matrix_from_transform(transform: TransformStamped) -> np.ndarray:
    """Return the (4, 4) float64 matrix that transforms points, in meters, from the child frame to
    the frame of the header.

    Raises:
        ValueError: the quaternion of the rotation does not have length 1.
    """
    rotation, translation = transform.transform.rotation, transform.transform.translation
    return rigid_from_quaternion(
        (rotation.w, rotation.x, rotation.y, rotation.z),
        (translation.x, translation.y, translation.z),
    )


def transform_from_odometry(message: Odometry) -> TransformStamped:
    """Return the pose of an odometry message as a transform from the child frame of the message to
    the frame of its header.
    """
    transform = TransformStamped(header=message.header, child_frame_id=message.child_frame_id)
    position, pose = message.pose.pose.position, transform.transform
    pose.translation.x, pose.translation.y, pose.translation.z = position.x, position.y, position.z
    pose.rotation = message.pose.pose.orientation
    return transform


class CheckedTransformListener(TransformListener):
    """Checks each transform before tf2 stores it.

    Callbacks report faults with ``on_fault`` and raise no exceptions. Times with the suffix
    ``_at`` are values of ``time.monotonic()``. Names of frames in keys and values have no leading
    slash.

    Attributes:
        mounts_version: number that increases with every static transform, and with the first
            moving transform of each frame. A mount is a pose that only static
            transforms determine, such as the pose of a camera on the vehicle. Mounts that were
            looked up, and results of ``is_static``, are valid until this number changes.
    """

    def __init__(self, buffer: Buffer, node: Node, on_fault: Callable[[str, str], None]):
        self._on_fault = on_fault
        self._frames: set[str] = set()  # all frames, as parent or as child
        # Values by child frame:
        self._newest_ns: dict[str, int] = {}  # newest stamp of moving transforms
        self._parents: dict[str, dict[str, float]] = {}  # time of the last arrival by parent
        self._static_parents: dict[str, str] = {}
        self._before_jump: dict[str, tuple[int, float]] = {}  # newest stamp, time of the jump
        self._returned_at: dict[str, float] = {}  # time when stamps jumped forward again
        self._clock, self._received_ns = node.get_clock(), dict[str, int]()  # node's time
        self._old_since: dict[str, float] = {}  # first of the old transforms, see _is_new_time
        # Frames of chains that were looked up:
        self._needed: set[str] = set()
        self._ego: set[str] = set()
        self.mounts_version = 0
        super().__init__(buffer, node)
        # tf2 receives /tf_static only from transient local publishers. Relays, bridges of
        # simulators and replays of bags without recorded QoS publish /tf_static as volatile.
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._unlatched = node.create_subscription(
            TFMessage, '/tf_static', self.static_callback, qos
        )

    def unregister(self) -> None:
        """End the subscriptions."""
        super().unregister()
        self.node.destroy_subscription(self._unlatched)

    def conflict(self, frame: str) -> str | None:
        """Return a message if several publishers send different parents or times of ``frame``,
        otherwise None.
        """
        recent = monotonic() - CONFLICT_S
        if self._returned_at.get(frame, 0.0) > recent:
            return (
                f'the stamps of tf frame {frame} jump back and forward: two publishers send '
                'different times; stop one of them'
            )
        parents = {
            parent for parent, received_at in self._received(frame).items() if received_at > recent
        }
        parents |= (
            {self._static_parents[frame]} if parents and frame in self._static_parents else set()
        )
        if len(parents) < 2:
            return None
        return (
            f'tf frame {frame} has several parents: {", ".join(sorted(parents))}; a frame '
            'can have only one parent: stop the other publisher of this frame'
        )

    def chain(self, target: str, source: str) -> list[str]:
        """Return ``source``, its parent and so on, up to the child of ``target``. The list is
        shorter if a frame has no parent, or after ``MAX_CHAIN`` frames.
        """
        frames: list[str] = []
        frame: str | None = source
        while frame is not None and frame != target and len(frames) < MAX_CHAIN:
            frames.append(frame)
            parents = self._received(frame)
            # tf2 uses the parent of the newest transform.
            frame = (
                max(parents, key=lambda name: parents[name])
                if parents
                else self._static_parents.get(frame)
            )
        return frames

    def is_static(self, target: str, source: str) -> bool:
        """Return True if tf links ``source`` to ``target`` and all transforms of this chain are
        static.

        The result is valid until ``mounts_version`` changes.
        """
        frames = self.chain(target, source)
        is_linked = bool(frames) and self._static_parents.get(frames[-1]) == target
        return is_linked and not any(self._received(frame) for frame in frames)

    def conflict_between(self, target: str, source: str, is_ego: bool) -> str | None:
        """Mark the frames of the chain from ``source`` to ``target`` as needed. Return the message
        of ``conflict`` for the first of these frames that has a conflict; None if there is none.

        Args:
            target: frame to which points are transformed.
            source: frame from which points are transformed.
            is_ego: True if the transform is looked up at a stamp. The frames of the chain are then
                ego frames: if their stamps go back, all moving transforms are dropped.
        """
        frames = self.chain(target, source)
        self._needed.update(frames)
        if is_ego:
            self._ego.update(frames)
        return next(filter(None, map(self.conflict, frames)), None)

    def stale(self, timeout_s: float, ego: tuple[str, str] = ('', '')) -> dict[str, str]:
        """Return a message, by frame, for each needed frame whose moving transform has not arrived
        for ``timeout_s`` seconds. The transform ``ego`` (parent, child) is left out, because its
        loss is reported as a missing ego pose.
        """
        sentences = {}
        for frame in tuple(self._needed):
            parents = self._received(frame)
            if not parents:
                continue
            parent = max(parents, key=lambda name: parents[name])
            silence_s = self._silence_s(frame, parents[parent])
            if silence_s > timeout_s and (parent, frame) != ego:
                sentences[frame] = (
                    f'the transform {parent} <- {frame} has not arrived for {silence_s:.1f} s; '
                    'its last value is used for extrinsics, but not for ego poses; check its '
                    'publisher'
                )
        return sentences

    def _silence_s(self, frame: str, received_at: float) -> float:
        """Return the time since the last moving transform of ``frame``, which arrived at the wall
        time ``received_at``, in seconds.

        The time is measured with the wall clock and with the node's clock, and the shorter time is
        returned, because the wall time between transforms is long in a slow replay. If the node's
        clock has gone back, the wall time is returned.
        """
        wall_s = monotonic() - received_at
        ros_s = (self._clock.now().nanoseconds - self._received_ns[frame]) * 1e-9
        return min(wall_s, ros_s) if ros_s >= 0 else wall_s

    def drop_later_than(self, now_ns: int) -> None:
        """Drop all moving transforms if one of them is later than ``now_ns`` by more than
        ``BACKWARDS_NS``. Static transforms are kept.
        """
        if any(newest_ns > now_ns + BACKWARDS_NS for newest_ns in self._newest_ns.values()):
            self._clear()

    def _clear(self) -> None:
        self._old_since.clear()
        self.buffer.clear()  # otherwise tf2 rejects older transforms while it stores newer ones
        self._newest_ns.clear()

    def callback(self, data: Any) -> None:
        for transform in data.transforms:
            self._check_and_take(self._take_moving, transform)

    def take_odometry(self, message: Odometry) -> None:
        """Handle odometry like a transform on /tf."""
        self._check_and_take(self._take_moving, transform_from_odometry(message))

    def static_callback(self, data: Any) -> None:
        for transform in data.transforms:
            self._check_and_take(self._take_static, transform)

    def _check_and_take(
        self, take: Callable[[TransformStamped], None], transform: TransformStamped
    ) -> None:
        """Check ``transform`` and call ``take`` with it. If the transform is invalid, or if
        ``take`` raises an exception, report the fault instead.
        """
        transform.header.frame_id = plain_name(transform.header.frame_id)
        transform.child_frame_id = plain_name(transform.child_frame_id)
        try:
            rotation, shift = transform.transform.rotation, transform.transform.translation
            unit_quaternion((rotation.w, rotation.x, rotation.y, rotation.z))
            if not all(abs(value) <= FARTHEST_M for value in (shift.x, shift.y, shift.z)):
                raise ValueError(f'its translation is not finite, or above {FARTHEST_M:.0e} m')
            if not transform.header.frame_id or transform.child_frame_id in (
                '',
                transform.header.frame_id,
            ):
                raise ValueError('parent and child need two different, non-empty names')
            if (
                max(len(transform.header.frame_id), len(transform.child_frame_id))
                > MAX_NAME_LENGTH
            ):
                raise ValueError(f'a frame name has more than {MAX_NAME_LENGTH} characters')
            if stamp_ns(transform) < 0:
                raise ValueError('its stamp is before the year 1970')
            # tf2 accepts a nanosec of 1e9 or more, but rclpy raises an exception when it reads
            # this stamp from the buffer.
            if transform.header.stamp.nanosec >= 10**9:
                raise ValueError('nanosec of its stamp is a second or more')
            self._note_frames(transform.header.frame_id, transform.child_frame_id)
            take(transform)
        except Exception as error:
            frames = (
                f'{transform.header.frame_id[:SHOWN_NAME]!r} <- '
                f'{transform.child_frame_id[:SHOWN_NAME]!r}'
            )
            self._on_fault('bad_tf', f'the transform {frames} is invalid: {error}')

    def _note_frames(self, *frames: str) -> None:
        """Count new frames; raise ValueError if there would be more than ``MAX_FRAMES``."""
        new = {*frames} - self._frames
        if new and len(self._frames) + len(new) > MAX_FRAMES:
            raise ValueError(
                f'the limit of {MAX_FRAMES} tf frames is reached; publish fewer frame names'
            )
        self._frames |= new

    def _take_moving(self, transform: TransformStamped) -> None:
        child, at_ns = transform.child_frame_id, stamp_ns(transform)
        newest_ns = self._newest_ns.get(child, 0)
        if at_ns < newest_ns - BACKWARDS_NS:
            if not self._is_new_time(child):
                return
            self._clear()
            self._before_jump[child] = newest_ns, monotonic()
            self._on_fault(
                'tf_jump',
                f'tf of {child} went back in time: old ego poses are dropped; this is normal when '
                'a bag starts again, otherwise check the clock of its publisher',
            )
        elif self._stamps_alternate(child, at_ns):
            self._returned_at[child] = monotonic()
        self._old_since.pop(child, None)
        self._newest_ns[child] = max(at_ns, self._newest_ns.get(child, 0))
        self._note_parent(child, transform.header.frame_id)
        self.buffer.set_transform(transform, 'default_authority')

    def _is_new_time(self, child: str) -> bool:
        """Return True if a transform of ``child`` whose stamp went back by more than
        ``BACKWARDS_NS`` shows that the time of tf went back.

        Such a transform always shows this if ``child`` is an ego frame, or if no ego frame is
        known yet. If ``child`` is any other frame, the transform is usually only late, and is
        dropped as in tf2. But if a
        needed frame receives only old transforms for ``CONFLICT_S``, the time of this frame went
        back, for example after a restart of its publisher.
        """
        if child in self._ego or not self._ego:
            return True
        since = self._old_since.setdefault(child, monotonic())
        return child in self._needed and monotonic() - since > CONFLICT_S

    def _stamps_alternate(self, child: str, at_ns: int) -> bool:
        """Return True if the stamps of ``child`` went back less than ``CONFLICT_S`` ago, and the
        stamp ``at_ns`` is later than all stamps from before this jump.

        Two publishers with different times cause this; a replay that starts again does not.
        """
        newest_ns, jumped_at = self._before_jump.get(child, (at_ns, 0.0))
        return at_ns > newest_ns and monotonic() - jumped_at < CONFLICT_S

    def _take_static(self, transform: TransformStamped) -> None:
        self.mounts_version += 1
        self.buffer.set_transform_static(transform, 'default_authority')
        self._static_parents[transform.child_frame_id] = transform.header.frame_id

    def _received(self, frame: str) -> dict[str, float]:
        """Return the parents of ``frame`` in moving transforms, and for each parent the time at
        which its last transform arrived. The result is a copy, because the executor's thread may
        add parents at the same time.
        """
        return dict(self._parents.get(frame, {}))

    def _note_parent(self, child: str, parent: str) -> None:
        if child not in self._parents:
            self.mounts_version += 1
        parents = self._parents.setdefault(child, {})
        self._received_ns[child] = self._clock.now().nanoseconds
        parents[parent] = monotonic()
        if len(parents) > MAX_PARENTS:
            del parents[min(parents, key=lambda name: parents[name])]
