"""Runs a function in a child process that may crash, hang or print from C++ without harm to this one."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfkd._internal.worker import IDLE_S, PLACE, RAISED, pickled
from tfkd._internal.worker import ChildFailed as ChildFailed
from tfkd._internal.worker import ChildRefused as ChildRefused
from tfkd.errors import DeviceError

# An error message ends with what the child printed last, up to this length.
_OUTPUT_CHARACTERS = 4000
# Environment variables that libraries read while they are imported begin with these.
_IMPORT_VARIABLES = ("CUDA", "KERAS", "KMP", "LD_", "MKL", "OMP", "PYTHON", "TF_", "XLA")
# Lines that TensorFlow prints at each start, on a healthy machine too.
_STARTUP_LINES = (
    "WARNING: All log messages before absl",
    "oneDNN custom operations",
    "cudart_stub",
    "cuda_platform",
    "cpu_feature_guard",
    "To enable the following instructions",
)


class ChildCrashed(DeviceError):
    """The child was killed by a signal, aborted, or exited without a result."""


class ChildTimedOut(DeviceError):
    """The child did not finish in time and was killed."""


def run(function: str, /, *, timeout_s: float, what: str, prepare: str = "", **kwargs: object) -> Any:
    """Runs a function in a new Python process and returns its result.

    The child and the processes that it started end when this process ends, also if this one is killed.

    Args:
        function: `"module:function"`.
        timeout_s: Time limit in seconds, > 0. The child is then killed with all processes that it started.
        what: The work, for error messages: "converting student.keras".
        prepare: `"module:function"` of slow preparations, such as an import; see `prepared`. Empty for a process that
            imports everything itself.
        **kwargs: Arguments of the function. They and the result must be picklable.

    Raises:
        TfkdError: The function raised one; it has the same class and message here.
        ChildRefused: A library that the function called raised an error.
        ChildFailed: The function raised any other error.
        ChildCrashed: The process died; the message names the signal.
        ChildTimedOut: The process did not finish in time.
    """
    return run_all(function, [kwargs], timeout_s=timeout_s, what=what, prepare=prepare)[0]


@contextlib.contextmanager
def prepared(first: str, /) -> Iterator[Callable[..., Any]]:
    """Starts a process that does slow preparations, such as an import, while this one prepares the arguments.

    On Linux the process stays for later calls with the same preparations: it forks a new process for each of them. It
    ends when this process ends, or when it was not used for ten minutes.

    Args:
        first: `"module:function"` without arguments: the preparations.

    Yields:
        A function like `run`, which may be called once and uses the process.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        child = _new_child(Path(folder) / "0", first)

        def call(function: str, /, *, timeout_s: float, what: str, **kwargs: object) -> Any:
            child.request(function, kwargs)
            return child.result(time.monotonic() + timeout_s, timeout_s, what)

        try:
            yield call
        finally:
            child.kill()


def run_all(
    function: str, calls: Sequence[Mapping[str, object]], *, timeout_s: float, what: str, prepare: str = ""
) -> list[Any]:
    """Runs a function several times in parallel, each call in its own process; see `run`.

    Args:
        function: `"module:function"`.
        calls: Arguments of each call.
        timeout_s: Time limit in seconds for all calls together, > 0.
        what: The work, for error messages.
        prepare: See `run`.

    Returns:
        The results in the order of `calls`. After the first failure the other children are killed.
    """
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        children: list[_Child] = []
        try:
            for index, kwargs in enumerate(calls):
                children.append(_new_child(Path(folder) / str(index), prepare))
                children[-1].request(function, kwargs)
            return [child.result(deadline, timeout_s, what) for child in children]
        finally:  # also on Ctrl-C: neither the children nor what they started stay behind
            for child in children:
                child.kill()


