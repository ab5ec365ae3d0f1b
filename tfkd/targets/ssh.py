"""An edge box, such as a Raspberry Pi: LiteRT there, reached through the system's OpenSSH."""

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
from typing import Any

import numpy as np

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ToolMissingError
from tfkd.targets import litert, target
from tfkd.targets.host import KERNELS
from tfkd.targets.measurement import Measurement, Memory

# Runs there before anything is copied: makes the cache, forgets what a week did not use, and says what is there.
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
# Takes a file from standard input; it has its name only when it is whole.
_STORE = """
import hashlib, os, sys
path, sha256 = sys.argv[1:]
content = sys.stdin.buffer.read()
if hashlib.sha256(content).hexdigest() != sha256:
    sys.exit("the bytes changed on the way")
partial = path + "." + str(os.getpid())
with open(partial, "wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
os.replace(partial, path)
"""


@dataclasses.dataclass(frozen=True)
class SSH(target.Target):
    """LiteRT on a machine that `ssh` reaches: accuracy and latency, measured there.

    There it needs `python3` 3.10 or newer with numpy and ai-edge-litert, and no tfkd. Host keys are checked, nothing is
    asked: connect once by hand first, and keep user, port and key in `~/.ssh/config`. Files go to `~/.cache/tfkd`
    by their SHA-256, so the second run copies nothing; what a week did not use is deleted.

    Args:
        destination: what `ssh` takes: a host, `user@host` or a name of `~/.ssh/config`.
        kernels: `xnnpack`, `plain` or `reference`, see `tfkd.targets.host.Host`.
        threads: of one timed inference.
        python: the interpreter there.
        config: another file than `~/.ssh/config`.
        timeout_s: seconds for each step.

    Raises:
        ValueError: a setting is wrong.
        RuntimeError: `ssh` is not installed here.
    """

    destination: str
    kernels: str = "xnnpack"
    threads: int = 1
    python: str = "python3"
    config: str | os.PathLike[str] | None = None
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, Any]:
        """See `tfkd.targets.Target.parse`."""
        return {"destination": detail}

    def __post_init__(self) -> None:
        if not self.destination or self.destination.startswith("-") or not self.destination.isprintable():
            raise InputError(
                f"ssh: needs a destination that ssh takes. Received: {self.destination!r}. Write ssh:user@host."
            )
        if self.kernels not in ("xnnpack", *KERNELS):
            raise InputError(f"ssh: kernels must be xnnpack, plain or reference. Received: {self.kernels!r}.")
        if self.threads < 1:
            raise InputError(f"ssh: threads must be >= 1. Received: threads={self.threads}. Use 1.")
        target.check_timeout("ssh", self.timeout_s)
        if shutil.which("ssh") is None:
            raise ToolMissingError("ssh: needs OpenSSH's client. Received: no `ssh` on PATH. Install openssh-client.")

    @property
    def spec(self) -> str:
        return target.described(f"ssh:{self.destination}", self, "kernels", "threads")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        Raises:
            RuntimeError: the machine cannot be reached, lacks a package, does not answer in time, or its answer is not
                that of this run.
        """
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        # One connection for all steps, closed with the folder that holds its socket.
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
            try:
                reply, job = self._job(folder, model, arrays, latency)
            finally:
                self._close(folder)
        try:
            record, outputs = litert.answer(reply)
        except ValueError as error:
            raise DeviceError(f"{self.spec}: {error}. Does its shell print something at login?") from None
        samples = {len(output) for output in outputs}
        if (record["nonce"], record["model_sha256"]) != (job["nonce"], model.sha256) or samples != {len(arrays[0])}:
            raise DeviceError(
                f"{self.spec}: must answer with this run's nonce, model and {len(arrays[0])} samples. Received: nonce "
                f"{record['nonce']!r}, {samples} samples. Run it again, alone."
            )
        timed, done = record["timed"], record["done"]
        peak = (timed or done)["peak_rss_bytes"]
        found = {"outputs": done, "latencies_ns": timed, "memory": peak}
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=outputs,
            evidence={name: "measured" for name, value in found.items() if value is not None},
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
    ) -> tuple[bytes, dict[str, Any]]:
        there = json.loads(self._there(folder, ["-c", _PROBE]))
        if there["missing"] or there["python"] < [3, 10]:
            raise ToolMissingError(
                f"{self.spec}: needs Python 3.10 or newer with numpy and ai-edge-litert there. Received: Python "
                f"{'.'.join(map(str, there['python']))}, missing {', '.join(there['missing']) or 'nothing'}. "
                f"Run there: {self.python} -m pip install numpy ai-edge-litert"
            )

        def put(content: bytes) -> dict[str, str]:
            sha256 = hashlib.sha256(content).hexdigest()
            path = f"{there['cache']}/{sha256}"
            if sha256 not in there["have"]:
                self._there(folder, ["-c", _STORE, path, sha256], content)
            return {"path": path, "sha256": sha256}

        runner = put(Path(litert.__file__).read_bytes())
        job = {
            "nonce": secrets.token_hex(16), "model": put(model.content),
            "inputs": [put(litert.packed(array)) for array in arrays],
            "kernels": self.kernels, "threads": self.threads, "latency": latency,
        }  # fmt: skip
        return self._there(folder, [runner["path"]], json.dumps(job).encode()), job

    def _there(self, folder: str, arguments: Sequence[str], content: bytes = b"") -> bytes:
        """Runs Python there: the output, after checking that it went well."""
        # The shell there parses the words again.
        command = [*self._ssh(folder), "--", self.destination, shlex.join([self.python, *arguments])]
        try:
            done = subprocess.run(command, input=content, capture_output=True, timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self.spec}: must answer within {self.timeout_s:g} s. Received: nothing. Raise timeout_s, or look "
                "for what hangs there."
            ) from None
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.decode(errors="replace").strip()[-2000:] or "nothing"
        # 255 and a word from ssh: it did not connect. 255 in silence: what it ran was killed by a signal.
        if done.returncode == 255 and said != "nothing":
            raise DeviceError(
                f"{self.spec}: ssh must connect without asking. Received: {said}\n"
                f"Connect once by hand, `ssh {self.destination}`, to accept the host key and to see that a key is used."
            )
        if done.returncode == 127:
            raise ToolMissingError(
                f"{self.spec}: needs {self.python} there. Received: {said}. Install it, or set python=."
            )
        if "Error" in said.splitlines()[-1] and not said.splitlines()[-1].startswith(("OSError", "MemoryError")):
            raise InputError(f"{self.spec}: LiteRT must take the model. Received: {said.splitlines()[-1]}")
        raise DeviceError(f"{self.spec}: the run there died (exit status {done.returncode}). Received: {said}")

    def _ssh(self, folder: str) -> list[str]:
        options = {
            "BatchMode": "yes", "StrictHostKeyChecking": "yes", "ConnectTimeout": "10", "ServerAliveInterval": "5",
            "ControlMaster": "auto", "ControlPath": f"{folder}/socket", "ControlPersist": "60", "LogLevel": "ERROR",
        }  # fmt: skip
        chosen = ["-F", os.fspath(self.config)] if self.config is not None else []
        return ["ssh", *chosen, *(f"-o{name}={value}" for name, value in options.items())]

    def _close(self, folder: str) -> None:
        closing = [*self._ssh(folder), "-O", "exit", "--", self.destination]
        subprocess.run(closing, capture_output=True, timeout=30)  # there is nothing to close where nothing connected
