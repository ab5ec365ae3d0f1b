"""Runs Arm's compiler Vela: which ops of a model an Ethos-U NPU computes, memory and cycles as Vela estimates them."""

from __future__ import annotations

import configparser
import csv
import dataclasses
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from tfkd._internal.suggestion import suggestion
from tfkd.conversion import tflite_reader
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets import target


@dataclasses.dataclass(frozen=True)
class System:
    """What surrounds an NPU, a section of Vela's own `Arm/vela.ini`: clock, memories and their bandwidth.

    Args:
        system_config: Name of Vela's system configuration.
        memory_mode: Name of Vela's memory mode.
    """

    system_config: str
    memory_mode: str


_U55 = System("Ethos_U55_High_End_Embedded", "Shared_Sram")
_U65 = System("Ethos_U65_Client_Server", "Dedicated_Sram_384KB")

# The NPUs that Vela compiles for, each with the system that Vela takes by default.
ACCELERATORS = {
    "ethos-u55-32": _U55,
    "ethos-u55-64": _U55,
    "ethos-u55-128": _U55,
    "ethos-u55-256": _U55,
    "ethos-u65-256": _U65,
    "ethos-u65-512": _U65,
}


@dataclasses.dataclass(frozen=True)
class CPUOp:
    """An op that the NPU does not compute, so that the Cortex-M beside it must.

    Args:
        kind: Name of the op, such as `CAST`.
        output: Name of its output tensor.
        reason: Why, in Vela's words; empty where it says nothing.
    """

    kind: str
    output: str
    reason: str


@dataclasses.dataclass(frozen=True)
class NPULayer:
    """What Vela estimates for an op on the NPU.

    Args:
        kind: Vela's name of the op, such as `Conv2D`.
        output: Name of its output tensor.
        cycles: Cycles.
        macs: Multiply-accumulate operations.
    """

    kind: str
    output: str
    cycles: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A model that Vela compiled. All numbers are Vela's estimates.

    Args:
        accelerator: Key of `ACCELERATORS`.
        system: The system around it.
        version: Version of Vela.
        content: The compiled .tflite.
        ops: Number of ops of the model.
        cpu_ops: Those that stay on the Cortex-M.
        layers: Ops on the NPU with their cycles.
        cycles: Cycles of the NPU in one inference; None where it computes nothing. Ops on the Cortex-M are not in it.
        npu_ms: The same as milliseconds at the clock of the system.
        sram_bytes: SRAM for activations.
        dram_bytes: DRAM.
        flash_bytes: Flash for weights and commands.
    """

    accelerator: str
    system: System
    version: str
    content: bytes = dataclasses.field(repr=False)
    ops: int
    cpu_ops: tuple[CPUOp, ...]
    layers: tuple[NPULayer, ...]
    cycles: int | None
    npu_ms: float | None
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int

    @property
    def coverage(self) -> float:
        """Share of the model's ops that the NPU computes, 0..1."""
        return 1 - len(self.cpu_ops) / self.ops


def check_installed() -> None:
    """Checks that Vela is installed.

    Raises:
        ToolMissingError: It is not.
    """
    if not target.installed("ethosu"):
        raise ToolMissingError("ethos-u: the package ethos-u-vela is not installed. Run `pip install 'tfkd[npu]'`.")


def check_system(accelerator: str, system: System) -> None:
    """Checks the names of a system against Vela's `Arm/vela.ini`.

    Args:
        accelerator: Key of `ACCELERATORS`.
        system: The system around the NPU.

    Raises:
        InputError: Vela has no such system configuration for the NPU, or no such memory mode for the configuration.
        ToolMissingError: Vela is not installed.
    """
    check_installed()
    config = configparser.ConfigParser()
    config.read_string(resources.files("ethosu").joinpath("config_files/Arm/vela.ini").read_text(encoding="utf-8"))
    family = "_".join(accelerator.title().split("-")[:2])  # such as Ethos_U55
    configs = [name for name in _sections(config, "System_Config") if name.startswith(family)]
    _check_name(accelerator, "system_config", system.system_config, configs)
    modes = _sections(config, "Memory_Mode")
    if config[f"System_Config.{system.system_config}"]["axi1_port"] != "Dram":  # activations would lie in it
        modes = [name for name in modes if not name.startswith("Dedicated")]
    _check_name(accelerator, "memory_mode", system.memory_mode, modes)


def _sections(config: configparser.ConfigParser, kind: str) -> list[str]:
    """The names of all sections `[kind.name]`."""
    return [name.partition(".")[2] for name in config.sections() if name.startswith(f"{kind}.")]


