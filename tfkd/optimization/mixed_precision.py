"""Mixed precision: a search for the smallest .tflite within an accuracy drop, guided by each layer's sensitivity."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tfkd.conversion import calibration, converter, layer_errors, layer_names, parity, quantizer, reference
from tfkd.conversion.export import input_specs
from tfkd.conversion.fault_location import Conversion
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split, Splits
    from tfkd.targets import Target

_MOST_SAMPLES = 2000  # validation samples: the 95 % interval of an accuracy of 90 % is then 1.3 points either way
_COMPARED = 32  # samples on which the quantization noise of layers is measured
_INT4_OPERATORS = ("CONV_2D", "FULLY_CONNECTED")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate of the search.

    Args:
        what: Its precision in words, such as `weights of 4 bits in dense`.
        settings: Quantizer settings; None for float32.
        bytes: File size; None if it could not be converted.
        accuracy: Accuracy on the validation samples, 0..1; None if it does not run.
        drop: Accuracy drop against the float model, in points.
        ok: Whether the drop is within the allowed one.
        note: Why there are no numbers.
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
        verdict = "accepted" if self.ok else "rejected"
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
    """Finds the smallest .tflite whose accuracy drop is within a limit, and writes it.

    The search starts with int8. If its drop is accepted, layers get int4 weights, in the order of least added noise per
    byte saved. Otherwise other range estimators are tried, then the layers with the most noise get int16 activations,
    then float; float32 is the last candidate. Accuracy is measured on the validation split; the test split is not used.

    Args:
        model: Keras model or `.keras` file.
        path: Path of the .tflite to write.
        splits: The train split is used for calibration, the validation split for accuracy.
        accuracy_drop: Largest accuracy drop against the float model, in points, 0..100.
        target: Target on which accuracy is measured; a candidate that it does not run is rejected.
        calibration_samples: Number of samples of the train split for calibration.
        most_trials: Largest number of candidates, >= 2; then the best one so far is written.
        overwrite: Whether to replace an existing file.
        seed: Random seed of the choice of samples.
        report: Called with each trial.

    Returns:
        The model and all trials.

    Raises:
        InputError: An argument is out of range, or the file exists.
        ModelError: The model cannot be converted.
    """
    from tfkd import models

    _check_arguments(splits, accuracy_drop, most_trials)
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
    keras_model = models.read(model) if isinstance(model, (str, os.PathLike)) else model
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        first = converter.convert(
            keras_model,
            Path(folder) / "int8.tflite",
            quantizer="litert",
            calibration=splits.train,
            allow_float=True,
            allow_mismatch=True,  # the search looks for precisions at which the model is right
            calibration_samples=calibration_samples,
            seed=seed,
        )
    float32 = converter.float_counterpart(keras_model, first)
    samples = Samples((calibration.choose(splits.train, calibration_samples, seed).x.astype("float32"),))
    val = splits.val if len(splits.val) <= _MOST_SAMPLES else splits.val.sample(_MOST_SAMPLES, seed=seed)
    names = layer_names.by_tensor(float32, keras_model)
    candidates = _Candidates(float32, samples, val, target, accuracy_drop, most_trials, report, names)
    candidates.measure("int8", QuantizerSettings(), first)
    if candidates.trials[0].ok:
        _lower_precision(candidates)
    else:
        _raise_precision(candidates, first)
    best = candidates.best or candidates.measure("float32", None, float32)
    found = candidates.model(best, first)
    _check(found, keras_model, float32, samples)
    return found.save(path, overwrite=overwrite), tuple(candidates.trials)


def _check_arguments(splits: Splits, accuracy_drop: float, most_trials: int) -> None:
    if not 0 <= accuracy_drop <= 100:
        raise InputError(f"search: accuracy_drop must be in 0..100 points. Received: {accuracy_drop}. Use 0.5.")
    if most_trials < 2:
        raise InputError(f"search: most_trials must be >= 2. Received: {most_trials}. Use 24.")
    if splits.train.label_kind != "classes":
        raise InputError(
            f"search: the accuracy drop is that of classes. Received: labels that are {splits.train.label_kind}. "
            "Choose quantizer and precisions yourself, and validate."
        )
    if not len(splits.val):
        raise InputError("search: the validation split is empty. Load the data with validation=0.1.")


def _check(found: TFLiteModel, keras_model: keras.Model, float32: TFLiteModel, samples: Samples) -> None:
    """Raises ModelError where the model that was found does not compute what the Keras model computes."""
    expected = reference.of_keras(keras_model, input_specs(keras_model), samples, reference.count(found, "full_int8"))
    conversion = Conversion(
        "search", "full_int8", "litert", layer_names.layers(keras_model), lambda: float32.content, 600.0
    )
    parity.check(found, expected, conversion, allow_mismatch=False)


@dataclasses.dataclass
class _Candidates:
    """Converts and measures candidates, and keeps the results."""

    reference: TFLiteModel
    samples: Samples
    val: Split
    target: str | Target
    allowed: float
    most: int
    report: Callable[[Trial], None]
    layers: Mapping[str, str]  # by output tensor
    trials: list[Trial] = dataclasses.field(default_factory=list)
    contents: list[bytes] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.accuracy = float(self._correct(self.reference, "host:plain").mean())
        self.x = np.asarray(self.val.sample(min(_COMPARED, len(self.val))).x)

    @property
    def best(self) -> Trial | None:
        return min((trial for trial in self.trials if trial.ok), key=lambda one: one.bytes or 0, default=None)

    @property
    def spent(self) -> bool:
        return len(self.trials) >= self.most

    def measure(self, what: str, settings: QuantizerSettings | None, model: TFLiteModel) -> Trial:
        trial = Trial(what, settings, model.size_bytes)
        try:
            accuracy = float(self._correct(model, self.target).mean())
        except (ModelError, DeviceError) as error:  # the target does not run this candidate; others may run
            trial = dataclasses.replace(trial, note=str(error).splitlines()[0])
        else:
            drop = round(100 * (self.accuracy - accuracy), 9)  # 90 % - 89 % is 1 point, not 1.0000000000000009
            trial = dataclasses.replace(trial, accuracy=accuracy, drop=drop, ok=drop <= self.allowed)
        self.trials.append(trial)
        self.contents.append(model.content)
        self.report(trial)
        return trial

    def attempt(self, what: str, settings: QuantizerSettings) -> Trial:
        try:
            quantized = quantizer.quantize(self.reference.content, settings, mode="full_int8", samples=self.samples)
        except ModelError as error:  # an operator does not support this precision; others may
            trial = Trial(what, settings, note=str(error).splitlines()[0])
            self.trials.append(trial)
            self.contents.append(b"")
            self.report(trial)
            return trial
        return self.measure(what, settings, TFLiteModel.load(quantized.content))

    def model(self, trial: Trial, first: TFLiteModel) -> TFLiteModel:
        """The model of a trial, with the audit of the first model and the reason of the choice."""
        assert first.audit is not None  # full_int8 is calibrated
        findings = [one for one in first.audit.findings if one != QuantizerSettings().summary()]  # of the first trial
        findings.append(f"Chosen of {len(self.trials)} models tried: {trial}.")
        audit = dataclasses.replace(first.audit, findings=tuple(findings))
        return dataclasses.replace(TFLiteModel.load(self.contents[self.trials.index(trial)]), audit=audit)

    def noise(self, model: TFLiteModel) -> dict[str, float]:
        """Noise-to-signal power ratio of each operator's median channel, by output tensor."""
        measured, _ = layer_errors.measure(model, self.reference, Samples((self.x,)))
        return {one.tensor: 10 ** (-one.channel_sqnr_db / 10) for one in measured[1:]}

    def names(self, tensors: Iterable[str]) -> str:
        """The layers that compute some tensors, as a short text."""
        names = [self.layers[tensor] for tensor in tensors]
        return f"{len(names)} layers ({', '.join(names)})" if len(names) > 1 else "".join(names)

    def _correct(self, model: TFLiteModel, target: str | Target) -> np.ndarray:
        from tfkd import targets

        engine = targets.get(target) if isinstance(target, str) else target
        outputs = engine.run(model, model.quantize_input(self.val.x), latency=False).outputs[0]
        return outputs.reshape(len(self.val), -1).argmax(axis=1) == self.val.y


