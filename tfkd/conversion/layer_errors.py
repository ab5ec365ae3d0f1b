"""How much error each op of a quantized .tflite adds of its own, and how much has gathered up to it."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
from typing import Any, NamedTuple

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion.tflite import TensorInfo, TFLiteGraph, TFLiteModel
from tfkd.errors import InputError

# An exact result has no finite ratio; so much is as good as exact.
EXACT_DB = 120.0

_CASTS = ("QUANTIZE", "DEQUANTIZE")


@dataclasses.dataclass(frozen=True)
class OpNoise:
    """One op, or the model's input, against the same op in floating point.

    Its own error is that of the op on the inputs that the quantized model gives it, against the float op on the very
    same inputs. The total error is against the float model on the sample.

    Args:
        op: its kind, such as `CONV_2D`; `INPUT` for the model's input.
        tensor: the name of what it computes.
        sources: tensors of the ops, or of the input, that it takes its inputs from.
        weights: name of its constant, or empty.
        sqnr_db: signal to its own noise, in dB, over all values.
        channel_sqnr_db: the same of the median channel: one loud channel does not cover the others. Channels that
            are 0 throughout do not count.
        total_sqnr_db: signal to the total noise.
        cosine: of the float and the quantized values.
        saturated: share of values beyond the quantized range, 0..1; None for floats.
        steps_used: of the quantized values, from the lowest to the highest that occurs; None for floats.
        steps: of its type, 256 or 65,536; None for floats.
        rounding: the noise that the output's step size alone explains, as a share of its own noise; None for floats.
        low: smallest and `high` largest value that the op gives in floating point on these inputs.
        high: see `low`.
        limits: the ends of the quantized range; None for floats.
        channel_peaks: largest magnitude in each channel.
        weight_scales: number of scales of its weights: 1 where all channels share one, 0 for float weights.
        weight_dtype: type of its weights, or None.
    """

    op: str
    tensor: str
    sources: tuple[str, ...]
    weights: str
    sqnr_db: float
    channel_sqnr_db: float
    total_sqnr_db: float
    cosine: float
    saturated: float | None
    steps_used: int | None
    steps: int | None
    rounding: float | None
    low: float
    high: float
    limits: tuple[float, float] | None
    channel_peaks: tuple[float, ...]
    weight_scales: int = 0
    weight_dtype: str | None = None


def measure(
    quantized: TFLiteModel, reference: TFLiteModel, x: np.ndarray, *, timeout_s: float = 600.0
) -> tuple[list[OpNoise], list[str]]:
    """Runs a quantized and a float .tflite of the same model, op by op.

    Args:
        quantized: of any mode, with one input.
        reference: the same model, converted to float32.
        x: [N, ...] features as the Keras model takes them; some dozens do.
        timeout_s: seconds that it may take.

    Returns:
        The input and the ops in the order in which they run, and the tensors of the ops that have no like in the
        reference.

    Raises:
        ValueError: the two models do not belong together.
        RuntimeError: the model's process crashed or hung.
    """
    for model, what in ((quantized, "the quantized model"), (reference, "the reference")):
        if len(model.inputs) != 1 or model.inputs[0].shape != (1, *x.shape[1:]):
            raise InputError(
                f"explain: {what} must take one input of shape {(1, *x.shape[1:])}. "
                f"Received: {[tensor.shape for tensor in model.inputs]}. Give model and data that belong together."
            )
    try:
        return isolation.run(
            "tfkd.conversion.layer_errors:_measure",
            timeout_s=timeout_s,
            what=f"running {quantized.path or 'the model'} op by op",
            quantized=quantized.content,
            reference=reference.content,
            x=x.astype("float32"),
        )
    except InputError as error:
        raise InputError(f"explain: LiteRT must take the model. Received: {error}") from None


# From here on: what the child runs.


class _Pair(NamedTuple):
    """An op of the quantized model and its like in the reference, as indices of tensors."""

    op: str
    output: int
    like: int
    inputs: tuple[tuple[int, int], ...]  # of each input that is no constant: in the quantized model, in the reference
    weights: int | None


@dataclasses.dataclass
class _Sums:
    """What is gathered of one op over the samples."""

    values: int = 0
    signal: Any = 0.0  # of the float op on the quantized model's inputs, by channel
    noise: Any = 0.0  # of its difference to the quantized op, by channel
    peaks: Any = 0.0  # by channel
    saturated: int = 0
    total: float = 0.0
    product: float = 0.0
    quantized: float = 0.0
    reference: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    least: float = math.inf
    most: float = -math.inf

    def add(self, raw: np.ndarray, tensor: TensorInfo, own: np.ndarray, reference: np.ndarray) -> None:
        """One sample: of the quantized op, of the float op on the same inputs, and of the float model."""
        value, own, reference = (one.astype(np.float64) for one in (_real(raw, tensor), own, reference))
        shape: tuple[int, ...] = value.shape
        own, reference = own.reshape(shape), reference.reshape(shape)
        channels = shape[-1] if len(shape) > 1 else 1
        self.values += own.size
        self.signal = self.signal + np.square(own).reshape(-1, channels).sum(axis=0)
        self.noise = self.noise + np.square(value - own).reshape(-1, channels).sum(axis=0)
        self.peaks = np.maximum(self.peaks, np.abs(own).reshape(-1, channels).max(axis=0))
        self.total += float(np.square(value - reference).sum())
        self.product += float((value * reference).sum())
        self.quantized += float(np.square(value).sum())
        self.reference += float(np.square(reference).sum())
        self.low, self.high = min(self.low, float(own.min())), max(self.high, float(own.max()))
        self.least, self.most = min(self.least, float(raw.min())), max(self.most, float(raw.max()))
        if (limits := _limits(tensor)) is not None:
            half = tensor.scales[0] / 2
            self.saturated += int(((own < limits[0] - half) | (own > limits[1] + half)).sum())

    def finish(self, op: str, tensor: TensorInfo, sources: tuple[str, ...], weights: TensorInfo | None) -> OpNoise:
        limits, noise = _limits(tensor), float(self.noise.sum())
        live = self.signal > 0
        channels = [_db(signal, noise) for signal, noise in zip(self.signal[live], self.noise[live], strict=True)]
        norm = math.sqrt(self.quantized * self.reference)
        return OpNoise(
            op=op,
            tensor=tensor.name,
            sources=sources,
            weights=weights.name if weights else "",
            sqnr_db=_db(float(self.signal.sum()), noise),
            channel_sqnr_db=float(np.median(channels)) if channels else EXACT_DB,
            total_sqnr_db=_db(self.reference, self.total),
            cosine=self.product / norm if norm else 1.0,
            saturated=self.saturated / self.values if limits else None,
            steps_used=int(self.most - self.least) + 1 if limits else None,
            steps=2 ** (8 * np.dtype(tensor.dtype).itemsize) if limits else None,
            rounding=min(1.0, self.values * tensor.scales[0] ** 2 / 12 / noise) if limits and noise else None,
            low=self.low,
            high=self.high,
            limits=limits,
            channel_peaks=tuple(self.peaks.tolist()),
            weight_scales=len(weights.scales) if weights else 0,
            weight_dtype=weights.dtype if weights else None,
        )


def _measure(quantized: bytes, reference: bytes, x: np.ndarray) -> tuple[list[OpNoise], list[str]]:
    model = TFLiteModel.load(quantized)
    graph, other = model.graph, TFLiteModel.load(reference).graph
    cast = _first_cast(graph)
    pairs, unmatched = _pairs(graph, other, cast)
    runs = [_Run(content) for content in (quantized, reference, _taken_apart(reference, pairs))]
    sums = [_Sums() for _ in range(len(pairs) + 1)]
    for row in x:
        sample = row[None]
        got, wanted = runs[0].on([model.quantize_input(sample)]), runs[1].on([sample])
        sums[0].add(got(cast), graph.tensors[cast], sample, sample)
        fed = [
            _real(got(given), graph.tensors[given]).reshape(wanted(like).shape)
            for pair in pairs
            for given, like in pair.inputs
        ]
        own = runs[2].on(fed)
        for one, pair in zip(sums[1:], pairs, strict=True):
            one.add(got(pair.output), graph.tensors[pair.output], own(pair.like), wanted(pair.like))
    found = [sums[0].finish("INPUT", graph.tensors[cast], (), None)]
    for one, pair in zip(sums[1:], pairs, strict=True):
        sources = tuple(graph.tensors[given].name for given, _ in pair.inputs)
        weights = None if pair.weights is None else graph.tensors[pair.weights]
        found.append(one.finish(pair.op, graph.tensors[pair.output], sources, weights))
    return found, unmatched


class _Run:
    """An interpreter that keeps all its tensors. It has no delegate: that would not."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self.interpreter.allocate_tensors()
        self.inputs = [detail["index"] for detail in self.interpreter.get_input_details()]

    def on(self, inputs: list[np.ndarray]) -> Any:
        """Runs, and gives what reads a tensor by its index."""
        self.interpreter.reset_all_variables()
        for index, array in zip(self.inputs, inputs, strict=True):
            self.interpreter.set_tensor(index, array)
        self.interpreter.invoke()
        return self.interpreter.get_tensor


