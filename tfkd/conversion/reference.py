"""The outputs of the model that is converted, on a few samples: what its .tflite is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, SampleData, Tensor
from tfkd.conversion import input_samples, keras_calls, keras_runs, rnn
from tfkd.conversion.calibration import Source, choose, for_model
from tfkd.conversion.engines import Sample
from tfkd.conversion.keras_calls import Call
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

MOST = 16
_FEWEST = 4
# A model of more multiply-accumulates than this, such as ResNet-50 with 4e9, computes fewer samples.
HUGE, _FEWEST_OF_HUGE = 1e9, 2
# Multiply-accumulates of all samples together, so that the comparison takes about a second.
_BUDGETS = {"int16x8": 1e8}
_BUDGET = 2.5e8
# Every model with integer inputs knows these token ids.
_TOKENS = 2


class Reference(NamedTuple):
    """Samples and their outputs.

    Args:
        inputs: One array [1, ...] per input of the model, for each sample.
        outputs: One array per output, for each sample.
        obstacle: Why there is nothing to compare, as a sentence; empty otherwise.
        is_fault: Whether the obstacle is a fault of the model.
        left_out: A sentence on calibration samples that are not compared; empty where there are none.
    """

    inputs: Sequence[Sample] = ()
    outputs: Sequence[Sample] = ()
    obstacle: str = ""
    is_fault: bool = False
    left_out: str = ""

    def reduced(self, number: int) -> Reference:
        """The same with `number` of the samples, or with all where there are no more."""
        kept = np.linspace(0, len(self.inputs) - 1, min(number, len(self.inputs))).astype(int)
        return self._replace(inputs=[self.inputs[i] for i in kept], outputs=[self.outputs[i] for i in kept])


def count(model: TFLiteModel, mode: str) -> int:
    """The number of samples on which a model is compared, 2..16: fewer for a large model."""
    return _within(_BUDGETS.get(mode, _BUDGET), model.macs)


def most(model: keras.Model) -> int:
    """The number of samples of which a Keras model computes the outputs, 2..16: at least `count` of its .tflite."""
    return _within(_BUDGET, keras_runs.multiplications(model) / 2)


def _within(budget: float, macs: float) -> int:
    """The number of samples that take so many multiply-accumulates together, but not too few."""
    return int(np.clip(budget // max(macs, 1), _FEWEST_OF_HUGE if macs > HUGE else _FEWEST, MOST))


def usable(data: SampleData, source: Source, seed: int) -> Samples | None:
    """A few samples of the data that the user gave for a model, where they have its input shapes; otherwise None."""
    if data is not None and source.takes_several(data):
        with contextlib.suppress(InputError):
            return input_samples.read(data, source.forms, MOST)
        return None
    data = for_model(data, source)
    shape = source.sample_shape
    if shape is None or getattr(data, "input_shape", None) != shape:
        return None
    return Samples((np.asarray(choose(data, MOST, seed).x),))


def of_keras(model: keras.Model, specs: Nest, samples: Samples | None, number: int) -> Reference:
    """The outputs of a Keras model, each sample computed from a state of zero; the model does not change.

    Args:
        model: The Keras model.
        specs: Its inputs at batch size 1 as `keras.InputSpec`, in the structure in which it takes them.
        samples: Samples, in the order of the inputs; None for generated ones.
        number: Number of samples, >= 1.
    """
    import keras

    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            return Reference(obstacle=f"The weights {weight.path!r} have NaN or infinity.", is_fault=True)

    def compute(sample: Sample) -> list[np.ndarray]:
        outputs = _call(model, specs, [keras.ops.convert_to_tensor(array) for array in sample])
        return [np.asarray(keras.ops.convert_to_numpy(output)) for output in keras.tree.flatten(outputs)]

    flat = keras.tree.flatten(specs)
    layers = [layer for layer in keras_compat.inner_layers(model) if isinstance(layer, keras.layers.Embedding)]
    tokens = min((layer.input_dim for layer in layers), default=_TOKENS)
    inputs = [_Input(spec.shape, str(spec.dtype), _first_layer(model, i), tokens) for i, spec in enumerate(flat)]
    with _exactly(model):
        tensors = keras.tree.flatten(getattr(model, "inputs", None) or [])
        batched = bool(tensors) and all(tensor.shape[0] is None for tensor in tensors) and not rnn.states(model)
        return _reference(compute, inputs, samples, number, batched=batched)


def calls_of(model: keras.Model, specs: Nest, sample: Sample) -> list[Call]:
    """The calls of the layers of a Keras model on one sample, see `keras_calls.record`."""
    import keras

    tensors = [keras.ops.convert_to_tensor(array) for array in sample]
    with _exactly(model):
        return keras_calls.record(model, lambda: _call(model, specs, tensors), tensors)


@contextlib.contextmanager
def _exactly(model: keras.Model) -> Iterator[None]:
    """Lets a Keras model compute in float32 from a state of zero while the context is open."""
    import tensorflow as tf

    with keras_compat.REPLACING, rnn.initial_states(model), keras_compat.sums_by_broadcasting():
        rounded = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)  # GPUs round products of float32 to 11 bits
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(rounded)


def _call(model: keras.Model, specs: Nest, tensors: Sequence[Tensor]) -> Nest:
    """The outputs of a model on the tensors of one sample."""
    import keras

    with keras.StatelessScope():  # what the model assigns to its variables is dropped
        return model(keras.tree.pack_sequence_as(specs, tensors), training=False)


def of_signature(
    signature: tf.types.experimental.ConcreteFunction,
    names: Sequence[str],
    outputs: Sequence[str],
    samples: Samples | None,
    number: int,
) -> Reference:
    """The outputs of the signature of a SavedModel, each sample computed from the initial state.

    Args:
        signature: A function of `tf.saved_model.load(...).signatures`.
        names: Its inputs in the order of the .tflite.
        outputs: Its outputs in the order of the .tflite.
        samples: Samples, in the order of the inputs; None for generated ones.
        number: Number of samples, >= 1.
    """
    specs = signature.structured_input_signature[1]
    state = [(variable, variable.numpy()) for variable in signature.graph.variables]

    def compute(sample: Sample) -> list[np.ndarray]:
        import tensorflow as tf

        for variable, value in state:
            variable.assign(value)
        received = signature(**{name: tf.constant(array) for name, array in zip(names, sample, strict=True)})
        return [received[name].numpy() for name in outputs]

    inputs = [_Input((1, *specs[name].shape[1:]), specs[name].dtype.name) for name in names]
    return _reference(compute, inputs, samples and samples.ordered(names), number)


class _Input(NamedTuple):
    """An input: its shape [1, ...] and type, the layer that shows its range, and the number of tokens it may have."""

    shape: tuple[int, ...]
    dtype: str
    layer: keras.Layer = None
    tokens: int = _TOKENS

    def generate(self, rng: np.random.Generator, index: int) -> np.ndarray:
        """Values in the range that the model takes, as far as its layers show it."""
        kind = type(self.layer).__name__
        if kind == "Embedding" or self.dtype.startswith(("int", "uint")):
            # Images come as uint8.
            high = 256 if self.dtype == "uint8" and kind != "Embedding" else self.tokens
            return rng.integers(0, high, self.shape).astype(self.dtype)
        if self.dtype == "bool":
            return rng.random(self.shape) < 0.5
        # Some models do not take negative values, for others they are important.
        values = rng.normal(size=self.shape) if index % 2 else rng.random(self.shape)
        if kind == "Normalization" and not self.layer.invert:
            mean, variance = (np.asarray(value, "float64") for value in (self.layer.mean, self.layer.variance))
            values = rng.normal(size=self.shape) * np.sqrt(variance) + mean
        elif kind == "Rescaling":
            # Inputs that it scales to 0..1, or to -offset..offset.
            scale, offset = np.asarray(self.layer.scale, "float64"), np.asarray(self.layer.offset, "float64")
            values = rng.random(self.shape) * np.where(offset == 0, 1.0, 2 * np.abs(offset)) / scale
        return values.astype(self.dtype)


def _first_layer(model: keras.Model, index: int) -> keras.Layer | None:
    """The layer that shows the range of an input: the first that rescales, normalizes or embeds it; or None."""
    import keras

    kinds = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Embedding)
    readers = [model]
    if keras_compat.shows_layers(model):
        tensor = keras_compat.functional(model).inputs[index]
        nodes = (node for node in keras_compat.nodes(model) if not node.is_input)
        readers = [node.operation for node in nodes if any(one is tensor for one in node.input_tensors)]
    layers = [layer for layer in readers if isinstance(layer, keras.Layer)]
    inner = [one for layer in layers for one in (layer, *keras_compat.inner_layers(layer))]
    return next((layer for layer in inner if isinstance(layer, kinds)), None)


def _reference(
    compute: Callable[[Sample], list[np.ndarray]],
    inputs: list[_Input],
    samples: Samples | None,
    number: int,
    *,
    batched: bool = False,
) -> Reference:
    if samples is None:
        rng = np.random.default_rng(0)
        rows: list[Sample] = [[one.generate(rng, index) for one in inputs] for index in range(number)]
    else:
        chosen = np.linspace(0, len(samples) - 1, min(number, len(samples))).astype(int)
        rows = [
            [array.astype(one.dtype) for array, one in zip(sample, inputs, strict=True)] for sample in samples[chosen]
        ]
    try:
        outputs, again = _outputs(compute, rows, batched), compute(rows[0])
    except Exception as error:  # a model is the user's code, which may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Reference(obstacle=f"The model cannot be computed on {_described(samples)} ({reason}).")
    if not _close(outputs[0], again):
        return Reference(obstacle="The model returns random outputs: two calls on the same input differ.")
    finite = [index for index, row in enumerate(outputs) if all(np.isfinite(array).all() for array in row)]
    if not finite:
        obstacle = f"The model returns NaN or infinity on {_described(samples)}."
        return Reference(obstacle=obstacle, is_fault=samples is not None)
    left_out = ""
    if samples is not None and len(finite) < len(rows):
        left_out = (
            f"The model returns NaN or infinity on {len(rows) - len(finite)} of {len(rows)} calibration samples, which "
            "were not compared. Repair the model or these samples."
        )
    return Reference([rows[index] for index in finite], [outputs[index] for index in finite], left_out=left_out)


def _outputs(compute: Callable[[Sample], list[np.ndarray]], rows: list[Sample], batched: bool) -> list[Sample]:
    """The outputs of each sample. Where one call on all samples gives the same, that is used, since it is faster."""
    if batched and len(rows) > 2:  # two are computed singly anyway
        try:
            outputs = compute([np.concatenate(arrays) for arrays in zip(*rows, strict=True)])
        except Exception:  # the user's code may take single samples only
            outputs = []
        if outputs and all(array.shape[:1] == (len(rows),) for array in outputs):
            split: list[Sample] = [[array[index : index + 1] for array in outputs] for index in range(len(rows))]
            if all(_close(split[index], compute(rows[index])) for index in (0, -1)):
                return split
    return [compute(row) for row in rows]


def _close(a: Sample, b: Sample) -> bool:
    return all(np.allclose(x, y, rtol=1e-3, atol=1e-6, equal_nan=True) for x, y in zip(a, b, strict=True))


def _described(samples: Samples | None) -> str:
    return "generated inputs" if samples is None else "calibration samples"
