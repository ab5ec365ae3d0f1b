"""A tf_keras (Keras 2) copy of a Keras 3 model, which tensorflow-model-optimization supports, and back to Keras 3.

The copy, called the twin, is built from the student's layers and weights, never from a file. A Keras 3 model wraps its
variables, so that `Distiller`, optimizers and callbacks work on it as on any Keras 3 model.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, SampleData, Tensor
from tfkd.conversion import converter
from tfkd.conversion.calibration import choose
from tfkd.distillation import features
from tfkd.errors import InputError, ModelError
from tfkd.models import logits

if TYPE_CHECKING:
    import tf_keras

    from tfkd.conversion.tflite import TFLiteModel

# A kernel with a larger share of zeros counts as pruned, and its zeros are preserved.
PRUNED = 0.1
_LEGACY = "TF_USE_LEGACY_KERAS"
# The largest difference between the outputs of student and twin, relative to the largest output.
_TOLERANCE = 1e-5
# Number of calibration samples on which both are compared before an export.
_COMPARED = 64
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}


def load_tfmot() -> tuple[ModuleType, ModuleType]:
    """The modules tf_keras and tensorflow_model_optimization.

    Importing the latter sets TF_USE_LEGACY_KERAS, which makes a `tf.keras` that is not loaded yet Keras 2, here and in
    child processes. Therefore `tf.keras` is loaded first, and the variable is restored afterwards.
    """
    _ = tf.keras.Model
    found = os.environ.get(_LEGACY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the packages
            import tensorflow_model_optimization as tfmot
            import tf_keras
    finally:
        os.environ.pop(_LEGACY, None)
        if found is not None:
            os.environ[_LEGACY] = found
    return tf_keras, tfmot


@dataclasses.dataclass(frozen=True)
class Twin:
    """A student in tf_keras.

    Args:
        student: The Keras 3 model; it is not changed.
        model: The tf_keras copy with equal weights and outputs; nested models are flattened.
        layers: The student's layer for each layer of the copy, by the name in the copy.
    """

    student: keras.Model
    model: tf_keras.Model
    layers: Mapping[str, keras.Layer]

    @classmethod
    def of(cls, student: keras.Model, method: str) -> Twin:
        """Rebuilds a functional or Sequential model of built-in layers.

        Args:
            student: Model with logits.
            method: Method name for error messages.

        Raises:
            ModelError: tf_keras does not have some layers (one message names all), or the outputs of the copy differ.
        """
        logits.check_gives_logits("student", student)
        if not (student.built and keras_compat.shows_layers(student)):
            raise ModelError(
                f"{method}: the student must be a functional or a built Sequential model. Received: "
                f"{type(student).__name__} {student.name!r}. Build it from keras.Input and layers."
            )
        tf_keras, _ = load_tfmot()
        graph = keras_compat.functional(student)
        layers = {name: layer for layer, name in _names(graph).items()}
        made, refused = {}, []
        for name, layer in layers.items():
            try:
                made[layer] = _rebuild(layer, name, tf_keras)
            except (ModelError, ValueError, TypeError) as error:  # tf_keras raises the latter two for a bad config
                refused.append(f"{name} ({type(layer).__name__}): {error}")
        refuse(method, student, refused, "Replace these layers by built-in layers that exist in Keras 2 too.")
        inputs = [tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in graph.inputs]
        model = tf_keras.Model(inputs, keras.tree.flatten(_connect(graph, inputs, made)), name=student.name)
        for layer, copy in made.items():
            copy.set_weights(layer.get_weights())
        twin = cls(student, model, layers)
        twin.check(_random_inputs(graph.inputs), method)
        return twin

    def check(self, x: Sequence[Tensor], method: str) -> None:
        """Raises ModelError when the outputs of student and copy differ.

        Args:
            x: One array per input.
            method: Method name for the error message.
        """
        expected, received = self._outputs(self.student, self.model, x)
        if not _distance(expected, received) <= _TOLERANCE:  # NaN too
            raise ModelError(
                f"{method}: the outputs of the tf_keras copy and the student must agree within {_TOLERANCE:g} of the "
                f"largest output. Received: a difference of {_distance(expected, received):.2g}, first in layer "
                f"{self._first_apart(x)}. Replace that layer."
            )

    def _outputs(self, student: keras.Model, twin: tf_keras.Model, x: Sequence[Tensor]) -> tuple[Nest, Nest]:
        packed = keras.tree.pack_sequence_as(keras_compat.input_structure(student), list(x))
        return student(packed, training=False), twin(list(x), training=False)

    def _first_apart(self, x: Sequence[Tensor]) -> str:
        taps = dict(features.layer_paths(self.student))
        paths = {id(layer): path for path, layer in taps.items()}
        known = [layer for layer in self.model.layers if layer.name in self.layers]
        inner = load_tfmot()[0].Model(self.model.inputs, [layer.get_output_at(-1) for layer in known])
        with features.tap(self.student, [paths[id(self.layers[layer.name])] for layer in known]) as seen:
            _, received = self._outputs(self.student, inner, x)
        apart = [
            layer.name
            for layer, output in zip(known, received, strict=True)
            if not _distance(seen[paths[id(self.layers[layer.name])]], output) <= _TOLERANCE
        ]
        return apart[0] if apart else "(no single layer)"

    def wrap(self, wrappers: Mapping[str, Callable[[tf_keras.layers.Layer], tf_keras.layers.Layer]]) -> tf_keras.Model:
        """The copy with some layers wrapped; `wrappers` are functions by layer name."""
        tf_keras, _ = load_tfmot()
        return tf_keras.models.clone_model(
            self.model, clone_function=lambda layer: wrappers.get(layer.name, lambda same: same)(layer)
        )

    def restore(self, stripped: tf_keras.Model) -> Twin:
        """A Keras 3 copy of the student with the weights of a trained tf_keras copy without wrappers, as a `Twin`."""
        copy = keras.models.clone_model(self.student)
        pairs = zip(*(keras_compat.inner_layers(model) for model in (self.student, copy)), strict=True)
        copies = {id(old): new for old, new in pairs}
        layers = {name: copies[id(layer)] for name, layer in self.layers.items()}
        for name, layer in layers.items():
            layer.set_weights(stripped.get_layer(name).get_weights())
        return Twin(copy, stripped, layers)

    def export(
        self, method: str, path: str | os.PathLike[str], *, calibration: SampleData = None, **options: Any
    ) -> TFLiteModel:
        """Converts a restored student, after comparing it with its copy on calibration samples.

        Args:
            method: Method name for error messages.
            path: Path of the .tflite.
            calibration: Calibration split, for modes that need one.
            **options: Options of `tfkd.convert`.
        """
        if calibration is not None:
            self.check([tf.cast(choose(calibration, _COMPARED, 0).x, self.student.inputs[0].dtype)], method)
        return converter.convert(self.student, path, calibration=calibration, **options)

    def trainable(self, model: tf_keras.Model) -> keras.Model:
        """A tf_keras model as a Keras 3 model with the student's inputs, logits and layer names."""
        inputs = keras.tree.map_structure(
            lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name),
            keras_compat.input_structure(self.student),
        )
        return keras.Model(inputs, _Inside(model, self.layers, name="twin")(inputs), name=self.student.name)