def _first_cast(graph: TFLiteGraph) -> int:
    """The tensor that holds the input as the ops take it: behind a QUANTIZE, where the model takes floats."""
    users = [op for op in graph.ops if graph.inputs[0] in op.inputs]
    return users[0].outputs[0] if users and users[0].name == "QUANTIZE" else graph.inputs[0]


def _pairs(graph: TFLiteGraph, other: TFLiteGraph, cast: int) -> tuple[list[_Pair], list[str]]:
    """Pairs the ops by the name of what they compute, else by their order among ops of the same kind and shape."""
    made = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.name in _CASTS and op.outputs}

    def origin(tensor: int) -> int:
        # The loss of a cast between two ops counts to the op that needs it.
        for _ in made:  # not without end: the file may be damaged
            if tensor == cast or tensor not in made:
                break
            tensor = made[tensor]
        return tensor

    mine = [op for op in graph.ops if op.outputs and op.name not in _CASTS]
    theirs = [op for op in other.ops if op.outputs and op.name not in _CASTS]

    def keys(ops: Any, tensors: tuple[TensorInfo, ...], part: str) -> list[tuple[str, Any]]:
        return [(op.name, getattr(tensors[op.outputs[0]], part)) for op in ops]

    matched: list[tuple[int, int]] = []
    for part in ("name", "shape"):
        first, second = keys(mine, graph.tensors, part), keys(theirs, other.tensors, part)
        blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
        found = [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]
        matched = max(matched, found, key=len)
    fed = {*other.inputs, *(i for op in other.ops for i in op.outputs)}  # the rest are constants and states
    pairs = []
    for mine_at, theirs_at in matched:
        op, like = mine[mine_at], theirs[theirs_at]
        active = [i for i, index in enumerate(like.inputs) if index in fed]
        if any(i >= len(op.inputs) or op.inputs[i] < 0 for i in active):
            continue
        inputs = tuple((origin(op.inputs[i]), like.inputs[i]) for i in active)
        ends = (*inputs, (op.outputs[0], like.outputs[0]))
        if all(math.prod(graph.tensors[a].shape) == math.prod(other.tensors[b].shape) for a, b in ends):
            weights = [index for index in op.inputs if index >= 0 and graph.constants[origin(index)]]
            pairs.append(_Pair(op.name, op.outputs[0], like.outputs[0], inputs, weights[0] if weights else None))
    done = {pair.output for pair in pairs}
    return pairs, [graph.tensors[op.outputs[0]].name for op in mine if op.outputs[0] not in done]


