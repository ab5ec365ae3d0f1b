"""Ethos-U: what Arm's compiler Vela estimates for an NPU, with the outputs of the reference kernels."""

from __future__ import annotations

import dataclasses
import os
import platform

from tfkd._internal.types import InputArrays
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.targets import target, vela
from tfkd.targets.measurement import Evidence, Measurement, Memory

_NOTE = (
    "memory, cycles and milliseconds are estimates of Vela; the outputs are those of reference kernels on this "
    "machine, whose bits Arm specifies for the NPU"
)


@dataclasses.dataclass(frozen=True)
class EthosU(target.Target):
    """An Ethos-U NPU beside a Cortex-M, estimated by Vela; nothing runs on an NPU.

    Outputs come from the reference kernels, TensorFlow Lite Micro's where they are installed and LiteRT's otherwise.
    Milliseconds are known only where the NPU computes all ops: Vela does not estimate those on the Cortex-M.

    Args:
        accelerator: Key of `vela.ACCELERATORS`.
        system_config: Name of a system configuration in Vela's `Arm/vela.ini`; empty for that of `vela.ACCELERATORS`.
        memory_mode: Name of a memory mode in it; empty for that of `vela.ACCELERATORS`.
        timeout_s: Time limit of each child process in seconds, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: The package of `tfkd[npu]` is not installed.
    """

    accelerator: str = "ethos-u55-128"
    system_config: str = ""
    memory_mode: str = ""
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return tuple(vela.ACCELERATORS)

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        return {"accelerator": name}

    def __post_init__(self) -> None:
        target.check_timeout(self.accelerator, self.timeout_s)
        if self.accelerator not in vela.ACCELERATORS:
            raise InputError(
                f"ethos-u: the NPU must be one of {', '.join(vela.ACCELERATORS)}. Received: {self.accelerator!r}."
            )
        vela.check_system(self.accelerator, self.system)

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        return target.described(self.accelerator, self, "system_config", "memory_mode")

    @property
    def system(self) -> vela.System:
        """The system around the NPU."""
        default = vela.ACCELERATORS[self.accelerator]
        return vela.System(self.system_config or default.system_config, self.memory_mode or default.memory_mode)

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; `latency` changes nothing here."""
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        compiled = vela.compile_model(model, self.accelerator, self.system, timeout_s=self.timeout_s)
        kernels = _kernels(self.timeout_s)
        outputs = kernels.run(model, arrays, latency=False).outputs
        evidence: dict[str, Evidence] = {"outputs": "emulated", "memory": "estimated"}
        estimated_ms = None
        if compiled.npu_ms is not None and not compiled.cpu_ops:
            evidence["estimated_ms"] = "estimated"
            estimated_ms = (compiled.npu_ms, compiled.npu_ms)
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=outputs,
            evidence=evidence,
            estimated_ms=estimated_ms,
            memory=Memory(
                ram_bytes=compiled.sram_bytes + compiled.dram_bytes or None,  # Vela gives 0 where the NPU does nothing
                flash_bytes=compiled.flash_bytes or None,
            ),
            setting=dataclasses.asdict(self.system),
            environment={
                "compiler": f"ethos-u-vela {compiled.version}",
                "kernels": kernels.spec,
                "machine": platform.machine(),
                "npu_ops": compiled.ops - len(compiled.cpu_ops),
                "cpu_ops": [dataclasses.asdict(op) for op in compiled.cpu_ops],
                "estimated_npu_cycles": compiled.cycles,
                "layers": [dataclasses.asdict(layer) for layer in compiled.layers],
                "sram_bytes": compiled.sram_bytes,
                "dram_bytes": compiled.dram_bytes,
                "note": _NOTE,
            },
        )


def _kernels(timeout_s: float) -> target.Target:
    """The engine whose kernels compute the outputs."""
    if target.installed("tflite_micro"):
        from tfkd.targets.tflm import TFLM

        return TFLM(timeout_s=timeout_s)
    from tfkd.targets.host import Host

    return Host(kernels="reference", timeout_s=timeout_s)