class _Port(keras.layers.Layer):
    """An identity layer that makes the output of an inner layer readable for feature losses."""

    def call(self, x: Tensor) -> Tensor:
        return x


class _Inside(keras.layers.Layer):
    """A tf_keras model as one Keras 3 layer, over the same variables."""

    def __init__(self, model: keras.Model, layers: Mapping[str, keras.Layer], **kwargs: object) -> None:
        super().__init__(**kwargs)
        tf_keras, _ = load_tfmot()
        named = [layer for layer in model.layers if _inner(layer).name in layers]
        outputs = [layer.get_output_at(-1) for layer in named]
        whole = tf_keras.Model(model.inputs, [model.outputs[0], *outputs])
        self._whole = lambda: whole  # Keras does not track what a closure holds
        self.ports = [_Port(name=_inner(layer).name) for layer in named]
        student_weights = {
            (name, weight.path.rsplit("/", 1)[-1]): weight
            for name, layer in layers.items()
            for weight in layer.trainable_weights
        }
        for layer in model.layers:
            fixed = _overwritten(layer)
            trained = {id(weight) for weight in layer.trainable_weights}
            for weight in layer.weights:
                if any(weight is known.value for known in self.variables):
                    continue
                leaf = weight.name.split(":")[0].rsplit("/", 1)[-1]
                like = student_weights.get((_inner(layer).name, leaf))
                variable = keras.Variable(
                    weight,
                    shape=weight.shape,
                    dtype=weight.dtype,
                    name=leaf,
                    trainable=id(weight) in trained and id(weight) not in fixed,
                )
                if like is not None:
                    variable.regularizer, variable.constraint = like.regularizer, like.constraint
                self._track_variable(variable)

    def call(self, x: Tensor, training: bool = False) -> Nest:
        outputs, *inner = self._whole()(keras.tree.flatten(x), training=training)
        for port, value in zip(self.ports, inner, strict=True):
            port(value)
        return outputs

    def get_config(self) -> dict[str, object]:
        return {"name": self.name}  # weights can be saved and loaded; the layer cannot be rebuilt from a file


