"""What one run of a .tflite on one target gave: one frozen record and one JSON schema for every target."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections.abc import Mapping
from typing import Any, Literal

from tfkd.errors import InputError

SCHEMA = "tfkd.measurement/1"

Evidence = Literal["measured", "emulated", "estimated"]


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes that a model takes on a target. What is unknown is None, never 0.

    Args:
        arena_bytes: the tensor arena in all.
        arena_head_bytes: the part of the arena that holds activations.
        arena_tail_bytes: the part of the arena that holds the interpreter's own records.
        ram_bytes: all RAM: activations, state and stack.
        stack_bytes: the deepest stack.
        flash_bytes: code and weights.
        peak_rss_bytes: the largest resident set of the process that ran the model.
    """

    arena_bytes: int | None = None
    arena_head_bytes: int | None = None
    arena_tail_bytes: int | None = None
    ram_bytes: int | None = None
    stack_bytes: int | None = None
    flash_bytes: int | None = None
    peak_rss_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class LatencySummary:
    """Percentiles (nearest rank) and spread of raw latencies, in milliseconds; None for what a tool does not say.

    `drift` is the median of the second half of the samples over the median of the first half: far from 1 says that
    the clock or the temperature changed during the run.
    """

    count: int
    mean_ms: float
    min_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    stdev_ms: float
    drift: float | None

    @classmethod
    def of(cls, latencies_ns: tuple[int, ...]) -> LatencySummary:
        """Summarises raw latencies.

        Args:
            latencies_ns: nanoseconds, in the order in which they were taken; at least one.

        >>> LatencySummary.of((1_000_000, 3_000_000, 2_000_000)).p50_ms
        2.0
        """
        if not latencies_ns:
            raise InputError("LatencySummary: latencies_ns must hold at least one sample. Received: none.")
        ordered = sorted(latencies_ns)

        def percentile(q: float) -> float:
            return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)] / 1e6

        half = len(latencies_ns) // 2
        drift = statistics.median(latencies_ns[half:]) / statistics.median(latencies_ns[:half]) if half else 1.0
        return cls(
            count=len(ordered),
            mean_ms=statistics.fmean(ordered) / 1e6,
            min_ms=ordered[0] / 1e6,
            p50_ms=percentile(50),
            p90_ms=percentile(90),
            p95_ms=percentile(95),
            p99_ms=percentile(99),
            max_ms=ordered[-1] / 1e6,
            stdev_ms=statistics.pstdev(ordered) / 1e6,
            drift=drift,
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One run of one model on one target.

    Args:
        target: the target's specification, such as `host` or `host:reference`.
        model_sha256: hash of the .tflite that ran.
        model_bytes: its size.
        outputs: one array per model output, each [N, ...], raw as the model gave them (int8 stays int8).
        evidence: how each number came about, by field name: `{"outputs": "measured", "memory": "emulated"}`.
            A field that is unknown (None) is not in it.
        latencies_ns: raw time of each timed inference, of `setting["timed_batch"]` samples, in the order taken; None
            where the target's time says nothing about the device.
        memory: see `Memory`.
        instructions: executed instructions of one inference, where the target counts them.
        estimated_ms: fewest and most milliseconds of one inference by a model of the core, where nothing measures them.
        setting: what was chosen: threads, kernels, board.
        environment: what was found: processor, operating system, versions.
        valid: whether the numbers can be trusted.
        invalid_reason: why not.
        latency_summary: what a tool says that keeps its raw times to itself; None where `latencies_ns` has them.
    """

    target: str
    model_sha256: str
    model_bytes: int
    outputs: tuple[Any, ...]
    evidence: Mapping[str, Evidence]
    latencies_ns: tuple[int, ...] | None = None
    memory: Memory = Memory()
    instructions: int | None = None
    estimated_ms: tuple[float, float] | None = None
    setting: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    valid: bool = True
    invalid_reason: str | None = None
    latency_summary: LatencySummary | None = None

    @property
    def latency(self) -> LatencySummary | None:
        """The summary of `latencies_ns`, else `latency_summary`."""
        return LatencySummary.of(self.latencies_ns) if self.latencies_ns else self.latency_summary

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; the outputs stand as their shapes, dtypes and hashes."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        record["outputs"] = [
            {
                "shape": list(output.shape),
                "dtype": str(output.dtype),
                "sha256": hashlib.sha256(output.tobytes()).hexdigest(),
            }
            for output in self.outputs
        ]
        record["memory"] = dataclasses.asdict(self.memory)
        record["latencies_ns"] = list(self.latencies_ns) if self.latencies_ns else None
        record["latency"] = dataclasses.asdict(self.latency) if self.latency else None
        del record["latency_summary"]  # it stands under `latency`
        record["evidence"] = dict(self.evidence)
        record["setting"] = dict(self.setting)
        record["environment"] = dict(self.environment)
        return {"schema": SCHEMA, **record}
