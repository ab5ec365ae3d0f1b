"""Why a quantized model is worse: its worst layers, each with a cause and a remedy, and where the accuracy went."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd.conversion import converter, layer_errors, layer_names
from tfkd.conversion.layer_errors import OpNoise
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split, Splits
    from tfkd.targets import Target

SCHEMA = "tfkd.explanation/1"

# From here on a layer is at fault; a sound int8 layer has 30 dB and more.
_FAULT_DB = 25.0
_MANY = 0.01  # of the values beyond the range
_LOUD = 16.0  # a channel's peak over the median channel's
# Ops whose output must have the scale of their input.
_SHARED = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESHAPE", "PAD", "TRANSPOSE", "STRIDED_SLICE", "RESIZE_NEAREST_NEIGHBOR")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One layer with what is wrong with it.

    Args:
        layer: of the Keras model, or the tensor's name.
        kind: `input`, `clipped`, `outlier`, `wide`, `weights`, `shared` or `sound`.
        sentence: what is so.
        remedy: what to do.
        noise: the numbers.
        passed_on: layers that suffer from this one's fault.
    """

    layer: str
    kind: str
    sentence: str
    remedy: str
    noise: OpNoise
    passed_on: tuple[str, ...] = ()

    @property
    def at_fault(self) -> bool:
        """Whether it is more than the rounding that every quantized layer has."""
        if self.kind in ("sound", "shared"):  # the fault of a shared range is that of the layer it is shared with
            return False
        return self.kind in ("input", "clipped", "outlier") or self.noise.channel_sqnr_db < _FAULT_DB


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step on the way from the teacher to the device.

    Args:
        name: `teacher`, `student`, or the target's specification.
        accuracy: on the test split, 0..1; None where it does not run.
        lost: samples that the stage before has right and this one wrong; None for the first.
        mended: the reverse.
        note: why it does not run.
    """

    name: str
    accuracy: float | None = None
    lost: int | None = None
    mended: int | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` found.

    Args:
        model: the quantized model.
        layers: a finding for the input and for each op, in the order in which they run.
        worst: the worst of them, causes before those that suffer from them.
        stages: the way of the accuracy; what a stage loses it loses against the stage before, engines against the
            first of them.
        unmatched: ops that the float model has no like of.
    """

    model: TFLiteModel
    layers: tuple[Finding, ...]
    worst: tuple[Finding, ...]
    stages: tuple[Stage, ...]
    unmatched: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The explanation as plain JSON values."""
        return {
            "schema": SCHEMA,
            "model": self.model.to_json(),
            "layers": [dataclasses.asdict(finding) for finding in self.layers],
            "worst": [finding.layer for finding in self.worst],
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "unmatched": list(self.unmatched),
        }

    def lines(self) -> Iterator[str]:
        """The explanation as text."""
        yield f"{'layer':<28} {'op':<18} {'own dB':>7} {'channel':>7} {'total':>7} {'cosine':>7} {'beyond':>7}  steps"
        for finding in self.layers:
            one = finding.noise
            beyond = "-" if one.saturated is None else f"{one.saturated:.2%}"
            steps = "float" if one.steps is None else f"{one.steps_used} of {one.steps}"
            yield (
                f"{finding.layer[:28]:<28} {one.op[:18]:<18} {one.sqnr_db:7.1f} {one.channel_sqnr_db:7.1f} "
                f"{one.total_sqnr_db:7.1f} {one.cosine:7.4f} {beyond:>7}  {steps}"
            )
        if self.unmatched:
            yield f"Without a like in the float model: {', '.join(self.unmatched)}"
        yield ""
        for place, finding in enumerate(self.worst, 1):
            yield f"{place}. {finding.layer}: {finding.sentence}"
            if finding.passed_on:
                yield f"   Suffer from it: {', '.join(finding.passed_on)}."
            yield f"   {finding.remedy}"
        yield ""
        for stage in self.stages:
            if stage.accuracy is None:
                yield f"{stage.name:<16} does not run: {stage.note}"
            else:
                flips = "" if stage.lost is None else f"  {stage.lost} lost, {stage.mended} mended"
                yield f"{stage.name:<16} {stage.accuracy:8.2%}{flips}"


def explain(
    student: keras.Model | str | os.PathLike[str],
    model: TFLiteModel | str | os.PathLike[str],
    splits: Splits,
    *,
    teacher: keras.Model | str | os.PathLike[str] | None = None,
    targets: Sequence[str | Target] = ("host:plain", "host", "tflm"),
    samples: int = 64,
    worst: int = 5,
    timeout_s: float = 600.0,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Compares a quantized .tflite with the Keras model that it came from, layer by layer and engine by engine.

    Args:
        student: the float model.
        model: what it was converted to.
        splits: layers are compared on the validation split (without one, on the train split), so that the choice of a
            remedy leaves the test split unspent; accuracy comes from the test split.
        teacher: the first stage, where given.
        targets: engines; the first stands for the quantized model itself.
        samples: on which layers are compared, > 0.
        worst: findings in `worst`, > 0.
        timeout_s: seconds for each child process.
        progress: called with what comes next.

    Raises:
        ValueError: a file is none, or the models do not belong together.
        RuntimeError: the model's process crashed or hung, or a target's tool is missing.
    """
    if samples < 1 or worst < 1:
        raise InputError(f"explain: samples and worst must be > 0. Received: {samples} and {worst}. Use 64 and 5.")
    quantized, graph = TFLiteModel.load(model), _keras(student)
    pool = splits.val if len(splits.val) else splits.train
    progress("layers")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        path = Path(folder) / "float32.tflite"
        reference = converter.convert(graph, path, mode="float32", timeout_s=timeout_s)
    x = pool.sample(min(samples, len(pool))).x
    measured, unmatched = layer_errors.measure(quantized, reference, x, timeout_s=timeout_s)
    if len(measured) < 2 or len(unmatched) > len(measured):
        raise InputError(
            f"explain: {quantized.path or 'the model'} must come from {graph.name!r}. Received: {len(unmatched)} ops "
            f"that it does not have, such as {unmatched[:1]}. Give the .keras file that was converted."
        )
    layers = findings(measured, layer_names.layers(graph))
    graphs = {"teacher": _keras(teacher)} if teacher is not None else {}
    stages = tuple(_stages({**graphs, "student": graph}, quantized, splits.test, targets, progress))
    return Explanation(quantized, layers, _worst(layers, worst), stages, tuple(unmatched))