def refuse(method: str, student: keras.Model, refused: Sequence[str], remedy: str) -> None:
    """Raises one ModelError that names all unsupported layers, if there are any."""
    if refused:
        raise ModelError(
            f"{method}: tensorflow-model-optimization does not support these layers of {student.name!r}:\n  "
            + "\n  ".join(refused)
            + f"\n{remedy}"
        )


def select(
    twin: Twin, method: str, expression: str | None, kernels: Callable[[tf_keras.layers.Layer], Sequence[tf.Variable]]
) -> tuple[list[str], tuple[str, ...]]:
    """Selects the layers that a method changes, before any training.

    Args:
        twin: The student and its copy.
        method: Method name for error messages.
        expression: Regular expression over layer names; all layers that match must be supported. None for all
            supported layers.
        kernels: Returns the weights that the method changes in a layer; raises ModelError for an unsupported layer.

    Returns:
        Names of the selected layers, and sentences about them and about the layers that are left unchanged.

    Raises:
        InputError: The expression is invalid.
        ModelError: No layer is selected, or a matching layer is not supported.
    """
    try:
        asked = re.compile(expression or "")
    except (re.error, TypeError) as error:
        raise InputError(
            f"{method}: layers must be a regular expression. Received: {expression!r}: {error}. Use '^name$' for one "
            "layer."
        ) from None
    selected, refused, weights = [], [], 0
    for layer in twin.model.layers:
        if layer.name not in twin.layers or not layer.weights or not asked.search(layer.name):
            continue
        try:
            found = kernels(layer)
        except ModelError as error:
            refused.append(f"{layer.name} ({type(layer).__name__}): {error}")
            continue
        if found:
            selected.append(layer.name)
            weights += sum(int(np.prod(kernel.shape)) for kernel in found)
    if expression is not None or not selected:
        refuse(method, twin.student, refused, "Choose others with layers, a regular expression.")
    if not selected:
        raise ModelError(
            f"{method}: layers={expression!r} matches no layer with a kernel in {twin.student.name!r}. "
            f"Its layers: {', '.join(twin.layers)}."
        )
    share = weights / twin.student.count_params()
    notes = [f"{method}: {len(selected)} layers, {share:.0%} of the weights: {', '.join(selected)}."]
    return selected, (*notes, *(f"{method}: unchanged: {one}." for one in refused))


