"""Extrinsics and ego poses from tf2, without ever blocking."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import numpy as np
import yaml
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from tf2_ros import Buffer, ExtrapolationException, TransformException, TransformListener

from bevdepth_core.geometry import rigid_from_quaternion

LATEST = Time()
"""tf2's name for "the newest there is"."""
ODOMETRY_QUEUE = 100
"""As many messages as tf2 keeps of /tf."""
TF_FAULTS = ('bad_tf', 'tf_jump')
"""What can be wrong with tf messages: unusable numbers or names, and time that goes back."""
BACKWARDS_NS = 250_000_000
"""A transform this much older than the newest of the same frame is no late one: time went back."""
DISPUTE_S = 1.0
"""For how long a frame that was given two parents is not believed."""
MOST_PARENTS = 4
"""Parents that are remembered of a frame."""
LONGEST_CHAIN = 20
"""Frames between the base frame and the fixed frame that are looked at for a dispute."""


class TransformMissingError(Exception):
    """tf cannot answer; the message says what is missing."""


def stamp_ns_of(transform: TransformStamped) -> int:
    """Return the stamp of ``transform`` in nanoseconds."""
    return transform.header.stamp.sec * 10**9 + transform.header.stamp.nanosec


def matrix_from_transform(transform: TransformStamped) -> np.ndarray:
    """Return (4, 4) float64, header frame from child frame, metres.

    Raises:
        ValueError: the rotation is no unit quaternion.
    """
    rotation, translation = transform.transform.rotation, transform.transform.translation
    return rigid_from_quaternion((rotation.w, rotation.x, rotation.y, rotation.z), (translation.x, translation.y, translation.z))


def transform_from_odometry(message: Odometry) -> TransformStamped:
    """Return the pose of an odometry message as a transform from its frame to its child frame."""
    transform = TransformStamped(header=message.header, child_frame_id=message.child_frame_id)
    position, pose = message.pose.pose.position, transform.transform
    pose.translation.x, pose.translation.y, pose.translation.z = position.x, position.y, position.z
    pose.rotation = message.pose.pose.orientation
    return transform


class _CarefulListener(TransformListener):
    """Listens to tf and takes nothing that would spoil what is known; no callback raises, since that would end the node."""

    def __init__(self, buffer: Buffer, node: Node, on_fault: Callable[[str, str], None]):
        self._on_fault = on_fault
        self._newest_ns: dict[str, int] = {}
        self._parents: dict[str, dict[str, float]] = {}
        self._static_parents: dict[str, str] = {}
        super().__init__(buffer, node)

    def disputed(self, frame: str) -> str | None:
        """Return a sentence when several publishers lately gave ``frame`` different parents, otherwise None."""
        recent = monotonic() - DISPUTE_S
        parents = {parent for parent, heard_at in self._heard(frame).items() if heard_at > recent}
        parents |= {self._static_parents[frame]} if parents and frame in self._static_parents else set()
        if len(parents) < 2:
            return None
        return f'tf says that {frame} is a child of {" and of ".join(sorted(parents))}: a frame has one parent, stop the other publisher'

    def dispute_between(self, target: str, source: str) -> str | None:
        """Return what ``disputed`` says of the frames from ``source`` up to ``target``."""
        frame = source
        for _ in range(LONGEST_CHAIN):
            if frame == target:
                return None
            sentence = self.disputed(frame)
            if sentence:
                return sentence
            parents = self._heard(frame)
            frame = max(parents, key=parents.get) if parents else self._static_parents.get(frame)
            if frame is None:
                return None
        return None

    def forget(self) -> None:
        """Take up moving transforms of any time again."""
        self._newest_ns.clear()

    def callback(self, data) -> None:
        for transform in data.transforms:
            self._guarded(self._take_moving, transform)

    def take_odometry(self, message: Odometry) -> None:
        """Take odometry as if it came on /tf."""
        self._guarded(self._take_moving, transform_from_odometry(message))

    def static_callback(self, data) -> None:
        for transform in data.transforms:
            self._guarded(self._take_static, transform)

    def _guarded(self, take: Callable[[TransformStamped], None], transform: TransformStamped) -> None:
        try:
            matrix = matrix_from_transform(transform)
            if not np.isfinite(matrix).all():
                raise ValueError('its translation is not finite')
            if not transform.header.frame_id or transform.child_frame_id in ('', transform.header.frame_id):
                raise ValueError('it needs two different names')
            if stamp_ns_of(transform) < 0:
                raise ValueError('its stamp is before the year 1970')
            if transform.header.stamp.nanosec >= 10**9:  # tf2 would hand it back as a time that ROS cannot represent
                raise ValueError('its stamp has more nanoseconds than a second')
            take(transform)
        except Exception as error:
            frames = f'{transform.header.frame_id!r} <- {transform.child_frame_id!r}'
            self._on_fault('bad_tf', f'a transform {frames} cannot be used: {error}')

    def _take_moving(self, transform: TransformStamped) -> None:
        child, stamp_ns = transform.child_frame_id, stamp_ns_of(transform)
        if stamp_ns < self._newest_ns.get(child, 0) - BACKWARDS_NS:
            self.buffer.clear()  # tf2 would refuse the past for as long as it remembers the future
            self.forget()
            self._on_fault('tf_jump', f'tf of {child} went back in time: ego poses are forgotten')
        self._newest_ns[child] = max(stamp_ns, self._newest_ns.get(child, 0))
        self._note_parent(child, transform.header.frame_id)
        self.buffer.set_transform(transform, 'default_authority')

    def _take_static(self, transform: TransformStamped) -> None:
        self.buffer.set_transform_static(transform, 'default_authority')
        self._static_parents[transform.child_frame_id] = transform.header.frame_id

    def _heard(self, frame: str) -> dict[str, float]:
        """Return when each parent of ``frame`` was last heard of; a copy, since the executor goes on meanwhile."""
        return dict(self._parents.get(frame, {}))

    def _note_parent(self, child: str, parent: str) -> None:
        parents = self._parents.setdefault(child, {})
        parents[parent] = monotonic()
        if len(parents) > MOST_PARENTS:
            del parents[min(parents, key=parents.get)]


