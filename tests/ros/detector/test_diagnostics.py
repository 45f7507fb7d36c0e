from __future__ import annotations

import pytest

from bevdepth_ros.detector import diagnostics, problems
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.problems import ERROR, OK, WARN
from tests.ros.detector.monitoring import Log, statuses, values


def test_there_is_one_ok_status_per_area_when_nothing_is_wrong():
    found = statuses(Monitor(Log(), ('a',)))
    assert list(found) == [f'/node: {area}' for area in diagnostics.AREAS]
    assert {(status.level, status.message) for status in found.values()} == {(OK, 'ok')}


def test_a_lasting_problem_is_logged_once_and_published_until_it_is_solved():
    log = Log()
    monitor = Monitor(log)
    for _ in range(50):
        monitor.report('key', 'tf', WARN, 'tf is late')
    assert log.lines == [('warning', 'tf is late')]
    assert (statuses(monitor)['/node: tf'].level, statuses(monitor)['/node: tf'].message) == (
        WARN,
        'tf is late',
    )
    monitor.solved('key')
    assert log.lines[1:] == [('info', 'solved: tf is late')]
    assert statuses(monitor)['/node: tf'].level == OK


def test_names_of_any_length_and_with_line_feeds_are_reported_in_one_line_of_bounded_length():
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', ERROR, 'tf has no \n[FATAL] all is lost\x1b[31m' + 'x' * 10**6)
    (_, line) = log.lines[0]
    assert line == statuses(monitor)['/node: tf'].message
    assert line.startswith('tf has no  [FATAL] all is lost [31mx')
    assert line.isprintable()
    assert len(line) < problems.LONGEST_SENTENCE + 10


def test_a_problem_is_logged_again_after_a_while(monkeypatch: pytest.MonkeyPatch):
    log = Log()
    monitor = Monitor(log)
    monkeypatch.setattr(problems, 'LOG_PERIOD_S', 0.0)
    monitor.report('key', 'tf', ERROR, 'no tf')
    monitor.report('key', 'tf', ERROR, 'no tf')
    assert len(log.lines) == 2


def test_an_intermittent_problem_does_not_flood_the_log():
    log = Log()
    monitor = Monitor(log)
    for _ in range(50):
        monitor.report('key', 'tf', WARN, 'tf is late')
        monitor.solved('key')
    assert len(log.lines) == 2


def test_a_problem_that_gets_worse_is_logged_at_once():
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', WARN, 'late')
    monitor.report('key', 'tf', ERROR, 'gone')
    assert log.lines == [('warning', 'late'), ('error', 'gone')]


def test_a_problem_that_ends_before_it_was_published_is_published_once():
    monitor = Monitor(Log())
    monitor.report('key', 'tf', WARN, 'late')
    monitor.solved('key')
    assert statuses(monitor)['/node: tf'].message == 'late'
    assert monitor.changed()
    assert statuses(monitor)['/node: tf'].message == 'ok'


def test_a_log_that_cannot_be_written_does_not_end_the_reporting_thread(
    capsys: pytest.CaptureFixture,
):
    class BrokenLog(Log):
        def error(self, line: str) -> None:
            raise ValueError('no log')

    monitor = Monitor(BrokenLog())
    monitor.report('key', 'tf', ERROR, 'no tf')
    assert statuses(monitor)['/node: tf'].message == 'no tf'
    assert 'no tf (not logged: no log)' in capsys.readouterr().err


def test_a_camera_that_stopped_before_the_clock_went_back_is_still_reported_as_silent(
    monkeypatch: pytest.MonkeyPatch,
):
    wall_s, ros_s = [100.0], [1000.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: wall_s[0])
    monitor = Monitor(Log(), ros_now_s=lambda: ros_s[0])
    monitor.start(('a',), startup_s=0.0)
    monitor.image_arrived('a', 1)
    wall_s[0], ros_s[0] = 103.0, 500.0
    monitor.clock_jumped()
    assert monitor.silence_s('a') == 3.0


def test_after_a_pause_of_all_cameras_silence_begins_with_the_first_image(
    monkeypatch: pytest.MonkeyPatch,
):
    now_s = [100.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now_s[0])
    monitor = Monitor(Log(), ros_now_s=lambda: now_s[0])
    monitor.start(('a', 'b'), startup_s=0.0)
    monitor.image_arrived('a', 1)
    monitor.image_arrived('b', 1)
    monitor.set_arrived(0.01)
    now_s[0] = 114.8
    assert monitor.is_silent('b', 1.0)
    monitor.cameras_resumed()
    monitor.image_arrived('a', 2)
    now_s[0] = 115.75
    assert not monitor.is_silent('b', 1.0)
    assert monitor.seconds_since_last_set() == pytest.approx(0.95)
    assert monitor.silence_s('b') == pytest.approx(15.75)
    now_s[0] = 115.9
    assert monitor.is_silent('b', 1.0)


def test_the_worst_problem_of_an_area_comes_first_and_gives_the_level():
    monitor = Monitor(Log())
    monitor.report('one', 'cameras', WARN, 'slow')
    monitor.report('two', 'cameras', ERROR, 'dead')
    assert statuses(monitor)['/node: cameras'].level == ERROR
    assert statuses(monitor)['/node: cameras'].message == 'dead; slow'


def test_only_a_change_of_the_problems_counts_as_a_change():
    monitor = Monitor(Log())
    assert monitor.changed()
    assert not monitor.changed()
    monitor.report('key', 'tf', WARN, 'late')
    assert monitor.changed()
    monitor.report('key', 'tf', WARN, 'later')
    assert not monitor.changed()
    monitor.solved('key')
    assert monitor.changed()
    monitor.solved('key')
    assert not monitor.changed()


def test_every_set_is_counted_with_its_outcome():
    monitor = Monitor(Log())
    for _ in range(3):
        monitor.set_arrived(0.04)
    monitor.set_dropped('replaced')
    monitor.set_dropped('bad_image')
    monitor.set_answered()
    monitor.answer_published({'decode': 0.002, 'total': 0.1})
    found = values(monitor, 'sets')
    assert (found['received'], found['answered'], found['dropped']) == ('3', '1', '2')
    assert {reason: found[f'dropped_{reason}'] for reason in diagnostics.DROP_REASONS} == {
        'replaced': '1', 'bad_image': '1', 'no_camera_info': '0', 'no_extrinsics': '0',
        'too_few_cameras': '0', 'no_output_frame': '0', 'error': '0',
    }  # fmt: skip
    assert found['spread_p50_ms'] == '40.0'
    assert values(monitor, 'latency') == {
        'decode_p50_ms': '2.0',
        'decode_p95_ms': '2.0',
        'total_p50_ms': '100.0',
        'total_p95_ms': '100.0',
    }


def test_the_status_of_a_camera_has_rate_and_age():
    monitor = Monitor(Log(), ('a', 'b'))
    for _ in range(2):
        monitor.image_arrived('a', 750_000_000)
    found = values(monitor, 'cameras')
    assert float(found['a.rate_hz']) > 0
    assert (found['a.age_s'], found['a.received']) == ('0.250', '2')
    assert (found['b.rate_hz'], found['b.age_s'], found['b.received']) == ('0.00', 'none', '0')


def test_a_new_activation_clears_all_counts_but_keeps_problems_of_the_node():
    monitor = Monitor(Log(), ('a',))
    monitor.image_arrived('a', 1)
    monitor.set_arrived(0.0)
    monitor.report('key', 'cameras', ERROR, 'dead')
    monitor.report('clock', 'node', WARN, 'no clock')
    monitor.start(('b',), 5.0)
    assert values(monitor, 'sets')['received'] == '0'
    assert set(values(monitor, 'cameras')) == {
        f'b.{name}' for name in ('rate_hz', 'age_s', 'received', 'ignored', 'unusable')
    }
    assert statuses(monitor)['/node: cameras'].level == OK
    assert statuses(monitor)['/node: node'].level == WARN


def test_in_a_slow_replay_silence_is_measured_in_replayed_time(
    monkeypatch: pytest.MonkeyPatch,
):
    wall_s, ros_s = [100.0], [0.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: wall_s[0])
    monitor = Monitor(Log(), ros_now_s=lambda: ros_s[0])
    monitor.start(('a', 'b'), startup_s=5.0)
    ros_s[0] = 1.7e9  # the replay begins
    monitor.image_arrived('a', 1)
    monitor.set_arrived(0.0)
    wall_s[0] += 10.0
    ros_s[0] += 1.0
    assert monitor.silence_s('a') == monitor.seconds_since_last_set() == 1.0
    assert monitor.silence_s('b') == 10.0 - 5.0
    ros_s[0] += 60.0
    assert monitor.silence_s('a') == 10.0


def test_a_message_with_other_words_is_logged_at_once_and_one_with_only_other_numbers_is_not():
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', ERROR, 'no tf for 1.1 s')
    monitor.report('key', 'tf', ERROR, 'no tf for -2.2 s')
    assert len(log.lines) == 1
    monitor.report('key', 'tf', ERROR, 'tf of odom is gone')
    assert log.lines[1:] == [('error', 'tf of odom is gone')]


@pytest.mark.parametrize(('pause_s', 'count'), [(59.0, 1), (60.0, 2)])
def test_an_intermittent_problem_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, pause_s: float, count: int
):
    now = [100.0]
    monkeypatch.setattr(problems.time, 'monotonic', lambda: now[0])
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', WARN, 'late')
    monitor.solved('key')
    now[0] += pause_s
    monitor.report('key', 'tf', WARN, 'late')
    assert log.lines.count(('warning', 'late')) == count