def _inner(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
    """The layer inside a wrapper of tensorflow-model-optimization, or the layer itself."""
    ours = type(layer).__module__.startswith("tensorflow_model_optimization")
    return getattr(layer, "layer", layer) if ours else layer


def _overwritten(layer: tf_keras.layers.Layer) -> set[int]:
    """The ids of kernels that a cluster-preserving wrapper computes from centroids; they receive no gradient."""
    return {id(kernel) for kernel, _, own in getattr(layer, "_weight_vars", ()) if "cluster_centroids_tf" in own}


def _operations(graph: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Operation]]:
    """The layers of a functional model and of those nested in it, with their paths."""
    for operation in graph.operations:
        if isinstance(operation, keras.Model) and keras_compat.shows_layers(operation):
            yield from _operations(keras_compat.functional(operation), f"{prefix}{operation.name}/")
        elif not isinstance(operation, keras.layers.InputLayer):
            yield f"{prefix}{operation.name}", operation


def _names(graph: keras.Model) -> dict[keras.Operation, str]:
    """A name for each layer: its own, or its path if the name is not unique."""
    paths = {operation: path for path, operation in _operations(graph)}
    ends = [path.rsplit("/", 1)[-1] for path in paths.values()]
    return {
        operation: path.replace("/", "_") if ends.count(path.rsplit("/", 1)[-1]) > 1 else path.rsplit("/", 1)[-1]
        for operation, path in paths.items()
    }


def _rebuild(layer: keras.Layer, name: str, tf_keras: ModuleType) -> tf_keras.layers.Layer:
    kind = type(layer).__name__
    if not isinstance(layer, keras.layers.Layer) or not type(layer).__module__.startswith("keras."):
        raise ModelError("not a built-in layer")
    if isinstance(layer, keras.layers.Lambda) or not hasattr(tf_keras.layers, kind):
        raise ModelError("does not exist in Keras 2")
    if layer.compute_dtype in ("float16", "bfloat16"):
        raise ModelError("computes in half precision")
    made = getattr(tf_keras.layers, kind)
    known = {*inspect.signature(made.__init__).parameters, "trainable"}
    config = {
        _RENAMED.get(kind, {}).get(key, key): value
        for key, value in layer.get_config().items()
        # Weights are copied; their regularizers and constraints are applied where they are wrapped.
        if not key.endswith(("_initializer", "_regularizer", "_constraint")) and key != "dtype"
    }
    return made.from_config({**{key: value for key, value in config.items() if key in known}, "name": name})


def _connect(graph: keras.Model, inputs: Nest, made: Mapping[keras.Operation, tf_keras.layers.Layer]) -> Nest:
    """The outputs of a functional model in which each layer is replaced by its tf_keras copy."""

    def apply(operation: keras.Operation) -> Callable[..., Nest]:
        if not (isinstance(operation, keras.Model) and keras_compat.shows_layers(operation)):
            return made[operation]
        return lambda x, **_: _connect(operation, x, made)

    return keras_compat.run_through(graph, inputs, apply)


def _random_inputs(tensors: Sequence[Tensor]) -> list[tf.Tensor]:
    """Random samples for each input: half with unit variance, half in 0..255."""
    random, found = np.random.default_rng(0), []
    for tensor in tensors:
        shape = (4, *(size or 8 for size in tensor.shape[1:]))
        x = np.concatenate([random.normal(size=shape), random.uniform(0, 255, shape)])
        found.append(tf.cast(x if tensor.dtype.startswith("float") else np.abs(x) % 2, tensor.dtype))
    return found


def _distance(expected: Nest, received: Nest) -> float:
    expected, received = np.asarray(expected), np.asarray(received)
    scale = np.abs(expected).max()
    apart = np.abs(expected - received).max()
    return float(apart / scale) if scale > 0 else float(apart)
