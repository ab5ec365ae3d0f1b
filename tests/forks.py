"""Processes that start with TensorFlow and Keras loaded: forks of one process that has imported them.

An import of TensorFlow takes longer than most of the tests that need a process of their own.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from tfkd.cli import main; sys.exit(main())"


class Fork:
    """A forked process, with the interface of `subprocess.Popen`. Its standard output and error are one stream."""

    def __init__(self, pipe, job):
        self.stdout, self._job = os.fdopen(pipe), job.makefile("r")
        self.pid, self.returncode = int(self._job.readline()), None

    def kill(self):
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(self.pid, signal.SIGKILL)

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
            self.returncode = int(self._job.readline())
            self.stdout.close()
            self._job.close()
        return self.returncode

    def communicate(self):
        """Waits for the end of the process and returns what it printed."""
        output = self.stdout.read()
        self.wait()
        return output


class Forks:
    """Starts the process that forks."""

    def __init__(self):
        self._socket, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with end:
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks"], stdin=end.fileno(), cwd=ROOT, env=environment
            )

    def start(self, code, *arguments, cwd=ROOT):
        """Runs a script with arguments."""
        output, sink = os.pipe()
        job, end = socket.socketpair()
        with end, job:
            request = pickle.dumps((code, ["-c", *map(str, arguments)], str(cwd)))
            socket.send_fds(self._socket, [request], [end.fileno(), sink])
            os.close(sink)
            end.close()
            return Fork(output, job)

    def tfkd(self, *words, cwd=ROOT):
        """Runs the command `tfkd`."""
        return self.start(COMMAND, *words, cwd=cwd)

    def close(self):
        self._socket.close()
        self._process.wait(timeout=30)


def _serve():
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    import tfkd.cli  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    requests = socket.socket(fileno=os.dup(0))
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 2**20, 2)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            os._exit(_watch(*descriptors, *pickle.loads(request)))
        for number in descriptors:
            os.close(number)


def _watch(job, output, code, arguments, folder):
    """Forks again; tells the process number and, at its end, the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker = os.fork()
    if worker == 0:
        os.close(job)
        for number in (1, 2):
            os.dup2(output, number)
        os.close(output)
        os.chdir(folder)
        sys.argv = arguments
        return _status(code)
    os.close(output)
    os.write(job, b"%d\n" % worker)
    os.write(job, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
    return 0


def _status(code):
    try:
        exec(compile(code, "<script>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve()
