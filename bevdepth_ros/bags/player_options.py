"""What the player is asked to do; the names of the options are those of ``ros2 bag play`` where it
has them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field

from rclpy.exceptions import InvalidTopicNameException
from rclpy.utilities import remove_ros_args
from rclpy.validate_topic_name import validate_topic_name


@dataclass(frozen=True)
class Options:
    """What is played and how.

    Attributes:
        rate: speed relative to real time, greater than 0.
        clock: publish /clock.
        start_s: part of the bag to leave out at its beginning, seconds.
        duration_s: how much of it to play, seconds; None: to its end.
        topics: the ones to play; empty: all.
        exclude_topics: the ones to leave out.
        remap: recorded name to the one that it is published under.
        paused: begin with a pause.
        step_s: how far a step goes, seconds.
    """

    rate: float = 1.0
    clock: bool = False
    start_s: float = 0.0
    duration_s: float | None = None
    topics: tuple[str, ...] = ()
    exclude_topics: tuple[str, ...] = ()
    remap: dict[str, str] = field(default_factory=dict)
    paused: bool = False
    step_s: float = 0.1


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line gives; None: that of this process."""
    parser = argparse.ArgumentParser('player', description='Replay a rosbag2 (sqlite3 or mcap).')
    parser.add_argument('bag', help='folder of the bag, or a single .db3 or .mcap file')
    parser.add_argument(
        '--rate', type=_positive, default=1.0, help='speed relative to real time (default 1.0)'
    )
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--clock', action='store_true', help='publish /clock at 100 Hz')
    parser.add_argument(
        '--start-offset',
        '--start',
        type=_not_negative,
        default=0.0,
        metavar='S',
        help='leave out the first S seconds',
    )
    parser.add_argument(
        '--playback-duration',
        '--duration',
        type=_positive,
        metavar='S',
        help='end after S seconds of the bag',
    )
    parser.add_argument(
        '--topics', nargs='+', default=[], metavar='NAME', help='play these topics alone'
    )
    parser.add_argument(
        '--exclude-topics', nargs='+', default=[], metavar='NAME', help='leave these topics out'
    )
    parser.add_argument(
        '--remap',
        nargs='+',
        type=_renaming,
        default=[],
        metavar='OLD:=NEW',
        help='publish topics under other names',
    )
    parser.add_argument(
        '--start-paused',
        action='store_true',
        help='wait for the service ~/resume, ~/step or ~/play_next',
    )
    parser.add_argument(
        '--step',
        type=_positive,
        default=0.1,
        metavar='S',
        help='how far the service ~/step plays (default 0.1)',
    )
    parser.add_argument(
        '--wait',
        type=float,
        default=10.0,
        metavar='S',
        help='wait at most S seconds for a subscriber (default 10)',
    )
    parser.add_argument(
        '--linger',
        type=float,
        default=0.5,
        metavar='S',
        help='stay S seconds after the last message (default 0.5)',
    )
    return parser.parse_args(remove_ros_args(argv or sys.argv)[1:])


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be greater than 0, got {text}')
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'must not be negative, got {text}')
    return value


def _renaming(text: str) -> tuple[str, str]:
    old, found, new = text.partition(':=')
    if not (old and found and new):
        raise argparse.ArgumentTypeError(f'must be OLD:=NEW, got {text}')
    try:
        validate_topic_name(new)
    except InvalidTopicNameException as error:
        raise argparse.ArgumentTypeError(f'{new} is no topic name: {error}') from error
    return old, new


def options_of(given: argparse.Namespace) -> Options:
    """Return what is played and how."""
    return Options(
        given.rate, given.clock, given.start_offset, given.playback_duration, tuple(given.topics),
        tuple(given.exclude_topics),
        dict(given.remap), given.start_paused, given.step,
    )  # fmt: skip
