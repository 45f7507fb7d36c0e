"""Runs the demo with drives of at most 2 s."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
from rosbags.rosbag2 import Reader

from tests.ros.graph import TIMEOUT_S

MAX_DEMO_S = 580


def run_demo(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the demo with the output folder ``out``."""
    command = [sys.executable, '-m', 'bevdepth_ros.demo', '--out', str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=MAX_DEMO_S)


def processes_about(out: Path) -> list[str]:
    """Return the command lines of the running processes that contain the path ``out``."""
    lines = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            lines.append(path.read_bytes().replace(b'\0', b' ').decode(errors='replace'))
        except OSError:  # the process has ended meanwhile
            continue
    return [line for line in lines if str(out) in line]


def test_the_demo_writes_a_bag_a_table_and_a_figure(tmp_path: Path) -> None:
    done = run_demo(tmp_path / 'out', '--duration', '2')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'checkpoint:=small ' in done.stdout
    assert 'device:=cpu viewer:=web loop:=true\n' in done.stdout
    numbers = dict(
        re.findall(r'^(image sets|results|detections) +(\d+)', done.stdout, re.MULTILINE)
    )
    assert int(numbers['image sets']) == 4
    assert 1 <= int(numbers['results']) <= 4
    assert int(numbers['detections']) > 0
    assert re.search(r'^  total +[\d.]+ +[\d.]+', done.stdout, re.MULTILINE)
    figure = cv2.imread(str(tmp_path / 'out' / 'demo.png'))
    assert figure.shape[1] == 1920
    assert figure.std() > 30
    with Reader(tmp_path / 'out' / 'demo_bag') as reader:
        assert reader.message_count == 1 + 4 * (3 * 6 + 2)
    assert processes_about(tmp_path) == []


def test_a_demo_whose_launch_fails_reports_the_reason(tmp_path: Path) -> None:
    (tmp_path / 'damaged.safetensors').write_bytes(b'no weights')
    done = run_demo(
        tmp_path / 'out',
        '--duration',
        '0.5',
        '--checkpoint',
        str(tmp_path / 'damaged.safetensors'),
    )
    assert done.returncode == 1
    assert 'demo: the launch failed' in done.stderr
    assert 'damaged.safetensors' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out' / 'demo.png').exists()


def test_an_interrupted_demo_ends_all_its_processes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        '-m',
        'bevdepth_ros.demo',
        '--out',
        str(tmp_path / 'out'),
        '--duration',
        '0.5',
        '--rate',
        '0.1',
    ]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in demo.stdout:
        if line.startswith('running:'):
            break
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert (demo.returncode, errors) == (130, '')
    assert processes_about(tmp_path) == []
