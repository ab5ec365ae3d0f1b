"""LiteRT for ARM under QEMU: the outputs of its aarch64 kernels without an ARM device, but no latency."""

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

from tfkd._internal import isolation
from tfkd._internal.types import InputArrays, JsonObject
from tfkd.conversion import litert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError
from tfkd.targets import foreign_root, target
from tfkd.targets.host import KERNELS
from tfkd.targets.measurement import Measurement

# Cores besides the default one, by QEMU's names. XNNPACK chooses its kernels by the core: cortex-a76 has dot product
# instructions, these do not.
CPUS = ("cortex-a53", "cortex-a72")
_DEFAULT = "cortex-a76"

_SMALLEST_SHARD = 500


@dataclasses.dataclass(frozen=True)
class ARM64(target.Target):
    """LiteRT for ARM on this machine: the accuracy of its kernels, without a phone.

    The first run downloads Debian's Python, NumPy and LiteRT for ARM (50 MB) into the user's cache; see
    `tfkd.targets.foreign_root`. Latency and memory are not measured.

    Args:
        cpu: `cortex-a76` or one of `CPUS`.
        kernels: `xnnpack`, `plain` or `reference`, see `tfkd.targets.host.Host`.
        timeout_s: Time limit of each child process in seconds, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: QEMU or a program that fetches the packages is not installed.
    """

    cpu: str = _DEFAULT
    kernels: str = "xnnpack"
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return ("arm64", *(f"arm64:{cpu}" for cpu in CPUS))

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        return {"cpu": detail} if detail else {}

    def __post_init__(self) -> None:
        if self.cpu not in (_DEFAULT, *CPUS):
            raise InputError(f"arm64: cpu must be one of {', '.join((_DEFAULT, *CPUS))}. Received: {self.cpu!r}.")
        if self.kernels not in ("xnnpack", *KERNELS):
            raise InputError(f"arm64: kernels must be xnnpack, plain or reference. Received: {self.kernels!r}.")
        target.check_timeout("arm64", self.timeout_s)
        foreign_root.check()

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        return target.described("arm64" if self.cpu == _DEFAULT else f"arm64:{self.cpu}", self, "kernels")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; `latency` changes nothing here."""
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        target.check_litert(model, self.spec)
        root = foreign_root.prepare(lambda line: print(f"tfkd: {line}", file=sys.stderr, flush=True))
        command = foreign_root.command(root, self.cpu, "-B", litert.__file__)
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:

            def put(name: str, content: bytes) -> dict[str, str]:
                path = Path(folder, name)
                path.write_bytes(content)
                return {"path": str(path), "sha256": hashlib.sha256(content).hexdigest()}

            job = {
                "nonce": "",
                "model": put("model", model.content),
                "kernels": self.kernels,
                "latency": False,
                "restart": litert.needs_restart(model.ops),
            }
            shards = target.shards(arrays, least=_SMALLEST_SHARD)
            files = [[put(f"{i}-{j}", litert.packed(x)) for j, x in enumerate(part)] for i, part in enumerate(shards)]
            try:
                results = isolation.run_all(
                    "tfkd.targets.arm64:_emulate",
                    [{"command": command, "job": {**job, "inputs": one}} for one in files],
                    timeout_s=self.timeout_s,
                    what=f"running {model.path or 'the model'} on {self.spec}",
                )
            except ModelError as error:
                raise ModelError(f"{self.spec}: LiteRT does not accept the model: {error}") from None
        environment = results[0]["environment"]
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=target.joined(results),
            evidence={"outputs": "emulated"},
            setting={"kernels": self.kernels, "threads": 1, "batch": min(part["done"]["batch"] for part in results)},
            environment={
                # In the emulator, /proc/cpuinfo describes this machine.
                "processor": f"{self.cpu}, emulated",
                **{name: environment[name] for name in ("machine", "python", "numpy", "ai-edge-litert")},
                "emulator": _version(command[0]),
            },
        )


def _emulate(command: list[str], job: JsonObject) -> JsonObject:  # in a child
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}  # no variables that configure QEMU or Python
    done = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, env=environment)
    printed = done.stderr.decode(errors="replace").strip()
    if done.returncode < 0:
        print(printed, file=sys.stderr, flush=True)
        os.kill(os.getpid(), -done.returncode)  # the model crashed QEMU: end by the same signal, for the parent to see
        signal.pause()
    if done.returncode:
        raise ModelError(printed.splitlines()[-1] if printed else f"exit status {done.returncode}")
    try:
        record, outputs = litert.answer(done.stdout)
    except litert.AnswerError as error:
        raise DeviceError(f"arm64: {error}") from None
    return {**record, "outputs": outputs}


def _version(emulator: str) -> str:
    printed = subprocess.run([emulator, "--version"], capture_output=True, text=True, timeout=60).stdout
    return printed.splitlines()[0] if printed else ""
