"""The child processes of `isolation`: what they run, and how they end when their parent does."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import stat
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tfkd.errors import ModelError, TfkdError

_PACKAGE = Path(__file__).parents[1]
# The exit status of a child whose function raised an exception; no other cause gives it.
RAISED = 87
# A prepared process that was not used for so long is replaced by a new one; it ends by itself after twice the time.
IDLE_S = 300.0
# The file beside a request with the working directory and the environment of a forked worker.
PLACE = "place"


class ChildRefused(ModelError):
    """A library that the function called raised an error: it does not accept the model."""


class ChildFailed(RuntimeError):
    """The function raised an error that nothing expected, a bug of tfkd; the message has the child's traceback."""


def serve(request: Path, reply: Path, first: str) -> int:
    """Runs the requested function and writes its result or its error; returns the exit status."""
    tempfile.tempdir = str(request.parent)  # the parent removes it, also when this process is killed
    try:
        if first:
            _find(first)()
        if not os.read(sys.stdin.fileno(), 1):
            return 1  # the parent ended without a request
        if sys.platform != "linux":
            threading.Thread(target=_end_with_parent, daemon=True).start()
        function, kwargs = pickle.loads(request.read_bytes())
        content, code = pickled(_find(function)(**kwargs)), 0
    except Exception as error:
        content, code = pickled(_described(error)), RAISED
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


def pickled(value: object) -> bytes:
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


def _supervise() -> None:
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
    events.register(sys.stdin.fileno(), select.POLLRDHUP)
    events.register(wake, select.POLLIN)
    while True:
        ready = [number for number, _ in events.poll()]
        if sys.stdin.fileno() in ready:
            _kill_group()
        os.read(wake, 64)
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if stat.S_ISSOCK(os.fstat(sys.stdin.fileno()).st_mode):  # that of a forked child
                os.write(sys.stdin.fileno(), str(code).encode())
                os._exit(0)
            _end_like(code)


def _fork_for_requests(first: str) -> tuple[str, str]:
    """Does the preparations and forks for each request; returns the request's paths in the new process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that are forked
    with contextlib.suppress(Exception):  # the worker repeats the preparations and reports the error
        _find(first)()
        gc.freeze()  # a collection in a worker would copy each page that holds an object of the preparations
    requests = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    while select.select([requests], [], [], 2 * IDLE_S)[0]:
        message, descriptors, _, _ = socket.recv_fds(requests, 2**16, 2)
        if not message:  # the parent has ended
            break
        request, reply, function = pickle.loads(message)
        with contextlib.suppress(Exception):  # as above; workers to come have the module too
            _find(function)
        if os.fork() == 0:
            os.setsid()
            requests.close()
            job, output = descriptors
            for source, number in ((job, 0), (output, 1), (output, 2)):
                os.dup2(source, number)
            os.close(job)
            os.close(output)
            folder, environment = pickle.loads(Path(request).with_name(PLACE).read_bytes())
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            return request, reply
        for number in descriptors:
            os.close(number)
    os._exit(0)


def _end_like(code: int) -> NoReturn:
    """Ends this process with an exit code of `subprocess.Popen`, in which a signal is negative."""
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the worker has left the core dump
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def main(*arguments: str) -> NoReturn:
    """Runs one request, or forks for each request that comes.

    Args:
        *arguments: Paths of request and reply, and the preparations; or only the preparations.
    """
    *paths, first = arguments
    request, reply = paths or _fork_for_requests(first)
    if sys.platform == "linux":
        _supervise()
    status = serve(Path(request), Path(reply), first)
    sys.stdout.flush()
    sys.stderr.flush()
    # The reply is written. A normal exit would unload the libraries, which takes TensorFlow half a second, and in which
    # some of them crash.
    os._exit(status)


if __name__ == "__main__":
    from tfkd._internal import worker  # exceptions of `__main__` would have another name in the parent

    worker.main(*sys.argv[1:])
