"""Provides a local file server for tests of downloads.

The server can interrupt a download, ignore Range headers, answer with an HTTP error, and act as
the proxy of a client. As a proxy, it answers requests for any host with its own files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves the content of ``files``; the last part of a URL is the name of the file.

    Attributes:
        files: content of each file by its name.
        range_headers: Range header of each request so far; None for a request without this header.
        targets: target of each request line so far. It is a path, or a URL if the client uses the
            server as a proxy.
        send_until: position in the file, in bytes, at which the server closes the connection,
            although Content-Length announces more bytes. None: the server sends the file to its
            end.
        supports_ranges: True if the server answers a Range header with the part of the file. The
            only supported form is ``bytes=N-``.
        error_status: HTTP status with which the server answers every request; None if the server
            answers with files, and with status 404 if there is no such file.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files = files
        self.range_headers: list[str | None] = []
        self.targets: list[str] = []
        self.send_until: int | None = None
        self.supports_ranges = True
        self.error_status: int | None = None

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, range_header = self.server, self.headers.get('Range')
        server.range_headers.append(range_header)
        server.targets.append(self.path)
        content = server.files.get(self.path.rpartition('/')[2])
        if content is None or server.error_status is not None:
            self.send_error(server.error_status or 404)
            return
        partial = range_header is not None and server.supports_ranges
        first = int(range_header.removeprefix('bytes=').rstrip('-')) if partial else 0
        if partial and first >= len(content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(content)}')
            self.end_headers()
            return
        self.send_response(206 if partial else 200)
        if partial:
            last = len(content) - 1
            self.send_header('Content-Range', f'bytes {first}-{last}/{len(content)}')
        self.send_header('Content-Length', str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : self.server.send_until])

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Serve ``files`` until the ``with`` block ends."""
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
