"""``ros2 interface`` for the pip-only ROS 2, which does not have this command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ros2cli.command import CommandExtension
from rosidl_runtime_py import get_interface_path, get_interfaces


class InterfaceCommand(CommandExtension):
    """Show messages, services and actions."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare the verbs show, list and package."""
        verbs = parser.add_subparsers(dest='verb', required=True)
        show = verbs.add_parser('show', help='print the definition of an interface')
        show.add_argument('name', help='such as vision_msgs/msg/Detection3DArray')
        verbs.add_parser('list', help='print all interfaces')
        package = verbs.add_parser('package', help='print the interfaces of a package')
        package.add_argument('name')

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | str:
        """Run the verb; return 0, or an error message if the verb fails."""
        try:
            if args.verb == 'show':
                print(Path(get_interface_path(args.name)).read_text().rstrip())
            else:
                names = [args.name] if args.verb == 'package' else []
                print('\n'.join(interfaces(names)))
        except (LookupError, ValueError, OSError) as error:
            return f'{args.name}: no such interface or package: {error}'
        return 0


def interfaces(packages: list[str]) -> Iterator[str]:
    """Yield the full names of the interfaces in ``packages``; if the list is empty, in all
    packages.

    Raises:
        LookupError: there is no such package.
    """
    for package, names in sorted(get_interfaces(packages).items()):
        yield from (f'{package}/{name}' for name in sorted(names))
