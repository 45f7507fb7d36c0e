"""Parses the command lines of the training programs and reports errors in one sentence."""

from __future__ import annotations

import argparse
import difflib
import logging
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from torch.multiprocessing.spawn import ProcessRaisedException

from bevdepth_core.nuscenes.completeness import DatasetIncompleteError
from bevdepth_core.nuscenes.suggestions import did_you_mean

ConfigT = TypeVar('ConfigT')

_LITERAL = re.compile(r'(?:a )?typing\.Literal\[(.*)\]')
_CLASS = re.compile(r"(?:a )?<class '(\w+)'>")
_UNKNOWN = re.compile(r'unrecognized arguments: (.*)', re.DOTALL)
_UNKNOWN_IN_FILE = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'")
_UNKNOWN_IN_SECTION = re.compile(r"(?:\"([\w.]+)\": .*)?Option '([\w.]+)' is not accepted")
_UNION = re.compile(r'"([\w.]+)": Does not .* Subtypes: \[(.*)\] Errors: .* Given value: (.*)')


class InvalidRunError(ValueError):
    """Settings or data of a run are invalid; the message names them and the remedy."""


class ManualHelp(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help formatter that keeps the line breaks of the manual."""


def manual_parser(program: str, manual: str) -> ArgumentParser:
    """Return a parser whose help shows ``manual``. The parser has no options yet."""
    return ArgumentParser(
        prog=program,
        description=manual,
        formatter_class=ManualHelp,
        exit_on_error=False,
        allow_abbrev=False,
    )


def run_program(
    program: str,
    manual: str,
    config_type: type[ConfigT],
    work: Callable[[ConfigT], object],
    arguments: list[str] | None,
) -> None:
    """Run ``work`` with the configuration of the command line, and print the result of ``work``.

    The exit status is 1 after an error, which is printed, and 130 after Ctrl-C.

    Args:
        program: path of the program, such as ``training/evaluate.py``.
        manual: text of ``--help``.
        config_type: dataclass whose fields are the options.
        work: function that is called with the configuration.
        arguments: command line; None: the command line of this process.
    """
    logging.basicConfig(format='%(message)s')
    logging.getLogger('bevdepth_core').setLevel(logging.INFO)
    parser = manual_parser(program, manual)
    parser.add_class_arguments(config_type)
    try:
        values = instantiate(parser, parse(parser, arguments))
        print(work(config_type(**vars(values))))
    except DatasetIncompleteError as error:
        sys.exit(f'{Path(program).stem}: {error} (options --data.root and --data.version)')
    except (ValueError, OSError, ProcessRaisedException) as error:
        sys.exit(f'{Path(program).stem}: {error}')
    except KeyboardInterrupt:
        sys.exit(130)


def require_at_least(section: str, settings: object, **lowest: float) -> None:
    """Raise ValueError if a number in ``settings`` is too low or not finite.

    Args:
        section: name of the section in the configuration.
        settings: dataclass with the numbers.
        lowest: lowest valid value of each number, by field name.
    """
    for name, low in lowest.items():
        value = getattr(settings, name)
        if isinstance(value, (int, float)) and not low <= value < math.inf:
            raise ValueError(f'{section}.{name} must be at least {low:g}, got {value:g}')


def require_writable(folder: Path, option: str = '--output') -> None:
    """Create a folder, and check that it is writable. Programs call this before they read data.

    Args:
        folder: the folder.
        option: command-line option that selects the folder, for messages.

    Raises:
        OSError: the folder cannot be created, or no file can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = 'not a folder' if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f'{option} {folder}: {reason}; choose a folder that is writable') from error


def parse(
    parser: ArgumentParser, arguments: list[str] | None, required: Namespace | None = None
) -> Namespace:
    """Return the parsed command line.

    Args:
        parser: the parser.
        arguments: the command line; None: the command line of this process.
        required: default values of the options. The command line must not set a section to null
            if the section is a mapping in these values. None: the defaults of the parser.

    Raises:
        InvalidRunError: the command line has an unknown key or an invalid value; the message
            suggests the most similar key.
    """
    keys, defaults = option_keys(parser), required or parser.get_defaults()
    for key, section in _given_sections(arguments, defaults):
        _check_empty(section, keys, defaults, '' if key == 'config' else f'{key}.')
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        message = ' '.join(str(error).split())
        raise InvalidRunError(_sentence(message, keys)) from error