class Transforms:
    """What is known of tf; look-ups are safe from any thread."""

    _listener: _CarefulListener | None = None

    def __init__(self, node: Node, buffer_s: float, on_fault: Callable[[str, str], None], odometry_topic: str = ''):
        """Subscribe to /tf and /tf_static on ``node`` and remember ``buffer_s`` seconds.

        Args:
            node: whose executor takes the messages.
            buffer_s: seconds.
            on_fault: receives a kind, one of ``TF_FAULTS``, and a sentence.
            odometry_topic: odometry that is taken as tf, too; empty for none.
        """
        self._node = node
        self._buffer = Buffer(cache_time=Duration(seconds=buffer_s))
        self._listener = _CarefulListener(self._buffer, node, on_fault)
        qos = QoSProfile(depth=ODOMETRY_QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._odometry = node.create_subscription(Odometry, odometry_topic, self._listener.take_odometry, qos) if odometry_topic else None

    def close(self) -> None:
        """End the subscriptions."""
        self._listener.unregister()
        if self._odometry is not None:
            self._node.destroy_subscription(self._odometry)
            self._odometry = None

    def clear(self) -> None:
        """Forget moving transforms; static ones stay. Needed when time goes backwards, since tf2 refuses old data."""
        self._buffer.clear()
        self._listener.forget()

    def knows(self, target: str, source: str, stamp_ns: int = 0) -> bool:
        """Return whether tf has target_from_source at ``stamp_ns``, or at any time when that is 0."""
        return self._buffer.can_transform(target, source, Time(nanoseconds=stamp_ns))

    def latest(self, target: str, source: str) -> np.ndarray:
        """Return the newest (4, 4) target_from_source.

        Raises:
            TransformMissingError: tf does not link the frames.
        """
        return self._lookup(target, source, LATEST)

    def at(self, target: str, source: str, stamp_ns: int, clamp_s: float = 0.0) -> np.ndarray:
        """Return (4, 4) target_from_source at ``stamp_ns``, interpolated.

        Args:
            target: frame of the result.
            source: frame whose points are transformed.
            stamp_ns: time in nanoseconds.
            clamp_s: a stamp at most this far before the first or after the last transform takes that one, seconds.

        Raises:
            TransformMissingError: tf does not link the frames, or not at that time.
        """
        wanted = Time(nanoseconds=stamp_ns)
        clamp_ns = round(clamp_s * 1e9)
        if not clamp_ns or self.knows(target, source, stamp_ns):
            return self._lookup(target, source, wanted)
        last_ns = self._last_ns(target, source)
        if last_ns is not None and abs(stamp_ns - last_ns) <= clamp_ns:
            return self._lookup(target, source, Time(nanoseconds=last_ns))
        return self._lookup(target, source, Time(nanoseconds=self._first_ns(target, source, stamp_ns, clamp_ns)))

    def _last_ns(self, target: str, source: str) -> int | None:
        try:
            return self._buffer.get_latest_common_time(target, source).nanoseconds
        except TransformException:
            return None

    def _first_ns(self, target: str, source: str, stamp_ns: int, clamp_ns: int) -> int:
        """Return the earliest known time in (stamp, stamp + clamp] to a microsecond, or ``stamp_ns`` when there is none."""
        unknown, known = stamp_ns, stamp_ns + clamp_ns
        if not self.knows(target, source, known):
            return stamp_ns
        while known - unknown > 1000:
            middle = (unknown + known) // 2
            if self.knows(target, source, middle):
                known = middle
            else:
                unknown = middle
        return known

    def _lookup(self, target: str, source: str, time: Time) -> np.ndarray:
        dispute = self._listener and self._listener.dispute_between(target, source)
        if dispute:
            raise TransformMissingError(dispute)
        try:
            return matrix_from_transform(self._buffer.lookup_transform(target, source, time))
        except ExtrapolationException as error:
            raise TransformMissingError(self._time_sentence(target, source, time)) from error
        except (TransformException, ValueError) as error:
            raise TransformMissingError(self._link_sentence(target, source, error)) from error

    def _time_sentence(self, target: str, source: str, time: Time) -> str:
        last_ns = self._last_ns(target, source)
        if not last_ns:
            return f'tf has no {target} <- {source} yet'
        return f'tf has {target} <- {source}, but the image is {(time.nanoseconds - last_ns) * 1e-9:+.3f} s from its newest'

    def _link_sentence(self, target: str, source: str, error: Exception) -> str:
        try:
            frames = yaml.safe_load(self._buffer.all_frames_as_yaml()) or {}
            known = sorted(map(str, set(frames) | {frame['parent'] for frame in frames.values()}))
        except (yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError, RecursionError):  # frames named like YAML
            return f'tf has no {target} <- {source}: {error}'
        unknown = [frame for frame in (target, source) if frame not in known]
        if not known:
            return f'tf has no {target} <- {source}: nothing was received on /tf and /tf_static'
        if unknown:
            return f'tf has no {target} <- {source}: it does not know {" and ".join(unknown)}, only {", ".join(known)}'
        return f'tf has no {target} <- {source}: {error}'
