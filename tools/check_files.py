"""Checks files that ruff does not check: package.xml with catkin_pkg, YAML files with a YAML
parser, and shell scripts with ``bash -n``.
"""

from __future__ import annotations

import subprocess
import sys

import yaml
from catkin_pkg.package import InvalidPackage, parse_package


def tracked(*patterns: str) -> list[str]:
    """Return the matching files of the project, including untracked files that git does not
    ignore.
    """
    listing = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard', '--', *patterns],
        check=True,
        capture_output=True,
        text=True,
    )
    return listing.stdout.splitlines()


def problems() -> list[str]:
    """Return one error message per invalid file."""
    found: list[str] = []
    try:
        parse_package('package.xml', warnings=found)
    except InvalidPackage as error:
        found.append(str(error))
    for path in tracked('*.yaml', '.github/*.yml'):
        try:
            with open(path) as file:
                list(yaml.safe_load_all(file))
        except yaml.YAMLError as error:
            found.append(f'{path}: {error}')
    for path in tracked('*.sh', '.ci/run'):
        check = subprocess.run(['bash', '-n', path], capture_output=True, text=True)
        found += check.stderr.splitlines()
    return found


if __name__ == '__main__':
    messages = problems()
    print('\n'.join(messages) or 'package.xml, YAML and shell files are well formed')
    sys.exit(bool(messages))
