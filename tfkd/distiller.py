"""The Distiller: a Keras model whose training step adds a teacher's soft loss to the hard loss."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfkd import losses

log = logging.getLogger("tfkd")

_PROBABILITIES = ("softmax", "sigmoid", "log_softmax", "sparsemax")


class Distiller(keras.Model):
    """Trains `student` to match labels and a teacher's softened outputs.

    `loss = alpha · soft_loss + (1 − alpha) · hard_loss + regularization`, where `soft_loss` is
    `T² · KL(softmax(teacher / T) || softmax(student / T))` and `hard_loss` is the loss given to `compile`, on logits.

    It is a Keras model in everything: `compile`, `fit`, `evaluate`, `predict`, callbacks, `class_weight`,
    `sample_weight`, masks, mixed precision, `jit_compile`, `steps_per_execution` and `tf.distribute`. `evaluate` and
    `predict` run the student only. The teacher runs in inference mode and is not tracked: it is in neither `weights`
    nor a checkpoint, and its `trainable` flag is left as it was found. `save` writes the student, a plain Keras model
    that loads without tfkd.

    Logs of `fit`: `loss`, `soft_loss`, `hard_loss` and the compiled metrics; of `evaluate` (with `val_` in front in
    `fit`): `loss` (the hard loss and the regularization, so that it compares across alphas), `hard_loss` and the
    metrics. At the start of an epoch the data set of `Split.batches` is told the epoch, then the callbacks run in
    the order given.

    Args:
        student: a Keras model of any kind with one output, logits [B, ..., C].
        teacher: a Keras model with logits of the same classes. It may be of another precision.
        alpha: weight of the soft loss, 0..1. 0 is plain training; 1 leaves the labels out of the loss.
        temperature: T > 0, for the default soft loss.
        soft_loss: a `tfkd.losses` loss in place of `SoftTarget(temperature)`.

    Training data are those of the student: `(x, y)` or `(x, y, sample_weight)`. Where the teacher takes another
    input, `x` is `{"teacher": ..., "student": ...}`.

    Raises:
        ValueError: when a model has several outputs or ends in an activation such as softmax, the class counts
            differ, or alpha or temperature is out of range.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531).
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        *,
        alpha: float = 0.9,
        temperature: float = 4.0,
        soft_loss: losses.DistillationLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "distiller", "dtype": student.dtype_policy, **kwargs})
        if not (isinstance(alpha, (int, float)) and 0 <= alpha <= 1):
            raise ValueError(
                f"Distiller: alpha must be a number in 0..1. Received: alpha={alpha}. "
                "Use 0.9 for mostly the teacher, 0.0 for labels only."
            )
        for role, model in (("student", student), ("teacher", teacher)):
            _check_gives_logits(role, model)
        if _known_classes(student) != _known_classes(teacher) and None not in map(_known_classes, (student, teacher)):
            raise ValueError(
                f"Distiller: teacher and student must have the same classes. Received: teacher "
                f"{teacher.output_shape}, student {student.output_shape}. Give both the same number of logits."
            )
        self.student = student
        self.alpha = float(alpha)
        self.soft_loss = losses.SoftTarget(temperature) if soft_loss is None else soft_loss
        # A closure, because Keras tracks, counts and saves any model that it finds as an attribute or a property.
        self._teacher: Callable[[], keras.Model] = lambda: teacher
        self._soft_loss_tracker = keras.metrics.Mean(name="soft_loss")
        self._hard_loss_tracker = keras.metrics.Mean(name="hard_loss")
        self.built = student.built

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles as `keras.Model.compile` does.

        `jit_compile="auto"` means XLA where there is a GPU or TPU, and no XLA on a CPU, where it is slower for
        convolutional networks. The choice is logged and stands in `self.jit_compile`.

        Raises:
            ValueError: when the loss expects probabilities.
        """
        arguments = inspect.signature(super().compile).bind(*args, **kwargs)
        _check_takes_logits(arguments.arguments.get("loss"))
        if arguments.arguments.get("jit_compile", "auto") == "auto":
            accelerated = bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
            arguments.arguments["jit_compile"] = "auto" if accelerated else False
            log.info("Distiller: XLA is %s.", "left to Keras" if accelerated else "off: no GPU or TPU is at hand")
        super().compile(*arguments.args, **arguments.kwargs)

    def call(self, x: Any, training: bool = False, **kwargs: Any) -> Any:
        return self.student(_view("student", x), training=training, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does."""
        arguments = inspect.signature(super().fit).bind(*args, **kwargs)
        x = arguments.arguments.get("x")
        for role, model in (("student", self.student), ("teacher", self._teacher())):
            if not _shows_layers(model):
                _check_are_logits(role, model, x)
        if isinstance(x, tf.data.Dataset):  # Keras warns of its own default, shuffle=True
            arguments.arguments.setdefault("shuffle", False)
        if hasattr(x, "epoch"):
            given = arguments.arguments.get("callbacks") or []
            given = given if isinstance(given, (list, tuple)) else [given]
            arguments.arguments["callbacks"] = [EpochSync(x), *given]
        return super().fit(*arguments.args, **arguments.kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.alpha < 1 and (y is None or self._compile_loss is None):
            raise ValueError(
                f"Distiller: alpha={self.alpha} < 1 needs labels and a compiled loss. Received: y "
                f"{'missing' if y is None else 'given'}, loss {'missing' if self._compile_loss is None else 'given'}. "
                "Use alpha=1.0 to learn from the teacher alone."
            )
        # Outside the tape: nothing of the teacher is kept for the backward pass.
        teacher_logits = self._teacher()(_view("teacher", x), training=False)
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            soft_loss = _mean(self.soft_loss(teacher_logits, logits, y), logits, sample_weight)
            hard_loss = self._hard_loss(y, logits, sample_weight)
            loss = self._total(soft_loss, hard_loss)
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        self._track(
            x, {self._loss_tracker: loss, self._soft_loss_tracker: soft_loss, self._hard_loss_tracker: hard_loss}
        )
        return self._logs(x, y, logits, sample_weight, without=() if hard_loss is not None else ("hard_loss",))

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        logits = self(x, training=False)
        hard_loss = self._hard_loss(y, logits, sample_weight)
        loss = self._add_regularization(hard_loss)
        self._track(x, {self._loss_tracker: loss, self._hard_loss_tracker: hard_loss})
        return self._logs(x, y, logits, sample_weight, without=("soft_loss",))

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the student, as `keras.Model.save` does; the teacher and the losses are not part of it."""
        self.student.save(filepath, overwrite=overwrite, **kwargs)

    def summary(self, print_fn: Callable[[str], Any] = print, **kwargs: Any) -> None:
        """Prints the student, then what teaches it."""
        self.student.summary(print_fn=print_fn, **kwargs)
        settings = ", ".join(f"{k}={v}" for k, v in self.soft_loss.get_config().items() if k not in _LAYER_SETTINGS)
        print_fn(f"Teacher: {self._teacher().name}, {self._teacher().count_params():,} parameters (not tracked)")
        print_fn(f"Loss: {self.alpha:g} · {type(self.soft_loss).__name__}({settings}) + {1 - self.alpha:g} · hard loss")

    def _hard_loss(self, y: Any, logits: Any, sample_weight: Any) -> Any:
        if y is None or self._compile_loss is None:
            return None
        return self._compile_loss(y, logits, sample_weight)

    def _total(self, soft_loss: Any, hard_loss: Any) -> Any:
        # A term of weight 0 is left out rather than multiplied: 0 · inf is NaN.
        if self.alpha == 0:
            return self._add_regularization(hard_loss)
        if self.alpha == 1:
            return self._add_regularization(soft_loss)
        return self._add_regularization(self.alpha * soft_loss + (1 - self.alpha) * hard_loss)

    def _add_regularization(self, loss: Any) -> Any:
        terms = [] if loss is None else [loss]
        terms += [ops.sum(ops.cast(term, "float32")) for term in self.losses]
        return terms[0] if len(terms) == 1 else ops.sum(terms)

    def _track(self, x: Any, values: Mapping[keras.metrics.Metric, Any]) -> None:
        # Keras divides a loss by the number of replicas, so that gradients add up; the log shows it undivided.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        batch_size = ops.shape(keras.tree.flatten(x)[0])[0]
        for tracker, value in values.items():
            if value is not None:
                tracker.update_state(value * replicas, sample_weight=batch_size)

    def _logs(self, x: Any, y: Any, logits: Any, sample_weight: Any, without: tuple[str, ...]) -> dict[str, Any]:
        if y is None:  # the compiled metrics compare with labels
            return {metric.name: metric.result() for metric in (self._loss_tracker, self._soft_loss_tracker)}
        logs = self.compute_metrics(x, y, logits, sample_weight=sample_weight)
        return {name: value for name, value in logs.items() if name not in without}


_LAYER_SETTINGS = ("name", "trainable", "dtype", "autocast")


class EpochSync(keras.callbacks.Callback):
    """Tells a data set of `Split.batches` which epoch begins.

    So that a resumed run sees the order and the augmentation that the undisturbed run would have seen.

    Args:
        dataset: what `Split.batches` returned.
    """

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.dataset.epoch.assign(epoch - 1)  # each pass counts up before it begins


class _Mean(keras.losses.Loss):
    """Averages values that are losses already, with Keras's own handling of weights, masks and replicas."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def _mean(values: Any, logits: Any, sample_weight: Any) -> Any:
    """The weighted mean of per-sample values, as Keras takes it for a compiled loss."""
    mask = getattr(logits, "_keras_mask", None)
    if mask is not None:
        values._keras_mask = mask
    return _Mean(name="mean", dtype="float32")(values, values, sample_weight)


def _view(role: str, x: Any) -> Any:
    return x[role] if isinstance(x, Mapping) and set(x) == {"teacher", "student"} else x


def _known_classes(model: keras.Model) -> int | None:
    try:
        return model.output_shape[-1]
    except (AttributeError, ValueError):  # a subclassed model says its shape only when it is called
        return None


def _check_gives_logits(role: str, model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Distiller: {role} must be a keras.Model. Received: {type(model).__name__}. "
            "Load a file with keras.saving.load_model."
        )
    if not _shows_layers(model):
        return
    if not isinstance(model, keras.Sequential) and not hasattr(
        model.output, "shape"
    ):  # a list or dictionary of tensors
        raise ValueError(
            f"Distiller: {role} must have one output, a tensor of logits. Received: output_shape={model.output_shape}. "
            f"Give keras.Model({role}.inputs, {role}.outputs[i])."
        )
    layer = _last_layer(model)
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    if isinstance(layer, keras.layers.Softmax):
        activation = "softmax"
    if activation in _PROBABILITIES:
        raise ValueError(
            f"Distiller: {role} must end in logits. Received: its last layer {layer.name!r} applies {activation}. "
            f"Set its activation to None, or give keras.Model({role}.inputs, the tensor before it)."
        )


def _shows_layers(model: Any) -> bool:
    """Whether a model is a graph of layers (functional, built Sequential), not code of its own."""
    return getattr(model, "outputs", None) is not None


def _last_layer(layer: Any) -> Any:
    """The layer whose output is the model's, looking into nested models."""
    while _shows_layers(layer):
        layer = layer.outputs[0]._keras_history.operation
    return layer


def _check_are_logits(role: str, model: keras.Model, x: Any) -> None:
    """Runs a model that does not show its layers on one batch, and refuses probabilities."""
    if isinstance(x, tf.data.Dataset):
        batch = keras.utils.unpack_x_y_sample_weight(next(iter(x.take(1))))[0]
    elif all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
        batch = keras.tree.map_structure(lambda leaf: leaf[:32], x)
    else:  # a generator cannot be looked into without losing its first batch
        return
    logits = model(_view(role, batch), training=False)
    if not hasattr(logits, "shape"):
        raise ValueError(
            f"Distiller: {role} must have one output, the logits. Received: {type(logits).__name__}. "
            "Wrap it in a model that returns the logits alone."
        )
    logits = ops.cast(logits, "float32")
    if ops.all(logits >= 0) and ops.all(ops.abs(ops.sum(logits, axis=-1) - 1) < 1e-3):
        raise ValueError(
            f"Distiller: {role} must give logits. Received: rows that are >= 0 and sum to 1, as after softmax. "
            "Remove the softmax at its end."
        )


def _check_takes_logits(loss: Any) -> None:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", "")
    expects_probabilities = isinstance(loss, keras.losses.Loss) and loss.get_config().get("from_logits") is False
    if expects_probabilities or (isinstance(name, str) and name.endswith("crossentropy")):
        raise ValueError(
            f"Distiller: the compiled loss must work on logits. Received: loss={loss!r}, which expects probabilities. "
            "Use keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )
