"""A proxy before a server of objects: it stalls, cuts, resets, answers 5xx and flips bytes on order."""

import http.client
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass
class Proxy:
    """A running proxy: its URL, and the faults still to come as (kind, method, times)."""

    upstream: str
    url: str = ""
    faults: list[list[Any]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def misbehave(self, kind: str, method: str, times: int, path: str = "") -> None:
        """Order a fault on the next requests of a method whose path holds `path`."""
        self.faults.append([kind, method, times, path])

    def fault_of(self, method: str, path: str) -> str:
        """The fault that this request meets, counted down; "" for none."""
        with self.lock:
            for fault in self.faults:
                if fault[1] == method and fault[2] > 0 and fault[3] in path:
                    fault[2] -= 1
                    return str(fault[0])
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _forward(self) -> None:
        body = self._body()
        kind = self.proxy.fault_of(self.command, self.path)
        if kind == "reset":
            self.close_connection = True
            self.connection.close()
            return
        if kind == "stall":
            self.proxy.closing.wait(30)
            self.close_connection = True
            return
        if kind == "status":
            self._send(503, b"", {})
            return
        host = urllib.parse.urlsplit(self.proxy.upstream).netloc
        server = http.client.HTTPConnection(host, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        server.request(self.command, self.path, body, headers)
        answer = server.getresponse()
        data = answer.read()
        if kind == "flip":
            data = bytes(byte ^ (index % 64 == 13) for index, byte in enumerate(data))
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        size = int(answer.getheader("Content-Length") or len(data))
        self._send(answer.status, data, kept, size if self.command == "HEAD" else len(data), is_cut=kind == "cut")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _forward

    def _body(self) -> bytes:
        """The body of the request, sent whole or in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def _send(self, status: int, body: bytes, headers: dict[str, str], size: int = 0, *, is_cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
        if is_cut:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


@contextmanager
def serve_proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy before the server at `upstream`."""
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
