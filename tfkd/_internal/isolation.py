"""Runs a function in a child process that may crash, hang or print from C++ without harm to this one."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tfkd.errors import DeviceError, ModelError, TfkdError

_PACKAGE = Path(__file__).parents[1]
# An error message ends with what the child printed last, up to this length.
_OUTPUT_CHARACTERS = 4000
# The exit status of a child whose function raised an exception; no other cause gives it.
_RAISED = 87
# Lines that TensorFlow prints at each start, on a healthy machine too.
_STARTUP_LINES = (
    "WARNING: All log messages before absl",
    "oneDNN custom operations",
    "cudart_stub",
    "cuda_platform",
    "cpu_feature_guard",
    "To enable the following instructions",
)


class ChildRefused(ModelError):
    """A library that the function called raised an error: it does not accept the model."""


class ChildFailed(RuntimeError):
    """The function raised an error that nothing expected, a bug of tfkd; the message has the child's traceback."""


class ChildCrashed(DeviceError):
    """The child was killed by a signal, aborted, or exited without a result."""


class ChildTimedOut(DeviceError):
    """The child did not finish in time and was killed."""


def run(function: str, /, *, timeout_s: float, what: str, **kwargs: Any) -> Any:
    """Runs a function in a new Python process and returns its result.

    The child and the processes that it started end when this process ends, also if this one is killed.

    Args:
        function: `"module:function"`.
        timeout_s: Time limit in seconds, > 0. The child is then killed with all processes that it started.
        what: The work, for error messages: "converting student.keras".
        **kwargs: Arguments of the function. They and the result must be picklable.

    Raises:
        TfkdError: The function raised one; it has the same class and message here.
        ChildRefused: A library that the function called raised an error.
        ChildFailed: The function raised any other error.
        ChildCrashed: The process died; the message names the signal.
        ChildTimedOut: The process did not finish in time.
    """
    return run_all(function, [kwargs], timeout_s=timeout_s, what=what)[0]


@contextlib.contextmanager
def warm(first: str, /) -> Iterator[Callable[..., Any]]:
    """Starts a process that does slow preparations, such as an import, while this one prepares the arguments.

    Args:
        first: `"module:function"` without arguments, which the child runs at once.

    Yields:
        A function like `run`, which may be called once and uses the process.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        child = _Child(Path(folder) / "0", first)

        def call(function: str, /, *, timeout_s: float, what: str, **kwargs: Any) -> Any:
            child.request(function, kwargs)
            return child.result(time.monotonic() + timeout_s, timeout_s, what)

        try:
            yield call
        finally:
            child.kill()


def run_all(function: str, calls: Sequence[Mapping[str, Any]], *, timeout_s: float, what: str) -> list[Any]:
    """Runs a function several times in parallel, each call in its own process; see `run`.

    Args:
        function: `"module:function"`.
        calls: Arguments of each call.
        timeout_s: Time limit in seconds for all calls together, > 0.
        what: The work, for error messages.

    Returns:
        The results in the order of `calls`. After the first failure the other children are killed.
    """
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        children: list[_Child] = []
        try:
            for index, kwargs in enumerate(calls):
                children.append(_Child(Path(folder) / str(index)))
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
        # The child imports from where this process does, and from no other place: not from the working directory.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with self._output.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tfkd._internal.isolation", str(self._request), str(self._reply), first],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )

    def request(self, function: str, kwargs: Mapping[str, Any]) -> None:
        """Tells the child what to run."""
        self._request.write_bytes(pickle.dumps((function, dict(kwargs)), protocol=pickle.HIGHEST_PROTOCOL))
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child died: `result` reports it
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def result(self, deadline: float, timeout_s: float, what: str) -> Any:
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ChildTimedOut(f"{what}: timed out after {timeout_s:g} s.{self._tail()}") from None
        if code in (0, _RAISED) and self._reply.exists():
            reply = pickle.loads(self._reply.read_bytes())
            if code == 0:
                return reply
            error, message = reply
            if error is ChildFailed:
                raise ChildFailed(f"{what}: {message}{self._tail()}")
            raise error(f"{message}{self._tail()}" if error is ChildRefused else message)
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


# From here on: what the child runs.


def _serve(request: Path, reply: Path, first: str) -> int:
    """Runs the requested function and writes its result or its error; returns the exit status."""
    try:
        if first:
            _find(first)()
        if not os.read(sys.stdin.fileno(), 1):
            return 1  # the parent ended without a request
        if sys.platform != "linux":
            threading.Thread(target=_end_with_parent, daemon=True).start()
        function, kwargs = pickle.loads(request.read_bytes())
        content, code = _pickled(_find(function)(**kwargs)), 0
    except Exception as error:
        content, code = _pickled(_described(error)), _RAISED
    partial = reply.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(reply)
    return code


def _described(error: Exception) -> tuple[type[Exception], str]:
    """The class of the exception that the parent raises, and its message.

    Exceptions of tfkd are meant for the user. A ValueError, a RuntimeError or an exception class of its own that a
    library raises says that it does not accept the model. Everything else is a bug: any other error in tfkd's frames,
    and a TypeError, KeyError and the like anywhere.
    """
    if isinstance(error, TfkdError):
        return type(error), str(error)
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    deliberate = isinstance(error, (ValueError, RuntimeError)) or type(error).__module__ != "builtins"
    if deliberate and _PACKAGE not in Path(innermost).parents:
        plain = isinstance(error, (ValueError, RuntimeError)) and str(error)
        return ChildRefused, str(error) if plain else f"{type(error).__name__}: {error}"
    lines = "".join(traceback.format_exception(error))
    return ChildFailed, f"unexpected {type(error).__name__}: {error}\nIn the child process:\n{lines.rstrip()}"


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _find(function: str) -> Callable[..., Any]:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def _end_with_parent() -> None:
    """Kills this process and what it started when the parent's end of the pipe closes."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    _kill_group()


def _kill_group() -> NoReturn:
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _supervised() -> None:
    """Forks: returns in the new process, which works; this one waits for its end and passes its exit status on.

    If the parent ends first, this process kills the whole process group. The worker could not do that itself: native
    code may hold the interpreter's lock for hours, and no thread of the worker would run. Only Linux forks, since
    frameworks of macOS may crash in a process that was forked.
    """
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only handled signals write to the pipe
    worker = os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(wake)
        os.close(signalled)
        return
    events = select.poll()
    events.register(sys.stdin.fileno(), 0)  # a closed pipe is reported without being asked for
    events.register(wake, select.POLLIN)
    while True:
        ready = [number for number, _ in events.poll()]
        if sys.stdin.fileno() in ready:
            _kill_group()
        os.read(wake, 64)
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            _end_like(os.waitstatus_to_exitcode(status))


def _end_like(code: int) -> NoReturn:
    """Ends this process with an exit code of `subprocess.Popen`, in which a signal is negative."""
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the worker has left the core dump
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    if sys.platform == "linux":
        _supervised()
    from tfkd._internal import isolation  # exceptions of `__main__` would have another name in the parent

    status = isolation._serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    sys.stderr.flush()
    # The reply is written. A normal exit would unload the libraries, which takes TensorFlow half a second, and in which
    # some of them crash.
    os._exit(status)