def _lower_precision(candidates: _Candidates) -> None:
    """int8 is accepted: int4 weights in as many layers as possible."""
    graph = candidates.reference.graph
    sizes = {
        graph.tensors[op.outputs[0]].name: graph.constants[op.inputs[1]]
        for op in graph.ops
        if op.name in _INT4_OPERATORS and op.inputs[1] >= 0 and graph.constants[op.inputs[1]]
    }
    if not sizes:
        return
    every = candidates.attempt(f"weights of 4 bits in {candidates.names(sizes)}", QuantizerSettings(int4=_exact(sizes)))
    if every.ok:
        return
    noise = candidates.noise(TFLiteModel.load(candidates.contents[-1]))
    order = sorted(sizes, key=lambda name: noise.get(name, math.inf) / sizes[name])
    _take_most(
        candidates,
        order,
        lambda names: (f"weights of 4 bits in {candidates.names(names)}", QuantizerSettings(int4=_exact(names))),
    )


def _raise_precision(candidates: _Candidates, first: TFLiteModel) -> None:
    """int8 is rejected: other ranges, then int16 activations, then float, in the layers with the most noise."""
    for choice in ("percentile", "mse"):
        candidates.attempt(f"int8, range {choice}", QuantizerSettings(ranges=choice))
    if candidates.best:
        return
    noise = candidates.noise(first)
    order = sorted(noise, key=lambda name: -noise[name])
    _take_fewest(
        candidates,
        order,
        lambda some: (f"activations of 16 bits in {candidates.names(some)}", QuantizerSettings(int16=_exact(some))),
    )
    if not candidates.best:
        _take_fewest(
            candidates,
            order,
            lambda some: (f"float in {candidates.names(some)}", QuantizerSettings(keep_float=_exact(some))),
        )


