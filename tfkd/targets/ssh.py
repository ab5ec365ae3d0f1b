"""LiteRT on an edge device such as a Raspberry Pi, over OpenSSH."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkd._internal.types import InputArrays, JsonObject
from tfkd.conversion import litert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets import target
from tfkd.targets.host import KERNELS
from tfkd.targets.measurement import Measurement, Memory

# Runs on the device first: makes the cache, deletes files that were not used for a week, and lists what is there.
_PROBE = """
import json, os, sys, time
cache = os.path.expanduser("~/.cache/tfkd")
os.makedirs(cache, mode=0o700, exist_ok=True)
for name in os.listdir(cache):
    path = os.path.join(cache, name)
    if not os.path.islink(path) and os.path.isfile(path) and time.time() - os.stat(path).st_mtime > 7 * 86400:
        os.remove(path)
missing = []
for package in ("numpy", "ai_edge_litert"):
    try:
        __import__(package)
    except ImportError as error:
        missing.append(f"{package} ({error})")
print(json.dumps({"cache": cache, "have": os.listdir(cache), "missing": missing, "python": sys.version_info[:2]}))
"""
# Writes a file from standard input atomically.
_STORE = """
import hashlib, os, sys
path, sha256 = sys.argv[1:]
content = sys.stdin.buffer.read()
if hashlib.sha256(content).hexdigest() != sha256:
    sys.exit("the file was damaged in transfer")
