"""Ends the launch after the replay of a bag.

A replay passes through these states:

| state | ends when | then |
| --- | --- | --- |
| bring-up | the detector is active; with record:=, the recorder has subscribed | the bag plays |
| bring-up | the detector cannot become active | the launch fails |
| playing | the player ends with exit status 0 | the detector is deactivated |
| playing | the player fails | the launch fails |
| last sets | the detector is inactive, or LAST_SETS_S have passed | the replay is over |
| every state | the process of the detector ends | the launch fails |

The launch ends when all its replays are over.
"""

from __future__ import annotations

from typing import Any

from launch import LaunchContext
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler, Shutdown, TimerAction
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from bevdepth_ros.bring_up.lifecycle import SIGNAL_S, is_interrupted

LAST_SETS_S = 60.0
"""At the end of a bag, the detector has this time, in seconds, to process the last image sets."""
LAST_MESSAGES_S = 0.5
"""Time, in seconds, for which the launch continues after the detector is inactive, so that
subscribers can receive the last result."""
_RUNNING = 'bevdepth_running_replays'


def add_replay(context: LaunchContext, detector: LifecycleNode) -> None:
    """Make the launch wait for the end of the replay that ``detector`` processes."""
    context.extend_globals({_RUNNING: {*_running(context), detector}})


def _running(context: LaunchContext) -> set[LifecycleNode]:
    return context.get_locals_as_dict().get(_RUNNING, set())


def end_of_replay(detector: LifecycleNode, player: Node) -> list[RegisterEventHandler]:
    """Return actions that deactivate ``detector`` after ``player`` has ended, and then end the
    replay. If the process of ``detector`` ends before the launch, the actions make the launch
    fail.
    """

    def bag_ended(event: Any, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        if event.returncode:
            reason = 'the bag was not played to its end; the output above contains the reason'
            return _failure(reason, event.returncode)
        deactivate = ChangeState(
            lifecycle_node_matcher=matches_action(detector),
            transition_id=Transition.TRANSITION_DEACTIVATE,
        )
        return [EmitEvent(event=deactivate), _mark_finished(detector, after_s=LAST_SETS_S)]

    def detector_ended(event: Any, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        reason = (
            f'{detector.node_name} ended before the end of the replay; its output above contains '
            'the reason'
        )
        return _failure(reason, event.returncode)

    inactive = OnStateTransition(
        target_lifecycle_node=detector,
        start_state='deactivating',
        goal_state='inactive',
        entities=[_mark_finished(detector, after_s=LAST_MESSAGES_S)],
    )
    return [
        RegisterEventHandler(inactive),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=bag_ended)),
        RegisterEventHandler(OnProcessExit(target_action=detector, on_exit=detector_ended)),
    ]


def _failure(reason: str, return_code: int) -> list[TimerAction]:
    """Make the launch fail with the message ``reason`` because a process ended. If a signal may
    have ended the process, return an action that makes the launch fail after ``SIGNAL_S``, unless
    the launch shuts down before.
    """

    def fail(context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise RuntimeError(reason)

    if is_interrupted(return_code):
        return [TimerAction(period=SIGNAL_S, actions=[OpaqueFunction(function=fail)])]
    raise RuntimeError(reason)


def _mark_finished(detector: LifecycleNode, after_s: float) -> TimerAction:
    """Return an action that marks the replay of ``detector`` as finished; the launch ends after
    the last replay.
    """

    def finish(context: LaunchContext) -> list:
        running = _running(context)
        left = running - {detector}
        context.extend_globals({_RUNNING: left})
        return [Shutdown(reason='end of the bag')] if running and not left else []

    return TimerAction(period=after_s, actions=[OpaqueFunction(function=finish)])
