"""Tests the command line of the player."""

from __future__ import annotations

import pytest

from bevdepth_ros.bags.player_options import Options, arguments, bags_of, options_of


def parsed(*words: str) -> Options:
    return options_of(arguments(['player', 'bag', *words]))


def test_without_options_the_whole_bag_is_played_at_its_recorded_speed() -> None:
    assert parsed() == Options()
    given = arguments(['player', 'bag'])
    assert (given.loop, given.delay, given.wait, given.linger) == (False, 0.0, 10.0, 0.5)
    assert Options().rate == 1.0
    assert not Options().clock
    assert (Options().start_s, Options().duration_s, Options().step_s) == (0.0, None, 0.1)


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('--rate 2.5', Options(rate=2.5)),
        ('-r 2.5', Options(rate=2.5)),
        ('--clock', Options(clock=True)),
        ('--start-offset 3', Options(start_s=3.0)),
        ('--start 0', Options(start_s=0.0)),
        ('--playback-duration 4', Options(duration_s=4.0)),
        ('--duration 4', Options(duration_s=4.0)),
        ('--topics /a /b', Options(topics=('/a', '/b'))),
        ('--exclude-topics /a /b', Options(exclude_topics=('/a', '/b'))),
        ('--remap /a:=/b /c:=/d', Options(remap={'/a': '/b', '/c': '/d'})),
        ('-m /a:=/b', Options(remap={'/a': '/b'})),
        ('--start-paused', Options(paused=True)),
        ('-p', Options(paused=True)),
        ('--step 0.5', Options(step_s=0.5)),
        ('--regex /cam.*', Options(regex='/cam.*')),
        ('-e /cam.*', Options(regex='/cam.*')),
        ('--exclude-regex /cam.*', Options(exclude_regex='/cam.*')),
        ('-x /cam.*', Options(exclude_regex='/cam.*')),
        ('--clock --ros-args -r __ns:=/robot', Options(clock=True)),
    ],
)
def test_an_option_changes_only_its_own_value(words: str, expected: Options) -> None:
    assert parsed(*words.split()) == expected


def test_loop_delay_wait_and_linger_are_read_from_the_command_line() -> None:
    given = arguments(['player', 'bag', '--loop', '--delay', '2', '--wait', '3', '--linger', '4'])
    assert (given.loop, given.delay, given.wait, given.linger) == (True, 2.0, 3.0, 4.0)
    given = arguments(['player', '-l', '-d', '0', 'bag'])
    assert (given.loop, given.delay) == (True, 0.0)


def test_paths_of_bags_are_read_with_and_without_the_option_input() -> None:
    assert bags_of(arguments(['player', 'one', '-i', 'two', 'mcap', '--input', 'three'])) == [
        'one', 'two', 'three',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('bag --rate 0', 'must be a finite number greater than 0, got 0'),
        ('bag --rate fast', 'must be a number, got fast'),
        ('bag --wait -1', 'must be a finite number of at least 0, got -1'),
        ('bag --rate inf', 'must be a finite number greater than 0, got inf'),
        ('bag --rate nan', 'must be a finite number greater than 0, got nan'),
        ('bag --duration 0', 'must be a finite number greater than 0'),
        ('bag --step 0', 'must be a finite number greater than 0'),
        ('bag --start -0.1', 'must be a finite number of at least 0'),
        ('bag --start inf', 'must be a finite number of at least 0'),
        ('bag --delay -1', 'must be a finite number of at least 0'),
        ('bag --regex [', '[ is not a regular expression'),
        ('bag --exclude-regex [', '[ is not a regular expression'),
        ('bag --remap /a', 'must be OLD:=NEW'),
        ('bag --remap :=/b', 'must be OLD:=NEW'),
        ('bag --remap /a:=', 'must be OLD:=NEW'),
        ('bag --remap /a:=/b-c', 'is not a topic name'),
        ('', 'give the path of a bag to play'),
    ],
)
def test_an_invalid_command_line_is_rejected_with_the_reason(
    capsys: pytest.CaptureFixture, words: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        arguments(['player', *words.split()])
    assert message in capsys.readouterr().err


NAMES = ('/cam/left', '/cam/right', '/lidar', '/clock')


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (Options(), NAMES),
        (Options(clock=True), NAMES[:3]),
        (Options(topics=('/clock',), clock=True), ()),
        (Options(topics=('/lidar', '/other')), ('/lidar',)),
        (Options(exclude_topics=('/lidar',)), ('/cam/left', '/cam/right', '/clock')),
        (Options(topics=('/lidar',), exclude_topics=('/lidar',)), ()),
        (Options(regex='/cam/.*'), NAMES[:2]),
        (Options(regex='cam'), ()),
        (Options(regex='/cam'), ()),
        (Options(regex='/cam/.*', topics=('/lidar',)), NAMES[:3]),
        (Options(exclude_regex='/cam/r.*'), ('/cam/left', '/lidar', '/clock')),
        (Options(exclude_regex='/cam'), NAMES),
        (Options(regex='/cam/.*', exclude_topics=('/cam/left',)), ('/cam/right',)),
        (Options(regex='/cam/.*', exclude_regex='.*left'), ('/cam/right',)),
    ],
)
def test_topics_are_selected_by_names_and_patterns_that_match_whole_names(
    options: Options, expected: tuple[str, ...]
) -> None:
    assert tuple(name for name in NAMES if options.chooses(name)) == expected
