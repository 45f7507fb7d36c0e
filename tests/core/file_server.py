"""A local file server that can interrupt downloads, ignore ranges, answer with errors, or serve
the requests that a client sends to a proxy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves ``files`` by name.

    Attributes:
        files: name -> content.
        ranges: the Range header of each request, None where there was none.
        paths: the target of each request line; for a proxy this is a URL.
        send_until: position in the file at which the connection ends; None sends the whole file.
        supports_ranges: whether Range headers have an effect. Only ``bytes=N-`` is understood.
        refusal: HTTP error status sent for every request; None: requests are served.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files = files
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.send_until: int | None = None
        self.supports_ranges = True
        self.refusal: int | None = None

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, range_header = self.server, self.headers.get('Range')
        server.ranges.append(range_header)
        server.paths.append(self.path)
        content = server.files.get(self.path.rpartition('/')[2])
        if content is None or server.refusal is not None:
            self.send_error(server.refusal or 404)
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
    """Run a server of ``files`` while the ``with`` block runs."""
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
