"""A small HTTP server for one page: it answers GET of the listed paths and POST of one, and nothing else.

All paths begin with a random token. A connection serves one request and ends after a time limit, whether the client
sends slowly or not at all. The headers isolate the page, which threads in WebAssembly need, and forbid it any other
network.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import json
import logging
import secrets
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import NamedTuple

from tornado import http1connection, httpserver, iostream, web

from tfkd._internal.types import JsonRecord
from tfkd.errors import DeviceError, InputError

# Seconds for the headers of a request, which includes the handshake of TLS, and for the whole connection.
_HEADERS_S = 30.0
_CONNECTION_S = 300.0
_MOST_CONNECTIONS = 64

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
    context = _context(certificate) if certificate else None
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, port), family=family, backlog=_MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise InputError(f"browser: cannot listen on {address}, port {port}: {error}. Choose another.") from None
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=_run, args=(loop, _serve(sites, listening, context, ended)), daemon=True)
    thread.start()
    try:
        host = f"[{address}]" if ":" in address else address
        yield f"{'https' if context else 'http'}://{host}:{listening.getsockname()[1]}/"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def _context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate)
    except (OSError, ValueError) as error:
        raise InputError(
            f"browser: certificate must be a PEM file with a certificate and its key. Received: {certificate} "
            f"({error})."
        ) from None
    return context


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


def _run(loop: asyncio.AbstractEventLoop, task: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(task)


async def _serve(
    sites: Mapping[str, Site], listening: socket.socket, context: ssl.SSLContext | None, ended: asyncio.Event
) -> None:
    # Without a handler of its own, the standard library would print warnings on requests into the progress.
    logging.getLogger("tornado.general").addHandler(logging.NullHandler())
    answering: set[asyncio.Task[object]] = set()
    given = {"sites": sites, "answering": answering}
    pages = web.Application(
        [("/([^/]*)/(.*)", _Handler, given)],
        default_handler_class=_Handler,
        default_handler_args=given,
        log_function=lambda handler: None,
    )
    server = _Server(
        pages,
        ssl_options=context,
        no_keep_alive=True,
        idle_connection_timeout=_HEADERS_S,
        max_body_size=0,  # a request without a token has none
    )
    listening.setblocking(False)
    server.add_socket(listening)
    await ended.wait()
    server.stop()
    if answering:  # whoever takes the answers may end the server before the device has its reply
        await asyncio.wait(answering)
    await server.close_all_connections()


class _Server(httpserver.HTTPServer):
    """Closes connections that are too many, and each one after a time limit."""

    @functools.cached_property
    def _streams(self) -> weakref.WeakSet[iostream.IOStream]:
        """Those that are open; a closed one leaves the memory at once."""
        return weakref.WeakSet()

    def handle_stream(self, stream: iostream.IOStream, address: tuple[str, int]) -> None:
        if sum(not one.closed() for one in self._streams) >= _MOST_CONNECTIONS:
            return stream.close()
        self._streams.add(stream)
        asyncio.get_running_loop().call_later(_CONNECTION_S, _close, weakref.ref(stream))
        return super().handle_stream(stream, address)


def _close(stream: weakref.ref[iostream.IOStream]) -> None:
    if (still := stream()) is not None:
        still.close()


@web.stream_request_body
class _Handler(web.RequestHandler):
    """Answers a request. Its path is looked at before its body is read."""

    def initialize(self, sites: Mapping[str, Site], answering: set[asyncio.Task[object]]) -> None:
        self._sites, self._answering, self._body = sites, answering, bytearray()

    def set_default_headers(self) -> None:
        for name, value in {"Server": "tfkd", **_HEADERS}.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        token, path = self.path_args or ("", "")
        site, is_answer = self._sites.get(token), self.request.method == "POST"
        if site is None or (is_answer and path != "result"):
            raise web.HTTPError(404)
        self._site = site
        if is_answer:
            assert isinstance(self.request.connection, http1connection.HTTP1Connection)
            self.request.connection.set_max_body_size(site.limit_bytes)

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    def get(self, token: str, path: str) -> None:
        content = self._site.files.get(path)
        content = content() if callable(content) else content
        content = self._site.prefix(path) if content is None else content
        if content is None:
            raise web.HTTPError(404)
        suffix = "." + path.rpartition(".")[2] if path else ".html"
        self.set_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        self.finish(content)

    async def post(self, token: str, path: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        # In a thread: the check of large outputs takes a while, in which other devices are served.
        reply = await asyncio.to_thread(self._site.receive, bytes(self._body))
        self.set_status(reply.status)
        self.set_header("Content-Type", _TYPES[".json"])
        self.finish(json.dumps(reply.value))

    def write_error(self, status_code: int, **kwargs: object) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{http.HTTPStatus(status_code).phrase}\n")

    def compute_etag(self) -> None:
        """None, since browsers keep nothing."""