def _keras(model: Any) -> keras.Model:
    from tfkd import models

    return models.load(model) if isinstance(model, (str, os.PathLike)) else model


def findings(measured: Sequence[OpNoise], names: dict[str, bool]) -> tuple[Finding, ...]:
    """A finding for the input and for each op, in their order.

    Args:
        measured: what `noise.measure` gave.
        names: of the Keras model's layers, as `naming.layers` gives them.
    """
    found: dict[str, Finding] = {}  # by tensor
    tainted: dict[str, str] = {}  # a tensor with a loud channel, and the tensor that it came from
    for one in measured:
        layer = "input" if one.op == "INPUT" else layer_names.layer_of(one.tensor, one.weights, names)
        kind, sentence, remedy = _diagnose(one, layer)
        finding = Finding(layer, kind, sentence, remedy, one)
        loud = next((tainted[source] for source in one.sources if source in tainted), None)
        shared = next((source for source in one.sources if source in found), None) if kind == "shared" else None
        cause = loud or shared
        if cause and kind not in ("clipped", "sound"):
            root = found[cause]
            found[cause] = dataclasses.replace(root, passed_on=(*root.passed_on, layer))
        if kind == "outlier" or (kind == "shared" and loud):
            tainted[one.tensor] = loud or one.tensor
        found[one.tensor] = finding
    return tuple(found.values())


def _worst(layers: Sequence[Finding], count: int) -> tuple[Finding, ...]:
    ratios = {finding.layer: finding.noise.channel_sqnr_db for finding in layers}
    suffering = {layer for finding in layers for layer in finding.passed_on}

    def rank(finding: Finding) -> tuple[bool, bool, bool, float]:
        # A wrong input range spoils the ranges of all layers, which were calibrated with the same samples; a cause is
        # as bad as the worst of what suffers from it.
        worst = min(ratios[layer] for layer in (finding.layer, *finding.passed_on))
        return finding.kind != "input", finding.layer in suffering, not finding.at_fault, worst

    return tuple(sorted(layers, key=rank)[:count])


