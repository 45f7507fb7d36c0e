"""Tests which clients may read the live view. The tests open real connections."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from bevdepth_ros.viewer.access import Access, is_loopback
from bevdepth_ros.viewer.page import Page

PROTOCOL = f'viser-v{viser.__version__}'
TIMEOUT_S = 20.0


@pytest.fixture(scope='module')
def local() -> Iterator[Page]:
    page = Page('127.0.0.1', 0, 10.0)
    yield page
    page.close()


@pytest.fixture(scope='module')
def remote() -> Iterator[Page]:
    page = Page('0.0.0.0', 0, 10.0)
    yield page
    page.close()


def http_status(page: Page, path: str = '/', **headers: str) -> int:
    request = urllib.request.Request(f'http://127.0.0.1:{page.port}{path}', headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def websocket_status(page: Page, path: str = '/', **headers: str) -> int:
    try:
        with connect(
            f'ws://{headers.pop("Host", f"127.0.0.1:{page.port}")}{path}',
            sock=socket.create_connection(('127.0.0.1', page.port)),
            subprotocols=[PROTOCOL],
            origin=headers.pop('Origin', None),
            additional_headers=headers,
            open_timeout=TIMEOUT_S,
        ):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize('status', [http_status, websocket_status])
def test_only_pages_of_the_same_origin_and_host_may_read_the_view(local: Page, status) -> None:
    address = f'127.0.0.1:{local.port}'
    allowed = 200 if status is http_status else 101
    assert status(local) == allowed
    assert status(local, Origin=f'http://{address}') == allowed
    assert status(local, Host=f'localhost:{local.port}') == allowed
    assert status(local, Origin='http://evil.example') == 403
    assert status(local, Origin=f'http://127.0.0.1:{local.port + 1}') == 403
    assert status(local, Origin='null') == 403
    host = f'evil.example:{local.port}'
    assert status(local, Host=host, Origin=f'http://{host}') == 403
    assert status(local, Host=host) == 403


def test_the_url_of_a_local_view_has_no_token(local: Page) -> None:
    assert local.url == f'http://127.0.0.1:{local.port}'


@pytest.mark.parametrize('status', [http_status, websocket_status])
def test_a_page_that_other_machines_can_reach_requires_a_token(remote: Page, status) -> None:
    allowed = 200 if status is http_status else 101
    token = re.fullmatch(rf'http://[^/]+:{remote.port}/\?token=([\w-]{{20,}})', remote.url)[1]
    assert status(remote) == 403
    assert status(remote, '/?token=wrong') == 403
    assert status(remote, f'/?token={token}x') == 403
    assert status(remote, f'/?token={token}') == allowed
    assert status(remote, Cookie=f'bevdepth_viewer_token={token}') == allowed
    assert status(remote, Cookie='bevdepth_viewer_token=wrong') == 403
    assert status(remote, f'/?token={token}', Origin='http://evil.example') == 403


def test_the_page_sets_the_token_as_a_cookie_for_its_websocket(remote: Page) -> None:
    path = remote.url.rpartition('/')[2]
    with urllib.request.urlopen(
        f'http://127.0.0.1:{remote.port}/{path}', timeout=TIMEOUT_S
    ) as response:
        cookie = response.headers['Set-Cookie']
    assert path.removeprefix('?token=') in cookie
    assert {'HttpOnly', 'SameSite=Strict'} <= set(cookie.split('; '))


def test_the_title_of_the_page_is_bevdepth(local: Page) -> None:
    request = urllib.request.Request(local.url, headers={'Accept-Encoding': 'gzip'})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        page = response.read()
    assert b'<title>BEVDepth</title>' in page and page.rstrip().endswith(b'</html>')


def test_each_server_has_its_own_token() -> None:
    assert Access('0.0.0.0').token != Access('0.0.0.0').token


@pytest.mark.parametrize('host', ['127.0.0.1', '127.8.8.8', '::1', 'localhost', 'LOCALHOST'])
def test_a_loopback_address_requires_no_token(host: str) -> None:
    assert is_loopback(host)
    assert Access(host).token is None


@pytest.mark.parametrize('host', ['', '0.0.0.0', '::', '10.0.0.1', 'localhost.example', 'robot'])
def test_an_address_that_is_not_loopback_requires_a_token(host: str) -> None:
    assert not is_loopback(host)
    assert Access(host).token is not None
