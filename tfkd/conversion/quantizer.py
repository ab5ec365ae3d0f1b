"""The second quantizer: float .tflite -> quantized .tflite, with ranges of choice and precision by layer."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import activation_ranges
from tfkd.conversion.tflite import TFLiteGraph, TFLiteModel
from tfkd.errors import InputError

MODES = ("dynamic_range", "full_int8", "int16x8")

# What the quantizer calls otherwise than TensorFlow Lite does.
_RENAMED = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


@dataclasses.dataclass(frozen=True)
class QuantizerSettings:
    """Settings of the quantizer litert-quantizer.

    A layer is chosen by a regular expression that is searched in the names that an op carries: its own and those of
    the layers that were fused into it.

    Args:
        ranges: of activations, over the calibration samples: `min_max`; `percentile`, which leaves out the outermost
            values at both ends; `mse`, which minimises the squared error of rounding and cutting off. The range of
            the input is always `min_max`.
        percentile: share of the values, in percent, below the upper end and above the lower, 50..100 (exclusive).
        keep_float: layers that stay in float.
        int16: layers with activations of 16 bits.
        int4: layers with weights of 4 bits: convolutions and Dense layers.

    Raises:
        ValueError: a value is not one of these, or an expression is not regular.
    """

    ranges: str = "min_max"
    percentile: float = 99.99
    keep_float: tuple[str, ...] = ()
    int16: tuple[str, ...] = ()
    int4: tuple[str, ...] = ()

    def words(self) -> str:
        """What was chosen, as a sentence."""
        ranges = f"percentile {self.percentile:g}" if self.ranges == "percentile" else self.ranges
        layers = (("float", self.keep_float), ("int16", self.int16), ("int4", self.int4))
        chosen = [f"{name} in {', '.join(expressions)}" for name, expressions in layers if expressions]
        return (
            f"Quantized by litert-quantizer: {'; '.join([f'ranges of activations by {ranges}', *chosen])}."
        )

    def __post_init__(self) -> None:
        if self.ranges not in activation_ranges.CHOICES:
            raise InputError(
                f"LiteRT: ranges must be one of {', '.join(activation_ranges.CHOICES)}. Received: {self.ranges!r}."
            )
        if not 50 < self.percentile < 100:
            raise InputError(
                f"LiteRT: percentile must be in 50..100 (exclusive). Received: {self.percentile}. Use 99.99."
            )
        for name in ("keep_float", "int16", "int4"):
            if isinstance(getattr(self, name), str):
                raise InputError(
                    f"LiteRT: {name} must be a sequence of expressions. Received: {getattr(self, name)!r}. "
                    f"Use ({getattr(self, name)!r},)."
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))
            for expression in getattr(self, name):
                try:
                    re.compile(expression)
                except re.error as error:
                    raise InputError(
                        f"LiteRT: {name} must hold regular expressions. Received: {expression!r}: {error}. "
                        "Use '^name$' for one layer."
                    ) from None


def select(quantizer: str | QuantizerSettings | None, **options: Any) -> QuantizerSettings | None:
    """The settings of the second quantizer, or None for the converter's own.

    Args:
        quantizer: `tensorflow`, `litert` or settings; None for the one that the options need.
        **options: of `LiteRT`; those with its defaults need no quantizer.

    Raises:
        ValueError: an unknown quantizer, or options that `tensorflow` does not have.

    >>> select(None, ranges="min_max") is None
    True
    >>> select(None, ranges="mse").ranges
    'mse'
    """
    if isinstance(quantizer, QuantizerSettings):
        return quantizer
    if quantizer not in (None, "tensorflow", "litert"):
        raise InputError(
            f"convert: quantizer must be 'tensorflow', 'litert' or a tfkd.QuantizerSettings. Received: {quantizer!r}. "
            "Use 'tensorflow'."
        )
    settings = QuantizerSettings(**options)
    asked = [field.name for field in dataclasses.fields(QuantizerSettings) if getattr(settings, field.name) != field.default]
    if quantizer == "tensorflow" and asked:
        raise InputError(
            f"convert: quantizer 'tensorflow' has no choice of ranges or layers. Received: {', '.join(asked)}. "
            "Use quantizer='litert'."
        )
    return settings if asked or quantizer == "litert" else None


@dataclasses.dataclass(frozen=True)
class Quantized:
    """What the quantizer gave.

    Args:
        content: the .tflite.
        kept: the tensors of the ops that stay in float because it was asked for.
        outliers: the layers with the farthest values, in sentences, the farthest first.
    """

    content: bytes
    kept: tuple[str, ...] = ()
    outliers: tuple[str, ...] = ()


def quantize(
    content: bytes,
    settings: QuantizerSettings,
    *,
    mode: str,
    samples: np.ndarray | None,
    float_io: bool = False,
    timeout_s: float = 600.0,
    what: str = "quantizing",
) -> Quantized:
    """Quantizes a float .tflite in a child process.

    Args:
        content: the float model.
        settings: ranges, and precision by layer.
        mode: `dynamic_range`, `full_int8` or `int16x8`, for all layers that no expression chooses.
        samples: float32 [N, ...] for `full_int8` and `int16x8`.
        float_io: keep float input and output.
        timeout_s: seconds that it may take.
        what: the work, for messages.

    Raises:
        ValueError: an expression fits no layer, or a layer cannot have the precision that is asked for.
        RuntimeError: the quantizer died or took too long.
    """
    if mode not in MODES:
        raise InputError(
            f"convert: quantizer 'litert' takes the modes {', '.join(MODES)}. Received: mode={mode!r}. "
            "Use quantizer='tensorflow'."
        )
    if mode == "dynamic_range" and (settings.int16 or settings.ranges != "min_max"):
        raise InputError(
            "convert: mode 'dynamic_range' has no ranges of activations. Received: int16 or ranges. Use 'full_int8'."
        )
    try:
        return isolation.run(
            "tfkd.conversion.quantizer:_quantize",
            timeout_s=timeout_s,
            what=what,
            content=content,
            settings=settings,
            mode=mode,
            samples=samples,
            float_io=float_io,
        )
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


def op_names(graph: TFLiteGraph, index: int) -> list[str]:
    """The names that an op carries: of its tensors, and of its layers with and without the number of the export."""
    op = graph.ops[index]
    constants = [i for i in op.inputs if i >= 0 and graph.constants[i]]
    text = ";".join(graph.tensors[i].name for i in (*op.outputs, *constants))
    parts = [part for part in re.split(r"[/;:]", text) if part]
    names = [name for part in parts for name in (part, re.sub(r"_\d+$", "", part))]
    return [*dict.fromkeys((*names, *(graph.tensors[i].name for i in op.outputs)))]


def chosen(graph: TFLiteGraph, expressions: Sequence[str], where: str) -> set[int]:
    """The ops that expressions choose, each at least one.

    Raises:
        ValueError: an expression chooses none.
    """
    names = [op_names(graph, index) for index in range(len(graph.ops))]
    found = set()
    for expression in expressions:
        fits = {index for index, mine in enumerate(names) if any(re.search(expression, name) for name in mine)}
        if not fits:
            known = [*dict.fromkeys(name for mine in names for name in mine)]
            near = difflib.get_close_matches(expression.strip("^$"), known, n=1, cutoff=0.4) or known[:1]
            raise InputError(
                f"{where} must fit a layer. Received: {expression!r}, which fits none of {len(names)} ops. "
                f"Did you mean {near[0]!r}?"
            )
        found |= fits
    return found


# From here on: what the child runs.


def _quantize(
    content: bytes, settings: QuantizerSettings, mode: str, samples: np.ndarray | None, float_io: bool
) -> Quantized:
    graph = TFLiteModel.load(content).graph
    kept = chosen(graph, settings.keep_float, "keep_float")
    wide = chosen(graph, settings.int16, "int16")
    narrow = chosen(graph, settings.int4, "int4")
    precisions: dict[int, tuple[int, int] | None] = {
        index: None if index in kept else (16 if index in wide or mode == "int16x8" else 8, 4 if index in narrow else 8)
        for index in sorted(kept | wide | narrow)
    }
    found: dict[str, tuple[float, float]] = {}
    outliers: tuple[str, ...] = ()
    if samples is not None:
        sixteen = range(len(graph.ops)) if mode == "int16x8" else wide
        steps = {tensor: 2**16 for index in sixteen for tensor in graph.ops[index].outputs}
        found, outliers = activation_ranges.find(content, graph, samples, settings.ranges, settings.percentile, steps)
    made = _run(content, graph, mode, precisions, found, float_io)
    return Quantized(made, tuple(graph.tensors[i].name for index in kept for i in graph.ops[index].outputs), outliers)


def _run(
    content: bytes,
    graph: TFLiteGraph,
    mode: str,
    precisions: dict[int, tuple[int, int] | None],
    found: dict[str, tuple[float, float]],
    float_io: bool,
) -> bytes:
    """Runs the quantizer; precisions are the bits of (activations, weights) by op, None for float."""
    from litert_quantizer import qtyping, quantizer

    kinds = qtyping.TFLOperationName
    engine = quantizer.Quantizer(bytearray(content))
    if mode == "dynamic_range":
        engine.add_dynamic_config(".*", kinds.ALL_SUPPORTED, 8)
    else:
        engine.add_static_config(".*", kinds.ALL_SUPPORTED, 16 if mode == "int16x8" else 8, 8)
    if float_io:
        for end in (kinds.INPUT, kinds.OUTPUT):
            engine.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    for index, bits in precisions.items():
        op = graph.ops[index]
        name = _RENAMED.get(op.name, op.name)
        # The quantizer calls an op by its outputs.
        scope = "^" + re.escape(";".join(graph.tensors[i].name for i in op.outputs))
        if bits is None:
            if name in kinds.__members__:  # what the quantizer does not know stays in float by itself
                engine.update_quantization_recipe(scope, kinds(name), algorithm_key="no_quantize")
            continue
        try:
            if mode == "dynamic_range":
                engine.add_dynamic_config(scope, kinds(name), bits[1])
            else:
                engine.add_static_config(scope, kinds(name), *bits)
        except ValueError as error:
            said = str(error).partition(" Error:")[0]  # behind it stand all its settings
            raise InputError(
                f"{op.name} {graph.tensors[op.outputs[0]].name!r} must be able to have activations of {bits[0]} and "
                f"weights of {bits[1]} bits. Received: {said} Choose other layers; 4 bits are for Conv2D and Dense."
            ) from None
    limits = {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in found.items()
    }
    result = engine.quantize(limits or None, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)