def _diagnose(one: OpNoise, layer: str) -> tuple[str, str, str]:
    """Kind, sentence and remedy."""
    if one.steps is None or one.steps_used is None or one.limits is None:
        return "sound", "It computes in floating point.", "Nothing to do."
    if one.op == "INPUT":
        return _input(one)
    low, high = one.limits
    peaks = np.array(one.channel_peaks)
    live = peaks[peaks > 0]
    ratio = float(live.max() / np.median(live)) if len(live) > 2 else 1.0
    rounded = (one.rounding or 0.0) > 0.3
    keep = f"--int16 '^{layer}$'"
    if (one.saturated or 0) > _MANY:
        said = f"{one.saturated:.1%} of its values lie beyond its range {low:.3g}..{high:.3g}"
        remedy = "Calibrate with more samples, of all classes, and with --range min_max."
        return "clipped", f"{said}; they span {one.low:.3g}..{one.high:.3g}.", remedy
    if one.op in _SHARED and rounded:
        said = f"It must keep the range of its input, of which it uses {one.steps_used} of {one.steps} steps."
        return "shared", said, f"Only with 16 bits does it get finer steps: {keep}."
    if ratio >= _LOUD and rounded:
        steps = (one.steps - 1) * float(np.median(live)) / (high - low)
        said = f"Channel {int(peaks.argmax())} reaches {peaks.max():.3g}, {ratio:.0f} times the median channel, which"
        remedy = f"Keep it in 16 bits ({keep}) or in float (--keep-float), or train it with clipped activations (ReLU6)"
        return "outlier", f"{said} is left with {steps:.1f} of {one.steps} steps.", f"{remedy} or quantization-aware."
    if one.steps_used < one.steps / 4 and rounded:
        said = f"It uses {one.steps_used} of {one.steps} steps: its range {low:.3g}..{high:.3g} was calibrated with"
        remedy = "Calibrate with --range percentile or --range mse, which cut them off."
        return "wide", f"{said} rare, large values.", remedy
    if not rounded and one.weight_dtype not in (None, "float32") and one.sqnr_db < layer_errors.EXACT_DB:
        return "weights", *_weights(one, layer)
    return "sound", f"Nothing stands out: the noise is that of rounding to {one.steps} steps.", f"To get less: {keep}."


def _input(one: OpNoise) -> tuple[str, str, str]:
    low, high = one.limits or (one.low, one.high)
    span, limits = (
        f"the data spans {one.low:g}..{one.high:g}",
        f"the range {low:g}..{high:g} that it was calibrated for",
    )
    remedy = "Calibrate with samples in the range that the Keras model takes. All other ranges are wrong too."
    if (one.saturated or 0) > _MANY:
        return "input", f"{one.saturated:.0%} of the input lies beyond {limits}: {span}.", remedy
    if (one.steps_used or 0) < (one.steps or 0) / 16 and one.sqnr_db < layer_errors.EXACT_DB:
        return "input", f"The input uses {one.steps_used} of {one.steps} steps of {limits}: {span}.", remedy
    return "sound", "Nothing stands out: its range is that of the data.", "Nothing to do."


def _weights(one: OpNoise, layer: str) -> tuple[str, str]:
    if one.weight_dtype == "int4":
        return "The rounding of its weights to 4 bits makes its error.", (
            "Train it quantization-aware with 4 bits, or keep its weights in 8."
        )
    if one.weight_scales == 1 and len(one.channel_peaks) > 1:
        return f"All its {len(one.channel_peaks)} channels share one scale of weights.", (
            "Convert it with a scale for each channel."
        )
    return f"The rounding of its weights makes its error; the output's {one.steps} steps explain the smaller part.", (
        f"Train it quantization-aware, or keep it in float: --keep-float '^{layer}$'."
    )


def _stages(
    graphs: dict[str, Any],
    model: TFLiteModel,
    test: Split,
    targets: Sequence[str | Target],
    progress: Callable[[str], None],
) -> Iterator[Stage]:
    from tfkd.targets import get

    test.require("test", purpose="the accuracy of each stage")
    before: np.ndarray | None = None
    for name, graph in graphs.items():
        progress(name)
        outputs = np.asarray(graph.predict(test.batches(256), verbose=0))
        stage, before = _stage(name, outputs, test, before)
        yield stage
    first: np.ndarray | None = None
    inputs = model.quantize_input(test.x)
    for spec in targets:
        try:
            engine = get(spec) if isinstance(spec, str) else spec
            progress(engine.spec)
            outputs = engine.run(model, inputs, latency=False).outputs[0]
        except (ValueError, RuntimeError) as error:  # one engine that refuses must not cost the others
            yield Stage(str(spec if isinstance(spec, str) else spec.spec), note=str(error))
            continue
        stage, right = _stage(engine.spec, outputs, test, before if first is None else first)
        first = right if first is None else first
        yield stage


def _stage(name: str, outputs: np.ndarray, test: Split, before: np.ndarray | None) -> tuple[Stage, np.ndarray]:
    right = outputs.reshape(len(test), -1).argmax(axis=1) == test.y
    if before is None:
        return Stage(name, float(right.mean())), right
    lost, mended = int((before & ~right).sum()), int((~before & right).sum())
    return Stage(name, float(right.mean()), lost, mended), right
