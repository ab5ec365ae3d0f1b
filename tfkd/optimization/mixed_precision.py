"""Mixed precision: the smallest model that stays within an accuracy drop, found by how much each layer suffers."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd.conversion import calibration, converter, layer_errors, layer_names, quantizer
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split, Splits
    from tfkd.targets import Target

_MOST_SAMPLES = 2000  # of the validation split: an accuracy of 90 % is then known to 1.3 points
_COMPARED = 32  # on which the noise of layers is measured
_NARROW = ("CONV_2D", "FULLY_CONNECTED")  # whose weights may have 4 bits


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model that was tried.

    Args:
        what: its precision, in words.
        settings: of the quantizer; None for float32.
        bytes: of the file; None where it could not be made.
        accuracy: on the validation samples, 0..1; None where it does not run.
        drop: percentage points below the float model.
        ok: whether it stays within the drop.
        note: why there are no numbers.
    """

    what: str
    settings: QuantizerSettings | None
    bytes: int | None = None
    accuracy: float | None = None
    drop: float | None = None
    ok: bool = False
    note: str | None = None

    def __str__(self) -> str:
        if self.bytes is None or self.accuracy is None or self.drop is None:
            return f"{self.what}: does not run: {self.note}"
        verdict = "within" if self.ok else "too much"
        return f"{self.what}: {self.bytes:,} bytes, {self.accuracy:.2%}, drop {self.drop:.2f} points, {verdict}"


def search(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    splits: Splits,
    *,
    accuracy_drop: float,
    target: str | Target = "host:plain",
    calibration_samples: int = 256,
    most_trials: int = 24,
    overwrite: bool = False,
    seed: int = 0,
    report: Callable[[Trial], None] = lambda trial: None,
) -> tuple[TFLiteModel, tuple[Trial, ...]]:
    """Finds the smallest .tflite whose accuracy stays within a drop, and writes it.

    Starts from int8. If that holds, layers get weights of 4 bits, those first that add the least noise for the bytes
    that they save. If not, other ranges are tried, then the layers with the most noise get activations of 16 bits, then
    float; float32 is the last resort. Accuracy is that on the validation split: the test split stays unspent.

    Args:
        model: a Keras model or a `.keras` file.
        path: where the .tflite goes.
        splits: the train split calibrates, the validation split judges.
        accuracy_drop: percentage points that may be lost, 0..100.
        target: where accuracy is measured; a model that it refuses is not taken.
        calibration_samples: of the train split.
        most_trials: after which the best so far is taken, >= 2.
        overwrite: replace an existing file.
        seed: of the draw of samples.
        report: called with each trial.

    Returns:
        The model and all trials.

    Raises:
        ValueError: a bad argument, or a model that does not convert.
    """
    from tfkd import models

    if not 0 <= accuracy_drop <= 100:
        raise InputError(
            f"search: accuracy_drop must be percentage points in 0..100. Received: {accuracy_drop}. Use 0.5."
        )
    if most_trials < 2:
        raise InputError(f"search: most_trials must be >= 2. Received: {most_trials}. Use 24.")
    if not len(splits.val):
        raise InputError("search: needs a validation split. Received: an empty one. Load with validation=0.1.")
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path.")
    graph = models.load(model) if isinstance(model, (str, os.PathLike)) else model
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        reference = converter.convert(graph, Path(folder) / "float32.tflite", mode="float32")
        first = converter.convert(
            graph,
            Path(folder) / "int8.tflite",
            quantizer="litert",
            calibration=splits.train,
            allow_float=True,
            calibration_samples=calibration_samples,
            seed=seed,
        )
    samples = calibration.choose(splits.train, calibration_samples, seed).x.astype("float32")
    val = splits.val if len(splits.val) <= _MOST_SAMPLES else splits.val.sample(_MOST_SAMPLES, seed=seed)
    bench = _Bench(reference, samples, val, target, accuracy_drop, most_trials, report, layer_names.layers(graph))
    bench.judge("int8", QuantizerSettings(), first)
    if bench.trials[0].ok:
        _narrow(bench)
    else:
        _widen(bench, first)
    best = bench.best or bench.judge("float32", None, reference)
    content = bench.made[bench.trials.index(best)]
    found = dataclasses.replace(TFLiteModel.load(content), audit=first.audit).save(path, overwrite=overwrite)
    return found, tuple(bench.trials)