def _taken_apart(content: bytes, pairs: list[_Pair]) -> bytes:
    """The float model with its ops cut from each other: each input that is no constant becomes one of the model's."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    by_output = {op.outputs[0]: op for op in graph.operators if op.outputs is not None and len(op.outputs)}
    inputs, operators = [], []
    for pair in pairs:
        op = by_output[pair.like]
        wired = [int(index) for index in op.inputs]
        for _, like in pair.inputs:
            place = wired.index(like)  # twice the same input: the first place is taken by then
            wired[place] = len(graph.tensors)
            inputs.append(len(graph.tensors))
            graph.tensors.append(copy.copy(graph.tensors[like]))
        op.inputs = wired
        operators.append(op)
    graph.operators, graph.inputs, graph.outputs = operators, inputs, [pair.like for pair in pairs]
    model.signatureDefs = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _limits(tensor: TensorInfo) -> tuple[float, float] | None:
    if not tensor.scales or not tensor.dtype.startswith(("int8", "uint8", "int16")):
        return None
    ends = np.iinfo(tensor.dtype)
    low, high = ((end - tensor.zero_points[0]) * tensor.scales[0] for end in (ends.min, ends.max))
    return low, high


def _real(values: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    if not tensor.scales:
        return values.astype("float32", copy=False)
    return ((values.astype("float64") - tensor.zero_points[0]) * tensor.scales[0]).astype("float32")


def _db(signal: float, noise: float) -> float:
    if noise <= signal * 10 ** (-EXACT_DB / 10):
        return EXACT_DB
    return 10 * math.log10(max(signal, 1e-300) / noise)
