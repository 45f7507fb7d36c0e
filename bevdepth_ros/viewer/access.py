"""Restricts access to the page and to the websocket of the live view.

A website that is open in the same browser can send requests to this server. Such requests are
detected by their headers, and rejected. Usually the header ``Origin`` differs from the header
``Host``. If the website has changed the address of its DNS name to the address of this machine
(DNS rebinding), ``Host`` is the name of the website instead of localhost. Requests from other
machines need a token.
"""

from __future__ import annotations

import hmac
import http
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import websockets.asyncio.server
from websockets import Headers
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

TITLE = b'<title>BEVDepth</title>'
_COOKIE = 'bevdepth_viewer_token'
_EVERY_ADDRESS = ('', '0.0.0.0', '::')

_ProcessRequest = Callable[[ServerConnection, Request], Response | None]


class Access:
    """Decides which requests a server accepts.

    Attributes:
        token: secret that each request must contain; None if the server listens on loopback only.
    """

    def __init__(self, host: str) -> None:
        """Restrict the access to a server that listens on the address ``host``."""
        self._host = host
        self.token = None if is_loopback(host) else secrets.token_urlsafe(16)

    def url(self, port: int) -> str:
        """Return the address to open in a browser."""
        host = socket.gethostname() if self._host in _EVERY_ADDRESS else self._host
        host = f'[{host}]' if ':' in host else host
        return f'http://{host}:{port}' + ('' if self.token is None else f'/?token={self.token}')

    def reason_to_reject(self, request: Request) -> str | None:
        """Return why a request is rejected; None if the request is allowed."""
        try:
            host, origin = request.headers.get('Host', ''), request.headers.get('Origin')
            name = urlsplit(f'//{host}').hostname or ''
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        except (ValueError, LookupError):  # an invalid address, or more than one header Host
            return 'the headers Host and Origin are invalid'
        if foreign:
            return f'pages of {origin} may not access the live view'
        if self.token is None:
            return None if is_loopback(name) else f'replace {name} by localhost in the address'
        if not self._has_token(request):
            return 'open the address with the token that the viewer prints when it starts'
        return None

    def process(self, serve_page: _ProcessRequest) -> _ProcessRequest:
        """Return a function that calls ``serve_page`` for allowed requests and rejects all
        others.
        """

        def checked(connection: ServerConnection, request: Request) -> Response | None:
            reason = self.reason_to_reject(request)
            if reason is not None:
                return connection.respond(http.HTTPStatus.FORBIDDEN, f'Rejected: {reason}\n')
            if 'Accept-Encoding' in request.headers:  # _set_title needs an uncompressed page
                del request.headers['Accept-Encoding']
            response = serve_page(connection, request)
            if response is not None:
                _set_title(response)
            if response is not None and self.token is not None:
                response.headers['Set-Cookie'] = (
                    f'{_COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict'
                )
            return response

        return checked

    def _has_token(self, request: Request) -> bool:
        """Return True if the query or the cookie contains the token."""
        assert self.token is not None
        query = parse_qs(urlsplit(request.path).query).get('token', [])
        return any(
            hmac.compare_digest(given.encode(), self.token.encode())
            for given in (*query, *_cookies(request.headers))
        )


def _set_title(response: Response) -> None:
    """Replace the title of viser's page. viser has no parameter for the title."""
    body = response.body.replace(b'<title>Viser</title>', TITLE, 1)
    if body != response.body:
        response.body = body
        del response.headers['Content-Length']
        response.headers['Content-Length'] = str(len(body))


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach the address or name ``host``."""
    if host.lower() == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cookies(headers: Headers) -> list[str]:
    try:
        cookies = [SimpleCookie(text).get(_COOKIE) for text in headers.get_all('Cookie')]
    except CookieError:
        return []
    return [cookie.value for cookie in cookies if cookie is not None]


@contextmanager
def restricted(access: Access) -> Iterator[None]:
    """Restrict the access to the server that viser starts in the body of the ``with`` statement.

    viser has no parameter for this. In the body, the function
    ``websockets.asyncio.server.serve``, which starts the server, is therefore replaced by a
    function that also checks each request.
    """
    serve = websockets.asyncio.server.serve

    def restricted_serve(*args: Any, process_request: _ProcessRequest, **options: Any) -> Any:
        return serve(*args, process_request=access.process(process_request), **options)

    websockets.asyncio.server.serve = restricted_serve  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        websockets.asyncio.server.serve = serve  # type: ignore[misc]
