"""A small HTTP server with byte ranges over a folder, which misbehaves on order and counts what it was asked."""

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

Kind = Literal["status", "short", "cut", "stall", "trickle", "reset", "whole", "wrong_range", "no_head", "flip"]


@dataclass
class Fault:
    """How to misbehave, on the next `times` requests whose path contains `path` (and whose method is GET).

    status: answer `status`. short: half of the bytes, honestly labelled. cut: half of the bytes of a full
    Content-Length. stall: headers, half of the bytes, then nothing. trickle: a byte a moment. reset: a TCP reset before
    the answer. whole: ignore the range, 200 and everything. wrong_range: 206 with another range than asked for.
    no_head: HEAD is answered 405. flip: one bit of every 64th byte is another.
    """

    kind: Kind
    times: int = 1
    path: str = ""
    status: int = 503


@dataclass
class Request:
    """One request as it came: method, path, (first, last) of its range, body bytes to send."""

    method: str
    path: str
    range: tuple[int, int] | None
    sent: int = 0


@dataclass
class FileServer:
    """A running server: its URL, the faults still to come, the requests so far."""

    folder: Path
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def misbehave(self, kind: Kind, times: int = 1, path: str = "", status: int = 503) -> None:
        """Order a fault."""
        self.faults.append(Fault(kind, times, path, status))

    def asked(self, path: str = "", method: str = "GET") -> list[Request]:
        """The requests so far whose path contains `path`."""
        return [request for request in self.requests if request.method == method and path in request.path]

    def fault_of(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, counted down."""
        with self.lock:
            for fault in self.faults:
                fits = method == ("HEAD" if fault.kind == "no_head" else "GET")
                if fits and fault.times > 0 and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self, method: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        request = Request(method, self.path, (int(asked[1]), int(asked[2])) if asked else None)
        self.files.requests.append(request)
        fault = self.files.fault_of(method, self.path)
        kind = fault.kind if fault else None
        file = self.files.folder / self.path.lstrip("/")
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._hang_up()
        elif kind in ("status", "no_head"):
            self._send(fault.status if kind == "status" else 405, b"", {})
        elif not file.is_file():
            self._send(404, b"", {})
        else:
            self._send_file(request, file.read_bytes(), kind)

    def _send_file(self, request: Request, data: bytes, kind: str | None) -> None:
        status, headers, body = 200, {}, data
        if request.range and kind != "whole":
            first, last = request.range
            if first >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            first, last = (first + 7, last + 7) if kind == "wrong_range" else (first, last)
            body = data[first : last + 1]
            if kind == "short":
                body = body[: len(body) // 2]
            if kind == "flip":
                body = bytes(byte ^ (index % 64 == 13) for index, byte in enumerate(body))
            status, headers = 206, {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(data)}"}
        request.sent = len(body)
        self._send(status, body if request.method == "GET" else b"", headers, len(body), kind)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], length: int | None = None, kind: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if kind == "trickle":
            for byte in body:
                if self.files.closing.wait(0.02):
                    break
                self.wfile.write(bytes([byte]))
            self._hang_up()
        elif kind in ("cut", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if kind == "stall":
                self.files.closing.wait(30)
            self._hang_up()
        else:
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    """Serve a folder on a free port of the loopback while the block runs."""
    files = FileServer(folder)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": files}))
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        files.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