def _given_sections(
    arguments: list[str] | None, defaults: Namespace
) -> Iterator[tuple[str, dict]]:
    """For each configuration file and each YAML mapping on the command line, yield the option and
    the content.

    Raises:
        InvalidRunError: a file is not a YAML mapping.
    """
    words = sys.argv[1:] if arguments is None else arguments
    for word, following in zip(words, [*words[1:], ''], strict=True):
        option, is_joined, joined = word.partition('=')
        key, text = option.removeprefix('--'), joined if is_joined else following
        is_section = key == 'config' or isinstance(defaults.get(key), Namespace)
        if option.startswith('--') and text.startswith('{'):
            with suppress(yaml.YAMLError):  # jsonargparse reports the error
                yield key, yaml.safe_load(text)
        elif option.startswith('--') and is_section and Path(text).is_file():
            yield key, _mapping(Path(text))
        elif option == '--config' and not Path(text).exists():
            raise InvalidRunError(f'--config {text}: no such file{_similar_preset(text)}')


def _similar_preset(text: str) -> str:
    """Return a suggestion for a message: the most similar preset, or the folder of the presets."""
    presets = {path.stem: path for path in Path('config/training').glob('*.yaml')}
    nearest = difflib.get_close_matches(Path(text).stem, presets, 1)
    if nearest:
        return f" (did you mean '{presets[nearest[0]]}'?)"
    return '; config/training contains the presets'


def _mapping(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8
        raise InvalidRunError(f'{path}: not YAML: {" ".join(str(error).split())}') from error
    if not isinstance(values, dict):
        raise InvalidRunError(
            f'{path}: a configuration must be a YAML mapping of keys to values, such as a preset '
            'in config/training'
        )
    return values


def instantiate(parser: ArgumentParser, values: Namespace) -> Namespace:
    """Return parsed values with sections as dataclasses.

    Raises:
        InvalidRunError: a value is invalid, or a section is not a mapping.
    """
    try:
        return parser.instantiate(values)
    except ValueError as error:
        raise InvalidRunError(str(error)) from error
    except TypeError as error:  # jsonargparse fails if a section is not a mapping
        raise InvalidRunError(
            'a section of the configuration does not map keys to values: compare it with the '
            'presets in config/training'
        ) from error


def _check_empty(section: dict, keys: list[str], defaults: Namespace, parent: str = '') -> None:
    """Raise InvalidRunError for an unknown key with an empty mapping, or for a section that is
    null. jsonargparse would ignore both without an error.
    """
    for name, value in section.items():
        key = f'{parent}{name}'
        if value is None and isinstance(defaults.get(key), Namespace):
            raise InvalidRunError(
                f'the section {key} of the configuration is empty: give it a value or remove it'
            )
        if value == {} and key not in keys:
            raise InvalidRunError(_unknown_key(key, keys))
        if isinstance(value, dict):
            _check_empty(value, keys, defaults, f'{key}.')


def option_keys(parser: ArgumentParser) -> list[str]:
    """Return the dotted key of each option of a parser."""
    return [action.dest for action in parser._actions if action.dest]


def _sentence(message: str, keys: list[str]) -> str:
    """Return jsonargparse's message in plain words, with a suggestion for an unknown key."""
    if unknown := _UNKNOWN.search(message):
        return _unknown_option(unknown[1].split()[0], keys)
    if unknown := _UNKNOWN_IN_FILE.search(message) or _UNKNOWN_IN_SECTION.search(message):
        key = '.'.join(part for part in unknown.groups() if part)
        return _unknown_key(key, keys)
    text = _CLASS.sub(r'a value of type \1', _LITERAL.sub(r'one of \1', message))
    if union := _UNION.search(text):
        types = union[2].replace('a value of type NoneType', 'null').replace(', ', ' or ')
        return f'{union[1]} must be {types}, got {union[3]}'
    return text.removeprefix('Parser key ')


def _unknown_key(key: str, keys: list[str]) -> str:
    return f'the configuration has an unknown key {key}{did_you_mean(key, keys)}'


def _unknown_option(word: str, keys: list[str]) -> str:
    option = word.split('=')[0]
    if not option.startswith('--'):
        return f'unexpected argument {word!r}: options start with --'
    near = did_you_mean(option, [f'--{key}' for key in keys])
    return f'there is no option {option}{near}; --help lists all options'
