"""Parses the command line of the player. The options that also exist in ``ros2 bag play`` have the
same names.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from bevdepth_ros.process import split_arguments

CLOCK_TOPIC = '/clock'


@dataclass(frozen=True)
class Options:
    """Topics, part of the bag, speed and controls of a replay.

    Attributes:
        rate: speed relative to real time, greater than 0.
        clock: True to publish /clock.
        start_s: length of the part at the beginning of the bag that is not played, seconds.
        duration_s: length of the part that is played, seconds; None to play to the end.
        topics: names of the topics to play. If both ``topics`` and ``regex`` are empty, all topics
            are played.
        exclude_topics: names of topics to leave out.
        remap: recorded topic name -> published topic name.
        paused: True to begin with a pause.
        step_s: bag time that one step plays, seconds.
        regex: regular expression; topics with matching names are played in addition to ``topics``.
        exclude_regex: regular expression; topics with matching names are left out.
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
    regex: str = ''
    exclude_regex: str = ''

    def chooses(self, name: str) -> bool:
        """Return True if the topic ``name`` is played. A regular expression must match the whole
        name, as in rosbag2.
        """
        if name in self.exclude_topics or (self.clock and name == CLOCK_TOPIC):
            return False
        if self.exclude_regex and re.fullmatch(self.exclude_regex, name):
            return False
        if not self.topics and not self.regex:
            return True
        return name in self.topics or bool(self.regex and re.fullmatch(self.regex, name))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse ``argv``; None means the command line of this process."""
    parser = argparse.ArgumentParser(
        'player', description='Replay rosbag2 recordings (sqlite3 or mcap).'
    )
    add = parser.add_argument
    # fmt: off
    add('bag', nargs='*',
        help='folder of a bag, or a storage file; several bags are played together')
    add('--input', '-i', nargs='+', action='append', default=[], metavar='BAG',
        help='another bag; a storage identifier after BAG, as in ros2 bag play, is ignored')
    add('--rate', '-r', type=positive, default=1.0,
        help='speed relative to real time (default 1.0)')
    add('--loop', '-l', action='store_true', help='start again at the end')
    add('--delay', '-d', type=not_negative, default=0.0, metavar='S',
        help='wait S seconds before the start, and before each repetition')
    add('--clock', action='store_true', help='publish /clock at 100 Hz')
    add('--start-offset', '--start', type=not_negative, default=0.0, metavar='S',
        help='leave out the first S seconds')
    add('--playback-duration', '--duration', type=positive, metavar='S',
        help='end after S seconds of the bag')
    add('--topics', nargs='+', default=[], metavar='NAME', help='play only these topics')
    add('--regex', '-e', type=_pattern, default='', metavar='PATTERN',
        help='play only topics whose whole name matches the regular expression')
    add('--exclude-topics', nargs='+', default=[], metavar='NAME', help='leave these topics out')
    add('--exclude-regex', '-x', type=_pattern, default='', metavar='PATTERN',
        help='leave out topics whose whole name matches the regular expression')
    add('--remap', '-m', nargs='+', type=_renaming, default=[], metavar='OLD:=NEW',
        help='publish topics under other names')
    add('--start-paused', '-p', action='store_true',
        help='begin paused; the services ~/resume, ~/step and ~/play_next continue the replay')
    add('--step', type=positive, default=0.1, metavar='S',
        help='the service ~/step plays S seconds of the bag (default 0.1)')
    add('--wait', type=not_negative, default=10.0, metavar='S',
        help='wait at most S seconds for a subscriber (default 10)')
    add('--linger', type=not_negative, default=0.5, metavar='S',
        help='continue to run for S seconds after the last message (default 0.5)')
    # fmt: on
    given = parser.parse_args(split_arguments(argv or sys.argv)[0][1:])
    if not bags_of(given):
        parser.error('give the path of a bag to play')
    return given


def bags_of(given: argparse.Namespace) -> list[str]:
    """Return the bags that the command line names."""
    return [*given.bag, *(words[0] for words in given.input)]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'must be a number, got {text}') from None


def positive(text: str) -> float:
    """Return the value of an option as a number. If the number is not finite or not greater than
    0, raise an error that argparse prints.
    """
    value = _number(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be a finite number greater than 0, got {text}')
    return value


def not_negative(text: str) -> float:
    """Return the value of an option as a number. If the number is not finite or is negative, raise
    an error that argparse prints.
    """
    value = _number(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be a finite number of at least 0, got {text}')
    return value


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f'{text} is not a regular expression: {error}') from error
    return text


def _renaming(text: str) -> tuple[str, str]:
    old, separator, new = text.partition(':=')
    if not (old and separator and new):
        raise argparse.ArgumentTypeError(f'must be OLD:=NEW, got {text}')
    try:
        validate_topic_name(new)
    except InvalidTopicNameException as error:
        raise argparse.ArgumentTypeError(f'{new} is not a topic name: {error}') from error
    return old, new


def options_of(given: argparse.Namespace) -> Options:
    """Return the parsed command line as ``Options``."""
    return Options(
        rate=given.rate,
        clock=given.clock,
        start_s=given.start_offset,
        duration_s=given.playback_duration,
        topics=tuple(given.topics),
        exclude_topics=tuple(given.exclude_topics),
        remap=dict(given.remap),
        paused=given.start_paused,
        step_s=given.step,
        regex=given.regex,
        exclude_regex=given.exclude_regex,
    )
