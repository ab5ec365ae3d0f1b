"""What a page shows of a measurement: the agreement with the host, the accuracy and the latency, as sentences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.targets.measurement import LatencySummary, Measurement

_BINS = 24
# Largest difference from the host of outputs that are no classes, as a share of their range: about 5 steps of int8.
_CLOSE = 0.02


class Expected(NamedTuple):
    """What the answers are compared with, as far as it is known.

    Args:
        outputs: The outputs, one array [N, ...] each, by the target of this machine that computed them; empty where
            none did.
        labels: [N] class of each sample; None where the outputs are no scores of classes.
        labelled: Number of the output that has the scores.
    """

    outputs: Mapping[str, tuple[np.ndarray, ...]] = MappingProxyType({})
    labels: np.ndarray | None = None
    labelled: int = 0


def summary(measured: Measurement, expected: Expected) -> JsonObject:
    """Verdict, facts and histogram for the page.

    Args:
        measured: The measurement.
        expected: What its outputs are compared with.
    """
    facts: list[tuple[str, str]] = []
    labelled = None if expected.labels is None else expected.labelled
    found = {name: Agreement.of(measured.outputs, of, labelled) for name, of in expected.outputs.items()}
    # Targets of one machine may round otherwise, and a device that computes as one of them is right.
    agreement = max(found.values(), key=lambda one: one.equal, default=None)
    state, verdict, explanation = "good", "The test is done", "There is no answer of the computer to compare with."
    if agreement:
        state, verdict, explanation = agreement.sentences()
    facts += [
        (f"Equal to {name}", f"{one.equal:,} of {one.samples:,} samples, bit for bit") for name, one in found.items()
    ]
    if expected.labels is not None and measured.outputs:
        right = classes(measured.outputs[expected.labelled]) == expected.labels
        facts.append(("Accuracy", f"{100 * right.mean():.2f} %"))
    latency, environment = measured.latency, measured.environment
    if latency:
        facts += [("Median", f"{latency.p50_ms:.3g} ms"), ("90 % below", f"{latency.p90_ms:.3g} ms")]
    if not measured.valid:
        state, explanation = "bad", f"{explanation} The times do not count: {measured.invalid_reason}."
    facts += [
        ("First run", f"{environment['first_run_ms']:.3g} ms, after {environment['compile_ms']:.3g} ms of compiling"),
        ("Accelerator", f"{measured.setting['accelerator']}, threads: {measured.setting['threads']}"),
        ("Engine", environment["engine"]),
        ("Browser", environment["browser"]),
    ]
    if latency:
        per = measured.setting["inferences_per_time"]
        facts.append(("Clock", f"steps of {environment['clock_step_ms']:.3g} ms; inferences per time: {per}"))
    return {
        "state": state,
        "verdict": verdict,
        "explanation": explanation,
        "facts": facts,
        "histogram": _histogram(measured),
    }


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far outputs are those of a target of this machine.

    Args:
        samples: Number of samples.
        equal: Samples whose outputs are equal bit for bit.
        same_class: Samples with the same class; None where no output has scores of classes.
        largest: Largest difference of a value.
        share: Largest difference of a value as a share of the range of its output there.
        integers: Whether the outputs are integers, so that `largest` counts steps.
    """

    samples: int
    equal: int
    same_class: int | None
    largest: float
    share: float
    integers: bool

    @classmethod
    def of(cls, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray], labelled: int | None) -> Agreement:
        """Compares outputs.

        Args:
            outputs: One array [N, ...] for each output.
            expected: The same of the target.
            labelled: Number of the output that has scores of classes; None where there is none.
        """
        pairs = list(zip(outputs, expected, strict=True))
        equal = np.all([_rows(a == b).all(axis=1) for a, b in pairs], axis=0)
        differences = [float(np.abs(a.astype("float64") - b).max(initial=0)) for a, b in pairs]
        ranges = [float(np.ptp(b.astype("float64"))) if b.size else 0.0 for b in expected]
        shares = [a / b if b else math.inf if a else 0.0 for a, b in zip(differences, ranges, strict=True)]
        same = None if labelled is None else int((classes(outputs[labelled]) == classes(expected[labelled])).sum())
        integers = all(one.dtype.kind in "iub" for one in outputs)
        # numpy's maximum is NaN where one is, Python's only where the first is.
        largest, share = float(np.max(differences)), float(np.max(shares))
        return cls(len(outputs[0]), int(equal.sum()), same, largest, share, integers)

    def sentences(self) -> tuple[str, str, str]:
        """State of the page (`good` or `bad`), verdict and explanation."""
        if self.equal == self.samples:
            return "good", "Same answers", "This device answers as the computer does, bit for bit."
        amount = f"{self.largest:.0f} steps" if self.integers else f"{self.largest:.3g}"
        if self.same_class is None:
            share = f", {100 * self.share:.2g} % of their range" if math.isfinite(self.share) else ""
            values = f"Values differ from the computer's by up to {amount}{share}."
            return ("good", "Close answers", values) if self.share <= _CLOSE else ("bad", "Other answers", values)
        differing = self.samples - self.same_class
        if not differing:
            return (
                "good",
                "Same classes",
                f"Each sample has the same class as on the computer. Values differ by up to {amount}.",
            )
        return (
            "bad",
            f"{differing:,} of {self.samples:,} differ",
            f"That many samples have another class than on the computer. Values differ by up to {amount}.",
        )


def classes(output: np.ndarray) -> np.ndarray:
    """The class of each sample [N]: the index of the largest value of an output [N, ...]."""
    return np.asarray(_rows(output).argmax(axis=1))


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1)


def _histogram(measured: Measurement) -> JsonObject | None:
    """Counts of latencies in equal bins up to the 99th percentile or 3 medians; the last bin has all beyond it."""
    if not measured.latencies_ns:
        return None
    ms = np.array(measured.latencies_ns) / 1e6
    # Few slow inferences would leave all others in the first bin.
    highest = min(LatencySummary.of(measured.latencies_ns).p99_ms or math.inf, 3 * float(np.median(ms)))
    counts, edges = np.histogram(np.minimum(ms, highest), bins=_BINS)
    more = " and more" if ms.max() > highest else ""
    return {"counts": counts.tolist(), "lowest": f"{edges[0]:.3g} ms", "highest": f"{edges[-1]:.3g} ms{more}"}
