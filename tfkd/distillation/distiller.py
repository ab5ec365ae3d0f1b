"""The Distiller: a Keras model whose training step adds a teacher's soft loss to the hard loss."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from tfkd import losses, tasks
from tfkd._internal import keras_compat, onednn
from tfkd._internal.types import Nest, Tensor
from tfkd.data import epoch_counters
from tfkd.data.streams import form_of
from tfkd.distillation import arguments, inputs, outputs, summary
from tfkd.distillation.compilation import jit_by_device
from tfkd.distillation.epoch_sync import EpochSync
from tfkd.distillation.features import Adapter, Feature, tap
from tfkd.distillation.labels.store import SoftLabels
from tfkd.distillation.reduction import add_regularization, gatherable, replicas, total, weighted_mean
from tfkd.distillation.schedules import scheduled_settings
from tfkd.errors import InputError
from tfkd.models import logits
from tfkd.models.outputs import by_name, like

# One loss for all teachers, or one for each.
SoftLoss = losses.DistillationLoss | Sequence[losses.DistillationLoss]


def _soft_log(name: str) -> str:
    """The name of the log of the soft loss of one of several outputs."""
    return f"{name}_soft_loss"


class Distiller(keras.Model):
    """Trains `student` on labels and on the softened outputs of a teacher.

    `loss = alpha · soft_loss + (1 − alpha) · hard_loss + Σ weight · feature_loss + regularization`, where
    `soft_loss` is `T² · KL(softmax(teacher / T) || softmax(student / T))` and `hard_loss` is the loss given to
    `compile`, on logits.

    It is a Keras model: `compile`, `fit`, `evaluate`, `predict`, callbacks, `class_weight`, `sample_weight`, masks,
    mixed precision, `jit_compile`, `steps_per_execution` and `tf.distribute` work as usual. `evaluate` and `predict`
    run the student only. The teacher runs in inference mode and is not tracked: it is neither in `weights` nor in a
    checkpoint, and its `trainable` flag is not changed. A step runs the student once, for logits and features. `save`
    writes the student, a plain Keras model that loads without tfkd.

    Several outputs are trained as `keras.Model.compile` describes it: `loss`, `loss_weights`, `metrics`, labels and
    sample weights are dictionaries by output, or lists in the order of the outputs. The names are the keys of a model
    that returns a dictionary, otherwise those of the layers that compute the outputs. The loss is the sum of
    `loss_weight · (alpha · soft_loss + (1 − alpha) · hard_loss)` over the outputs. `alpha`, `soft_loss` and `task` may
    be dictionaries by output, too. An output that the dictionary `soft_loss` leaves out has no soft loss and alpha 0,
    and may end in any activation. The outputs of a teacher are found by name, those of lists whose layers have the
    names of Keras, such as `dense_1`, by position. Logs also have `NAME_loss` and
    `NAME_soft_loss` of each output, not multiplied by its weight.

    Logs of `fit`: `loss`, `soft_loss`, `hard_loss`, `feature_loss` if there are features, each setting that is a
    schedule (`alpha`, `temperature`, `feature_weight`, ...), and the compiled metrics. Logs of `evaluate` (with the
    prefix `val_` in `fit`): `loss` (hard loss and regularization, comparable across values of alpha), `hard_loss` and
    the metrics. At the start of an epoch the data set of `Split.batches` is set to the epoch, then the callbacks run
    in the given order.

    The inputs are those of the student: `(x, y)` or `(x, y, sample_weight)`. Where the teacher has another input, `x`
    is a `tfkd.data.TeacherStudentInputs(teacher=..., student=...)`.

    Args:
        student: Any Keras model with one output, logits [B, ..., C]; or a functional model whose outputs are a list or
            a dictionary of such.
        teacher: A Keras model with logits of the same classes, in any precision; a sequence of such models; or a
            `tfkd.SoftLabels`, with data from `Split.batches(..., soft_labels=store)`, or one for each output by name.
        alpha: Weight of the soft loss, 0..1, or a schedule over steps. 0 is plain training; with 1 the labels are not
            part of the loss.
        temperature: T > 0 of the default soft loss, or a schedule; 1.0 for no softening.
        soft_loss: A loss of `tfkd.losses` instead of `SoftTarget(temperature)`; for several teachers one for all or a
            sequence with one for each.
        features: Losses between inner layers of the student and of the first teacher.
        teacher_weights: Weight of each of several teachers in the soft loss, >= 0; equal by default.
        task: One of `tfkd.tasks.NAMES`. It gives the default soft loss, and says whether outputs must be logits: those
            of a regression may end in any activation.
        **kwargs: Further arguments of `keras.Model`.

    Raises:
        ModelError: A model ends in an activation such as softmax, the class counts differ, the teacher lacks an output,
            or outputs are nested, have equal names, or are several of a subclassed model.
        InputError: A layer does not exist, or another argument is out of range.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531).
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Sequence[keras.Model] | SoftLabels | Mapping[str, SoftLabels],
        *,
        alpha: float | LearningRateSchedule | Mapping[str, float | LearningRateSchedule] = 0.9,
        temperature: float | LearningRateSchedule = 4.0,
        soft_loss: SoftLoss | Mapping[str, SoftLoss | None] | None = None,
        features: Sequence[Feature] = (),
        teacher_weights: Sequence[float] | None = None,
        task: str | Mapping[str, str] = tasks.CLASSIFICATION.name,
        **kwargs: object,
    ) -> None:
        logits.check_model("student", student)
        super().__init__(**{"name": "distiller", "dtype": student.dtype_policy, **kwargs})
        onednn.correct()
        self.student = student
        stored = isinstance(teacher, (SoftLabels, Mapping))
        teachers: tuple[keras.Model, ...] = (
            () if stored else tuple(teacher) if isinstance(teacher, (list, tuple)) else (teacher,)
        )
        self._outputs = outputs.build(
            student,
            teacher if stored else teachers,
            alpha=alpha,
            temperature=temperature,
            soft_loss=soft_loss,
            teacher_weights=teacher_weights,
            task=task,
        )
        of_each = self._outputs.of_each
        self.task = of_each[0].task if len(of_each) == 1 else {output.name: output.task for output in of_each}
        arguments.check_features(student, teachers, features)
        self.soft_losses = self._outputs.soft_losses
        self.output_names = self._outputs.names  # Keras names logs by them
        self._stored = tuple(teacher) if isinstance(teacher, Mapping) else self.output_names
        # Closures, because Keras tracks, counts and saves any model that it finds as an attribute or a property.
        self._teachers: Callable[[], tuple[keras.Model, ...]] = lambda: teachers
        self._features: Callable[[], tuple[Feature, ...]] = lambda: tuple(features)
        self.feature_losses = [feature.loss for feature in features]
        self.adapters: list[Adapter] = []
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in ("soft_loss", "hard_loss", *self._optional_logs())
        }
        self._examined = False
        self.built = student.built
        if features and all(keras_compat.shows_layers(model) for model in (student, *teachers)):
            self._connect(inputs.zeros(teachers[0]), inputs.zeros(student))

    def _schedules(self) -> dict[str, LearningRateSchedule]:
        return scheduled_settings(self._outputs.of_each, self._features())

    def _optional_logs(self) -> tuple[str, ...]:
        several = len(self._outputs) > 1
        of_outputs = [_soft_log(one.name) for one in self._outputs.of_each if one.soft_losses and several]
        return (*of_outputs, *(("feature_loss",) if self.feature_losses else ()), *self._schedules())

    @property
    def input_dtype(self) -> str:
        """The type that inputs are cast to: the student's own, which its first layer may set."""
        return str(self.student.input_dtype)

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compiles as `keras.Model.compile` does.

        `jit_compile="auto"` means XLA where there is a GPU or TPU, and no XLA on a CPU, where it is slower for
        convolutional networks. The choice is logged and is the value of `self.jit_compile`.

        Raises:
            InputError: The loss expects probabilities, or is one of regression while the soft loss compares classes.
        """
        bound = inspect.signature(super().compile).bind(*args, **kwargs)
        given = bound.arguments
        self._outputs.compile(given.get("loss"), given.get("loss_weights"))
        if len(self._outputs) > 1 and given.get("loss") is not None:  # Keras takes names in some structures only
            given["loss"] = like(self.student, self._outputs.hard_losses)
            given["loss_weights"] = like(self.student, self._outputs.weights)
        if given.get("jit_compile", "auto") == "auto":
            given["jit_compile"] = jit_by_device()
        super().compile(*bound.args, **bound.kwargs)

    def call(self, x: Nest, training: bool = False, **kwargs: object) -> Tensor:
        """The student's outputs [B, ..., C] for x, which may be one of the typed pairs of `tfkd.data`."""
        inputs.check_pairing(x, self.student)
        return self.student(inputs.student_input(x, self.student), training=training, **kwargs)

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does; x and validation_data may also be a `tfkd.data.Split` or `Stream`.

        Raises:
            InputError: Every weight of the student is frozen, or the data do not fit the models or the losses.
            ModelError: A model returns probabilities.
        """
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        inputs.replace_splits(bound.arguments)
        x = bound.arguments["x"] = self._examine(bound.arguments.get("x"), bound.arguments.get("y"))
        if self.student.built and not self.trainable_weights:
            raise InputError(
                "Distiller: the student must have weights to train. Received: all are frozen. Set "
                "student.trainable = True."
            )
        if isinstance(x, tf.data.Dataset):  # Keras warns of its own default, shuffle=True
            bound.arguments.setdefault("shuffle", False)
        if epoch_counters(x):
            callbacks = bound.arguments.get("callbacks") or []
            callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
            bound.arguments["callbacks"] = [EpochSync(x), *callbacks]
        return super().fit(*bound.args, **bound.kwargs)

    def _maybe_symbolic_build(self, iterator: Nest = None, data_batch: Nest = None) -> None:
        # Keras finds shapes under several workers by averaging their batches, which fails on integers (keras#20585);
        # the batch of this worker has the same shapes.
        if iterator is not None and isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            local = self.distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                iterator, data_batch = None, keras.tree.map_structure(lambda value: local(value)[0], next(batches))
                break
        super()._maybe_symbolic_build(iterator, data_batch)

    def _examine(self, x: Nest, y: Nest) -> Nest:
        """Runs the models on the first samples, once, to check for logits and to find feature shapes.

        Returns:
            x, or what replaces a generator.
        """
        unconnected = bool(self.feature_losses) and not self.adapters
        if self._examined and not unconnected:
            return x
        batches, x = inputs.first_batches(x, y)
        if not batches and unconnected:
            raise InputError(
                "Distiller: feature shapes of a subclassed model are found by running it on the data. Received: data "
                f"in the form {form_of(x)}. Pass arrays or a tf.data.Dataset."
            )
        if not batches:
            return x
        for x_of_batch, _ in batches:
            inputs.check_pairing(x_of_batch, self.student)
        with self.distribute_strategy.scope():  # where a model is built when it is run
            shapes = self._outputs.examine(self.student, self._teachers(), batches)
            if unconnected:
                first, teacher = batches[0][0], self._teachers()[0]
                self._connect(inputs.teacher_input(first, teacher), inputs.student_input(first, self.student))
        if self.student.built and not any(map(keras_compat.may_add_weights, self._outputs.used_soft_losses)):
            y = batches[0][1]
            if y is not None and len(shapes) > 1:
                y = like(self.student, self._outputs.labels(y))
            keras_compat.build_training_state(self, y, shapes)
        self._examined = True
        return x

    def _connect(self, teacher_x: Tensor, student_x: Tensor) -> None:
        """Makes the adapter of each feature and the weights of its loss, by running both models once."""
        features, teacher = self._features(), self._teachers()[0]
        with tap(teacher, [feature.teacher for feature in features]) as teacher_features:
            teacher(teacher_x, training=False)
        with tap(self.student, [feature.student for feature in features]) as student_features:
            self.student(student_x, training=False)
        for feature in features:
            target, source = teacher_features[feature.teacher], student_features[feature.student]
            adapter = Adapter.between(source.shape[1:], target.shape[1:], feature.loss.aligns)
            feature.loss(target, adapter(source), ops.zeros(len(source), "int32"), step=0)
            self.adapters.append(adapter)

    def train_step(self, data: Nest) -> dict[str, Tensor]:
        """One optimizer step on a batch (x, y, sample_weight); returns the logs. Keras calls it in `fit`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs.check_pairing(x, self.student)
        self._outputs.check_labels(y)
        # Outside the tape: no intermediate result of the teacher is kept for the backward pass.
        teacher_outputs, teacher_features = self._run_teachers(x)
        step = self.optimizer.iterations
        # Read before the optimizer increments the step.
        scheduled = {name: schedule(step) for name, schedule in self._schedules().items()}
        with tf.GradientTape() as tape:
            with tap(self.student, [feature.student for feature in self._features()]) as student_features:
                student_outputs = self(x, training=True)
            soft_losses = self._outputs.mean_soft_losses(teacher_outputs, student_outputs, y, sample_weight, step)
            terms = {
                "soft_loss": self._outputs.weighted(soft_losses),
                "hard_loss": self._hard_losses(y, student_outputs, sample_weight),
                "feature_loss": [self._feature_loss(teacher_features, student_features, y, sample_weight, step)],
            }
            of_outputs = self._outputs.total(terms["soft_loss"], terms["hard_loss"], step)
            loss = add_regularization(total([of_outputs, *terms["feature_loss"]]), self.losses)
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        self._track(x, {"loss": loss, **{name: total(values) for name, values in terms.items()}})
        if len(self._outputs) > 1:
            self._track(x, dict(zip(map(_soft_log, self.output_names), soft_losses, strict=True)))
        for name, value in scheduled.items():
            self._trackers[name].update_state(value)
        without = () if any(value is not None for value in terms["hard_loss"]) else ("hard_loss",)
        return self._logs(x, y, student_outputs, sample_weight, without=without)

    def test_step(self, data: Nest) -> dict[str, Tensor]:
        """The logs of the student on a batch (x, y, sample_weight). Keras calls it in `evaluate`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        student_outputs = self(x, training=False)
        hard_loss = total(self._hard_losses(y, student_outputs, sample_weight))
        self._track(x, {"loss": add_regularization(hard_loss, self.losses), "hard_loss": hard_loss})
        return self._logs(x, y, student_outputs, sample_weight, without=("soft_loss", *self._optional_logs()))

    def compute_loss(
        self,
        x: Nest = None,
        y: Nest = None,
        y_pred: Nest = None,
        sample_weight: Nest = None,
        training: bool = True,
    ) -> Tensor:
        """The compiled loss, as Keras computes it before the first step to create its metrics."""
        y, sample_weight = self._outputs.like(y_pred, y, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Nest, y: Nest, y_pred: Nest, sample_weight: Nest = None) -> dict[str, Tensor]:
        """Updates the compiled metrics; returns their values and those of the losses."""
        y, sample_weight = self._outputs.like(y_pred, y, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: object) -> None:
        """Saves the student, as `keras.Model.save` does; teacher, losses and adapters are not part of the file.

        Args:
            filepath: Path of the `.keras` file.
            overwrite: Whether an existing file is replaced.
            **kwargs: Further arguments of `keras.Model.save`.
        """
        self.student.save(filepath, overwrite=overwrite, **kwargs)

    def export(self, filepath: str | os.PathLike[str], *args: object, **kwargs: object) -> None:
        """Exports the student for inference, as `keras.Model.export` does.

        Args:
            filepath: Path of the SavedModel, or of the file of another format.
            *args: Further arguments of `keras.Model.export`.
            **kwargs: Further arguments of `keras.Model.export`.
        """
        self.student.export(filepath, *args, **kwargs)

    def summary(self, print_fn: Callable[[str], object] = print, **kwargs: object) -> None:
        """Prints the student, then the teachers, the loss and the features.

        Args:
            print_fn: Function that prints one line.
            **kwargs: Further arguments of `keras.Model.summary`.
        """
        self.student.summary(print_fn=print_fn, **kwargs)
        for line in summary.describe(self._teachers(), self._outputs.of_each, self._features(), self.adapters):
            print_fn(line)

    def _run_teachers(self, x: Nest) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
        """The outputs of each teacher, and the inner outputs of the first teacher by layer."""
        teachers = self._teachers()
        if not teachers:
            return [by_name(self._stored, inputs.soft_labels(x), "soft_labels", shared=False)], {}
        with tap(teachers[0], [feature.teacher for feature in self._features()]) as teacher_features:
            teacher_outputs = [
                keras.tree.flatten(teacher(inputs.teacher_input(x, teacher), training=False)) for teacher in teachers
            ]
        return teacher_outputs, teacher_features

    def _feature_loss(
        self,
        teacher_features: Mapping[str, Tensor],
        student_features: Mapping[str, Tensor],
        y: Nest,
        sample_weight: Nest,
        step: Tensor,
    ) -> Tensor:
        features, y = self._features(), y if len(self._outputs) == 1 else None
        if features and keras.tree.is_nested(sample_weight):
            raise InputError(
                "Distiller: a feature belongs to no output, so that samples need one weight for all outputs. Received: "
                "sample weights by output. Pass one array, or leave the features out."
            )
        terms = []
        for feature, adapter in zip(features, self.adapters, strict=True):
            target, source = teacher_features[feature.teacher], adapter(student_features[feature.student])
            values = feature.loss(target, source, y, step=step)
            terms.append(losses.value_at(feature.weight, step) * weighted_mean(values, None, sample_weight))
        return total(terms)

    def _hard_losses(self, y: Nest, student_outputs: Nest, sample_weight: Nest) -> list[Tensor | None]:
        y, sample_weight = self._outputs.like(student_outputs, y, sample_weight)
        return keras_compat.compiled_losses(self, y, student_outputs, sample_weight)

    def _track(self, x: Nest, values: Mapping[str, Tensor]) -> None:
        batch_size = ops.shape(keras.tree.flatten(x)[0])[0]
        for name, value in values.items():
            if value is not None:
                tracker = keras_compat.loss_tracker(self) if name == "loss" else self._trackers[name]
                tracker.update_state(value * replicas(), sample_weight=batch_size)

    def _logs(
        self, x: Tensor, y: Tensor, student_outputs: Tensor, sample_weight: Tensor, without: tuple[str, ...]
    ) -> dict[str, Tensor]:
        if y is None:  # the compiled metrics need labels
            metrics = {"loss": keras_compat.loss_tracker(self), **self._trackers}
            logs = {name: metric.result() for name, metric in metrics.items()}
        else:
            logs = self.compute_metrics(x, y, student_outputs, sample_weight=sample_weight)
        return gatherable({name: value for name, value in logs.items() if name not in without})
