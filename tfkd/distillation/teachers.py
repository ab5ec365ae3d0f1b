"""Ensembles of teachers, and mutual learning of several students."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import ops

from tfkd import losses
from tfkd._internal import keras_compat, onednn
from tfkd._internal.types import Nest, Tensor
from tfkd.distillation.compilation import jit_by_device
from tfkd.distillation.inputs import first_batches
from tfkd.distillation.reduction import add_regularization, gatherable, replicas, weighted_mean
from tfkd.errors import InputError, ModelError
from tfkd.models import inputs as model_inputs
from tfkd.models import logits


def ensemble(
    models: Sequence[keras.Model],
    *,
    weights: Sequence[float] | None = None,
    combine: str = "probabilities",
    name: str = "ensemble",
) -> keras.Model:
    """One teacher model that averages several, for the Distiller or a store of soft labels.

    Args:
        models: Models with logits [B, C] of the same classes and inputs of the same shape, of several inputs also of
            the same names.
        weights: Weight of each model, >= 0; equal by default.
        combine: `probabilities`: the logits are the logarithm of the weighted mean of the softmax outputs. `logits`:
            they are the weighted mean of the logits.
        name: Name of the new model.

    Returns:
        A functional model, x -> logits [B, C].

    Raises:
        InputError: There are no models, or `weights` or `combine` are invalid.
        ModelError: A model does not end in logits, or shapes differ.
    """
    weights = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    if not models or len(weights) != len(models) or min(weights) < 0 or sum(weights) <= 0:
        raise InputError(
            f"ensemble: needs models and as many weights >= 0, not all 0. Received: {len(models)} models, "
            f"weights={weights}. Leave weights out for equal weights."
        )
    if combine not in ("probabilities", "logits"):
        raise InputError(
            f"ensemble: combine must be 'probabilities' or 'logits'. Received: combine={combine!r}. Use "
            "'probabilities'."
        )
    for model in models:
        if not keras_compat.shows_layers(model):
            raise ModelError(
                f"ensemble: models must show their inputs. Received: the subclassed {type(model).__name__}. Give "
                "keras.Model(inputs, model(inputs)) instead."
            )
        logits.check_gives_logits("teacher", model)
    several = len(models[0].inputs) > 1
    shapes = {
        f"{', '.join(sorted(map(str, model_inputs.of(model)))) if several else model.input_shape} -> "
        f"{model.output_shape[1:]}"
        for model in models
    }
    if len(shapes) > 1:
        raise ModelError(
            f"ensemble: models must have the same input shape and number of logits. Received: {sorted(shapes)}. Give "
            "them the same inputs and classes."
        )
    inputs: Nest = (
        keras.Input(models[0].input_shape[1:], name="image")
        if not several
        else {one.name: keras.Input(one.shape, dtype=one.dtype, name=one.name) for one in model_inputs.of(models[0])}
    )
    terms = []
    for model, weight in zip(models, weights, strict=True):
        share = weight / sum(weights)
        if share > 0:
            term = ops.cast(model(model_inputs.chosen(model, inputs, "ensemble: a model")), "float32")
            terms.append(ops.log_softmax(term) + math.log(share) if combine == "probabilities" else term * share)
    stacked = ops.stack(terms, axis=0)
    outputs = ops.logsumexp(stacked, axis=0) if combine == "probabilities" else ops.sum(stacked, axis=0)
    return keras.Model(inputs, outputs, name=name)


class MutualLearning(keras.Model):
    """Trains several students on labels and on each other's outputs, without a teacher.

    The loss of a student is `hard_loss + mean over the others of T² · KL(softmax(other / T) || softmax(student / T))`;
    every student makes one step per batch. `evaluate` and `predict` use the first student. Logs: `loss` (the sum over
    the students), `soft_loss`, `hard_loss` (means over the students), and the compiled metrics of the first student.

    Args:
        students: Two or more Keras models with logits [B, C] of the same classes.
        temperature: T > 0; 1 in the paper.
        **kwargs: Further arguments of `keras.Model`.

    Raises:
        InputError: There are fewer than two students.
        ModelError: A student does not end in logits, or the class counts differ.

    Reference:
        Zhang et al.: Deep Mutual Learning (arXiv:1706.00384), section 2.
    """

    def __init__(self, students: Sequence[keras.Model], *, temperature: float = 1.0, **kwargs: object) -> None:
        super().__init__(**{"name": "mutual_learning", **kwargs})
        onednn.correct()
        if len(students) < 2:
            raise InputError(f"MutualLearning: needs two students or more. Received: {len(students)}. Add one.")
        for student in students:
            logits.check_gives_logits("student", student)
        classes = {logits.known_classes(student) for student in students} - {None}
        if len(classes) > 1:
            raise ModelError(
                f"MutualLearning: students must have the same classes. Received: {' and '.join(map(str, classes))} "
                "logits. Give them the same number of logits."
            )
        self.students = list(students)
        self.soft_loss = losses.SoftTarget(temperature)
        self._soft_loss_tracker = keras.metrics.Mean(name="soft_loss")
        self._hard_loss_tracker = keras.metrics.Mean(name="hard_loss")
        self.built = all(student.built for student in students)

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compiles as `keras.Model.compile` does.

        Raises:
            InputError: The loss expects probabilities.
        """
        logits.check_takes_logits(kwargs.get("loss", args[1] if len(args) > 1 else None))
        super().compile(*args, **{"jit_compile": jit_by_device(), **kwargs})

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does.

        Raises:
            ModelError: A student returns probabilities.
        """
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        batches, bound.arguments["x"] = first_batches(bound.arguments.get("x"))
        if batches:
            with self.distribute_strategy.scope():
                for student in self.students:
                    logits.check_are_logits("student", student, *(x for x, _ in batches))
        return super().fit(*bound.args, **bound.kwargs)

    def call(self, x: Nest, training: bool = False) -> Tensor:
        return self.students[0](x, training=training)

    def _hard_loss(self) -> Callable[..., Tensor]:
        loss = keras_compat.compiled_loss(self)
        if loss is None:
            raise InputError(
                "MutualLearning: needs a compiled loss. Received: none. Use compile(optimizer, "
                "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))."
            )
        return loss

    def train_step(self, data: Nest) -> dict[str, Tensor]:
        """One optimizer step of all students on a batch (x, y, sample_weight); returns the logs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        hard_loss = self._hard_loss()
        with tf.GradientTape() as tape:
            logits_of_all = [student(x, training=True) for student in self.students]
            hard = [hard_loss(y, student_logits, sample_weight) for student_logits in logits_of_all]
            soft = []
            for one in logits_of_all:
                values = [self.soft_loss(other, one) for other in logits_of_all if other is not one]
                soft.append(weighted_mean(sum(values[1:], values[0]) / len(values), one, sample_weight))
            loss = add_regularization(ops.sum(hard) + ops.sum(soft), self.losses)
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        size = ops.shape(keras.tree.flatten(x)[0])[0]
        keras_compat.loss_tracker(self).update_state(loss * replicas(), sample_weight=size)
        self._soft_loss_tracker.update_state(ops.mean(soft) * replicas(), sample_weight=size)
        self._hard_loss_tracker.update_state(ops.mean(hard) * replicas(), sample_weight=size)
        return gatherable(self.compute_metrics(x, y, logits_of_all[0], sample_weight=sample_weight))

    def test_step(self, data: Nest) -> dict[str, Tensor]:
        """The logs of the first student on a batch (x, y, sample_weight)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        student_logits = self(x, training=False)
        loss = self._hard_loss()(y, student_logits, sample_weight) * replicas()
        keras_compat.loss_tracker(self).update_state(loss, sample_weight=ops.shape(keras.tree.flatten(x)[0])[0])
        logs = self.compute_metrics(x, y, student_logits, sample_weight=sample_weight)
        return gatherable({name: value for name, value in logs.items() if name not in ("soft_loss", "hard_loss")})
