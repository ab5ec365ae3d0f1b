"""LiteRT's tool `benchmark_model` on a phone over adb: latency and memory, but no outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import time
from pathlib import Path

from tfkd._internal.types import InputArrays, JsonObject
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
# Above this thermal status (LIGHT) a phone throttles its processors.
_LIGHT = 1


@dataclasses.dataclass(frozen=True)
class AdbBinary(target.Target):
    """The tool `benchmark_model` of LiteRT on a device, over adb.

    It reports a summary of latencies (mean, median, p95 and spread, but no p90 and no single values) and the peak
    memory. It returns no outputs, so that accuracy is unknown. A run is not valid if the accelerator ran no part of the
    model, or above thermal status LIGHT.

    Args:
        binary: Path of the tool on this machine, built for the device.
        serial: Serial number of the device, as `adb devices` shows it; empty if only one is connected.
        threads: Threads per inference, 1..64.
        accelerator: `cpu`, `gpu` or `nnapi`.
        timeout_s: Time limit in seconds of each of the two runs, for latency and for memory, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: `adb` is not installed.
    """

    binary: str
    serial: str = ""
    threads: int = 1
    accelerator: str = "cpu"
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        binary, _, serial = detail.partition("@")
        return {"binary": binary, "serial": serial}

    def __post_init__(self) -> None:
        target.check_timeout("adb-binary", self.timeout_s)
        if not Path(self.binary).is_file():
            raise InputError(
                f"adb-binary: no such file: {self.binary!r}. Write "
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
        """See `tfkd.targets.Target.spec`."""
        place = f"adb-binary:{self.binary}{'@' if self.serial else ''}{self.serial}"
        return target.described(place, self, "threads", "accelerator")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; the tool generates random inputs itself.

        Raises:
            InputError: `latency` is False.
            DeviceError: The device cannot be used, or the tool failed, timed out or printed no result.
        """
        if not latency:
            raise InputError(
                f"{self.spec}: returns no outputs, so that latency=False measures nothing. Use another target."
            )
        model = TFLiteModel.load(model)
        target.check_inputs(model, inputs, self.spec)
        device = self._device()
        tool, model_path = device.store([Path(self.binary).read_bytes(), model.content])
        device.shell("chmod", "755", tool)
        command = [tool, f"--graph={model_path}", f"--num_threads={self.threads}", _FLAGS[self.accelerator]]
        with adb.awake(device):
            thermal, start = [[0, _thermal_status(device)]], time.monotonic()
            printed = self._execute(device, [*command, "--num_runs=50", "--min_secs=1", "--max_secs=150"])
            thermal.append([round(time.monotonic() - start), _thermal_status(device)])
            memory = ""
            with contextlib.suppress(DeviceError):  # older tools do not have the option
                # A separate run, since watching the memory disturbs the latencies.
                memory = self._execute(
                    device, [*command, "--num_runs=1", "--min_secs=0", "--report_peak_memory_footprint=true"]
                )
        if model_path not in printed:
            raise DeviceError(f"{self.spec}: the tool did not run {model_path}. It printed: {printed.strip()[-800:]}")
        summary, times = _times(printed, self.spec)
        peak = re.search(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.e+]+)", memory)
        delegated, reasons = _delegated(printed), []
        if self.accelerator != "cpu" and delegated == "nothing":
            reasons.append(f"{self.accelerator} ran no part of the model; all of it ran on the CPU")
        hottest = max(status for _, status in thermal)
        if hottest > _LIGHT:
            reasons.append(f"thermal status {hottest}: the device throttled; let it cool down")
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=(),
            evidence={"latency_summary": "measured", **({"memory": "measured"} if peak else {})},
            latency_summary=summary,
            memory=Memory(peak_rss_bytes=round(float(peak[1]) * 2**20) if peak else None),
            setting={"threads": self.threads, "accelerator": self.accelerator, "timed_batch": 1},
            environment={
                **_properties(device),
                **times,
                "delegated": delegated,
                "thermal": thermal,
                "tool": "benchmark_model",
            },
            valid=not reasons,
            invalid_reason="; ".join(reasons) or None,
        )

    def check(self) -> None:
        """See `tfkd.targets.Target.check`."""
        self._device()

    def _device(self) -> adb.Device:
        return adb.Device(self.spec, adb.connected(self.spec, self.serial))

    def _execute(self, device: adb.Device, command: list[str]) -> str:
        line = f"{shlex.join(filter(None, command))} 2>&1"
        printed = adb.read(["-s", device.serial, "shell", line], f"{self.spec}: benchmark_model", self.timeout_s)
        return printed.decode(errors="replace")


def _times(printed: str, where: str) -> tuple[LatencySummary, JsonObject]:
    """Parses the tool's output.

    Args:
        printed: Output of the tool. Its last line of statistics is about the timed runs, in microseconds.
        where: Name of the target, for error messages.

    Returns:
        The summary of the latencies, and facts for the measurement's environment.
    """
    counted = re.findall(r"^(?:INFO: )?count=.*", printed, re.MULTILINE)
    timings = re.search(
        r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+), Warmup \(avg\): ([\d.e+]+), "
        r"Inference \(avg\): ([\d.e+]+)",
        printed,
    )
    us = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.e+]+)", counted[-1])} if counted else {}
    if timings is None or len(counted) < 2 or not us.get("count"):
        raise DeviceError(
            f"{where}: benchmark_model printed no statistics of its runs or no 'Inference timings in us': "
            f"{printed.strip()[-1500:] or 'no output'}"
        )

    def ms(name: str, alternative: str) -> float | None:
        value = us.get(name, us.get(alternative))
        return None if value is None else value / 1e3

    # If all times are equal it prints only `curr`; older versions print no percentiles.
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
        latency_trend=None,
    )
    return summary, {"runs": summary.count, "init_ms": float(timings[1]) / 1e3, "first_ms": float(timings[2]) / 1e3}


def _delegated(printed: str) -> str:
    """How much of the model the accelerator ran: "completely", "partially" or "nothing"."""
    found = re.search(r"pplied \w+ delegate, and the model graph will be (completely|partially)", printed)
    return found[1] if found else "nothing"


def _thermal_status(device: adb.Device) -> int:
    """Thermal status of the device; -1 if unknown, as before Android 10."""
    found = re.search(r"Thermal Status: (\d+)", device.shell("dumpsys", "thermalservice"))
    return int(found[1]) if found else -1


def _properties(device: adb.Device) -> dict[str, str]:
    properties = dict(re.findall(r"^\[(.+?)\]: \[(.+)\]", device.shell("getprop"), re.MULTILINE))
    return {name: properties[key] for name, key in _PROPERTIES.items() if key in properties}
