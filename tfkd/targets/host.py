"""LiteRT on this machine, in child processes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from typing import Any, Self

from tfkd._internal import isolation
from tfkd._internal.types import InputArrays, JsonObject
from tfkd.conversion import litert, tflite_reader
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError, ToolMissingError
from tfkd.targets import chunks, target
from tfkd.targets.measurement import Measurement, Memory

KERNELS = ("plain", "reference")

_SMALLEST_SHARD = 500


@dataclasses.dataclass(frozen=True)
class Host(target.Target):
    """LiteRT on this machine.

    Args:
        kernels: `xnnpack` (LiteRT's default), `plain` (LiteRT's own kernels, no delegate) or `reference` (slow, the
            definition of the ops).
        threads: Threads per timed inference, >= 1.
        batch: Samples per timed inference, >= 1.
        chunks: Whether sequences are fed in chunks of the length of the model's input, see `tfkd.targets.chunks`.
        timeout_s: Time limit of each child process in seconds, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: The package ai-edge-litert is not installed.
    """

    kernels: str = "xnnpack"
    threads: int = 1
    batch: int = 1
    chunks: bool = False
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return ("host", *(f"host:{kernels}" for kernels in KERNELS))

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        return {"kernels": detail} if detail else {}

    def __post_init__(self) -> None:
        if self.kernels not in ("xnnpack", *KERNELS):
            raise InputError(f"host: kernels must be xnnpack, plain or reference. Received: {self.kernels!r}.")
        if self.threads < 1:
            raise InputError(f"host: threads must be >= 1. Received: threads={self.threads}. Use 1.")
        if self.batch < 1:
            raise InputError(f"host: batch must be >= 1. Received: batch={self.batch}. Use 1.")
        target.check_timeout("host", self.timeout_s)
        if not target.installed("ai_edge_litert"):
            raise ToolMissingError(
                "host: the package ai-edge-litert is not installed; it exists for Linux and macOS. "
                f"This is {platform.system()} on {platform.machine()}. Run `pip install ai-edge-litert`."
            )

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        place = "host" if self.kernels == "xnnpack" else f"host:{self.kernels}"
        return target.described(place, self, "threads", "batch", "chunks")

    def in_chunks(self) -> Self:
        """See `tfkd.targets.Target.in_chunks`."""
        return dataclasses.replace(self, chunks=True)

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        Latency and memory are measured before the outputs, in a process of its own: a new one, since pages of files,
        such as those of libraries, do not count in a forked one until it reads them. The outputs of many samples come
        from one process per CPU core, in batches if a first batch gives bit for bit the outputs of single samples.
        """
        model = TFLiteModel.load(model)
        inputs, count = chunks.divide(model, inputs, self.spec) if self.chunks else (inputs, 1)
        arrays = target.check_inputs(model, inputs, self.spec)
        target.check_litert(model, self.spec, kernels=self.kernels)
        call: JsonObject = {"content": model.content, "kernels": self.kernels}
        limits: JsonObject = {
            "timeout_s": self.timeout_s,
            "what": f"running {model.path or 'the model'} on {self.spec}",
        }
        timed = None
        try:
            if latency:
                first = [array[:1] for array in arrays]
                settings: JsonObject = {"threads": self.threads, "batch": self.batch, "timed_s": litert.TIMED_S}
                timed = isolation.run("tfkd.targets.host:_time_runs", inputs=first, **settings, **call, **limits)
            call["restart"] = litert.needs_restart(model.ops)
            parts = target.shards(arrays, least=_SMALLEST_SHARD, together=count)
            calls = [{**call, "inputs": part, "chunks": count} for part in parts]
            results = isolation.run_all(
                "tfkd.conversion.litert:run", calls, prepare="tfkd.conversion.litert:load", **limits
            )
        except isolation.ChildRefused as error:
            if "(DIV) failed to invoke" in str(error):
                raise ModelError(
                    f"{self.spec}: a sample leads to a division by 0 in integers, as the mean of a sequence does that "
                    "is masked as a whole: its length is 0. Leave such samples out, or use float modes, whose result "
                    f"is NaN. LiteRT prints: {error}"
                ) from None
            remedy = tflite_reader.compiled(model.subgraphs)
            remedy = remedy or "Convert it with `tfkd convert`, which uses builtin ops only."
            raise ModelError(f"{self.spec}: LiteRT does not accept the model: {error}\n{remedy}") from None
        return self._measurement(model, results, timed, count)

    def _measurement(
        self, model: TFLiteModel, results: list[JsonObject], timed: JsonObject | None, count: int
    ) -> Measurement:
        peak = timed["peak_rss_bytes"] if timed else None
        known = {"outputs": results, "latencies_ns": timed, "memory": peak}
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=chunks.join(model, target.joined(results), count) if self.chunks else target.joined(results),
            evidence={name: "measured" for name, value in known.items() if value is not None},
            latencies_ns=timed["latencies_ns"] if timed else None,
            memory=Memory(peak_rss_bytes=peak),
            setting={
                "kernels": self.kernels,
                "threads": self.threads,
                "batch": min(part["batch"] for part in results),
                "timed_batch": self.batch,
                **({"chunks": count} if self.chunks else {}),
            },
            environment={
                "machine": platform.machine(),
                "processor": litert.processor(),
                "cores": target.cores(),
                "system": platform.platform(),
                "ai-edge-litert": importlib.metadata.version("ai-edge-litert"),
                **{key: timed[key] for key in ("warm_up_runs", "warm_up_stable", "runs", "kept_every") if timed},
            },
        )


def _time_runs(**settings: Any) -> JsonObject:  # in the child
    try:
        return litert.time_runs(**settings)
    except litert.BatchError as error:
        raise ModelError(f"host: {error}") from None
