"""Looks up extrinsics and ego poses in tf2 without blocking.

The terms of this module, in addition to the terms of ``tf_listener``:

* ``target_from_source``: (4, 4) matrix that transforms points from the frame ``source`` to the
  frame ``target``, in meters. It is also the pose of ``source`` in ``target``. Messages show it as
  ``target <- source``.
* Mount: a ``target_from_source`` whose chain has only static transforms. Most extrinsics are
  mounts.
* Early pose: ego pose that is looked up when an image arrives, before its image set is complete.
* Clamping: if a pose is needed shortly before the first or shortly after the last transform in
  tf, the pose at the time of this transform is used instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import yaml
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from tf2_ros import Buffer, ExtrapolationException, TransformException

from bevdepth_ros.rig.tf_listener import (
    MAX_NAME_LENGTH,
    SHOWN_NAME,
    CheckedTransformListener,
    matrix_from_transform,
    plain_name,
)

LATEST = Time()
"""tf2 returns the newest transform for this time."""
SHOWN_FRAMES = 20
"""Largest number of existing frames that a message about a missing frame lists."""
MAX_EARLY = 64
"""Largest number of poses that are looked up early and stored until they are used. This number is
enough for several image sets."""
ODOMETRY_QUEUE = 100
"""Depth of the queue of the odometry subscription; tf2 uses the same depth for /tf."""


class TransformMissingError(Exception):
    """tf does not have the transform, or publishers of the transform conflict. The message gives
    the reason.
    """


TF_TOPICS = ('/tf', '/tf_static')


class Transforms:
    """Subscribes to tf; any thread may look up transforms.

    The name of a source frame may begin with a slash, as in ROS 1.
    """

    # Values of a subclass that reads transforms from a recording, and therefore does not call
    # __init__ of this class.
    _listener: CheckedTransformListener | None = None
    _tf_topics = TF_TOPICS

    def __init__(
        self,
        node: Node,
        buffer_s: float,
        on_fault: Callable[[str, str], None],
        odometry_topic: str = '',
        base_frame: str = '',
    ) -> None:
        """Subscribe to /tf and /tf_static on ``node`` and store ``buffer_s`` seconds.

        Args:
            node: node that subscribes; its executor receives the messages.
            buffer_s: length of the buffer, seconds.
            on_fault: called with a kind and a message. The kind is ``bad_tf`` if a transform is
                invalid or rejected, ``tf_jump`` if the time of tf went back, or ``odometry_frame``
                if tf does not link the child frame of odometry to ``base_frame``.
            odometry_topic: topic of odometry whose poses are used like transforms of /tf. If
                empty, no odometry is used.
            base_frame: frame of the vehicle. If empty, the child frame of odometry is not checked.
        """
        self._node, self._on_fault = node, on_fault
        self._base_frame = base_frame
        self._odometry_topic = node.resolve_topic_name(odometry_topic) if odometry_topic else ''
        self._has_odometry = False
        self._tf_topics = tuple(map(node.resolve_topic_name, TF_TOPICS))
        self._mounts: dict[tuple[str, str], tuple[int, np.ndarray]] = {}
        self._early: OrderedDict[tuple[str, str, int], np.ndarray] = OrderedDict()
        self._buffer = Buffer(cache_time=Duration(seconds=buffer_s))
        self._listener = CheckedTransformListener(self._buffer, node, on_fault)
        qos = QoSProfile(depth=ODOMETRY_QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._odometry = (
            node.create_subscription(Odometry, odometry_topic, self._take_odometry, qos)
            if odometry_topic
            else None
        )

    def close(self) -> None:
        """End the subscriptions."""
        if self._listener is not None:
            self._listener.unregister()
        if self._odometry is not None:
            self._node.destroy_subscription(self._odometry)
            self._odometry = None

    def missing_odometry(self) -> str:
        """Return the topic of odometry if no message has arrived on this topic, otherwise an empty
        string.
        """
        return '' if self._has_odometry else self._odometry_topic

    def _take_odometry(self, message: Odometry) -> None:
        self._has_odometry = True
        child, base = plain_name(message.child_frame_id), self._base_frame
        if base and child != base and not self.has_transform(base, child):
            sentence = (
                f'odometry on {self._odometry_topic} has the child frame {child[:SHOWN_NAME]!r}, '
                f'which tf does not link to base_frame {base!r}: set base_frame, or publish a '
                'transform between these frames'
            )
            self._on_fault('odometry_frame', sentence)
        if self._listener is not None:
            self._listener.take_odometry(message)

    def stale(self, timeout_s: float, ego: tuple[str, str] = ('', '')) -> dict[str, str]:
        """Return a message for each frame in use whose moving transform has not arrived for
        ``timeout_s`` seconds, except for the transform ``ego`` (parent, child).
        """
        return {} if self._listener is None else self._listener.stale(timeout_s, ego)

    def clock_went_back(self, now_ns: int) -> None:
        """Drop the early poses. Also drop all moving transforms if one of them is later than the
        current time ``now_ns`` by more than ``BACKWARDS_NS``. Static transforms are kept.

        When a replay starts again, its first transforms may arrive before the clock goes back.
        When they arrive, the listener drops the transforms of the last replay. This method keeps
        the first transforms, because they are not later than the current time.
        """
        self._early.clear()
        if self._listener is not None:
            self._listener.drop_later_than(now_ns)

    def has_transform(self, target: str, source: str, stamp_ns: int = 0) -> bool:
        """Return True if tf has target_from_source at ``stamp_ns``. If ``stamp_ns`` is 0, return
        True if tf has this transform at any time.
        """
        source = plain_name(source)
        if not stamp_ns and self._mount(target, source) is not None:
            return True
        if (target, source, stamp_ns) in self._early:
            return True
        if len(source) > MAX_NAME_LENGTH:
            return False
        found, _ = self._buffer.can_transform_core(target, source, Time(nanoseconds=stamp_ns))
        return bool(found)

    def may_arrive(self, target: str, source: str, stamp_ns: int) -> bool:
        """Return True if tf does not have target_from_source at ``stamp_ns`` but may receive it
        later.

        Transforms arrive in the order of time. If tf has a newer transform, the missing transform
        is no longer expected.
        """
        if self.has_transform(target, source, stamp_ns):
            return False
        last_ns = self._last_ns(target, plain_name(source))
        return last_ns is None or last_ns < stamp_ns

    def latest(self, target: str, source: str) -> np.ndarray:
        """Return the newest (4, 4) target_from_source.

        Raises:
            TransformMissingError: tf does not link the frames, or publishers conflict.
        """
        source = plain_name(source)
        mount = self._mount(target, source)
        if mount is None:
            version = self._listener.mounts_version if self._listener else 0
            mount = self._lookup(target, source, LATEST)
            if self._listener and self._listener.is_static(target, source):
                self._mounts[target, source] = version, mount
        return mount.copy()

    def _mount(self, target: str, source: str) -> np.ndarray | None:
        """Return the stored mount; None if no mount is stored, or if a transform that arrived
        since then may have changed it. A look-up in tf2 would take 0.1 ms.
        """
        if self._listener is None:
            return None
        version, mount = self._mounts.get((target, source), (-1, None))
        return mount if version == self._listener.mounts_version else None

    def lookup_at(
        self, target: str, source: str, stamp_ns: int, clamp_s: float = 0.0
    ) -> np.ndarray:
        """Return (4, 4) target_from_source at ``stamp_ns``, interpolated.

        Args:
            target: frame to which points are transformed.
            source: frame from which points are transformed.
            stamp_ns: time in nanoseconds.
            clamp_s: if ``stamp_ns`` is before the first or after the last transform in tf by at
                most this time, seconds, the first or the last transform is returned.

        Raises:
            TransformMissingError: tf does not link the frames, tf has no transform for this time,
                or publishers conflict.
        """
        source, clamp_ns = plain_name(source), round(clamp_s * 1e9)
        early = self._early.pop((target, source, stamp_ns), None)
        if early is not None:
            return early
        try:
            return self._lookup(target, source, Time(nanoseconds=stamp_ns))
        except TransformMissingError as error:
            if not clamp_ns or not isinstance(error.__cause__, ExtrapolationException):
                raise
        last_ns = self._last_ns(target, source)
        if last_ns is not None and abs(stamp_ns - last_ns) <= clamp_ns:
            return self._lookup(target, source, Time(nanoseconds=last_ns))
        return self._lookup(
            target, source, Time(nanoseconds=self._first_ns(target, source, stamp_ns, clamp_ns))
        )

    def lookup_early(self, target: str, source: str, stamp_ns: int) -> None:
        """If tf already has the transform, store it for a later call of ``lookup_at``, which then
        saves the 0.1 ms of a look-up.
        """
        source = plain_name(source)
        key = target, source, stamp_ns
        self._early.pop(key, None)
        with suppress(TransformException, ValueError):
            time = Time(nanoseconds=stamp_ns)
            if len(source) <= MAX_NAME_LENGTH and not self._conflict(target, source, time):
                self._early[key] = self._transform(target, source, time)
        while len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)

    def _last_ns(self, target: str, source: str) -> int | None:
        """Return the latest time at which tf has the transform; None if tf does not link the
        frames.
        """
        try:
            return self._buffer.get_latest_common_time(target, source).nanoseconds
        except TransformException:
            return None

    def _first_ns(self, target: str, source: str, stamp_ns: int, clamp_ns: int) -> int:
        """Return the earliest time after ``stamp_ns`` at which tf has the transform, with a
        resolution of a microsecond. If tf does not have the transform at ``stamp_ns + clamp_ns``,
        return ``stamp_ns``, for which the look-up then fails.

        The time is found by bisection, because tf2 has no function that returns it.
        """
        unknown, available = stamp_ns, stamp_ns + clamp_ns
        if not self.has_transform(target, source, available):
            return stamp_ns
        while available - unknown > 1000:
            middle = (unknown + available) // 2
            if self.has_transform(target, source, middle):
                available = middle
            else:
                unknown = middle
        return available

    def _lookup(self, target: str, source: str, time: Time) -> np.ndarray:
        if len(source) > MAX_NAME_LENGTH:
            sentence = (
                f'tf has no {target} <- {source[:SHOWN_NAME]}...: the name of a frame has at most '
                f'{MAX_NAME_LENGTH} characters'
            )
            raise TransformMissingError(sentence)
        conflict = self._conflict(target, source, time)
        if conflict:
            raise TransformMissingError(conflict)
        try:
            return self._transform(target, source, time)
        except ExtrapolationException as error:
            raise TransformMissingError(self._time_sentence(target, source, time)) from error
        except (TransformException, ValueError) as error:
            raise TransformMissingError(self._link_sentence(target, source, error)) from error

    def _conflict(self, target: str, source: str, time: Time) -> str | None:
        """Return a message if publishers of a transform in the chain conflict, otherwise None."""
        if self._listener is None:
            return None
        return self._listener.conflict_between(target, source, is_ego=time is not LATEST)

    def _transform(self, target: str, source: str, time: Time) -> np.ndarray:
        """Return the (4, 4) transform; raise TransformException or ValueError if there is none."""
        # lookup_transform would first call can_transform, which takes as long as the look-up.
        return matrix_from_transform(self._buffer.lookup_transform_core(target, source, time))

    def _time_sentence(self, target: str, source: str, time: Time) -> str:
        """Return a message for a transform that tf has, but not at ``time``."""
        last_ns = self._last_ns(target, source)
        if not last_ns:
            return f'tf has no {target} <- {source} yet'
        distance_s = (time.nanoseconds - last_ns) * 1e-9
        side = 'before' if distance_s < 0 else 'after'
        return (
            f'tf has {target} <- {source}, but not at the stamp, which is '
            f'{abs(distance_s):.3f} s {side} the newest transform'
        )

    def _link_sentence(self, target: str, source: str, error: Exception) -> str:
        """Return a message for a transform that tf has at no time: a frame does not exist, or the
        frames are not linked. ``error`` is the exception of tf2.
        """
        try:
            frames = yaml.safe_load(self._buffer.all_frames_as_yaml()) or {}
            available = sorted(
                map(str, set(frames) | {frame['parent'] for frame in frames.values()})
            )
        except (
            yaml.YAMLError,
            TypeError,
            AttributeError,
            KeyError,
            ValueError,
            RecursionError,
        ):  # tf2 does not quote the names of frames, so they can make the YAML invalid
            return f'tf has no {target} <- {source}: {error}'
        unknown = [frame for frame in (target, source) if frame not in available]
        if not available:
            topics = ' and '.join(self._tf_topics)
            return f'tf has no {target} <- {source}: nothing was received on {topics}'
        if unknown:
            shown = ', '.join(available[:SHOWN_FRAMES]) + (
                f' and {len(available) - SHOWN_FRAMES} others'
                if len(available) > SHOWN_FRAMES
                else ''
            )
            names = ' and '.join(_with_hint(frame, available) for frame in unknown)
            return f'tf has no {target} <- {source}: tf does not contain {names}, only {shown}'
        return f'tf has no {target} <- {source}: {error}'


def _with_hint(frame: str, available: Sequence[str]) -> str:
    """Return the name ``frame``, with a hint if names in ``available`` differ from it only in
    their prefix or in upper and lower case.
    """
    name = _bare_name(frame)
    similar = [one for one in available if _bare_name(one) == name]
    return f'{frame} (did you mean {" or ".join(similar[:3])}?)' if similar else frame


def _bare_name(frame: str) -> str:
    return frame.rpartition('/')[2].casefold()
