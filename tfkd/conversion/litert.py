"""LiteRT itself: outputs, each from the initial state of the model, and latencies.

This file is also copied to edge devices, where tfkd is not installed: `python3 litert.py` reads a job as JSON from
standard input and writes a .npz to standard output. So it needs only NumPy and ai-edge-litert, and must neither import
tfkd nor need Python > 3.10.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import platform
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

# The least time in seconds that a latency is measured for. The warm-up takes from 0.2 to 2 times as long.
TIMED_S = 1.0
_RUNS = 50
_KEPT_RUNS = 10_000
_BATCH = 64
# Ops whose state stays as it is when LiteRT resets a model: variables that are resources, and random generators.
_NEVER_RESET = frozenset({"VAR_HANDLE", "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"})


class BatchError(ValueError):
    """The model does not accept the batch size."""


class AnswerError(ValueError):
    """The output of `main` is incomplete or something else."""


def needs_restart(ops: Iterable[str]) -> bool:
    """Whether only a new interpreter has the initial state of a model.

    Args:
        ops: Names of the ops of all subgraphs.
    """
    return not _NEVER_RESET.isdisjoint(ops)


class SampleInterpreter:
    """An interpreter that computes each sample from the initial state of the model.

    Args:
        start: Returns a new LiteRT interpreter whose tensors are allocated.
        restart: Whether each sample takes a new interpreter; see `needs_restart`. Otherwise LiteRT resets the
            variable tensors, which costs next to nothing.
    """

    def __init__(self, start: Callable[[], Interpreter], *, restart: bool) -> None:
        self._start, self._restart = start, restart
        self.interpreter = start()

    def invoke(self, inputs: Sequence[np.ndarray], *, continued: bool = False) -> list[np.ndarray]:
        """Computes one sample.

        Args:
            inputs: One array for each input of the model, of its type and number of values.
            continued: Whether it starts from the state that the call before left, instead of the initial one.

        Returns:
            One array for each output of the model, of shape [1] for a scalar.
        """
        if self._restart and not continued:
            self.interpreter = self._start()
        if not continued:
            self.interpreter.reset_all_variables()
        for detail, array in zip(self.interpreter.get_input_details(), inputs, strict=True):
            self.interpreter.set_tensor(detail["index"], np.reshape(array, detail["shape"]))
        self.interpreter.invoke()
        indices = [detail["index"] for detail in self.interpreter.get_output_details()]
        return [np.atleast_1d(self.interpreter.get_tensor(index)) for index in indices]


def has_batch_axis(shape: Sequence[int]) -> bool:
    """Whether the first axis of a tensor of one sample is that of the samples: it has size 1."""
    return len(shape) > 0 and shape[0] == 1


def joined(samples: Sequence[np.ndarray]) -> np.ndarray:
    """An output of several samples [N, ...].

    Args:
        samples: The output of each sample. Its first axis is that of the samples if it has size 1.
    """
    return np.concatenate([y if has_batch_axis(y.shape) else y[None] for y in samples])


def load() -> None:
    """Imports LiteRT."""
    importlib.import_module("ai_edge_litert.interpreter")


def new_interpreter(content: bytes, kernels: str, threads: int = 1, batch: int = 1) -> Interpreter:
    """A LiteRT interpreter whose tensors are allocated.

    Args:
        content: The .tflite.
        kernels: `xnnpack`, `plain` or `reference`.
        threads: Threads per inference.
        batch: Samples per inference.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {
        "xnnpack": OpResolverType.AUTO,
        "plain": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": OpResolverType.BUILTIN_REF,
    }[kernels]
    interpreter = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=resolver)
    for detail in interpreter.get_input_details() if batch > 1 else ():
        if not has_batch_axis(detail["shape"]):
            raise ValueError(f"input {detail['name']!r} of shape {tuple(detail['shape'])} has no batch axis")
        interpreter.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])
    interpreter.allocate_tensors()
    return interpreter


def time_runs(
    content: bytes,
    kernels: str,
    inputs: list[np.ndarray],
    threads: int,
    batch: int = 1,
    timed_s: float = TIMED_S,
) -> dict[str, Any]:
    """Times inferences; see `timed`. The state of the model is not reset between them.

    Args:
        content: The .tflite.
        kernels: `xnnpack`, `plain` or `reference`.
        inputs: One sample [1, ...] for each input.
        threads: Threads per inference.
        batch: Samples per inference, copies of the given one.
        timed_s: See `timed`.

    Raises:
        BatchError: The model does not accept the batch size.
    """
    try:
        runner = SampleInterpreter(lambda: new_interpreter(content, kernels, threads, batch), restart=False)
        runner.invoke([np.repeat(array, batch, axis=0) for array in inputs])
    except (RuntimeError, ValueError) as error:
        if batch == 1:
            raise
        raise BatchError(f"the model does not accept a batch of {batch}: {error}. Use batch=1.") from None
    return timed(runner.interpreter.invoke, timed_s)


