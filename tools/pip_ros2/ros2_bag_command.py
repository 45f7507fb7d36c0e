"""``ros2 bag`` for the pip-only ROS 2: plays a bag with the player of this project, or prints
information about a bag.
"""

from __future__ import annotations

import argparse
import sys

from ros2cli.command import CommandExtension

MISSING = ('record', 'burst', 'convert', 'list', 'reindex')
"""Verbs that exist only in the ``ros2 bag`` of an installed ROS 2."""
VERBS = (
    'the ros2 bag of the pip-only ROS 2 has the verbs play and info; to record what the detector '
    'publishes, run `ros2 launch bevdepth_ros detect.launch.py record:=FOLDER`, and for other '
    'topics use the ros2 bag of an installed ROS 2'
)


class BagCommand(CommandExtension):
    """Play a bag, or print its content."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare the verbs play and info, and the verbs in ``MISSING``, for which ``main``
        returns an error message.
        """
        verbs = parser.add_subparsers(dest='verb', metavar='{play,info}')
        _add_with_words(verbs, 'play', help='play a bag')
        info = verbs.add_parser('info', help='print topics, counts and duration')
        info.add_argument('bag')
        for verb in MISSING:
            _add_with_words(verbs, verb)

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | str:
        """Run the verb; return 0, or an error message if the verb fails."""
        if args.verb is None:
            return VERBS
        if args.verb in MISSING:
            return f'there is no ros2 bag {args.verb}: {VERBS}'
        if args.verb == 'play':
            from bevdepth_ros.bags.player import main  # slow, because it imports numpy and rclpy

            main(['ros2 bag play', *args.words])
            return 0
        from bevdepth_ros.bags.reader import Bag, BagError

        try:
            with Bag(args.bag, lambda text: print(text, file=sys.stderr)) as bag:
                print(description(bag))
        except (BagError, OSError) as error:
            return str(error)
        return 0


def _add_with_words(verbs: argparse._SubParsersAction, name: str, **options: str) -> None:
    """Add a verb that accepts any words after its name.

    The prefix of options is set to the NUL character. No word begins with this character, so
    argparse treats no word as an option.
    """
    parser = verbs.add_parser(name, add_help=False, prefix_chars='\0', **options)
    parser.add_argument('words', nargs=argparse.REMAINDER)


def description(bag: object) -> str:
    """Return duration, times, number of messages and topics of an open bag, one item per line."""
    topics = sorted(bag.topics.values(), key=lambda topic: topic.name)
    lines = [
        f'Duration: {(bag.end_ns - bag.start_ns) * 1e-9:.3f} s',
        f'Start: {bag.start_ns * 1e-9:.9f}',
        f'End: {bag.end_ns * 1e-9:.9f}',
        f'Messages: {sum(topic.count for topic in topics)}',
    ]
    lines += [
        f'Topic: {topic.name} | Type: {topic.message_type} | Count: {topic.count}'
        for topic in topics
    ]
    return '\n'.join(lines)
