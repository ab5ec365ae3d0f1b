"""This machine: LiteRT in child processes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from typing import Any

from tfkd._internal import isolation
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.targets import litert, target
from tfkd.targets.measurement import Measurement, Memory

KERNELS = ("plain", "reference")

_SMALLEST_SHARD = 500


@dataclasses.dataclass(frozen=True)
class Host(target.Target):
    """LiteRT on this machine.

    Args:
        kernels: `xnnpack` (LiteRT's default), `plain` (no delegate) or `reference` (slow, the definition of the ops).
        threads: of one timed inference.
        batch: samples in one timed inference, as on a server.
        timeout_s: seconds for each child process.
    """

    kernels: str = "xnnpack"
    threads: int = 1
    batch: int = 1
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return ("host", *(f"host:{kernels}" for kernels in KERNELS))

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, Any]:
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

    @property
    def spec(self) -> str:
        place = "host" if self.kernels == "xnnpack" else f"host:{self.kernels}"
        return target.described(place, self, "threads", "batch")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        All latency comes before the outputs, in a process of its own. Over many samples the outputs come from one
        process a core, in batches where a first batch gave bit for bit what single samples give.
        """
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        what = f"running {model.path or 'the model'} on {self.spec}"
        call: dict[str, Any] = {"content": model.content, "kernels": self.kernels}
        timed = None
        try:
            if latency:
                first = [array[:1] for array in arrays]
                timed = isolation.run(
                    "tfkd.targets.litert:time_runs",
                    timeout_s=self.timeout_s,
                    what=what,
                    inputs=first,
                    threads=self.threads,
                    batch=self.batch,
                    **call,
                )
            calls = [{**call, "inputs": part} for part in target.shards(arrays, least=_SMALLEST_SHARD)]
            done = isolation.run_all("tfkd.targets.litert:run", calls, timeout_s=self.timeout_s, what=what)
        except isolation.ChildRefused as error:
            raise InputError(
                f"{self.spec}: LiteRT must take the model. Received: {error}\n"
                "Convert it with `tfkd convert`: builtin ops only."
            ) from None
        peak = (timed or done[0])["peak_rss_bytes"]
        found = {"outputs": done, "latencies_ns": timed, "memory": peak}
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=target.joined(done),
            evidence={name: "measured" for name, value in found.items() if value is not None},
            latencies_ns=timed["latencies_ns"] if timed else None,
            memory=Memory(peak_rss_bytes=peak),
            setting={
                "kernels": self.kernels,
                "threads": self.threads,
                "batch": min(part["batch"] for part in done),
                "timed_batch": self.batch,
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
