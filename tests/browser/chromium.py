"""Controls a headless Chromium, which renders WebGL in software, through the DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

START_TIMEOUT_S = 60.0
RESPONSE_TIMEOUT_S = 120.0
OPTIONS = (
    '--headless=new', '--no-sandbox', '--no-first-run', '--disable-dev-shm-usage',
    '--hide-scrollbars', '--remote-debugging-port=0',
    '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist',
)  # fmt: skip


class Tab:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection):
        self._connection = connection
        self._numbers = itertools.count(1)

    def send(self, method: str, **parameters) -> dict:
        """Return the response to a command."""
        number = next(self._numbers)
        self._connection.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=RESPONSE_TIMEOUT_S))
            if message.get('id') == number:
                assert 'error' not in message, message
                return message['result']

    def evaluate(self, expression: str):
        """Return the value of a JavaScript expression."""
        return self.send('Runtime.evaluate', expression=expression, returnByValue=True)[
            'result'
        ].get('value')

    def screenshot(self, path: Path) -> None:
        """Write a screenshot of the page as a PNG."""
        path.write_bytes(
            base64.b64decode(self.send('Page.captureScreenshot', format='png')['data'])
        )


@contextmanager
def open_page(url: str, profile: Path, size: tuple[int, int]) -> Iterator[Tab]:
    """Start a new Chromium, which stores its files in the folder ``profile``, and show ``url`` in
    a window of ``size`` (width, height) pixels.
    """
    program = (
        shutil.which('chromium')
        or shutil.which('chromium-browser')
        or shutil.which('google-chrome')
    )
    assert program, 'Chromium is not installed: run apt install chromium'
    command = [
        program,
        *OPTIONS,
        f'--user-data-dir={profile}',
        f'--window-size={size[0]},{size[1]}',
        'about:blank',
    ]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(profile), max_size=None) as connection:
            tab = Tab(connection)
            tab.send(
                'Emulation.setDeviceMetricsOverride',
                width=size[0],
                height=size[1],
                deviceScaleFactor=1,
                mobile=False,
            )
            tab.send('Page.enable')
            tab.send('Page.navigate', url=url)
            yield tab
    finally:
        browser.terminate()
        browser.wait()


def _address(profile: Path) -> str:
    """Wait until the browser has started, and return the DevTools address of its first page."""
    deadline = time.monotonic() + START_TIMEOUT_S
    port_file = profile / 'DevToolsActivePort'
    while not (port_file.exists() and port_file.read_text().strip()):
        assert time.monotonic() < deadline, 'Chromium did not start'
        time.sleep(0.1)
    port = port_file.read_text().split()[0]
    pages = json.loads(urllib.request.urlopen(f'http://127.0.0.1:{port}/json', timeout=10).read())
    return next(page['webSocketDebuggerUrl'] for page in pages if page['type'] == 'page')
