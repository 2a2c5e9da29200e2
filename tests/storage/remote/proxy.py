"""A small HTTP proxy that misbehaves as told: late, busy, broken in mid body, down. What it does is drawn with a seed.

``python proxy.py PORT UPSTREAM_PORT LATENCY_SECONDS`` runs one by itself.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What was asked, and what is answered: status 0 for a connection that is reset. Noted before the answer goes out."""

    method: str
    path: str
    range: str
    status: int
    nbytes: int


@dataclass
class Faults:
    """share: of the requests that go wrong, each in one of the ``kinds``: a status, "reset" before the answer, or "cut" in
    the middle of it. status_of: the answer to whatever has the key in its path."""

    latency: float = 0.0
    share: float = 0.0
    kinds: tuple[Any, ...] = (503, 429, "reset", "cut")
    status_of: dict[str, int] = field(default_factory=dict)
    seed: int = 0


class Proxy:
    """Stands before a server of this machine, as a context. ``log`` has every request that was answered."""

    def __init__(self, upstream: int, faults: Faults | None = None, port: int = 0) -> None:
        self.upstream, self.faults, self.port = upstream, faults or Faults(), port
        self.log: list[Request] = []
        self._random = random.Random(self.faults.seed)
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Down: open connections are reset, new ones refused."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.connections):
            _reset(connection)

    def go_down(self, seconds: float) -> None:
        """Down now, back on the same port later."""
        self.stop()
        threading.Timer(seconds, self.start).start()

    def fault(self, path: str) -> Any:
        for part, status in self.faults.status_of.items():
            if part in path:
                return status
        with self._lock:
            return self._random.choice(self.faults.kinds) if self._random.random() < self.faults.share else None

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", proxy.port), _Handler)

    def shutdown_request(self, request: Any) -> None:
        """Without the FIN that comes first otherwise."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break: that is what it is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream, timeout=30)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()
        self.rfile.close()

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        proxy = self.server.proxy
        time.sleep(proxy.faults.latency)
        fault = proxy.fault(self.path)
        if fault == "reset":
            self._note(0, 0)
            _reset(self.connection)
            self.close_connection = True
        elif isinstance(fault, int):
            self._note(fault, 0)
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._forward(cut=fault == "cut")

    do_HEAD = do_GET  # noqa: N815

    def _forward(self, *, cut: bool) -> None:
        self.upstream.request(self.command, self.path, headers=dict(self.headers.items()))
        answer = self.upstream.getresponse()
        length = answer.getheader("Content-Length")
        cut = cut and self.command == "GET" and int(length or 0) > 1
        wanted = 0 if self.command == "HEAD" else int(length or 0)
        self._note(0 if cut else answer.status, wanted // 2 if cut else wanted)
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name not in ("Connection", "Transfer-Encoding"):
                self.send_header(name, value)
        if length is None:
            self.send_header("Connection", "close")
        self.end_headers()
        left = int(length or 0) // 2 if cut else 1 << 62
        sent = 0
        while self.command == "GET" and sent < left and (piece := answer.read(min(1 << 17, left - sent))):
            self.wfile.write(piece)
            sent += len(piece)
        self.wfile.flush()
        answer.read()
        if cut:
            time.sleep(0.01)  # so that what was sent arrives
            _reset(self.connection)
        self.close_connection = cut or length is None

    def _note(self, status: int, nbytes: int) -> None:
        self.server.proxy.log.append(Request(self.command, self.path, self.headers.get("Range", ""), status, nbytes))


def _reset(connection: socket.socket) -> None:
    """Have its handler end, and its end be a RST, not a FIN."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)


if __name__ == "__main__":
    with Proxy(int(sys.argv[2]), Faults(latency=float(sys.argv[3])), int(sys.argv[1])):
        threading.Event().wait()
