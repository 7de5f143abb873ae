"""The explorer's server: the page and its views over HTTP, for browsers on this machine alone.

The standard library's server is enough here: one reader, a dozen addresses that only read, no state to keep, and
nothing but the loopback interface to listen on. A framework and its server would bring packages for what is not needed.
"""

import errno
import json
import os
import select
import socket
import socketserver
import sys
import traceback
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl

from pspc_rs.errors import CudaError, NetworkError, OutOfMemoryError, OutputError, PspcError
from pspc_rs.explorer.questions import Asked
from pspc_rs.explorer.views import Views
from pspc_rs.explorer.work import Abandoned, Work

LOOPBACK = "127.0.0.1"
"""Where the server listens."""

_NAMES = {LOOPBACK, "localhost", "[::1]"}
_SECONDS_OF_PATIENCE = 0.3
_SECONDS_BETWEEN_REQUESTS = 60.0
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_LONGEST_ADDRESS = 4096
_OURS = (CudaError, NetworkError, OutOfMemoryError)


class ExplorerServer(ThreadingHTTPServer):
    """Answers browsers on this machine; ``serve_forever`` runs it, ``server_close`` ends its work.

    Requests under another name than that of this machine are refused, so that no page from elsewhere can reach it.

    Args:
        views: what is shown.
        port: where to listen; 0 for any that is free.
        report: called with a line of text where something unexpected went wrong.

    Attributes:
        address: what to open in a browser.

    Raises:
        OutputError: the port cannot be used.

    Example:
        >>> import pspc_rs as pspc
        >>> from pspc_rs.explorer import Scene
        >>> from pspc_rs.testing import tiny_images
        >>> data = tiny_images()
        >>> with ExplorerServer(Views(Scene(data, {"empirical": pspc.Empirical(data)}, [1.0, 0.1])), 0) as server:
        ...     server.address[:17]
        'http://127.0.0.1:'
    """

    daemon_threads = True
    block_on_close = False
    # On Windows it would let two servers listen on one port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, views: Views, port: int, report: Callable[[str], object] = lambda line: None) -> None:
        self.views, self.work, self.report = views, Work(), report
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise OutputError(_why_not(port, error)) from error
        self.address = f"http://{LOOPBACK}:{self.server_address[1]}/"

    def __repr__(self) -> str:
        return f"ExplorerServer({self.address}, {self.views!r})"

    def server_bind(self) -> None:
        """Takes the port, without asking for the name of this machine, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    def server_close(self) -> None:
        """Ends what is being computed, and gives the port back."""
        super().server_close()
        self.work.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports an error, unless it is that a browser left in the middle of an answer."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.report("".join(traceback.format_exception(error)))


def _why_not(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; give another one with --port, or --port 0 for any that is free"
    return (
        f"port {port} cannot be used: {error.strerror}; give another one with --port, or --port 0 for any that is free"
    )


class _Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: ExplorerServer
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS_BETWEEN_REQUESTS
    server_version, sys_version = "pspc-rs", ""

    def do_GET(self) -> None:
        """Answers a request."""
        if not is_of_this_machine(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "only requests to this machine by its loopback address are answered")
        elif len(self.path) > _LONGEST_ADDRESS:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, f"allowed are addresses of {_LONGEST_ADDRESS} letters")
        else:
            self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        name, values = path.removeprefix("/"), dict(parse_qsl(query, keep_blank_values=True))
        if name == "":
            self._send(HTTPStatus.OK, self.server.views.page(), "text/html", policy=False)
        elif name == "explore.js":
            self._send(HTTPStatus.OK, _script(), "text/javascript")
        elif name in self.server.views.views:
            # Another page may link to the explorer, but not have it compute.
            if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                self._refuse(HTTPStatus.FORBIDDEN, "another site asks")
            else:
                self._view(name, values)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path[:80]}; the page is at /")

    def _view(self, name: str, values: dict[str, str]) -> None:
        """Answers with a view, or with how far it is."""
        names, view = self.server.views.views[name]
        as_page = values.pop("as", "") == "page"
        try:
            asked = Asked(values, names)
            key = (name, *sorted(values.items()))
            job = self.server.work.ask(key, partial(view, asked))
            while not job.wait(_SECONDS_OF_PATIENCE, self._is_still_there):
                if not self._is_still_there():
                    self.close_connection = True
                    return
                if not as_page:  # a page has nobody to ask again for it
                    progress = {"done": job.done, "total": job.total, "what": job.what}
                    self._send(HTTPStatus.ACCEPTED, json.dumps(progress), "application/json")
                    return
            self.server.work.fetched(key)
            answer = job.outcome.result()
        except Abandoned:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the explorer is being closed")
        except PspcError as error:
            status = HTTPStatus.INTERNAL_SERVER_ERROR if isinstance(error, _OURS) else HTTPStatus.BAD_REQUEST
            self._refuse(status, str(error))
        except Exception as error:  # a network, or memory that runs out, can raise anything
            self.server.report("".join(traceback.format_exception(error)))
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            if as_page:
                self._send(HTTPStatus.OK, answer["html"], "text/html", policy=False)
            else:
                self._send(HTTPStatus.OK, json.dumps(answer), "application/json")

    def _is_still_there(self) -> bool:
        """Whether the browser has not closed the connection."""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""
        except (OSError, ValueError):
            return False

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}), "application/json")

    def _send(self, status: HTTPStatus, text: str, kind: str, *, policy: bool = True) -> None:
        """Sends an answer.

        Args:
            status: of it.
            text: its content.
            kind: the type of the content.
            policy: whether a browser that shows it on its own is to load nothing; pages have a policy of their own.
        """
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY if policy else "frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing of requests."""


def is_of_this_machine(host: str) -> bool:
    """Whether a request names this machine by a loopback address, with any port: that of a tunnel may be another one.

    Example:
        >>> is_of_this_machine("localhost:8750"), is_of_this_machine("[::1]"), is_of_this_machine("127.0.0.1.evil.org")
        (True, True, False)
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    return name.lower() in _NAMES and port.isdecimal()


def _script() -> str:
    return (resources.files("pspc_rs.explorer") / "explore.js").read_text(encoding="utf-8")
