"""The result of one run of a .tflite on one target: one frozen record and one JSON schema for every target."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import InputError

if TYPE_CHECKING:
    import numpy as np

SCHEMA = "tfkd.measurement/1"

Evidence = Literal["measured", "emulated", "estimated"]


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory use of a model on a target, in bytes. Unknown sizes are None, never 0.

    Args:
        arena_bytes: Whole tensor arena.
        arena_head_bytes: Part of the arena with the activations.
        arena_tail_bytes: Part of the arena with the interpreter's own data.
        ram_bytes: All RAM: activations, state and stack.
        stack_bytes: Deepest stack.
        flash_bytes: Code and weights.
        peak_rss_bytes: Peak resident set size of the process that ran the model.
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
    """Percentiles (nearest rank) and spread of latencies, in milliseconds; None where a tool does not report them.

    Args:
        count: Number of latencies.
        mean_ms: Mean.
        min_ms: Smallest latency.
        p50_ms: Median.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        max_ms: Largest latency.
        stdev_ms: Population standard deviation.
        latency_trend: Median of the second half of the latencies divided by the median of the first half. A value far
            from 1 means that the clock or the temperature changed during the run.
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
    latency_trend: float | None

    @classmethod
    def of(cls, latencies_ns: tuple[int, ...]) -> LatencySummary:
        """Summarizes latencies.

        Args:
            latencies_ns: Nanoseconds in the order in which they were measured, at least one.

        Raises:
            InputError: No latencies.

        >>> LatencySummary.of((1_000_000, 3_000_000, 2_000_000)).p50_ms
        2.0
        """
        if not latencies_ns:
            raise InputError("LatencySummary: latencies_ns must not be empty.")
        ordered = sorted(latencies_ns)

        def percentile(q: float) -> float:
            return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)] / 1e6

        half = len(latencies_ns) // 2
        first, second = latencies_ns[:half], latencies_ns[half:]
        latency_trend = statistics.median(second) / statistics.median(first) if half else 1.0
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
            latency_trend=latency_trend,
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One run of one model on one target.

    Args:
        target: Specification of the target, such as `host` or `host:reference`.
        model_sha256: SHA-256 of the .tflite.
        model_bytes: Size of the .tflite.
        outputs: One array [N, ...] for each output of the model, raw: int8 stays int8.
        evidence: How each number was obtained, by field name: `{"outputs": "measured", "memory": "emulated"}`.
            Unknown fields (None) are left out.
        latencies_ns: Time of each timed inference of `setting["timed_batch"]` samples, in the order of measurement;
            None where latency is not measured.
        memory: Memory use.
        instructions: Executed instructions of one inference, or None.
        estimated_ms: Lower and upper bound of one inference's time by a model of the core, or None.
        setting: Settings of the run: threads, kernels, board.
        environment: Facts about the device: processor, operating system, versions.
        valid: Whether the numbers can be trusted.
        invalid_reason: Why they cannot, or None.
        latency_summary: Latencies as a tool summarized them; None where `latencies_ns` has the single values.
    """

    target: str
    model_sha256: str
    model_bytes: int
    outputs: tuple[np.ndarray, ...] = dataclasses.field(repr=False)
    evidence: Mapping[str, Evidence]
    latencies_ns: tuple[int, ...] | None = dataclasses.field(default=None, repr=False)
    memory: Memory = Memory()
    instructions: int | None = None
    estimated_ms: tuple[float, float] | None = None
    setting: JsonRecord = dataclasses.field(default_factory=dict)
    environment: JsonRecord = dataclasses.field(default_factory=dict)
    valid: bool = True
    invalid_reason: str | None = None
    latency_summary: LatencySummary | None = None

    @property
    def latency(self) -> LatencySummary | None:
        """Summary of `latencies_ns`, or else `latency_summary`."""
        return LatencySummary.of(self.latencies_ns) if self.latencies_ns else self.latency_summary

    def to_json(self) -> JsonObject:
        """The record as plain JSON values, with the shape, dtype and SHA-256 of each output in place of its values."""
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
        del record["latency_summary"]  # it is under `latency`
        record["evidence"] = dict(self.evidence)
        record["setting"] = dict(self.setting)
        record["environment"] = dict(self.environment)
        return {"schema": SCHEMA, **record}
