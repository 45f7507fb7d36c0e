from __future__ import annotations

import psutil
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


def test_a_long_message_with_line_feeds_is_reported_in_one_line_of_bounded_length():
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', ERROR, 'tf has no \n[FATAL] all is lost\x1b[31m' + 'x' * 10**6)
    (_, line) = log.lines[0]
    assert line == statuses(monitor)['/node: tf'].message
    assert line.startswith('tf has no  [FATAL] all is lost [31mx')
    assert line.isprintable()
    assert len(line) < problems.LONGEST_SENTENCE + 10


def test_a_problem_that_lasts_is_logged_again_after_the_log_period(
    monkeypatch: pytest.MonkeyPatch,
):
    log = Log()
    monitor = Monitor(log)
    monkeypatch.setattr(problems, 'LOG_PERIOD_S', 0.0)
    monitor.report('key', 'tf', ERROR, 'no tf')
    monitor.report('key', 'tf', ERROR, 'no tf')
    assert len(log.lines) == 2


def test_if_a_problem_repeats_within_a_minute_only_its_first_start_and_end_are_logged():
    log = Log()
    monitor = Monitor(log)
    for _ in range(50):
        monitor.report('key', 'tf', WARN, 'tf is late')
        monitor.solved('key')
    assert len(log.lines) == 2


def test_a_problem_is_logged_again_when_its_level_rises():
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
    assert 'no tf (this message could not be logged: no log)' in capsys.readouterr().err


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


def test_the_startup_time_restarts_when_the_clock_of_a_replay_starts(
    monkeypatch: pytest.MonkeyPatch,
):
    wall_s, ros_s = [100.0], [0.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: wall_s[0])
    monitor = Monitor(Log(), ros_now_s=lambda: ros_s[0])
    monitor.start(('a', 'b'), startup_s=20.0)
    wall_s[0], ros_s[0] = 118.0, 1000.0
    monitor.image_arrived('b', 1)
    monitor.clock_began(5.0)
    wall_s[0], ros_s[0] = 122.9, 1000.5  # a replay at a tenth of real time
    assert not monitor.startup_is_over()
    wall_s[0], ros_s[0] = 140.0, 1002.2
    assert monitor.startup_is_over()
    assert monitor.silence_s('b') == pytest.approx(2.2)
    assert monitor.silence_s('a') == pytest.approx(2.2 - 5.0)
    wall_s[0], ros_s[0] = 170.0, 1006.5
    assert monitor.silence_s('a') == pytest.approx(1.5)
    assert monitor.seconds_since_last_set() == pytest.approx(1.5)


def test_when_a_problem_ends_only_the_first_clause_of_its_message_is_logged():
    log = Log()
    monitor = Monitor(log)
    for number, sentence in enumerate(
        (
            'no camera sends images; for example, no image of left on /left for 1.2 s',
            'tf has no map <- base_link: publish this transform',
            'no image of left on /left for 1.2 s, although it has a publisher: check it',
        )
    ):
        monitor.report(str(number), 'tf', WARN, sentence)
        monitor.solved(str(number))
    assert [line for level, line in log.lines if level == 'info'] == [
        'solved: no camera sends images',
        'solved: tf has no map <- base_link',
        'solved: no image of left on /left for 1.2 s',
    ]


def test_after_a_pause_of_all_cameras_the_silence_limit_starts_at_the_first_new_image(
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


def test_the_worst_problem_of_an_area_is_listed_first_and_determines_the_level():
    monitor = Monitor(Log())
    monitor.report('one', 'cameras', WARN, 'slow')
    monitor.report('two', 'cameras', ERROR, 'dead')
    assert statuses(monitor)['/node: cameras'].level == ERROR
    assert statuses(monitor)['/node: cameras'].message == 'dead; slow'


def test_changed_is_true_only_if_problems_begin_or_end():
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
    monitor.set_processed()
    monitor.result_published({'decode': 0.002, 'total': 0.1})
    found = values(monitor, 'sets')
    assert (found['received'], found['processed'], found['dropped']) == ('3', '1', '2')
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


def test_a_new_activation_clears_all_counts_but_keeps_problems_of_the_area_node():
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


def test_a_changed_message_is_logged_unless_only_its_numbers_changed():
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
        monitor.set_processed()
        monitor.result_published({})
        now[0] += 0.5
    found = values(monitor, 'sets')
    assert float(found['Actual frequency (Hz)']) == 2.0
    assert found['Events since startup'] == '5'
    assert float(found['Earliest timestamp delay:']) == 0.25
    assert float(found['Latest timestamp delay:']) == 0.5


def test_values_of_all_areas_except_node_are_cleared_at_activation():
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


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose only element is the time of a fake clock in seconds. The modules
    ``problems`` and ``diagnostics`` use this clock. A test changes the time by changing the
    element.
    """
    now = [100.0]
    monkeypatch.setattr(problems.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now[0])
    return now


def test_a_problem_that_was_published_is_not_published_again_after_its_end():
    monitor = Monitor(Log())
    monitor.report('key', 'tf', WARN, 'late')
    statuses(monitor)
    monitor.report('key', 'tf', WARN, 'later')
    monitor.solved('key')
    assert statuses(monitor)['/node: tf'].message == 'ok'


def test_a_problem_that_ends_and_begins_again_is_published_with_its_newest_message():
    monitor = Monitor(Log())
    monitor.report('key', 'tf', WARN, 'late')
    monitor.solved('key')
    monitor.report('key', 'tf', WARN, 'later')
    assert statuses(monitor)['/node: tf'].message == 'later'


def test_a_problem_that_is_solved_quietly_is_not_published_and_its_end_is_not_logged():
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', WARN, 'late')
    monitor.solved('key', quietly=True)
    assert log.lines == [('warning', 'late')]
    assert statuses(monitor)['/node: tf'].message == 'ok'


def test_a_new_activation_starts_without_the_problems_of_the_previous_activation():
    log = Log()
    monitor = Monitor(log)
    monitor.report('ended', 'tf', WARN, 'gone')
    monitor.solved('ended')
    monitor.report('key', 'tf', WARN, 'late')
    monitor.report('clock', 'node', WARN, 'no clock')
    monitor.changed()
    monitor.start((), 0.0)
    assert monitor.changed()
    assert statuses(monitor)['/node: tf'].message == 'ok'
    log.lines.clear()
    monitor.solved('key')
    monitor.report('key', 'tf', WARN, 'late')
    monitor.report('clock', 'node', WARN, 'no clock')
    assert log.lines == [('warning', 'late')]
    monitor.solved('clock')
    assert log.lines[1:] == [('info', 'solved: no clock')]


@pytest.mark.parametrize(('others', 'count'), [(18, 1), (19, 2)])
def test_the_stored_messages_of_a_problem_are_cleared_when_twenty_are_stored(
    now_s: list[float], others: int, count: int
):
    log = Log()
    monitor = Monitor(log)
    monitor.report('key', 'tf', WARN, 'first')
    for number in range(others):
        monitor.report('key', 'tf', WARN, f'wording {chr(97 + number)}')
    monitor.report('key', 'tf', WARN, 'first')
    assert log.lines.count(('warning', 'first')) == count


def test_rates_are_means_over_five_seconds_and_are_0_with_only_one_arrival_time(
    now_s: list[float],
):
    monitor = Monitor(Log(), ('a', 'b', 'c'))
    for _ in range(20):
        monitor.image_arrived('a', 1)
        now_s[0] += 0.1
    now_s[0] += 3.45
    monitor.image_arrived('a', 1)
    monitor.image_arrived('b', 1)
    monitor.image_arrived('c', 1)
    monitor.image_arrived('c', 1)
    found = values(monitor, 'cameras')
    assert float(found['a.rate_hz']) == pytest.approx(15 / 4.95, abs=0.01)
    assert (found['b.rate_hz'], found['c.rate_hz']) == ('0.00', '0.00')
    now_s[0] += 0.25
    monitor.image_arrived('b', 1)
    assert values(monitor, 'cameras')['b.rate_hz'] == '4.00'


def test_percentiles_are_computed_from_the_last_hundred_results():
    monitor = Monitor(Log())
    monitor.set_arrived(9.0)
    monitor.result_published({'decode': 900.0})
    for number in range(1, 101):
        monitor.set_arrived(0.001 * number)
        monitor.result_published({'decode': 0.001 * number})
    found = values(monitor, 'sets')
    assert (found['spread_p50_ms'], found['spread_max_ms']) == ('50.5', '100.0')
    assert values(monitor, 'latency') == {'decode_p50_ms': '50.5', 'decode_p95_ms': '95.0'}


def test_cameras_are_listed_as_used_or_left_out_with_the_count_of_unusable_images():
    monitor = Monitor(Log(), ('a', 'b', 'c'))
    monitor.cameras_used(('a', 'c'), ('b',))
    monitor.cameras_used((), ('b', 'c'))
    monitor.images_ignored('a', 7)
    found = values(monitor, 'cameras')
    assert (found['used'], found['left_out']) == ('none', 'a, b, c')
    assert [found[f'{name}.unusable'] for name in 'abc'] == ['0', '2', '1']
    assert [found[f'{name}.ignored'] for name in 'abc'] == ['7', '0', '0']
    monitor.cameras_used(('a', 'c'), ())
    found = values(monitor, 'cameras')
    assert (found['used'], found['left_out']) == ('a, c', 'b')


def test_the_startup_is_over_after_the_startup_time(now_s: list[float]):
    monitor = Monitor(Log())
    monitor.start(('a',), 5.0)
    assert not monitor.startup_is_over()
    now_s[0] += 5.01
    assert monitor.startup_is_over()


def test_after_a_clock_jump_the_time_without_image_sets_is_measured_by_wall_time(
    now_s: list[float],
):
    ros_s = [1000.0]
    monitor = Monitor(Log(), ros_now_s=lambda: ros_s[0])
    monitor.start(('a',), 0.0)
    monitor.set_arrived(0.0)
    monitor.cameras_resumed()
    now_s[0], ros_s[0] = 103.0, 500.0
    monitor.clock_jumped()
    assert monitor.seconds_since_last_set() == 3.0
    ros_s[0] = 502.0
    now_s[0] = 105.0
    assert monitor.seconds_since_last_set() == 5.0
    monitor.cameras_resumed()
    now_s[0], ros_s[0] = 106.0, 100.0
    monitor.clock_jumped()
    assert monitor.seconds_since_last_set() == 1.0


def test_the_summary_contains_the_counts_that_are_not_zero():
    monitor = Monitor(Log())
    assert monitor.summary() == 'none'
    monitor.set_arrived(0.0)
    monitor.set_dropped('error')
    assert monitor.summary() == '1 received, 1 dropped, 1 dropped_error'


def test_the_memory_of_the_process_is_published_in_mebibytes():
    expected = psutil.Process().memory_info().rss / 2**20
    assert float(values(Monitor(Log()), 'node')['memory_mb']) == pytest.approx(expected, rel=0.2)
