"""Quantization error of each op of a .tflite: the error that the op adds, and the error accumulated up to it."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import tflite_writer
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.op_pairs import Pair, first_activations, pair_ops
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.conversion.tflite_reader import TensorInfo
from tfkd.errors import InputError, ModelError

# Upper bound of a signal-to-noise ratio: an exact result would have an infinite one.
EXACT_DB = 120.0


@dataclasses.dataclass(frozen=True)
class OpNoise:
    """Quantization noise of one op, or of the model's input.

    The op's own noise is the difference between the quantized op and the same op in floating point on the same inputs,
    namely those that the quantized model computes. The total noise is the difference between the quantized and the
    float model.

    Args:
        op: Name of the op, such as `CONV_2D`; `INPUT` for the model's input.
        tensor: Name of the output tensor.
        reference: Name of the output tensor of its counterpart in the reference.
        sources: Names of the activations that the op reads.
        weights: Name of the weights tensor, or empty.
        sqnr_db: Ratio of signal to own noise over all values, in dB.
        channel_sqnr_db: The same ratio in the median channel, so that one channel with large values does not hide the
            others. Channels that are 0 on all samples are left out.
        total_sqnr_db: Ratio of signal to total noise, in dB.
        cosine: Cosine similarity of the float and the quantized values.
        saturated: Share of values outside the quantized range, 0..1; None for floats.
        steps_used: Number of quantization steps between the lowest and the highest value; None for floats.
        steps: Number of quantization steps of the type, 256 or 65,536; None for floats.
        rounding: Share of the own noise that rounding to the output's step size explains, 0..1; None for floats.
        low: Smallest value of the float op on these inputs.
        high: Largest value of the float op on these inputs.
        limits: Lower and upper end of the quantized range; None for floats.
        channel_peaks: Largest magnitude in each channel.
        weight_scales: Number of scales of the weights: 1 per tensor, or one per channel; 0 for float weights.
        weight_dtype: Type of the weights, or None.
    """

    op: str
    tensor: str
    reference: str
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
    quantized: TFLiteModel, reference: TFLiteModel, samples: Samples, *, timeout_s: float = 600.0
) -> tuple[list[OpNoise], list[str]]:
    """Runs a quantized and a float .tflite of the same Keras model op by op, in a child process.

    Args:
        quantized: The model in any mode.
        reference: The same model converted to float32.
        samples: Samples in the range that the Keras model takes; a few dozen are enough.
        timeout_s: Time limit in seconds.

    Returns:
        The noise of the inputs and of the ops in the order of execution, and the output tensors of the ops without a
        counterpart in the reference.

    Raises:
        InputError: The samples do not have the shapes of the models' inputs.
        ModelError: LiteRT cannot run a model.
        DeviceError: The child process crashed or timed out.
    """
    for model, name in ((quantized, "the quantized model"), (reference, "the reference")):
        shapes = [(1, *shape) for shape in samples.shapes]
        if [tensor.shape for tensor in model.inputs] != shapes:
            wanted = f"one input of shape {shapes[0]}" if len(shapes) == 1 else f"inputs of the shapes {shapes}"
            raise InputError(
                f"explain: {name} must take {wanted}. "
                f"Received: {[tensor.shape for tensor in model.inputs]}. Give a model and data that belong together."
            )
    try:
        result: tuple[list[OpNoise], list[str]] = isolation.run(
            "tfkd.conversion.layer_errors:_measure",
            prepare="tfkd.conversion.litert:load",
            timeout_s=timeout_s,
            what=f"running {quantized.path or 'the model'} op by op",
            quantized=quantized.content,
            reference=reference.content,
            samples=samples.of(reference.content),
        )
    except ModelError as error:
        raise ModelError(f"explain: LiteRT cannot run the model: {error}") from None
    return result


# The code below runs in the child process.


@dataclasses.dataclass
class _Sums:
    """Sums over the samples for one op. Those marked "by channel" are arrays."""

    values: int = 0
    signal: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(1)
    )  # squares of the float op on the quantized model's inputs, by channel
    noise: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(1)
    )  # squares of the difference between quantized op and float op, by channel
    peaks: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(1)
    )  # largest magnitudes of the float op, by channel
    saturated: int = 0
    total_noise: float = 0.0  # squares of the difference between quantized model and float model
    product: float = 0.0  # products of the values of the two models
    quantized: float = 0.0  # squares of the quantized model
    reference: float = 0.0  # squares of the float model
    low: float = math.inf
    high: float = -math.inf
    raw_low: float = math.inf
    raw_high: float = -math.inf

    def add(self, raw: np.ndarray, tensor: TensorInfo, own: np.ndarray, reference: np.ndarray) -> None:
        """Adds one sample.

        Args:
            raw: Output of the quantized op, not dequantized.
            tensor: Its tensor.
            own: Output of the float op on the inputs of the quantized op.
            reference: Output of the op in the float model.
        """
        value = _dequantized(raw, tensor).astype(np.float64)
        shape: tuple[int, ...] = value.shape
        own, reference = (_reshaped(x.astype(np.float64), shape, tensor) for x in (own, reference))
        channels = shape[-1] if len(shape) > 1 else 1
        self.values += own.size
        self.signal = self.signal + np.square(own).reshape(-1, channels).sum(axis=0)
        self.noise = self.noise + np.square(value - own).reshape(-1, channels).sum(axis=0)
        self.peaks = np.maximum(self.peaks, np.abs(own).reshape(-1, channels).max(axis=0))
        self.total_noise += float(np.square(value - reference).sum())
        self.product += float((value * reference).sum())
        self.quantized += float(np.square(value).sum())
        self.reference += float(np.square(reference).sum())
        self.low, self.high = min(self.low, float(own.min())), max(self.high, float(own.max()))
        self.raw_low, self.raw_high = min(self.raw_low, float(raw.min())), max(self.raw_high, float(raw.max()))
        if (limits := _limits(tensor)) is not None:
            half_step = tensor.scales[0] / 2
            self.saturated += int(((own < limits[0] - half_step) | (own > limits[1] + half_step)).sum())

    def noise_of(
        self, op: str, tensor: TensorInfo, reference: str, sources: tuple[str, ...], weights: TensorInfo | None
    ) -> OpNoise:
        """The noise over all samples that were added; see `OpNoise` for the arguments."""
        limits, noise = _limits(tensor), float(self.noise.sum())
        live = self.signal > 0
        channels = [_decibels(s, n) for s, n in zip(self.signal[live], self.noise[live], strict=True)]
        norm = math.sqrt(self.quantized * self.reference)
        return OpNoise(
            op=op,
            tensor=tensor.name,
            reference=reference,
            sources=sources,
            weights=weights.name if weights else "",
            sqnr_db=_decibels(float(self.signal.sum()), noise),
            channel_sqnr_db=float(np.median(channels)) if channels else EXACT_DB,
            total_sqnr_db=_decibels(self.reference, self.total_noise),
            cosine=self.product / norm if norm else 1.0,
            saturated=self.saturated / self.values if limits else None,
            steps_used=int(self.raw_high - self.raw_low) + 1 if limits else None,
            steps=2 ** (8 * np.dtype(tensor.dtype).itemsize) if limits else None,
            # Rounding to a step s alone gives each value the expected squared error s² / 12.
            rounding=min(1.0, self.values * tensor.scales[0] ** 2 / 12 / noise) if limits and noise else None,
            low=self.low,
            high=self.high,
            limits=limits,
            channel_peaks=tuple(self.peaks.tolist()),
            weight_scales=len(weights.scales) if weights else 0,
            weight_dtype=weights.dtype if weights else None,
        )


def _measure(quantized: bytes, reference: bytes, samples: Samples) -> tuple[list[OpNoise], list[str]]:
    model = TFLiteModel.load(quantized)
    graph, reference_graph = model.graph, TFLiteModel.load(reference).graph
    first = first_activations(graph)
    pairs, unmatched, _ = pair_ops(graph, reference_graph)
    quantized_run, reference_run = TensorRecorder(quantized), TensorRecorder(reference)
    separated_run = TensorRecorder(_separated(reference, pairs))
    input_sums, sums = [_Sums() for _ in first], [_Sums() for _ in pairs]
    for sample in samples:
        rounded = [model.quantize_input(array, index) for index, array in enumerate(sample)]
        actual, expected = quantized_run.run(rounded), reference_run.run(sample)
        for total, index, array in zip(input_sums, first, sample, strict=True):
            total.add(actual(index), graph.tensors[index], array, array)
        op_inputs = [
            _as(expected(counterpart), _dequantized(actual(index), graph.tensors[index]), graph.tensors[index])
            for pair in pairs
            for index, counterpart in pair.inputs
        ]
        own = separated_run.run(op_inputs)
        for total, pair in zip(sums, pairs, strict=True):
            tensor = graph.tensors[pair.output]
            total.add(actual(pair.output), tensor, own(pair.reference_output), expected(pair.reference_output))
    noises = [
        total.noise_of("INPUT", graph.tensors[index], "", (), None)
        for total, index in zip(input_sums, first, strict=True)
    ]
    for total, pair in zip(sums, pairs, strict=True):
        sources = tuple(graph.tensors[index].name for index, _ in pair.inputs)
        weights = None if pair.weights is None else graph.tensors[pair.weights]
        reference_name = reference_graph.tensors[pair.reference_output].name
        noises.append(total.noise_of(pair.op, graph.tensors[pair.output], reference_name, sources, weights))
    return noises, [graph.tensors[graph.ops[place].outputs[0]].name for place in unmatched]


def _separated(content: bytes, pairs: list[Pair]) -> bytes:
    """The float model with its ops disconnected: each activation that an op reads becomes an input of the model.

    x -> CONV_2D -> RELU -> y    becomes    x -> CONV_2D -> a
                                            a' -> RELU -> y
    """
    model = tflite_writer.read(content)
    graph = model.subgraphs[0]
    by_output = {op.outputs[0]: op for op in graph.operators if op.outputs is not None and len(op.outputs)}
    inputs, operators = [], []
    for pair in pairs:
        op = by_output[pair.reference_output]
        op_inputs = [int(index) for index in op.inputs]
        for _, tensor in pair.inputs:
            # An op that reads a tensor twice has it in `pair.inputs` twice; the first place is replaced by then.
            place = op_inputs.index(tensor)
            op_inputs[place] = len(graph.tensors)
            inputs.append(len(graph.tensors))
            graph.tensors.append(copy.copy(graph.tensors[tensor]))
        op.inputs = op_inputs
        operators.append(op)
    graph.operators, graph.inputs, graph.outputs = operators, inputs, [pair.reference_output for pair in pairs]
    model.signatureDefs = []
    return tflite_writer.write(model)


def _limits(tensor: TensorInfo) -> tuple[float, float] | None:
    """The real values of the lowest and the highest quantized value; None for floats and other types."""
    if not tensor.scales or not tensor.dtype.startswith(("int8", "uint8", "int16")):
        return None
    integers = np.iinfo(tensor.dtype)
    low, high = ((end - tensor.zero_points[0]) * tensor.scales[0] for end in (integers.min, integers.max))
    return low, high


def _dequantized(values: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    if not tensor.scales:
        return values.astype("float32", copy=False)
    return ((values.astype("float64") - tensor.zero_points[0]) * tensor.scales[0]).astype("float32")


def _reshaped(values: np.ndarray, shape: tuple[int, ...], tensor: TensorInfo) -> np.ndarray:
    # LiteRT computes shapes itself; in a damaged file they differ from the stored ones, which were compared before.
    if values.size != math.prod(shape):
        raise ModelError(f"tensor {tensor.name!r} differs in size from its counterpart. Convert the model again.")
    return values.reshape(shape)


def _as(model: np.ndarray, values: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    """Values in the shape and the type of another array, such as booleans of a comparison."""
    return _reshaped(values, model.shape, tensor).astype(model.dtype)


def _decibels(signal: float, noise: float) -> float:
    if noise <= signal * 10 ** (-EXACT_DB / 10):
        return EXACT_DB
    return 10 * math.log10(max(signal, 1e-300) / noise)