@pytest.mark.parametrize(('pause_s', 'count'), [(9.9, 1), (10.0, 2)])
def test_a_problem_that_lasts_is_logged_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, pause_s: float, count: int
):
    now = [100.0]
    monkeypatch.setattr(problems.time, 'monotonic', lambda: now[0])
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', WARN, 'late')
    now[0] += pause_s
    monitor.report('key', 'tf', WARN, 'late')
    assert len(log.lines) == count


def test_the_status_of_sets_has_rate_and_delay_under_the_keys_of_diagnostic_updater(
    monkeypatch: pytest.MonkeyPatch,
):
    now = [100.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now[0])
    monitor = Monitor(Log(), ('a',), ros_now_s=lambda: 10.0)
    monitor.image_arrived('a', 9_750_000_000)
    monitor.image_arrived('a', 9_500_000_000)
    for _ in range(5):
        monitor.set_answered()
        monitor.answer_published({})
        now[0] += 0.5
    found = values(monitor, 'sets')
    assert float(found['Actual frequency (Hz)']) == 2.0
    assert found['Events since startup'] == '5'
    assert float(found['Earliest timestamp delay:']) == 0.25
    assert float(found['Latest timestamp delay:']) == 0.5


def test_values_of_an_area_are_cleared_at_activation():
    monitor = Monitor(Log())
    monitor.fact('tf', temporal_fusion='on')
    monitor.fact('node', state='active')
    monitor.start((), 0.0)
    assert 'temporal_fusion' not in values(monitor, 'tf')
    assert values(monitor, 'node')['state'] == 'active'


def test_the_status_of_sets_reports_how_long_no_set_was_complete(
    monkeypatch: pytest.MonkeyPatch,
):
    wall_s = [100.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: wall_s[0])
    monitor = Monitor(Log(), ('a',), lambda: wall_s[0])
    wall_s[0] += diagnostics.RATE_WINDOW_S
    assert statuses(monitor)['/node: sets'].message == 'ok'
    wall_s[0] += 1.6
    status = statuses(monitor)['/node: sets']
    assert (status.level, status.message) == (OK, 'no image set for 7 s')
    assert statuses(monitor)['/node: latency'].message == 'ok'
    monitor.report('key', 'sets', WARN, 'sets were lost')
    assert statuses(monitor)['/node: sets'].message == 'sets were lost'
    monitor.solved('key')
    monitor.set_arrived(0.0)
    assert statuses(monitor)['/node: sets'].message == 'ok'