partial = path + "." + str(os.getpid())
with open(partial, "wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
os.replace(partial, path)
"""


@dataclasses.dataclass(frozen=True)
class SSH(target.Target):
    """LiteRT on a device that `ssh` reaches: accuracy and latency are measured there.

    The device needs `python3` 3.10 or newer with numpy and ai-edge-litert, but not tfkd. Host keys are checked and ssh
    never prompts: connect once by hand first, and keep user, port and key in `~/.ssh/config`. Files are stored in
    `~/.cache/tfkd` of the device by their SHA-256, so that a second run copies nothing, and deleted after a week
    without use.

    Args:
        destination: Argument of `ssh`: a host, `user@host` or a name from `~/.ssh/config`.
        kernels: `xnnpack`, `plain` or `reference`, see `tfkd.targets.host.Host`.
        threads: Threads per timed inference, >= 1.
        python: Command of the Python interpreter on the device.
        config: Configuration file of ssh; None for `~/.ssh/config`.
        timeout_s: Time limit of each step in seconds, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: `ssh` is not installed on this machine.
    """

    destination: str
    kernels: str = "xnnpack"
    threads: int = 1
    python: str = "python3"
    config: str | os.PathLike[str] | None = None
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        return {"destination": detail}

    def __post_init__(self) -> None:
        if not self.destination or self.destination.startswith("-") or not self.destination.isprintable():
            raise InputError(
                f"ssh: destination must be a host name. Received: {self.destination!r}. Write ssh:user@host."
            )
        if self.kernels not in ("xnnpack", *KERNELS):
            raise InputError(f"ssh: kernels must be xnnpack, plain or reference. Received: {self.kernels!r}.")
        if self.threads < 1:
            raise InputError(f"ssh: threads must be >= 1. Received: threads={self.threads}. Use 1.")
        target.check_timeout("ssh", self.timeout_s)
        if shutil.which("ssh") is None:
            raise ToolMissingError("ssh: no `ssh` on PATH. Install it: sudo apt-get install openssh-client")

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        return target.described(f"ssh:{self.destination}", self, "kernels", "threads")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        Raises:
            ToolMissingError: The device lacks Python or a package.
            DeviceError: The device cannot be reached, timed out, crashed, or its answer does not belong to this run.
        """
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        target.check_litert(model, self.spec)
        # All steps share one connection, whose socket is in the folder.
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
            try:
                reply, job = self._job(folder, model, arrays, latency)
            finally:
                self._close(folder)
        try:
            record, outputs = litert.answer(reply)
        except litert.AnswerError as error:
            raise DeviceError(f"{self.spec}: {error}. Check that its shell prints nothing at login.") from None
        samples = {len(output) for output in outputs}
        if (record["nonce"], record["model_sha256"]) != (job["nonce"], model.sha256) or samples != {len(arrays[0])}:
            raise DeviceError(
                f"{self.spec}: the answer is of another run: nonce {record['nonce']!r} and {samples} samples instead "
                f"of {len(arrays[0])}. Run it again, and no other run at the same time."
            )
        timed, done = record["timed"], record["done"]
        peak = (timed or done)["peak_rss_bytes"]
        known = {"outputs": done, "latencies_ns": timed, "memory": peak}
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=outputs,
            evidence={name: "measured" for name, value in known.items() if value is not None},
            latencies_ns=tuple(timed["latencies_ns"]) if timed else None,
            memory=Memory(peak_rss_bytes=peak),
            setting={"kernels": self.kernels, "threads": self.threads, "batch": done["batch"], "timed_batch": 1},
            environment={
                **record["environment"],
                **{key: timed[key] for key in ("warm_up_runs", "warm_up_stable", "runs", "kept_every") if timed},
            },
        )

    def _job(
        self, folder: str, model: TFLiteModel, arrays: Sequence[np.ndarray], latency: bool
    ) -> tuple[bytes, JsonObject]:
        """Copies the files to the device and runs the job; returns the answer and the job."""
        device = json.loads(self._remote_python(folder, ["-c", _PROBE]))
        if device["missing"] or device["python"] < [3, 10]:
            raise ToolMissingError(
                f"{self.spec}: the device needs Python 3.10 or newer with numpy and ai-edge-litert. It has Python "
                f"{'.'.join(map(str, device['python']))}, missing {', '.join(device['missing']) or 'nothing'}. "
                f"Run there: {self.python} -m pip install numpy ai-edge-litert"
            )

        def put(content: bytes) -> dict[str, str]:
            sha256 = hashlib.sha256(content).hexdigest()
            path = f"{device['cache']}/{sha256}"
            if sha256 not in device["have"]:
                self._remote_python(folder, ["-c", _STORE, path, sha256], content)
            return {"path": path, "sha256": sha256}

        runner = put(Path(litert.__file__).read_bytes())
        job = {
            "nonce": secrets.token_hex(16),
            "model": put(model.content),
            "inputs": [put(litert.packed(array)) for array in arrays],
            "kernels": self.kernels,
            "threads": self.threads,
            "latency": latency,
            "timed_s": litert.TIMED_S,
            "restart": litert.needs_restart(model.ops),
        }
        return self._remote_python(folder, [runner["path"]], json.dumps(job).encode()), job

    def _remote_python(self, folder: str, arguments: Sequence[str], content: bytes = b"") -> bytes:
        """Runs Python on the device.

        Args:
            folder: Folder of the connection's socket.
            arguments: Arguments of Python.
            content: Standard input.

        Returns:
            Standard output.
        """
        # The shell of the device parses the command again, so it is quoted.
        command = [*self._ssh(folder), "--", self.destination, shlex.join([self.python, *arguments])]
        try:
            done = subprocess.run(command, input=content, capture_output=True, timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self.spec}: timed out after {self.timeout_s:g} s. Raise timeout_s, or check the processes of the "
                "device."
            ) from None
        if done.returncode == 0:
            return done.stdout
        printed = done.stderr.decode(errors="replace").strip()[-2000:]
        # 255 with a message comes from ssh, which did not connect; without one, the process was killed by a signal.
        if done.returncode == 255 and printed:
            raise DeviceError(
                f"{self.spec}: ssh cannot connect: {printed}\n"
                f"Connect once by hand, `ssh {self.destination}`, to accept the host key and to check your key."
            )
        if done.returncode == 127:
            raise ToolMissingError(
                f"{self.spec}: {self.python} is not installed there: {printed}. Install it, or set python."
            )
        last = printed.splitlines()[-1] if printed else ""
        if "Error" in last and not last.startswith(("OSError", "MemoryError")):
            raise ModelError(f"{self.spec}: LiteRT does not accept the model: {last}")
        raise DeviceError(f"{self.spec}: the process on the device crashed (exit status {done.returncode}): {printed}")

    def _ssh(self, folder: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ControlMaster": "auto",
            "ControlPath": f"{folder}/socket",
            "ControlPersist": "60",
            "LogLevel": "ERROR",
        }
        chosen = ["-F", os.fspath(self.config)] if self.config is not None else []
        return ["ssh", *chosen, *(f"-o{name}={value}" for name, value in options.items())]

    def _close(self, folder: str) -> None:
        closing = [*self._ssh(folder), "-O", "exit", "--", self.destination]
        subprocess.run(closing, capture_output=True, timeout=30)  # fails if nothing connected
