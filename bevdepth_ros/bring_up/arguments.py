"""The arguments of ``detect.launch.py``, checked together before anything starts."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument

from bevdepth_core.weights import WeightsError, locate
from bevdepth_ros.bags.reader import Bag, BagError
from bevdepth_ros.launching import LAUNCH_FILE, PACKAGE

CONFIG = Path(get_package_share_directory(PACKAGE)) / 'config'
DEFAULT_PARAMS_FILE = str(CONFIG / 'detector.yaml')
PRESETS = sorted(path.stem for path in (CONFIG / 'cameras').glob('*.yaml'))
CHOICES: dict[str, list[str]] = {}
"""Allowed values by argument name, for the arguments that have a fixed set of values."""
BOOLEAN = ['true', 'false', 'True', 'False']
DEVICE = r'(auto|cpu|cuda(:\d+)?)?'
MAX_PORT = 65535


class ArgumentsError(RuntimeError):
    """Arguments are invalid; the message names each invalid argument and its remedy."""


def _argument(
    name: str, default: str, description: str, choices: list[str] | None = None
) -> DeclareLaunchArgument:
    """Return an argument of the launch file.

    ``choices`` are stored in ``CHOICES`` and checked by ``_Reader``. They are not passed to
    launch, because launch would reject only the first invalid argument, without a suggestion.
    """
    if choices:
        CHOICES[name] = choices
        description += f' One of: {_listed(choices)}.'
    return DeclareLaunchArgument(name, default_value=default, description=description)


def _listed(choices: Iterable[str]) -> str:
    """Return the choices as a text, without the empty choice and without True and False, which
    mean the same as true and false.
    """
    return ', '.join(choice for choice in choices if choice and not choice[0].isupper())


ARGUMENTS = [
    _argument('params_file', DEFAULT_PARAMS_FILE, 'YAML file with the parameters of the nodes.'),
    _argument(
        'camera_preset',
        '',
        'Preset of cameras and tf frames, which replaces the cameras and tf frames in '
        f'params_file: the path of a YAML file, or one of {", ".join(PRESETS)}.',
    ),
    _argument(
        'checkpoint',
        '',
        'Weights: a name (`ros2 run bevdepth_ros weights list`) or a .safetensors, .pth or .ckpt '
        'file. If empty, the value in params_file applies.',
    ),
    _argument(
        'device',
        '',
        'Device of the network: auto, cpu, cuda or cuda:<n>. If empty, the value in params_file '
        'applies.',
    ),
    _argument(
        'precision',
        '',
        'Precision of the network. If empty, the value in params_file applies.',
        ['', 'auto', 'fp32', 'fp16', 'bf16'],
    ),
    _argument(
        'bag',
        '',
        'Folder or file of a rosbag2 to replay; the launch ends when the replay ends. If empty, '
        'live cameras are used.',
    ),
    _argument('rate', '1.0', 'Speed of the replay relative to real time.'),
    _argument('start', '0.0', 'Number of seconds to skip at the beginning of the bag.'),
    _argument(
        'duration',
        '',
        'Number of seconds of the bag to replay. If empty, the bag is replayed to its end.',
    ),
    _argument(
        'start_paused',
        'false',
        'Begin the replay paused; services of /bag_player continue the replay or play one step.',
        BOOLEAN,
    ),
    _argument(
        'step',
        '0.1',
        'Number of seconds of the bag that each call of the service /bag_player/step plays.',
    ),
    _argument('loop', 'false', 'Replay the bag again and again.', BOOLEAN),
    _argument(
        'record',
        '',
        'New folder in which a rosbag2 with the topics of the detector is recorded. If empty, '
        'nothing is recorded.',
    ),
    _argument(
        'use_sim_time',
        '',
        'If true, the nodes take the time from /clock. If empty, it is true with bag:=, because '
        'the replay publishes /clock; without a bag, the value in params_file applies.',
        ['', *BOOLEAN],
    ),
    _argument(
        'rviz', 'false', 'Open RViz with boxes, cameras and tf, if RViz is installed.', BOOLEAN
    ),
    _argument(
        'foxglove_layout',
        '',
        'Path of a Foxglove layout to write for the cameras and topics of this launch. If empty, '
        'no layout is written.',
    ),
    _argument(
        'visualizer',
        'false',
        'Publish one rendered image of all cameras and the top view on bevdepth_visualizer/image '
        'and bevdepth_visualizer/image/compressed.',
        BOOLEAN,
    ),
    _argument('viewer', '', 'If web, a live view for browsers is served.', ['', 'web']),
    _argument('viewer_host', '127.0.0.1', 'Address that the live view listens on.'),
    _argument(
        'viewer_port',
        '8080',
        'Port of the live view. If this port is in use, the next free port is used.',
    ),
    _argument('namespace', '', 'Namespace of the detector and of its output topics.'),
    _argument(
        'autostart',
        'true',
        'Configure and activate the detector. If false, do this with `ros2 lifecycle set`.',
        BOOLEAN,
    ),
]
"""All arguments, in the order in which ``--show-args`` prints them."""


@dataclass(frozen=True)
class Arguments:
    """Valid values of all arguments. An attribute that is not listed here is the value of the
    launch argument with the same name.

    Attributes:
        params_files: parameter files in the order in which they apply. The default file is left
            out: the nodes have its values as defaults anyway, and passing this file would
            override the parameters that an enclosing launch file sets for all nodes.
        overrides: the arguments checkpoint, device and precision that are not empty; they
            override parameters of the detector.
        use_sim_time: None if neither this argument nor ``bag`` is given.
        is_direct: True if ``ros2 launch`` was called with this launch file, False if another
            launch file includes it.
    """

    params_files: tuple[str, ...]
    overrides: dict[str, str]
    bag: str
    rate: float
    start: float
    duration: float | None
    start_paused: bool
    step: float
    loop: bool
    record: str
    use_sim_time: bool | None
    rviz: bool
    foxglove_layout: str
    visualizer: bool
    viewer: bool
    viewer_host: str
    viewer_port: int
    namespace: str
    autostart: bool
    is_direct: bool


class _Reader:
    """Converts the text of arguments and collects the problems that it finds."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values, self.problems = values, list[str]()
        self._bag_s = float('inf')

    def flag(self, name: str) -> bool:
        return self.values[name].lower() == 'true'

    def number(self, name: str, is_valid: Callable[[float], bool], wanted: str) -> float:
        """Return the value of an argument as a number. If the value is not a number, or if
        ``is_valid`` returns False for the number, add a problem and return 0. The text of the
        problem ends with ``wanted``, which describes the valid numbers.
        """
        text = self.values[name]
        try:
            value = float(text)
        except ValueError:
            value = float('nan')
        if abs(value) < float('inf') and is_valid(value):
            return value
        self.problems.append(f'{name}:={text} is invalid: give a number {wanted}')
        return 0.0

    def positive(self, name: str) -> float:
        return self.number(name, lambda value: value > 0, 'greater than 0')

    def not_negative(self, name: str) -> float:
        return self.number(name, lambda value: value >= 0, 'of at least 0')

    def port(self, name: str) -> int:
        def is_port(value: float) -> bool:
            return value.is_integer() and 0 <= value <= MAX_PORT

        return int(self.number(name, is_port, f'from 0 to {MAX_PORT}'))

    def params_files(self) -> tuple[str, ...]:
        given = self.values['params_file']
        files = [] if given in ('', DEFAULT_PARAMS_FILE) else [self._file('params_file')]
        return (*files, *self._preset_files())

    def _preset_files(self) -> list[str]:
        preset = self.values['camera_preset']
        if preset in PRESETS:
            return [str(CONFIG / 'cameras' / f'{preset}.yaml')]
        if not preset or Path(preset).is_file():
            return [preset] if preset else []
        hint = suggestion(preset, PRESETS) or f'; give a file or one of {", ".join(PRESETS)}'
        self.problems.append(f'camera_preset:={preset} does not exist{hint}')
        return []

    def _file(self, name: str) -> str:
        path = self.values[name]
        if not Path(path).is_file():
            reason = 'is not a file' if Path(path).exists() else 'does not exist'
            self.problems.append(f'{name}:={path} {reason}: give a YAML file')
        return path

    def bag(self) -> str:
        """Return the path of the bag, or an empty string if no bag is given. Add a problem if the
        bag cannot be opened.
        """
        path = self.values['bag']
        if path and not Path(path).exists():
            self.problems.append(f'bag:={path} does not exist: give a rosbag2 folder or file')
        elif path:
            try:
                with Bag(path, lambda damage: None) as bag:
                    self._bag_s = bag.duration_s
            except (BagError, OSError) as error:
                self.problems.append(f'bag:={path}: {error}; give a folder or file of a rosbag2')
        return path

    def start(self) -> float:
        """Return the number of seconds to skip; add a problem if the bag is shorter. The method
        ``bag`` must be called before, because it reads the duration of the bag.
        """
        start_s = self.not_negative('start')
        if start_s > self._bag_s:
            self.problems.append(
                f'start:={start_s:g} is beyond the end of the bag, which is {self._bag_s:.3g} s '
                'long: give a smaller number'
            )
        return start_s

    def record(self) -> str:
        """Return the folder for the recording; add a problem if the folder already exists."""
        path = self.values['record']
        if path and Path(path).exists():
            self.problems.append(f'record:={path} exists: choose another folder, or remove it')
        return path

    def check_weights(self) -> None:
        """Add a problem if ``checkpoint`` is neither a file nor a name of weights."""
        if self.values['checkpoint']:
            try:
                locate(self.values['checkpoint'])
            except WeightsError as error:
                self.problems.append(f'checkpoint:={error}')

    def check_choices(self) -> None:
        """Add a problem for each argument that does not have one of its allowed values."""
        for name, choices in CHOICES.items():
            value = self.values[name]
            if value not in choices:
                hint = suggestion(value, choices) or f': give one of {_listed(choices)}'
                self.problems.append(f'{name}:={value} is invalid{hint}')
        if not re.fullmatch(DEVICE, self.values['device']):
            self.problems.append(
                f'device:={self.values["device"]} is invalid: give auto, cpu, cuda or cuda:<n>'
            )

    def use_sim_time(self) -> bool | None:
        text = self.values['use_sim_time']
        return self.flag('use_sim_time') if text else True if self.values['bag'] else None


