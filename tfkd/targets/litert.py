"""LiteRT itself: timing and outputs, with NumPy and ai-edge-litert alone.

The file is also the runner on an edge box, where tfkd is not installed: `python3 litert.py` reads a job as JSON from
standard input and writes a .npz to standard output.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

_WARM_UP_NS = 200_000_000
_LONGEST_WARM_UP_NS = 2_000_000_000
_RUNS = 50
_RUN_NS = 1_000_000_000
_KEPT_RUNS = 10_000
_BATCH = 64


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


def time_runs(content: bytes, kernels: str, inputs: list[np.ndarray], threads: int, batch: int = 1) -> dict[str, Any]:
    """Times inferences of a batch; see `timed`."""
    interpreter = _interpreter(content, kernels, threads)
    if batch > 1:
        inputs = [np.repeat(array, batch, axis=0) for array in inputs]
        try:
            _resize(interpreter, batch)
            _invoke(interpreter, inputs)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"the model must take a batch of {batch}. Received: {error}. Use batch=1.") from None
    _invoke(interpreter, inputs)
    return timed(interpreter.invoke)


def timed(invoke: Callable[[], Any]) -> dict[str, Any]:
    """Times a call: warm-up until stable, then at least 50 runs and a second; raw nanoseconds."""

    def once() -> int:
        start = time.perf_counter_ns()
        invoke()
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
        "latencies_ns": tuple(latencies),
        "runs": runs,
        "kept_every": every,
        "warm_up_runs": len(warm_up),
        "warm_up_stable": stable,
        "peak_rss_bytes": _peak_rss(),
    }


def run(content: bytes, kernels: str, inputs: list[np.ndarray]) -> dict[str, Any]:
    """The outputs of all samples."""
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
        _resize(resized, _BATCH)
        together = _invoke(resized, first)
    except (RuntimeError, ValueError):  # a RESHAPE of fixed size, for one, cannot be resized
        return interpreter, 1
    for expected, received in zip(zip(*single, strict=True), together, strict=True):
        if not np.array_equal(np.concatenate(expected), received):
            return interpreter, 1
    return resized, _BATCH


def _resize(interpreter: Any, batch: int) -> None:
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])
    interpreter.allocate_tensors()


def _peak_rss() -> int | None:
    # Not getrusage: its maximum counts the parent's memory too, from before the child's program was loaded.
    try:
        lines = _lines("/proc/self/status")
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _lines(path: str) -> list[str]:
    with open(path) as file:
        return file.read().splitlines()


def processor() -> str:
    """What the system says of its processor."""
    try:
        lines = _lines("/proc/cpuinfo")
    except OSError:
        return platform.processor()
    wanted = [line for line in lines if line.startswith(("model name", "Model"))]  # x86, Raspberry Pi
    return wanted[0].partition(":")[2].strip() if wanted else platform.machine()


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    import importlib.metadata

    return {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ai-edge-litert": importlib.metadata.version("ai-edge-litert"),
    }


def _verified(path: str, sha256: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: must have SHA-256 {sha256}. It was damaged on the way; send it again.")
    return content


def packed(array: np.ndarray) -> bytes:
    """An array as a .npy file, the form in which a job names it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def answer(reply: bytes) -> tuple[dict[str, Any], tuple[np.ndarray, ...]]:
    """What `main` wrote: its record and the outputs.

    Raises:
        ValueError: it is not whole.
    """
    try:
        with np.load(io.BytesIO(reply), allow_pickle=False) as archive:
            record = json.loads(archive["record"].tobytes())
            return record, tuple(archive[f"o{i}"] for i in range(len(archive.files) - 1))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"must answer with outputs. Received: {len(reply)} bytes that are none ({error})") from None


def main() -> None:
    """Does one job: latency before outputs, each in turn, and hands everything back at once."""
    job = json.load(sys.stdin)
    content = _verified(job["model"]["path"], job["model"]["sha256"])
    inputs = [np.load(io.BytesIO(_verified(i["path"], i["sha256"])), allow_pickle=False) for i in job["inputs"]]
    timed = None
    if job["latency"]:
        print("latency", file=sys.stderr, flush=True)
        timed = time_runs(content, job["kernels"], [x[:1] for x in inputs], job["threads"])
    print(f"outputs of {len(inputs[0])} samples", file=sys.stderr, flush=True)
    done = run(content, job["kernels"], inputs)
    outputs = done.pop("outputs")
    record = {
        "nonce": job["nonce"],
        "model_sha256": job["model"]["sha256"],
        "done": done,
        "timed": timed,
        "environment": environment(),
    }
    reply = io.BytesIO()
    np.savez(
        reply,
        record=np.frombuffer(json.dumps(record).encode(), np.uint8),
        **{f"o{i}": o for i, o in enumerate(outputs)},
    )
    sys.stdout.buffer.write(reply.getvalue())


if __name__ == "__main__":
    main()