@dataclasses.dataclass
class _Bench:
    """Tries settings and keeps what came of them."""

    reference: TFLiteModel
    samples: np.ndarray
    val: Split
    target: str | Target
    allowed: float
    most: int
    report: Callable[[Trial], None]
    known: Mapping[str, bool]
    trials: list[Trial] = dataclasses.field(default_factory=list)
    made: list[bytes] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        right = self._right(self.reference, "host:plain")
        self.accuracy = float(right.mean())
        self.x = self.val.sample(min(_COMPARED, len(self.val))).x
        self.layers = {}
        for op in self.reference.graph.ops:
            names = [self.reference.graph.tensors[i].name for i in (*op.outputs[:1], *op.inputs[1:2]) if i >= 0]
            self.layers[names[0]] = layer_names.layer_of(names[0], names[-1], self.known)

    @property
    def best(self) -> Trial | None:
        return min((trial for trial in self.trials if trial.ok), key=lambda one: one.bytes or 0, default=None)

    @property
    def spent(self) -> bool:
        return len(self.trials) >= self.most

    def judge(self, what: str, settings: QuantizerSettings | None, model: TFLiteModel) -> Trial:
        trial = Trial(what, settings, model.size_bytes)
        try:
            accuracy = float(self._right(model, self.target).mean())
        except (ValueError, RuntimeError) as error:  # the target refuses this one; others may run
            trial = dataclasses.replace(trial, note=str(error).splitlines()[0])
        else:
            drop = round(100 * (self.accuracy - accuracy), 9)  # 90 % - 89 % is 1 point, not 1.0000000000000009
            trial = dataclasses.replace(trial, accuracy=accuracy, drop=drop, ok=drop <= self.allowed)
        self.trials.append(trial)
        self.made.append(model.content)
        self.report(trial)
        return trial

    def attempt(self, what: str, settings: QuantizerSettings) -> Trial:
        try:
            made = quantizer.quantize(self.reference.content, settings, mode="full_int8", samples=self.samples)
        except ValueError as error:  # an op that cannot have this precision; others may
            trial = Trial(what, settings, note=str(error).splitlines()[0])
            self.trials.append(trial)
            self.made.append(b"")
            self.report(trial)
            return trial
        return self.judge(what, settings, TFLiteModel.load(made.content))

    def noise(self, model: TFLiteModel) -> dict[str, float]:
        """The noise of each op relative to its signal, by tensor; of the median channel."""
        measured, _ = layer_errors.measure(model, self.reference, self.x)
        return {one.tensor: 10 ** (-one.channel_sqnr_db / 10) for one in measured[1:]}

    def names(self, tensors: Iterable[str]) -> str:
        """The layers that compute some tensors, in short."""
        names = [self.layers[tensor] for tensor in tensors]
        return f"{len(names)} layers ({', '.join(names)})" if len(names) > 1 else "".join(names)

    def _right(self, model: TFLiteModel, target: str | Target) -> np.ndarray:
        from tfkd import targets

        engine = targets.get(target) if isinstance(target, str) else target
        outputs = engine.run(model, model.quantize_input(self.val.x), latency=False).outputs[0]
        return outputs.reshape(len(self.val), -1).argmax(axis=1) == self.val.y


def _narrow(bench: _Bench) -> None:
    """int8 holds: weights of 4 bits wherever they do."""
    graph = bench.reference.graph
    sizes = {
        graph.tensors[op.outputs[0]].name: graph.constants[op.inputs[1]]
        for op in graph.ops
        if op.name in _NARROW and op.inputs[1] >= 0 and graph.constants[op.inputs[1]]
    }
    if not sizes:
        return
    every = bench.attempt(f"weights of 4 bits in {bench.names(sizes)}", QuantizerSettings(int4=_exact(sizes)))
    if every.ok:
        return
    harm = bench.noise(TFLiteModel.load(bench.made[-1]))
    order = sorted(sizes, key=lambda name: harm.get(name, math.inf) / sizes[name])
    _fill(
        bench,
        order,
        lambda names: (f"weights of 4 bits in {bench.names(names)}", QuantizerSettings(int4=_exact(names))),
    )


def _widen(bench: _Bench, first: TFLiteModel) -> None:
    """int8 loses too much: other ranges, then 16 bits, then float where the noise is."""
    for choice in ("percentile", "mse"):
        bench.attempt(f"int8, range {choice}", QuantizerSettings(ranges=choice))
    if bench.best:
        return
    harm = bench.noise(first)
    order = sorted(harm, key=lambda name: -harm[name])
    _cover(
        bench,
        order,
        lambda some: (f"activations of 16 bits in {bench.names(some)}", QuantizerSettings(int16=_exact(some))),
    )
    if not bench.best:
        _cover(bench, order, lambda some: (f"float in {bench.names(some)}", QuantizerSettings(keep_float=_exact(some))))


def _fill(bench: _Bench, order: Sequence[str], make: Any) -> None:
    """Takes as many layers as hold: the longest beginning of the order by halving, then those behind it singly."""
    low, high = 0, len(order)  # the first `low` hold, the first `high` do not
    while high - low > 1 and not bench.spent:
        middle = (low + high) // 2
        low, high = (middle, high) if bench.attempt(*make(order[:middle])).ok else (low, middle)
    taken = list(order[:low])
    for name in order[low + 1 :]:
        if bench.spent:
            return
        if bench.attempt(*make([*taken, name])).ok:
            taken.append(name)


def _cover(bench: _Bench, order: Sequence[str], make: Any) -> None:
    """Takes as few layers as do: the shortest beginning of the order by halving, then without each of them."""
    if bench.spent or not bench.attempt(*make(order)).ok:
        return
    low, high = 0, len(order)  # the first `low` do not suffice, the first `high` do
    while high - low > 1 and not bench.spent:
        middle = (low + high) // 2
        low, high = (low, middle) if bench.attempt(*make(order[:middle])).ok else (middle, high)
    taken = list(order[:high])
    for name in reversed(order[: high - 1]):
        fewer = [one for one in taken if one != name]
        if bench.spent:
            return
        if bench.attempt(*make(fewer)).ok:
            taken = fewer


def _exact(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"^{re.escape(name)}$" for name in names)
