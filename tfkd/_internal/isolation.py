"""Runs a function in a child process that may crash, hang or print from C++ without harm to this one."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# What a child printed stands in the error; of much the end says most.
_OUTPUT_CHARACTERS = 4000
# The exit status of a child whose function raised; no other cause gives it.
_RAISED = 87
# What TensorFlow prints at each start, on a healthy machine too.
_NOISE = (
    "WARNING: All log messages before absl",
    "oneDNN custom operations",
    "cudart_stub",
    "cuda_platform",
    "cpu_feature_guard",
    "To enable the following instructions",
)


class ChildRefused(ValueError):
    """The function raised an error of its own: its message says what was wrong with the input."""


class ChildCrashed(RuntimeError):
    """The child died: a signal, an abort or an exit in the middle."""


class ChildTimedOut(RuntimeError):
    """The child did not finish in time and was killed."""


def run(function: str, /, *, timeout_s: float, what: str, **kwargs: Any) -> Any:
    """Runs a function in a fresh Python process and returns its result.

    Args:
        function: `"module:function"`.
        timeout_s: seconds after which the child is killed with everything that it started, > 0.
        what: the work, for the message: "converting student.keras".
        **kwargs: arguments of the function; like the result, values that pickle.

    Raises:
        ChildRefused: the function raised.
        ChildCrashed: the process died; the message names the signal.
        ChildTimedOut: the time is over.
    """
    return run_all(function, [kwargs], timeout_s=timeout_s, what=what)[0]


@contextlib.contextmanager
def warm(first: str, /) -> Iterator[Callable[..., Any]]:
    """Starts a process that does the slow part, such as to import a library, while this one prepares its arguments.

    Args:
        first: `"module:function"` without arguments, which the child runs at once.

    Yields:
        `run`, to be called once, for the function to run in that process then.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        child = _Child(Path(folder) / "0", first)

        def call(function: str, /, *, timeout_s: float, what: str, **kwargs: Any) -> Any:
            child.ask(function, kwargs)
            return child.result(time.monotonic() + timeout_s, timeout_s, what)

        try:
            yield call
        finally:
            child.kill()


def run_all(function: str, calls: Sequence[Mapping[str, Any]], *, timeout_s: float, what: str) -> list[Any]:
    """Like `run` for several calls of one function, each in a process of its own, at the same time.

    Args:
        calls: the arguments of each call.

    Returns:
        The results, in the order of the calls. After the first failure the other children are killed.
    """
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        children: list[_Child] = []
        try:
            for index, kwargs in enumerate(calls):
                children.append(_Child(Path(folder) / str(index)))
                children[-1].ask(function, kwargs)
            return [child.result(deadline, timeout_s, what) for child in children]
        finally:  # also on Ctrl-C: neither the children nor what they started stay behind
            for child in children:
                child.kill()


class _Child:
    def __init__(self, folder: Path, first: str = "") -> None:
        folder.mkdir()
        self.request, self.reply, self.output = (folder / name for name in ("request", "reply", "output"))
        # The child imports from where this process does, and from no other place: not from the working directory.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with self.output.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tfkd._internal.isolation", str(self.request), str(self.reply), first],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )

    def ask(self, function: str, kwargs: Mapping[str, Any]) -> None:
        """Hands over what to run; the child may have died before."""
        self.request.write_bytes(pickle.dumps((function, dict(kwargs)), protocol=pickle.HIGHEST_PROTOCOL))
        assert self.process.stdin is not None
        self.process.stdin.close()  # the sign to begin

    def result(self, deadline: float, timeout_s: float, what: str) -> Any:
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ChildTimedOut(
                f"{what}: must finish within {timeout_s:g} s. Received: no result. Raise timeout_s, or look for "
                f"what hangs.{self._tail()}"
            ) from None
        if code == 0 and self.reply.exists():
            return pickle.loads(self.reply.read_bytes())
        if code == _RAISED and self.reply.exists():
            raise ChildRefused(f"{pickle.loads(self.reply.read_bytes())}{self._tail()}")
        died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise ChildCrashed(
            f"{what}: the process died ({died}). The input or the native library is at fault.{self._tail()}"
        )

    def kill(self) -> None:
        """Kills it, if it has not ended well, with its process group."""
        if self.process.poll() != 0:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _tail(self) -> str:
        lines = self.output.read_text(errors="replace").splitlines()
        text = "\n".join(line for line in lines if not any(noise in line for noise in _NOISE)).strip()
        return f"\nIts output ends with:\n{text[-_OUTPUT_CHARACTERS:]}" if text else ""


def _serve(request: Path, reply: Path, first: str) -> int:
    try:
        if first:
            _find(first)()
        sys.stdin.read()  # ends when the request is there
        function, kwargs = pickle.loads(request.read_bytes())
        result, code = _find(function)(**kwargs), 0
    except Exception as error:  # of any library that the function uses: the parent hears its words
        kind = "" if isinstance(error, (ValueError, RuntimeError)) and str(error) else f"{type(error).__name__}: "
        result, code = f"{kind}{error}", _RAISED
    partial = reply.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL))
    partial.replace(reply)
    return code


def _find(function: str) -> Callable[..., Any]:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    status = _serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    sys.stderr.flush()
    # The reply is written: to tear libraries down takes TensorFlow half a second, and some of them crash at it.
    os._exit(status)
