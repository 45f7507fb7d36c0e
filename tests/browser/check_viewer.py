"""Tests the live view in a real browser while a drive is replayed, and writes out/viewer.png."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from bevdepth_core.visualization import class_color
from bevdepth_ros.launching import isolate
from tests.browser.chromium import Tab, open_page
from tests.reference import ROOT
from tests.ros.rendering.small_drive import draw, record

WINDOW = (1600, 900)
DRAWN_SIZE = (800, 450)
TIMEOUT_S = 180.0
SCREENSHOT = ROOT / 'out' / 'viewer.png'
WALL, SCENE = (slice(40, 380), slice(340, 1240)), (slice(420, 900), slice(200, 1240))
"""Rows and columns of the screenshot: the area of the cameras, and the area of the boxes in the
initial view."""
COLORFUL = ('car', 'truck', 'bus', 'motorcycle', 'pedestrian')
"""Classes with colors that appear only in boxes, and nowhere else in the window."""


@pytest.fixture(scope='module')
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the live view of a recorded drive, which is replayed in a loop. The
    detections in the recording are the true boxes."""
    _, bag = record(draw(6.0, DRAWN_SIZE), tmp_path_factory.mktemp('viewer'), DRAWN_SIZE)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    isolate()
    viewer = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'bevdepth_ros.viewer.node',
            '--ros-args',
            '-p',
            f'port:={port}',
            '-p',
            'rate_hz:=2.0',
        ]
    )
    player = subprocess.Popen(
        [sys.executable, '-m', 'bevdepth_ros.bags.player', str(bag), '--loop', '--rate', '0.5']
    )
    try:
        wait_until(lambda: responds(port), 'the server of the live view')
        yield f'http://127.0.0.1:{port}'
    finally:
        for process in (player, viewer):
            process.send_signal(signal.SIGINT)
        assert [process.wait(30) for process in (player, viewer)] == [0, 0]


def responds(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f'timeout while waiting for {what}'
        time.sleep(0.5)


def text_of(tab: Tab) -> str:
    return tab.evaluate('document.body ? document.body.innerText : ""')


def boxes_shown(tab: Tab) -> int:
    found = re.search(r'(\d+) boxes', text_of(tab))
    return int(found[1]) if found else 0


def screenshot_of(tab: Tab) -> np.ndarray:
    SCREENSHOT.parent.mkdir(exist_ok=True)
    tab.screenshot(SCREENSHOT)
    return cv2.imread(str(SCREENSHOT))[..., ::-1]


def shows_cameras_and_boxes(screenshot: np.ndarray) -> bool:
    assert screenshot.shape == (*WINDOW[::-1], 3)
    colored = sum(pixels_of(name, screenshot[SCENE]) for name in COLORFUL)
    return screenshot[WALL].reshape(-1, 3).std(axis=0).min() > 25 and colored > 300


def pixels_of(name: str, screenshot: np.ndarray) -> int:
    return int((np.abs(screenshot.astype(int) - class_color(name)).max(axis=-1) < 50).sum())


def test_a_browser_shows_cameras_boxes_and_time_of_a_replay(url: str, tmp_path: Path) -> None:
    with open_page(url, tmp_path, WINDOW) as tab:
        wait_until(lambda: boxes_shown(tab) > 3, 'boxes')
        first = text_of(tab)
        wait_until(lambda: text_of(tab) != first and boxes_shown(tab) > 3, 'another moment')
        # The text changes before the images change, because the images are rendered in software.
        wait_until(
            lambda: shows_cameras_and_boxes(screenshot_of(tab)), 'an image with cameras and boxes'
        )
    assert re.search(r'\d\d:\d\d:\d\d\.\d', first)
    assert 'traffic cone' in first
