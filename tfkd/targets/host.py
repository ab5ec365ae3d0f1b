"""This machine: LiteRT in child processes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfkd import child, targets
from tfkd.measurement import Measurement, Memory
from tfkd.tflite import TFLiteModel

KERNELS = ("plain", "reference")

_WARM_UP_NS = 200_000_000
_LONGEST_WARM_UP_NS = 2_000_000_000
_RUNS = 50
_RUN_NS = 1_000_000_000
_KEPT_RUNS = 10_000
_BATCH = 64
_SMALLEST_SHARD = 500


@dataclasses.dataclass(frozen=True)
class Host:
    """LiteRT on this machine.

    Args:
        kernels: `xnnpack` (LiteRT's default), `plain` (no delegate) or `reference` (slow, the definition of the ops).
        threads: of one timed inference.
        timeout_s: seconds for each child process.
    """

    kernels: str = "xnnpack"
    threads: int = 1
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.kernels not in ("xnnpack", *KERNELS):
            raise ValueError(f"host: kernels must be xnnpack, plain or reference. Received: {self.kernels!r}.")
        if self.threads < 1:
            raise ValueError(f"host: threads must be >= 1. Received: threads={self.threads}. Use 1.")
        targets.check_timeout("host", self.timeout_s)

    @property
    def spec(self) -> str:
        return "host" if self.kernels == "xnnpack" else f"host:{self.kernels}"

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        All latency comes before the outputs, in a process of its own. Over many samples the outputs come from one
        process a core, in batches where a first batch gave bit for bit what single samples give.
        """
        model = TFLiteModel.load(model)
        arrays = targets.check_inputs(model, inputs, self.spec)
        what = f"running {model.path or 'the model'} on {self.spec}"
        call: dict[str, Any] = {"content": model.content, "kernels": self.kernels}
        timed = None
        try:
            if latency:
                first = [array[:1] for array in arrays]
                timed = child.run("tfkd.targets.host:_time", timeout_s=self.timeout_s, what=what, inputs=first,
                                  threads=self.threads, **call)  # fmt: skip
            calls = [{**call, "inputs": part} for part in targets.shards(arrays, least=_SMALLEST_SHARD)]
            done = child.run_all("tfkd.targets.host:_run", calls, timeout_s=self.timeout_s, what=what)
        except child.ChildRefused as error:
            raise ValueError(
                f"{self.spec}: LiteRT must take the model. Received: {error}\n"
                "Convert it with `tfkd convert`: builtin ops only."
            ) from None
        peak = (timed or done[0])["peak_rss_bytes"]
        found = {"outputs": done, "latencies_ns": timed, "memory": peak}
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=targets.joined(done),
            evidence={name: "measured" for name, value in found.items() if value is not None},
            latencies_ns=timed["latencies_ns"] if timed else None,
            memory=Memory(peak_rss_bytes=peak),
            setting={
                "kernels": self.kernels,
                "threads": self.threads,
                "batch": min(part["batch"] for part in done),
                "timed_batch": 1,
            },
            environment={
                "machine": platform.machine(),
                "processor": _processor(),
                "cores": targets.cores(),
                "system": platform.platform(),
                "ai-edge-litert": importlib.metadata.version("ai-edge-litert"),
                **{key: timed[key] for key in ("warm_up_runs", "warm_up_stable", "runs", "kept_every") if timed},
            },
        )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


# From here on: what the child runs.


def _interpreter(content: bytes, kernels: str, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {
        "xnnpack": OpResolverType.AUTO,
        "plain": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": OpResolverType.BUILTIN_REF,
    }[kernels]
    interpreter = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    return interpreter


def _invoke(interpreter: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    interpreter.reset_all_variables()  # the state of an LSTM must not pass from one sample to the next
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def _time(content: bytes, kernels: str, inputs: list[np.ndarray], threads: int) -> dict[str, Any]:
    interpreter = _interpreter(content, kernels, threads)
    _invoke(interpreter, inputs)

    def once() -> int:
        start = time.perf_counter_ns()
        interpreter.invoke()
        return time.perf_counter_ns() - start

    warm_up: list[int] = []
    start, stable = time.perf_counter_ns(), False
    while not stable and time.perf_counter_ns() - start < _LONGEST_WARM_UP_NS:
        warm_up.append(once())
        if len(warm_up) >= 20 and time.perf_counter_ns() - start >= _WARM_UP_NS:
            before, now = statistics.median(warm_up[-20:-10]), statistics.median(warm_up[-10:])
            stable = abs(now - before) < 0.05 * before
    # Of a model of a microsecond there are half a million runs: every nth tells as much.
    every = max(1, int(_RUN_NS / statistics.median(warm_up[-20:]) / _KEPT_RUNS))
    latencies: list[int] = []
    start, runs = time.perf_counter_ns(), 0
    while runs < _RUNS or time.perf_counter_ns() - start < _RUN_NS:
        latency, runs = once(), runs + 1
        if runs % every == 0:
            latencies.append(latency)
    return {
        "latencies_ns": tuple(latencies), "runs": runs, "kept_every": every, "warm_up_runs": len(warm_up),
        "warm_up_stable": stable, "peak_rss_bytes": _peak_rss(),
    }  # fmt: skip


def _run(content: bytes, kernels: str, inputs: list[np.ndarray]) -> dict[str, Any]:
    interpreter = _interpreter(content, kernels, threads=1)
    samples, batch = len(inputs[0]), 1
    # The reference kernels gain nothing from batches.
    if kernels == "xnnpack" and samples >= 2 * _BATCH:
        interpreter, batch = _batched(interpreter, content, kernels, [array[:_BATCH] for array in inputs])
    whole = samples - samples % batch
    chunks = [_invoke(interpreter, [array[i : i + batch] for array in inputs]) for i in range(0, whole, batch)]
    if whole < samples:
        interpreter = _interpreter(content, kernels, threads=1)
        chunks += [_invoke(interpreter, [array[i : i + 1] for array in inputs]) for i in range(whole, samples)]
    outputs = [np.concatenate(output) for output in zip(*chunks, strict=True)]
    return {"outputs": outputs, "batch": batch, "peak_rss_bytes": _peak_rss()}


def _batched(interpreter: Any, content: bytes, kernels: str, first: list[np.ndarray]) -> tuple[Any, int]:
    """An interpreter of larger batch if it gives the same bits, else the one given."""
    single = [_invoke(interpreter, [array[i : i + 1] for array in first]) for i in range(_BATCH)]
    resized = _interpreter(content, kernels, threads=1)
    try:
        for detail in resized.get_input_details():
            resized.resize_tensor_input(detail["index"], [_BATCH, *detail["shape"][1:]])
        resized.allocate_tensors()
        together = _invoke(resized, first)
    except (RuntimeError, ValueError):  # a RESHAPE of fixed size, for one, cannot be resized
        return interpreter, 1
    for expected, received in zip(zip(*single, strict=True), together, strict=True):
        if not np.array_equal(np.concatenate(expected), received):
            return interpreter, 1
    return resized, _BATCH


def _peak_rss() -> int | None:
    # Not getrusage: its maximum counts the parent's memory too, from before the child's program was loaded.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