class _Child:
    """A child process; it waits for a byte on its standard input, which stays open as long as this process lives."""

    def __init__(self, folder: Path, first: str = "") -> None:
        folder.mkdir()
        self._request, self._reply, self._output = (folder / name for name in ("request", "reply", "output"))
        self._start(first)

    def _start(self, first: str) -> None:
        with self._output.open("wb") as sink:
            self._process = _python(
                str(self._request), str(self._reply), first, stdin=subprocess.PIPE, stdout=sink, stderr=sink
            )

    def request(self, function: str, kwargs: Mapping[str, object]) -> None:
        """Tells the child what to run."""
        self._request.write_bytes(pickled((function, dict(kwargs))))
        self._wake(function)

    def _wake(self, function: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child died: `result` reports it
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def _wait(self, timeout_s: float) -> int | None:
        return self._process.wait(timeout_s)

    def result(self, deadline: float, timeout_s: float, what: str) -> Any:
        try:
            code = self._wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ChildTimedOut(f"{what}: timed out after {timeout_s:g} s.{self._tail()}") from None
        if code in (0, RAISED) and self._reply.exists():
            reply = pickle.loads(self._reply.read_bytes())
            if code == 0:
                return reply
            error, message = reply
            if error is ChildFailed:
                raise ChildFailed(f"{what}: {message}{self._tail()}")
            raise error(f"{message}{self._tail()}" if error is ChildRefused else message)
        if code is None:
            cause = "while it started"
        else:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise ChildCrashed(f"{what}: the process crashed ({cause}).{self._tail()}")

    def kill(self) -> None:
        """Kills the child, if it did not end well, with all processes that it started."""
        if self._process.poll() != 0:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _tail(self) -> str:
        lines = self._output.read_text(errors="replace").splitlines()
        text = "\n".join(line for line in lines if not any(one in line for one in _STARTUP_LINES)).strip()
        return f"\nLast output of the process:\n{text[-_OUTPUT_CHARACTERS:]}" if text else ""


class _ForkedChild(_Child):
    """A child that a template forks when the request is known. A socket tells each side of the end of the other."""

    def _start(self, first: str) -> None:
        self._first = first
        self._socket: socket.socket | None = None
        self._code: int | None = None
        _template(first)  # starts it

    def _wake(self, function: str) -> None:
        with self._output.open("wb") as sink:
            self._socket = _template(self._first).fork((self._request, self._reply), function, sink.fileno())

    def _wait(self, timeout_s: float) -> int | None:
        assert self._socket is not None
        self._socket.settimeout(max(timeout_s, 0.001))
        try:
            status = self._socket.recv(16)
        except TimeoutError:
            raise subprocess.TimeoutExpired([], timeout_s) from None
        except ConnectionResetError:  # the request was not read
            status = b""
        self._code = int(status) if status else None
        return self._code

    def kill(self) -> None:
        """See `_Child.kill`."""
        if self._socket is None:
            return
        with self._socket, contextlib.suppress(OSError):
            if self._code != 0:
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.settimeout(5)
                while self._socket.recv(16):  # until the last process that holds the other end has ended
                    pass


def _new_child(folder: Path, first: str) -> _Child:
    """A child that does the preparations, forked on Linux from one that has done them."""
    return (_ForkedChild if first and sys.platform == "linux" else _Child)(folder, first)


class _Template:
    """A process that has done its preparations and forks a new process for each request.

    this process ---- request and one end of a socket ----> template
         |                                                      | forks
         +--------- other end: exit status, end of life ---- supervisor ---- forks ---- worker
    """

    def __init__(self, first: str) -> None:
        self._socket, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        silent = subprocess.DEVNULL
        with end:
            self._process = _python(first, stdin=end.fileno(), stdout=silent, stderr=silent)
        self._used = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether the process runs and will not end of itself before the next request reaches it."""
        return self._process.poll() is None and time.monotonic() - self._used < IDLE_S

    def fork(self, paths: tuple[Path, Path], function: str, output: int) -> socket.socket:
        """Starts a worker that reads its request at the first path and writes its reply to the second one."""
        job, end = socket.socketpair()
        # In a file, since a message has a limit that large environments exceed.
        paths[0].with_name(PLACE).write_bytes(pickled((os.getcwd(), dict(os.environ))))
        # A template that has died leaves `job` without a peer, which is how a crash at the start is seen.
        with end, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [pickled((*map(str, paths), function))], [end.fileno(), output])
            job.send(b"\n")
        self._used = time.monotonic()
        return job

    def close(self) -> None:
        """Ends the template; the workers that it forked go on."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


# The template of each preparation, and what its imports depend on.
_templates: dict[str, tuple[Any, _Template]] = {}
_templates_lock = threading.Lock()


def _template(first: str) -> _Template:
    """The template with these preparations; another takes its place when what imports depend on has changed."""
    key = _imports_from()
    with _templates_lock:
        known, template = _templates.get(first, (None, None))
        if template is None or known != key or not template.usable:
            if template is not None:
                template.close()
            template = _Template(first)
            _templates[first] = (key, template)
        return template


def _imports_from() -> tuple[str, list[tuple[str, str]]]:
    """What the imports of a process depend on: the search path, and environment variables."""
    return _import_path(), sorted(item for item in os.environ.items() if item[0].startswith(_IMPORT_VARIABLES))


@atexit.register
def _close_templates() -> None:
    while _templates:
        _templates.popitem()[1][1].close()


def _python(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    """A new process that runs `tfkd._internal.worker`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tfkd._internal.worker", *arguments],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": _import_path()},
        **streams,
    )


def _import_path() -> str:
    """The child imports from where this process does, and from no other place: not from the working directory."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)
