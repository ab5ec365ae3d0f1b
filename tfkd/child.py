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
from pathlib import Path
from typing import Any

# A child's stderr stands in the error; of a long one the end says most.
_STDERR_CHARACTERS = 4000
# What TensorFlow prints at each start, on a healthy machine too.
_NOISE = ("WARNING: All log messages before absl", "oneDNN custom operations", "cudart_stub", "cuda_platform", "cpu_feature_guard", "To enable the following instructions")  # fmt: skip  # noqa: E501


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
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        request, reply, stderr = (Path(folder) / name for name in ("request", "reply", "stderr"))
        request.write_bytes(pickle.dumps((function, kwargs), protocol=pickle.HIGHEST_PROTOCOL))
        with stderr.open("wb") as sink:
            child = subprocess.Popen(
                [sys.executable, "-m", "tfkd.child", str(request), str(reply)],
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
            try:
                code = child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise ChildTimedOut(
                    f"{what}: must finish within {timeout_s:g} s. Received: no result. Raise timeout_s, or look for "
                    f"what hangs.{_tail(stderr)}"
                ) from None
            finally:  # also on Ctrl-C: neither the child nor what it started stays behind
                if child.poll() is None or child.returncode:
                    _kill_group(child)
        if code == 0 and reply.exists():
            return pickle.loads(reply.read_bytes())
        if reply.exists():
            raise ChildRefused(f"{pickle.loads(reply.read_bytes())}{_tail(stderr)}")
        died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise ChildCrashed(
            f"{what}: the process died ({died}). The input or the native library is at fault.{_tail(stderr)}"
        )


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _tail(stderr: Path) -> str:
    lines = stderr.read_text(errors="replace").splitlines()
    text = "\n".join(line for line in lines if not any(noise in line for noise in _NOISE)).strip()
    return f"\nIts output ends with:\n{text[-_STDERR_CHARACTERS:]}" if text else ""


def _serve(request: Path, reply: Path) -> int:
    function, kwargs = pickle.loads(request.read_bytes())
    module, name = function.split(":")
    try:
        result, code = getattr(importlib.import_module(module), name)(**kwargs), 0
    except (ValueError, RuntimeError, OSError, MemoryError, ImportError, TypeError, KeyError, AttributeError) as error:
        result, code = str(error) or type(error).__name__, 1
    partial = reply.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL))
    partial.replace(reply)
    return code


if __name__ == "__main__":
    sys.exit(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
