"""``ros2 launch`` for the pip-only ROS 2, which has the launch library but not this command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.substitution import Substitution
from ros2cli.command import CommandExtension
from ros2pkg.api import package_name_completer


class LaunchCommand(CommandExtension):
    """Run a launch file."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare ``PACKAGE FILE`` or ``PATH``, then ``name:=value`` arguments."""
        parser.add_argument(
            '-s',
            '--show-args',
            action='store_true',
            help="Show the launch file's arguments and stop.",
        )
        parser.add_argument(
            '-d', '--debug', action='store_true', help='Log what the launch system does.'
        )
        source = parser.add_argument(
            'source', metavar='package_or_path', help='Package of the launch file, or its path'
        )
        source.completer = package_name_completer
        parser.add_argument(
            'rest',
            metavar='word',
            nargs='*',
            help='File name in the package, then name:=value arguments',
        )

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | str:
        """Run or describe the launch file; return its return code or an error message."""
        try:
            path, assignments = locate(args.source, args.rest)
            arguments = parse_assignments(assignments)
        except ValueError as error:
            return str(error)
        try:
            source = AnyLaunchDescriptionSource(str(path))
            service = LaunchService(
                argv=assignments, noninteractive=not sys.stdin.isatty(), debug=args.debug
            )
        except OSError as error:
            return f'{error}; set ROS_LOG_DIR to a folder that can be written'
        if args.show_args:
            print(describe_arguments(source.get_launch_description(service.context)))
            return 0
        service.include_launch_description(
            LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
        )
        return service.run()


def locate(source: str, rest: list[str]) -> tuple[Path, list[str]]:
    """Return the path of the launch file, and the words that follow the name of the launch file.

    Raises:
        ValueError: the package or the file does not exist, or the package contains several files
            with this name.
    """
    if Path(source).is_file():
        return Path(source), rest
    try:
        share = Path(get_package_share_directory(source))
    except (PackageNotFoundError, ValueError) as error:
        raise ValueError(
            f"'{source}' is neither a package in AMENT_PREFIX_PATH nor a launch file"
        ) from error
    if not rest or ':=' in rest[0]:
        names = ', '.join(sorted(path.name for path in share.rglob('*.launch.*'))) or 'none'
        raise ValueError(f"name a launch file of package '{source}'; its launch files: {names}")
    found = [path for path in share.rglob('*') if path.name == rest[0]]
    if len(found) != 1:
        where = ', '.join(map(str, found)) or f'not under {share}'
        raise ValueError(f"package '{source}' must contain exactly one '{rest[0]}': {where}")
    return found[0], rest[1:]


def parse_assignments(words: list[str]) -> list[tuple[str, str]]:
    """Split ``name:=value`` words; if a name is repeated, its last value is used.

    Raises:
        ValueError: a word does not have this form.
    """
    for word in words:
        if word.find(':=') < 1:
            raise ValueError(f"launch arguments have the form name:=value, got '{word}'")
    return [tuple(word.split(':=', 1)) for word in words]


def describe_arguments(description: LaunchDescription) -> str:
    """Return one paragraph per declared argument: name, meaning and choices, default."""
    lines = ["Arguments, given as 'name:=value':"]
    for argument in description.get_launch_arguments():
        lines += ['', f"    '{argument.name}':", f'        {argument.description}']
        lines.append(f'        default: {default_text(argument.default_value)}')
    return '\n'.join(lines) if len(lines) > 1 else 'No arguments.'


def default_text(default: list[Substitution] | None) -> str:
    """Return the default value as in the launch file, or a text which states that the argument has
    no default.
    """
    return (
        'none, must be given'
        if default is None
        else "'" + ''.join(part.describe().strip("'") for part in default) + "'"
    )
