"""A small HTTP server for one page: it answers GET of the listed paths and POST of one, and nothing else.

All paths begin with a random token. A connection serves one request and ends after a time limit, whether the client
sends slowly or not at all. The headers isolate the page, which threads in WebAssembly need, and forbid it any other
network.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import secrets
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from tfkd._internal.types import JsonRecord
from tfkd.errors import DeviceError, InputError

_CONNECTION_S = 300.0
_MOST_CONNECTIONS = 64
_CHUNK = 1 << 16

_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Emscripten builds its bindings by new Function.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-eval' 'wasm-unsafe-eval'; "
    "worker-src 'self' blob:; connect-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".wasm": "application/wasm", ".json": "application/json", ".svg": "image/svg+xml",
}  # fmt: skip


class Reply(NamedTuple):
    """Answer to a POST: its status and JSON value."""

    status: int
    value: JsonRecord


class Site(NamedTuple):
    """What the server answers.

    Args:
        files: Content of each path, without the token; a function is called for each GET. None is not found.
        prefix: Called with each other path; returns its content, or None.
        receive: Called with the body of a POST to `result`.
        limit_bytes: Largest body of a POST.
    """

    files: Mapping[str, bytes | Callable[[], bytes]]
    prefix: Callable[[str], bytes | None]
    receive: Callable[[bytes], Reply]
    limit_bytes: int


@contextlib.contextmanager
def serving(
    sites: Mapping[str, Site], *, address: str = "127.0.0.1", port: int = 0, certificate: str = ""
) -> Iterator[str]:
    """Serves sites until the block ends; yields the URL without a token, such as `http://127.0.0.1:40001/`.

    Args:
        sites: A site by its token.
        address: Address of this machine to listen on.
        port: Port; 0 for a free one.
        certificate: A PEM file with certificate and key, for https; empty for http.

    Raises:
        InputError: The address or certificate cannot be used.
    """
    try:
        server = _Server((address, port), sites)
    except (OSError, OverflowError) as error:
        raise InputError(f"browser: cannot listen on {address}, port {port}: {error}. Choose another.") from None
    scheme = "http"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(certificate)
        except (OSError, ValueError) as error:
            server.server_close()
            raise InputError(
                f"browser: certificate must be a PEM file with a certificate and its key. Received: {certificate} "
                f"({error})."
            ) from None
        # The handshake takes place in the thread of the connection, at its first read.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        host = f"[{address}]" if ":" in address else address
        yield f"{scheme}://{host}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(12)


def network_address() -> str:
    """The address of this machine in its network.

    Raises:
        DeviceError: It has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the interface
            return str(one.getsockname()[0])
        except OSError as error:
            raise DeviceError(
                f"browser: this machine has no network address ({error}). Connect it, or name one: address=192.168.1.2"
            ) from None


# As socketserver declares them.
_Request: TypeAlias = "socket.socket | tuple[bytes, socket.socket]"
_Address: TypeAlias = "tuple[str, int] | str"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self.free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: _Request, client_address: _Address) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: _Request, client_address: _Address) -> None:
        timer = threading.Timer(_CONNECTION_S, self._end, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self.free.release()

    def _end(self, request: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: _Request, client_address: _Address) -> None:
        if not isinstance(sys.exception(), OSError):  # the client has gone away
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = 30.0  # seconds between two parts of a request

    def do_GET(self) -> None:  # the name in http.server
        site, path = self._find()
        if site is None:
            return self._answer(404, b"not found\n")
        content = site.files.get(path)
        content = content() if callable(content) else content
        content = site.prefix(path) if content is None else content
        if content is None:
            return self._answer(404, b"not found\n")
        suffix = "." + path.rpartition(".")[2] if path else ".html"
        return self._answer(200, content, _TYPES.get(suffix, "application/octet-stream"))

    def do_POST(self) -> None:  # the name in http.server
        site, path = self._find()
        if site is None or path != "result":
            return self._answer(404, b"not found\n")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or not length.isascii():
            return self._answer(411, b"a length is needed\n")
        if len(length) > 15 or int(length) > site.limit_bytes:
            return self._answer(413, b"too large\n")
        body = self._read(int(length))
        if len(body) < int(length):
            return self._answer(400, b"incomplete\n")
        reply = site.receive(body)
        return self._answer(reply.status, json.dumps(reply.value).encode(), _TYPES[".json"])

    def _find(self) -> tuple[Site | None, str]:
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        return self.server.sites.get(token), path

    def _read(self, length: int) -> bytes:
        body = bytearray()
        while len(body) < length and (part := self.rfile.read(min(_CHUNK, length - len(body)))):
            body += part
        return bytes(body)

    def _answer(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        return "tfkd"

    def log_message(self, format: str, *args: object) -> None:  # the name in http.server
        """Prints nothing: the terminal shows the progress."""
