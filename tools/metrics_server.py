"""Serving metrics: a page for Prometheus on a port of its own.

On loopback it needs no token, and answers only to names of this machine, so that a page in a browser cannot reach it by
a name of its own. Beyond loopback it needs a token, which Prometheus sends as `Authorization: Bearer …`. Nothing but
`GET /metrics` is answered. The names of workflows and steps are all it tells of what is in the store.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from dalsegno.core.errors import BadOption

SILENT_S = 10
"""Whoever connects and says nothing is hung up on after so many seconds."""

TOKEN_LEAST = 16
"""Characters of a token: fewer can be guessed over a network."""

Reply = Callable[..., Any]


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each who asks, none of which keeps the process alive."""

    daemon_threads = True

    def server_bind(self) -> None:
        """As for any server, without asking the network's name service for our own name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class Server6(Server):
    """The same on an address of version 6."""

    address_family = socket.AF_INET6


class Handler(WSGIRequestHandler):
    """Quiet, and not to be held up."""

    timeout = SILENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody wants a line for every scrape."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and reached from nowhere else.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guarded(app: Reply, token: str | None) -> Reply:
    """The page, for whoever may see it."""

    def answer(environ: dict[str, Any], start: Reply) -> Iterable[bytes]:
        def refuse(status: str, *headers: tuple[str, str]) -> list[bytes]:
            start(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
            return [status.encode() + b"\n"]

        if token is not None:
            given = str(environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1", "replace")
            if not hmac.compare_digest(given, b"Bearer " + token.encode()):
                return refuse("401 Unauthorized", ("WWW-Authenticate", "Bearer"))
        elif not is_loopback(urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""):
            return refuse("403 Forbidden")
        if environ.get("PATH_INFO") != "/metrics":
            return refuse("404 Not Found")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return refuse("405 Method Not Allowed", ("Allow", "GET, HEAD"))
        page: Iterable[bytes] = app(environ, start)
        return page

    return answer


@contextmanager
def serving_metrics(registry: CollectorRegistry, port: int, host: str, token: str | None) -> Iterator[int]:
    """Serve a registry until the block ends; gives the port, which port 0 leaves to the system.

    Raises `BadOption` for a host beyond loopback without a token, for a token that is too short, and for a port that
    cannot be had.
    """
    if token is None and not is_loopback(host):
        raise BadOption(
            f"metrics on {host} could be read by whoever reaches this machine: give a token, with --metrics-token or "
            "DALSEGNO_METRICS_TOKEN, which Prometheus sends as its bearer token; or stay on --metrics-host 127.0.0.1"
        )
    if token is not None and (len(token) < TOKEN_LEAST or not token.isascii() or not token.isprintable()):
        raise BadOption(
            f"a token for metrics is {TOKEN_LEAST} or more plain characters: python -c 'import secrets; "
            "print(secrets.token_urlsafe())' makes one"
        )
    kind = Server6 if ":" in host else Server
    try:
        server = make_server(host, port, guarded(make_wsgi_app(registry), token), kind, Handler)
    except (OSError, OverflowError) as error:
        raise BadOption(f"metrics cannot be served on {host} port {port}: {error}") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