# From names of layers to the text for the report and the settings that treat these layers.
_MakeSettings: TypeAlias = Callable[[Sequence[str]], tuple[str, QuantizerSettings]]


def _take_most(candidates: _Candidates, order: Sequence[str], make: _MakeSettings) -> None:
    """Finds the longest accepted prefix of the order by bisection, then tries each later layer in addition."""
    low, high = 0, len(order)  # the first `low` layers are accepted, the first `high` are not
    while high - low > 1 and not candidates.spent:
        middle = (low + high) // 2
        low, high = (middle, high) if candidates.attempt(*make(order[:middle])).ok else (low, middle)
    chosen = list(order[:low])
    for name in order[low + 1 :]:
        if candidates.spent:
            return
        if candidates.attempt(*make([*chosen, name])).ok:
            chosen.append(name)


def _take_fewest(candidates: _Candidates, order: Sequence[str], make: _MakeSettings) -> None:
    """Finds the shortest accepted prefix of the order by bisection, then tries to leave out each layer of it."""
    if candidates.spent or not candidates.attempt(*make(order)).ok:
        return
    low, high = 0, len(order)  # the first `low` layers are not enough, the first `high` are
    while high - low > 1 and not candidates.spent:
        middle = (low + high) // 2
        low, high = (low, middle) if candidates.attempt(*make(order[:middle])).ok else (middle, high)
    chosen = list(order[:high])
    for name in reversed(order[: high - 1]):
        fewer = [one for one in chosen if one != name]
        if candidates.spent:
            return
        if candidates.attempt(*make(fewer)).ok:
            chosen = fewer


def _exact(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"^{re.escape(name)}$" for name in names)
