"""LiteRT's own `benchmark_model` on a device, as its user built or downloaded it: times without outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError
from tfkd.targets import adb, target
from tfkd.targets.measurement import LatencySummary, Measurement, Memory

_FLAGS = {"cpu": "", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"}
_PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "soc": "ro.soc.model",
    "abi": "ro.product.cpu.abi",
    "android": "ro.build.version.release",
}
# Above this thermal status a phone slows itself down.
_LIGHT = 1


@dataclasses.dataclass(frozen=True)
class AdbBinary(target.Target):
    """The tool `benchmark_model` of TensorFlow Lite on a device, over adb.

    It gives a summary of its times (mean, median, p95 and spread; no p90 and no single times), the peak of its memory
    and no outputs: such a row says nothing of accuracy, and its p90 is unknown. A run that the accelerator took no part
    in is not valid, and neither is one above thermal status LIGHT.

    Args:
        binary: the file on this machine, built for the device.
        serial: of the device, as `adb devices` shows it; may be left out where one is connected.
        threads: of one inference.
        accelerator: `cpu`, `gpu` or `nnapi`.
        timeout_s: seconds for each of its two runs, for the times and for the memory.

    Raises:
        ValueError: a setting is wrong.
        RuntimeError: `adb` is not installed.
    """

    binary: str
    serial: str = ""
    threads: int = 1
    accelerator: str = "cpu"
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, Any]:
        """See `tfkd.targets.Target.parse`."""
        binary, _, serial = detail.partition("@")
        return {"binary": binary, "serial": serial}

    def __post_init__(self) -> None:
        target.check_timeout("adb-binary", self.timeout_s)
        if not Path(self.binary).is_file():
            raise InputError(
                f"adb-binary: needs the file benchmark_model. Received: {self.binary!r}. Write "
                "adb-binary:/path/benchmark_model, or adb-binary:/path/benchmark_model@SERIAL."
            )
        if not 1 <= self.threads <= 64:
            raise InputError(f"adb-binary: threads must be 1..64. Received: threads={self.threads}. Use 1.")
        if self.accelerator not in _FLAGS:
            raise InputError(
                f"adb-binary: accelerator must be one of {', '.join(_FLAGS)}. Received: {self.accelerator!r}."
            )
        adb.check("adb-binary", self.serial)

    @property
    def spec(self) -> str:
        place = f"adb-binary:{self.binary}{'@' if self.serial else ''}{self.serial}"
        return target.described(place, self, "threads", "accelerator")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; the tool makes inputs of its own.

        Raises:
            ValueError: only outputs are asked for.
            RuntimeError: no device, or which; the tool failed, or did not print its result in time.
        """
        if not latency:
            raise InputError(f"{self.spec}: gives times and no outputs. Received: latency=False. Use another target.")
        model = TFLiteModel.load(model)
        target.check_inputs(model, inputs, self.spec)
        device = self._device()
        tool, graph = device.store([Path(self.binary).read_bytes(), model.content])
        device.shell("chmod", "755", tool)
        words = [tool, f"--graph={graph}", f"--num_threads={self.threads}", _FLAGS[self.accelerator]]
        with adb.awake(device):
            heat, start = [[0, _heat(device)]], time.monotonic()
            printed = self._do(device, [*words, "--num_runs=50", "--min_secs=1", "--max_secs=150"])
            heat.append([round(time.monotonic() - start), _heat(device)])
            memory = ""
            with contextlib.suppress(RuntimeError):  # older tools do not know the option
                # In a run of its own: to watch the memory disturbs the times.
                memory = self._do(
                    device, [*words, "--num_runs=1", "--min_secs=0", "--report_peak_memory_footprint=true"]
                )
        if graph not in printed:
            raise DeviceError(f"{self.spec}: must have run {graph}. Received: {printed.strip()[-800:]}")
        summary, times = _times(printed, self.spec)
        peak = re.search(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.e+]+)", memory)
        took, reasons = _delegated(printed), []
        if self.accelerator != "cpu" and took == "nothing":
            reasons.append(f"{self.accelerator} took no part of the model, which ran on the CPU")
        hottest = max(status for _, status in heat)
        if hottest > _LIGHT:
            reasons.append(f"thermal status {hottest}: the device slowed itself down; let it cool")
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=(),
            evidence={"latency_summary": "measured", **({"memory": "measured"} if peak else {})},
            latency_summary=summary,
            memory=Memory(peak_rss_bytes=round(float(peak[1]) * 2**20) if peak else None),
            setting={"threads": self.threads, "accelerator": self.accelerator, "timed_batch": 1},
            environment={**_properties(device), **times, "delegated": took, "thermal": heat, "tool": "benchmark_model"},
            valid=not reasons,
            invalid_reason="; ".join(reasons) or None,
        )

    def check(self) -> None:
        """See `tfkd.targets.Target.check`."""
        self._device()

    def _device(self) -> adb.Device:
        return adb.Device(self.spec, adb.connected(self.spec, self.serial))

    def _do(self, device: adb.Device, words: list[str]) -> str:
        line = f"{shlex.join(filter(None, words))} 2>&1"
        printed = adb.read(["-s", device.serial, "shell", line], f"{self.spec}: benchmark_model", self.timeout_s)
        return printed.decode(errors="replace")


def _times(printed: str, where: str) -> tuple[LatencySummary, dict[str, Any]]:
    """The last line of statistics, which is that of the timed runs, and the line of timings, both in microseconds."""
    counted = re.findall(r"^(?:INFO: )?count=.*", printed, re.MULTILINE)
    timings = re.search(
        r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+), Warmup \(avg\): ([\d.e+]+), "
        r"Inference \(avg\): ([\d.e+]+)",
        printed,
    )
    us = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.e+]+)", counted[-1])} if counted else {}
    if timings is None or len(counted) < 2 or not us.get("count"):
        raise DeviceError(
            f"{where}: benchmark_model must print its warm-up, its runs and 'Inference timings in us'. Received: "
            f"{printed.strip()[-1500:] or 'nothing'}"
        )

    def ms(name: str, instead: str) -> float | None:
        value = us.get(name, us.get(instead))
        return None if value is None else value / 1e3

    # Of equal times it prints one, `curr`; older versions know no percentiles.
    summary = LatencySummary(
        count=int(us["count"]),
        mean_ms=float(timings[4]) / 1e3,
        min_ms=ms("min", "curr"),
        p50_ms=ms("median", ""),
        p90_ms=None,
        p95_ms=ms("p95", ""),
        p99_ms=None,
        max_ms=ms("max", "curr"),
        stdev_ms=us.get("std", 0.0) / 1e3,
        drift=None,
    )
    return summary, {"runs": summary.count, "init_ms": float(timings[1]) / 1e3, "first_ms": float(timings[2]) / 1e3}


def _delegated(printed: str) -> str:
    """How much of the model the accelerator took, in the tool's words: completely, partially or nothing."""
    found = re.search(r"pplied \w+ delegate, and the model graph will be (completely|partially)", printed)
    return found[1] if found else "nothing"


def _heat(device: adb.Device) -> int:
    """The thermal status; -1 where the device does not say it, as before Android 10."""
    found = re.search(r"Thermal Status: (\d+)", device.shell("dumpsys", "thermalservice"))
    return int(found[1]) if found else -1


def _properties(device: adb.Device) -> dict[str, str]:
    said = dict(re.findall(r"^\[(.+?)\]: \[(.+)\]", device.shell("getprop"), re.MULTILINE))
    return {name: said[key] for name, key in _PROPERTIES.items() if key in said}
