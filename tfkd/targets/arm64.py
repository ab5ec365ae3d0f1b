"""ARM without a board: LiteRT's kernels for aarch64 under QEMU. The outputs are theirs, the time is not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tfkd._internal import isolation
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.targets import foreign_root, litert, target
from tfkd.targets.host import KERNELS
from tfkd.targets.measurement import Measurement

# Other cores than the usual one, by QEMU's names. XNNPACK takes its kernels by the core: the cortex-a76 has dot
# products, these have not.
CPUS = ("cortex-a53", "cortex-a72")
_USUAL = "cortex-a76"

_SMALLEST_SHARD = 500


@dataclasses.dataclass(frozen=True)
class ARM64(target.Target):
    """LiteRT for ARM on this machine: the accuracy that its kernels give, without a phone.

    The first run prepares Debian's Python with NumPy and LiteRT for ARM in the user's cache, 50 MB to download; see
    `tfkd.targets.foreign_root`. An emulator says nothing of time and memory, so both are None.

    Args:
        cpu: `cortex-a76` or one of `CPUS`.
        kernels: `xnnpack`, `plain` or `reference`, see `tfkd.targets.host.Host`.
        timeout_s: seconds for each child process.

    Raises:
        ValueError: a setting is wrong.
        RuntimeError: QEMU, or what fetches the packages, is not installed.
    """

    cpu: str = _USUAL
    kernels: str = "xnnpack"
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return ("arm64", *(f"arm64:{cpu}" for cpu in CPUS))

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, Any]:
        """See `tfkd.targets.Target.parse`."""
        return {"cpu": detail} if detail else {}

    def __post_init__(self) -> None:
        if self.cpu not in (_USUAL, *CPUS):
            raise InputError(f"arm64: cpu must be one of {', '.join((_USUAL, *CPUS))}. Received: {self.cpu!r}.")
        if self.kernels not in ("xnnpack", *KERNELS):
            raise InputError(f"arm64: kernels must be xnnpack, plain or reference. Received: {self.kernels!r}.")
        target.check_timeout("arm64", self.timeout_s)
        foreign_root.check()

    @property
    def spec(self) -> str:
        return target.described("arm64" if self.cpu == _USUAL else f"arm64:{self.cpu}", self, "kernels")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; `latency` changes nothing here."""
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        root = foreign_root.prepare(lambda line: print(f"tfkd: {line}", file=sys.stderr, flush=True))
        words = foreign_root.command(root, self.cpu, "-B", litert.__file__)
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:

            def put(name: str, content: bytes) -> dict[str, str]:
                path = Path(folder, name)
                path.write_bytes(content)
                return {"path": str(path), "sha256": hashlib.sha256(content).hexdigest()}

            job = {"nonce": "", "model": put("model", model.content), "kernels": self.kernels, "latency": False}
            shards = target.shards(arrays, least=_SMALLEST_SHARD)
            files = [[put(f"{i}-{j}", litert.packed(x)) for j, x in enumerate(part)] for i, part in enumerate(shards)]
            try:
                done = isolation.run_all(
                    "tfkd.targets.arm64:_emulate",
                    [{"words": words, "job": {**job, "inputs": one}} for one in files],
                    timeout_s=self.timeout_s,
                    what=f"running {model.path or 'the model'} on {self.spec}",
                )
            except isolation.ChildRefused as error:
                raise InputError(f"{self.spec}: LiteRT must take the model. Received: {error}") from None
        found = done[0]["environment"]
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=target.joined(done),
            evidence={"outputs": "emulated"},
            setting={"kernels": self.kernels, "threads": 1, "batch": min(part["done"]["batch"] for part in done)},
            environment={
                # Of /proc/cpuinfo the emulator shows this machine's: the processor is the one that was asked for.
                "processor": f"{self.cpu}, emulated",
                **{name: found[name] for name in ("machine", "python", "numpy", "ai-edge-litert")},
                "emulator": _version(words[0]),
            },
        )


def _emulate(words: list[str], job: dict[str, Any]) -> dict[str, Any]:  # in a child
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}  # nothing that would steer QEMU or Python
    done = subprocess.run(words, input=json.dumps(job).encode(), capture_output=True, env=environment)
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode < 0:
        print(said, file=sys.stderr, flush=True)
        os.kill(os.getpid(), -done.returncode)  # the model killed it: die the same way, for the parent to tell
        signal.pause()
    if done.returncode:
        raise InputError(said.splitlines()[-1] if said else f"exit status {done.returncode}")
    record, outputs = litert.answer(done.stdout)
    return {**record, "outputs": outputs}


def _version(emulator: str) -> str:
    said = subprocess.run([emulator, "--version"], capture_output=True, text=True, timeout=60).stdout
    return said.splitlines()[0] if said else ""