def timed(invoke: Callable[[], object], timed_s: float = TIMED_S) -> dict[str, Any]:
    """Times a function: runs it until its time is stable, then at least 50 times and for the given time.

    Args:
        invoke: The function, without arguments.
        timed_s: The least time in seconds after the warm-up, which takes from 0.2 to 2 times as long.

    Returns:
        `latencies_ns` (every `kept_every`-th of `runs` runs), `warm_up_runs`, `warm_up_stable` and `peak_rss_bytes`.
    """

    def once() -> int:
        start = time.perf_counter_ns()
        invoke()
        return time.perf_counter_ns() - start

    least_ns = timed_s * 1e9
    warm_up: list[int] = []
    start, stable = time.perf_counter_ns(), False
    while not stable and time.perf_counter_ns() - start < 2 * least_ns:
        warm_up.append(once())
        if len(warm_up) >= 20 and time.perf_counter_ns() - start >= 0.2 * least_ns:
            before, now = statistics.median(warm_up[-20:-10]), statistics.median(warm_up[-10:])
            stable = abs(now - before) < 0.05 * before
    # A small model runs half a million times in a second; not every latency needs to be kept.
    every = max(1, int(least_ns / statistics.median(warm_up[-20:]) / _KEPT_RUNS))
    latencies: list[int] = []
    start, runs = time.perf_counter_ns(), 0
    while runs < _RUNS or time.perf_counter_ns() - start < least_ns:
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


def run(content: bytes, kernels: str, inputs: list[np.ndarray], *, restart: bool, chunks: int = 1) -> dict[str, Any]:
    """The outputs of all samples, each computed from the initial state of the model.

    Args:
        content: The .tflite.
        kernels: `xnnpack`, `plain` or `reference`.
        inputs: One array [N, ...] for each input.
        restart: Whether each sample takes a new interpreter; see `needs_restart`.
        chunks: Number of samples that follow each other: only the first of them starts from the initial state.

    Returns:
        `outputs` (one array [N, ...] for each output), the `batch` size that was used and `peak_rss_bytes`.
    """
    runner = single = SampleInterpreter(lambda: new_interpreter(content, kernels), restart=restart)
    samples, batch = len(inputs[0]), 1
    # Batches make only XNNPACK faster, and resource variables have the shape of one sample.
    if kernels == "xnnpack" and samples >= 2 * _BATCH and not restart and chunks == 1:
        runner, batch = _batched(single, content, kernels, [array[:_BATCH] for array in inputs])
    whole = samples - samples % batch if batch > 1 else 0
    parts = [runner.invoke([array[i : i + batch] for array in inputs]) for i in range(0, whole, batch)]
    rest = [
        single.invoke([array[i : i + 1] for array in inputs], continued=i % chunks > 0) for i in range(whole, samples)
    ]
    if rest:
        parts.append([joined(output) for output in zip(*rest, strict=True)])
    outputs = [np.concatenate(output) for output in zip(*parts, strict=True)]
    return {"outputs": outputs, "batch": batch, "peak_rss_bytes": _peak_rss()}


def _batched(
    single: SampleInterpreter, content: bytes, kernels: str, first: list[np.ndarray]
) -> tuple[SampleInterpreter, int]:
    """An interpreter with a larger batch and that batch, if its outputs are bit for bit those of single samples."""
    outputs = [single.invoke([array[i : i + 1] for array in first]) for i in range(_BATCH)]
    try:
        resized = SampleInterpreter(lambda: new_interpreter(content, kernels, batch=_BATCH), restart=False)
        together = resized.invoke(first)
    except (RuntimeError, ValueError):  # a RESHAPE to a fixed size, for example, cannot be resized
        return single, 1
    for expected, received in zip(zip(*outputs, strict=True), together, strict=True):
        if not np.array_equal(joined(expected), received):
            return single, 1
    return resized, _BATCH


def _peak_rss() -> int | None:
    # Not getrusage: its maximum includes the memory of the parent, from before the child's program was loaded.
    try:
        lines = _lines("/proc/self/status")
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _lines(path: str) -> list[str]:
    with open(path) as file:
        return file.read().splitlines()


def processor() -> str:
    """Name of the processor."""
    try:
        lines = _lines("/proc/cpuinfo")
    except OSError:
        return platform.processor()
    wanted = [line for line in lines if line.startswith(("model name", "Model"))]  # x86, Raspberry Pi
    return wanted[0].partition(":")[2].strip() if wanted else platform.machine()


def environment() -> dict[str, Any]:
    """Facts that latencies and outputs depend on: processor, system, versions."""
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
        raise OSError(f"{path}: the SHA-256 is not {sha256}; the file was damaged in transfer. Run it again.")
    return content


def packed(array: np.ndarray) -> bytes:
    """An array as the content of a .npy file, the form in which a job refers to it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def answer(reply: bytes) -> tuple[dict[str, Any], tuple[np.ndarray, ...]]:
    """Reads what `main` wrote.

    Args:
        reply: Content of the .npz file.

    Returns:
        The record, and one array [N, ...] for each output.

    Raises:
        AnswerError: It is incomplete or something else.
    """
    try:
        with np.load(io.BytesIO(reply), allow_pickle=False) as archive:
            record = json.loads(archive["record"].tobytes())
            return record, tuple(archive[f"o{i}"] for i in range(len(archive.files) - 1))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise AnswerError(f"the answer of {len(reply)} bytes has no outputs ({error})") from None


def main() -> None:
    """Runs one job: first the latencies, then the outputs of all samples."""
    job = json.load(sys.stdin)
    content = _verified(job["model"]["path"], job["model"]["sha256"])
    inputs = [np.load(io.BytesIO(_verified(i["path"], i["sha256"])), allow_pickle=False) for i in job["inputs"]]
    timed = None
    if job["latency"]:
        print("latency", file=sys.stderr, flush=True)
        timed = time_runs(content, job["kernels"], [x[:1] for x in inputs], job["threads"], timed_s=job["timed_s"])
    print(f"outputs of {len(inputs[0])} samples", file=sys.stderr, flush=True)
    done = run(content, job["kernels"], inputs, restart=job["restart"])
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