def _check_name(accelerator: str, option: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(
            f"{accelerator}: {option} must be one of {', '.join(known)}. Received: {name!r}.{suggestion(name, known)}"
        )


def compile_model(
    model: TFLiteModel, accelerator: str, system: System | None = None, *, timeout_s: float = 600.0
) -> Compilation:
    """Compiles a model for an NPU, in a child process.

    Args:
        model: Quantized .tflite; ops in floating point stay on the Cortex-M.
        accelerator: Key of `ACCELERATORS`.
        system: The system around the NPU; None for that of `ACCELERATORS`.
        timeout_s: Time limit in seconds, > 0.

    Raises:
        InputError: Unknown accelerator or system.
        ToolMissingError: Vela is not installed.
        ModelError: Vela does not take the model, or has compiled it already.
        DeviceError: Vela timed out.
    """
    if accelerator not in ACCELERATORS:
        raise InputError(f"ethos-u: the NPU must be one of {', '.join(ACCELERATORS)}. Received: {accelerator!r}.")
    system = system or ACCELERATORS[accelerator]
    check_system(accelerator, system)
    if why := tflite_reader.compiled(model.subgraphs):
        raise ModelError(f"{accelerator}: {why}")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model.content)
        printed = _run(folder, accelerator, system, timeout_s)
        return _read(folder, printed, model, accelerator, system)


def _run(folder: Path, accelerator: str, system: System, timeout_s: float) -> str:
    """Runs Vela in a folder; what it prints."""
    command = [
        sys.executable, "-m", "ethosu.vela", "model.tflite",
        "--output-dir", ".",
        "--accelerator-config", accelerator,
        "--config", "Arm/vela.ini",
        "--system-config", system.system_config,
        "--memory-mode", system.memory_mode,
        "--verbose-performance",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{accelerator}: Vela timed out after {timeout_s:g} s.") from None
    if done.returncode or not (folder / "model_vela.tflite").exists():
        error = re.split(r"Traceback .*\n(?:  .*\n)*", done.stdout + done.stderr)[-1].strip()
        raise ModelError(
            f"{accelerator}: Vela must compile the model. Received: exit status {done.returncode}. Convert with "
            f"`tfkd convert --mode full_int8`. It printed:\n{error[-2000:]}"
        )
    return done.stdout + done.stderr


def _read(folder: Path, printed: str, model: TFLiteModel, accelerator: str, system: System) -> Compilation:
    """Reads the files that Vela wrote."""
    content = (folder / "model_vela.tflite").read_bytes()
    (summary,) = _rows(folder / f"model_summary_{system.system_config}.csv")
    memory = {kind: round(1024 * float(summary[f"{kind}_memory_used"])) for kind in _MEMORIES}
    cpu_ops = _cpu_ops(TFLiteModel(content), printed)
    ops = sum(len(graph.ops) for graph in model.subgraphs)
    works = len(cpu_ops) < ops
    per_layer = folder / "model_per-layer.csv"
    return Compilation(
        accelerator=accelerator,
        system=system,
        version=importlib.metadata.version("ethos-u-vela"),
        content=content,
        ops=ops,
        cpu_ops=cpu_ops,
        layers=tuple(
            NPULayer(row["NNG Operator"], row["Name"], round(float(row["Op Cycles"])), int(row["MAC Count"]))
            for row in (_rows(per_layer) if per_layer.exists() else [])
            if row["Target"] == "NPU"
        ),
        cycles=round(float(summary["cycles_total"])) if works else None,
        npu_ms=1e3 * float(summary["inference_time"]) if works else None,
        sram_bytes=memory["sram"],
        dram_bytes=memory["dram"],
        flash_bytes=memory["on_chip_flash"] + memory["off_chip_flash"],
    )


_MEMORIES = ("sram", "dram", "on_chip_flash", "off_chip_flash")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _cpu_ops(compiled: TFLiteModel, printed: str) -> tuple[CPUOp, ...]:
    """The ops of a compiled model that are not commands of the NPU."""
    found = re.findall(r"operator: \w+, ofm: '(.*)'\nReason: ((?:.+\n?)+)", printed)
    reasons = {output: " ".join(reason.split()) for output, reason in found}
    return tuple(
        CPUOp(op.name, name, reasons.get(name, ""))
        for graph in compiled.subgraphs
        for op in graph.ops
        if op.name != tflite_reader.VELA
        for name in [graph.tensors[op.outputs[0]].name if op.outputs else ""]
    )
