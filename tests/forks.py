"""Processes that start with TensorFlow and Keras loaded, forked as those of conversions are.

An import of TensorFlow takes longer than most of the tests that need a process of their own.
"""

import contextlib
import importlib
import os
import pickle
import signal
import socket
import sys
import traceback
from pathlib import Path

from tfkd._internal import isolation

ROOT = Path(__file__).parents[1]
# Environment variable of tests whose trainings have to be fast.
PLAIN_GRAPHS = "TESTS_LEAVE_GRAPHS_PLAIN"
COMMAND = "import sys; from tfkd.cli import main; sys.exit(main())"


class Fork:
    """A forked process, with the interface of `subprocess.Popen`. Its standard output and error are one stream."""

    def __init__(self, output, job):
        self.stdout, self._job, self.returncode = os.fdopen(output), job, None

    def kill(self):
        """Kills the process by SIGKILL, which its supervisor sends when this end of their socket closes."""
        if self.returncode is None:
            with contextlib.suppress(OSError):  # it has ended
                self._job.shutdown(socket.SHUT_WR)

    def kill_at(self, start):
        """Kills the process when it prints a line with this start; fails if it prints none."""
        seen = []
        for line in self.stdout:
            seen.append(line)
            if line.startswith(start):
                self.kill()
                break
        assert self.wait() == -signal.SIGKILL, "".join(seen)

    def wait(self):
        if self.returncode is None:
            with self.stdout, self._job:
                self.returncode = int(self._job.recv(16) or -signal.SIGKILL)
        return self.returncode

    def communicate(self):
        """Waits for the end of the process and returns what it printed."""
        output = self.stdout.read()
        self.wait()
        return output


class Forks:
    """Starts the processes.

    Args:
        folder: A folder for requests.
    """

    def __init__(self, folder):
        self._folder, self._started = folder, 0

    def start(self, code, *arguments, cwd=ROOT):
        """Runs a script with arguments."""
        folder = self._folder / str(self._started)
        folder.mkdir()
        self._started += 1
        kwargs = {"code": code, "arguments": [*map(str, arguments)], "cwd": str(cwd)}
        (folder / "request").write_bytes(pickle.dumps((f"{__name__}:run", kwargs)))
        output, sink = os.pipe()
        job = isolation._template(f"{__name__}:load").fork(
            (folder / "request", folder / "reply"), f"{__name__}:run", sink
        )
        os.close(sink)
        return Fork(output, job)

    def tfkd(self, *words, cwd=ROOT):
        """Runs the command `tfkd`."""
        return self.start(COMMAND, *words, cwd=cwd)


# What the processes run.

_IMPORTS = ("tensorflow", "keras", "tfkd.cli", "tfkd.recipes.pipeline", "tfkd.distillation.distiller", "zarr")
_PREPARATIONS = (
    "tfkd.conversion.tensorflow_converter:load",
    "tfkd.conversion.quantizer:_load",
    "tfkd.conversion.litert:load",
    "tfkd.conversion.micro_interpreter:load",
)


def leave_graphs_plain():
    """Leaves TensorFlow's graph optimization out, see `conftest.pytest_collection_finish`."""
    sys.modules["tensorflow"].config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def load():
    """Imports, and starts the prepared processes that conversions and validations use; all forks share them."""
    for name in _IMPORTS:
        importlib.import_module(name)
    if PLAIN_GRAPHS in os.environ:
        leave_graphs_plain()
    # In a fork, `Popen.poll` takes the processes of its parent for ended.
    isolation._Template.usable = property(lambda one: _is_alive(one._process.pid))  # type: ignore[assignment]
    for first in set(_PREPARATIONS) - set(isolation._templates):
        isolation._template(first)


def _is_alive(pid):
    """Whether a process runs, also one that is not a child of this one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def run(code, arguments, cwd):
    for first, (_, template) in list(isolation._templates.items()):
        isolation._templates[first] = isolation._imports_from(), template  # the environment is that of the test now
    os.chdir(cwd)
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<script>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