def read_arguments(context: LaunchContext, launch_file: str) -> Arguments:
    """Return the checked arguments that ``detect.launch.py`` received in a launch.

    Args:
        context: context of the launch.
        launch_file: path of ``detect.launch.py``.

    Raises:
        ArgumentsError: an argument is invalid, or the command line launches ``launch_file``
            directly and contains an unknown argument.
    """
    values = {
        argument.name: context.launch_configurations[argument.name] for argument in ARGUMENTS
    }
    is_direct = is_launched_directly(launch_file, sys.argv)
    reader = _Reader(values)
    if is_direct:
        reader.problems += unknown_arguments(context.argv)
    reader.check_choices()
    reader.check_weights()
    arguments = _converted(reader, is_direct)
    if reader.problems:
        raise ArgumentsError('; '.join(reader.problems))
    return arguments


def _converted(reader: _Reader, is_direct: bool) -> Arguments:
    values, names = reader.values, ('checkpoint', 'device', 'precision')
    return Arguments(
        params_files=reader.params_files(),
        overrides={name: values[name] for name in names if values[name]},
        bag=reader.bag(),
        rate=reader.positive('rate'),
        start=reader.start(),
        duration=reader.positive('duration') if values['duration'] else None,
        start_paused=reader.flag('start_paused'),
        step=reader.positive('step'),
        loop=reader.flag('loop'),
        record=reader.record(),
        use_sim_time=reader.use_sim_time(),
        rviz=reader.flag('rviz'),
        foxglove_layout=values['foxglove_layout'],
        visualizer=reader.flag('visualizer'),
        viewer=values['viewer'] == 'web',
        viewer_host=values['viewer_host'],
        viewer_port=reader.port('viewer_port'),
        namespace=values['namespace'],
        autostart=reader.flag('autostart'),
        is_direct=is_direct,
    )


def is_launched_directly(launch_file: str, argv: Sequence[str]) -> bool:
    """Return True if the command line ``argv`` launches ``launch_file`` itself.

    If another launch file includes ``launch_file``, the command line contains arguments of the
    enclosing file, which cannot be checked here.
    """
    words = [word for word in argv[1:] if not word.startswith('-') and ':=' not in word]
    if words[-2:] == [PACKAGE, LAUNCH_FILE]:
        return True
    return bool(words) and Path(words[-1]).is_file() and Path(words[-1]).samefile(launch_file)


def unknown_arguments(words: Iterable[str]) -> list[str]:
    """Return one sentence per word ``name:=value`` whose name is not an argument."""
    arguments = [argument.name for argument in ARGUMENTS]
    names = [word.partition(':=')[0] for word in words]
    return [
        f'{name} is not an argument of {LAUNCH_FILE}'
        f'{suggestion(name, arguments) or "; `--show-args` lists all arguments"}'
        for name in names
        if name not in arguments
    ]


def suggestion(word: str, names: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` with the name that is most similar to ``word``, or an empty
    string if no name is similar.
    """
    nearest = difflib.get_close_matches(word, list(names), 1)
    return f' (did you mean {nearest[0]}?)' if nearest else ''
