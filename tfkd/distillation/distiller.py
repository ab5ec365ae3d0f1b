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
from tfkd._internal import convolution_gradients, keras_compat
from tfkd._internal.types import Nest, Tensor
from tfkd.data import epoch_counters
from tfkd.data.streams import form_of
from tfkd.distillation import arguments, inputs, summary
from tfkd.distillation.compilation import jit_by_device
from tfkd.distillation.epoch_sync import EpochSync
from tfkd.distillation.features import Adapter, Feature, tap
from tfkd.distillation.labels.store import SoftLabels
from tfkd.distillation.reduction import add_regularization, gatherable, replicas, weighted_mean
from tfkd.distillation.schedules import scheduled_settings
from tfkd.errors import InputError
from tfkd.models import logits


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

    Logs of `fit`: `loss`, `soft_loss`, `hard_loss`, `feature_loss` if there are features, each setting that is a
    schedule (`alpha`, `temperature`, `feature_weight`, ...), and the compiled metrics. Logs of `evaluate` (with the
    prefix `val_` in `fit`): `loss` (hard loss and regularization, comparable across values of alpha), `hard_loss` and
    the metrics. At the start of an epoch the data set of `Split.batches` is set to the epoch, then the callbacks run
    in the given order.

    The inputs are those of the student: `(x, y)` or `(x, y, sample_weight)`. Where the teacher has another input, `x`
    is a `tfkd.data.TeacherStudentInputs(teacher=..., student=...)`.

    Args:
        student: Any Keras model with one output, logits [B, ..., C].
        teacher: A Keras model with logits of the same classes, in any precision; a sequence of such models; or a
            `tfkd.SoftLabels`, with data from `Split.batches(..., soft_labels=store)`.
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
        ModelError: A model has several outputs or ends in an activation such as softmax, or the class counts differ.
        InputError: A layer does not exist, or another argument is out of range.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531).
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Sequence[keras.Model] | SoftLabels,
        *,
        alpha: float | LearningRateSchedule = 0.9,
        temperature: float | LearningRateSchedule = 4.0,
        soft_loss: losses.DistillationLoss | Sequence[losses.DistillationLoss] | None = None,
        features: Sequence[Feature] = (),
        teacher_weights: Sequence[float] | None = None,
        task: str = tasks.CLASSIFICATION.name,
        **kwargs: object,
    ) -> None:
        super().__init__(**{"name": "distiller", "dtype": student.dtype_policy, **kwargs})
        convolution_gradients.correct()
        self.student = student
        self.alpha = arguments.check_alpha(alpha)
        stored = isinstance(teacher, SoftLabels)
        teachers: tuple[keras.Model, ...] = (
            () if stored else tuple(teacher) if isinstance(teacher, (list, tuple)) else (teacher,)
        )
        self.task = tasks.get(task)
        if soft_loss is None:
            default = self.task.is_classification
            soft_loss = losses.SoftTarget(temperature) if default else losses.build(self.task.soft_loss)
        several = isinstance(soft_loss, (list, tuple))
        self.soft_losses: list[losses.DistillationLoss] = (
            list(map(losses.get, soft_loss)) if several else [losses.get(soft_loss)] * (len(teachers) or 1)
        )
        if isinstance(teacher, SoftLabels):
            arguments.check_store(student, teacher, features, self.task)
        else:
            arguments.check_teachers(student, teachers, self.soft_losses, self.task)
            arguments.check_features(student, teachers[0], features)
        self.teacher_weights = arguments.normalize_weights(teacher_weights, len(self.soft_losses))
        # Closures, because Keras tracks, counts and saves any model that it finds as an attribute or a property.
        self._teachers: Callable[[], tuple[keras.Model, ...]] = lambda: teachers
        self._features: Callable[[], tuple[Feature, ...]] = lambda: tuple(features)
        self.feature_losses = [feature.loss for feature in features]
        self.adapters: list[Adapter] = []
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in ("soft_loss", "hard_loss", *self._optional_logs())
        }
        self._examined = self._binary = False
        self.built = student.built
        if features and all(keras_compat.shows_layers(model) for model in (student, *teachers)):
            self._connect(inputs.zeros(teachers[0]), inputs.zeros(student))

    def _schedules(self) -> dict[str, LearningRateSchedule]:
        return scheduled_settings(self.alpha, self.soft_losses, self._features())

    def _used_soft_losses(self) -> list[losses.DistillationLoss]:
        return [] if self.alpha == 0 else self.soft_losses

    def _optional_logs(self) -> tuple[str, ...]:
        return (*(("feature_loss",) if self.feature_losses else ()), *self._schedules())

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
        loss = bound.arguments.get("loss")
        logits.check_takes_logits(loss)
        arguments.check_losses(loss, self._used_soft_losses())
        self._binary = logits.is_binary(loss)
        if bound.arguments.get("jit_compile", "auto") == "auto":
            bound.arguments["jit_compile"] = jit_by_device()
        super().compile(*bound.args, **bound.kwargs)

    def call(self, x: Nest, training: bool = False, **kwargs: object) -> Tensor:
        """The student's logits [B, ..., C] for x, which may be one of the typed pairs of `tfkd.data`."""
        inputs.check_pairing(x, self.student)
        return self.student(inputs.student_input(x), training=training, **kwargs)

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
            check = logits.check_are_logits if self.task.gives_logits else logits.shape_of_outputs
            shape = check("student", self.student, *(inputs.student_input(x) for x, _ in batches))
            for teacher in self._teachers():
                check("teacher", teacher, *(inputs.teacher_input(x) for x, _ in batches))
            if unconnected:
                self._connect(inputs.teacher_input(batches[0][0]), inputs.student_input(batches[0][0]))
        for loss in self._used_soft_losses():
            arguments.check_classes(loss, shape[-1])
        for _, y in batches:
            arguments.check_targets(y, shape, self._used_soft_losses(), binary=self._binary)
        if self.student.built and not any(map(keras_compat.may_add_weights, self._used_soft_losses())):
            keras_compat.build_training_state(self, batches[0][1], shape)
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
        self._check_labels(y)
        # Outside the tape: no intermediate result of the teacher is kept for the backward pass.
        teacher_logits, teacher_features = self._run_teachers(x)
        step = self.optimizer.iterations
        # Read before the optimizer increments the step.
        scheduled = {name: schedule(step) for name, schedule in self._schedules().items()}
        with tf.GradientTape() as tape:
            with tap(self.student, [feature.student for feature in self._features()]) as student_features:
                student_logits = self(x, training=True)
            terms = {
                "soft_loss": self._soft_loss(teacher_logits, student_logits, y, sample_weight, step),
                "hard_loss": self._hard_loss(y, student_logits, sample_weight),
                "feature_loss": self._feature_loss(teacher_features, student_features, y, sample_weight, step),
            }
            loss = self._total(losses.value_at(self.alpha, step), **terms)
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        self._track(x, {"loss": loss, **terms})
        for name, value in scheduled.items():
            self._trackers[name].update_state(value)
        without = () if terms["hard_loss"] is not None else ("hard_loss",)
        return self._logs(x, y, student_logits, sample_weight, without=without)

    def test_step(self, data: Nest) -> dict[str, Tensor]:
        """The logs of the student on a batch (x, y, sample_weight). Keras calls it in `evaluate`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        student_logits = self(x, training=False)
        hard_loss = self._hard_loss(y, student_logits, sample_weight)
        self._track(x, {"loss": add_regularization(hard_loss, self.losses), "hard_loss": hard_loss})
        return self._logs(x, y, student_logits, sample_weight, without=("soft_loss", *self._optional_logs()))

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
        for line in summary.describe(self._teachers(), self.alpha, self.soft_losses, self._features(), self.adapters):
            print_fn(line)

    def _check_labels(self, y: Tensor) -> None:
        loss = keras_compat.compiled_loss(self)
        if self.alpha != 1 and (y is None or loss is None):
            raise InputError(
                f"Distiller: alpha={self.alpha} < 1 needs labels and a compiled loss. Received: y "
                f"{'missing' if y is None else 'given'}, loss {'missing' if loss is None else 'given'}. "
                "Use alpha=1.0 to learn from the teacher alone."
            )

    def _run_teachers(self, x: Nest) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The logits of each teacher, and the inner outputs of the first teacher by layer."""
        teachers = self._teachers()
        if not teachers:
            return [inputs.soft_labels(x)], {}
        with tap(teachers[0], [feature.teacher for feature in self._features()]) as teacher_features:
            teacher_logits = [teacher(inputs.teacher_input(x), training=False) for teacher in teachers]
        return teacher_logits, teacher_features

    def _soft_loss(
        self, teacher_logits: list[Tensor], student_logits: Tensor, y: Tensor, sample_weight: Tensor, step: Tensor
    ) -> Tensor:
        terms = [
            weight * loss(one_teacher, student_logits, y, step=step)
            for one_teacher, loss, weight in zip(teacher_logits, self.soft_losses, self.teacher_weights, strict=True)
        ]
        counted = None if y is None else self.task.counts(y)
        return weighted_mean(sum(terms[1:], terms[0]), student_logits, sample_weight, counted)

    def _feature_loss(
        self,
        teacher_features: Mapping[str, Tensor],
        student_features: Mapping[str, Tensor],
        y: Tensor,
        sample_weight: Tensor,
        step: Tensor,
    ) -> Tensor:
        total = None
        for feature, adapter in zip(self._features(), self.adapters, strict=True):
            target, source = teacher_features[feature.teacher], adapter(student_features[feature.student])
            values = feature.loss(target, source, y, step=step)
            term = losses.value_at(feature.weight, step) * weighted_mean(values, None, sample_weight)
            total = term if total is None else total + term
        return total

    def _hard_loss(self, y: Tensor, student_logits: Tensor, sample_weight: Tensor) -> Tensor:
        loss = keras_compat.compiled_loss(self)
        return None if y is None or loss is None else loss(y, student_logits, sample_weight)

    def _total(self, alpha: Tensor | float, soft_loss: Tensor, hard_loss: Tensor, feature_loss: Tensor) -> Tensor:
        # A term of weight 0 is left out rather than multiplied: 0 · inf is NaN.
        if self.alpha == 0:
            loss = hard_loss
        elif self.alpha == 1:
            loss = soft_loss
        else:
            loss = alpha * soft_loss + (1 - alpha) * hard_loss
        return add_regularization(loss if feature_loss is None else loss + feature_loss, self.losses)

    def _track(self, x: Nest, values: Mapping[str, Tensor]) -> None:
        batch_size = ops.shape(keras.tree.flatten(x)[0])[0]
        for name, value in values.items():
            if value is not None:
                tracker = keras_compat.loss_tracker(self) if name == "loss" else self._trackers[name]
                tracker.update_state(value * replicas(), sample_weight=batch_size)

    def _logs(
        self, x: Tensor, y: Tensor, student_logits: Tensor, sample_weight: Tensor, without: tuple[str, ...]
    ) -> dict[str, Tensor]:
        if y is None:  # the compiled metrics need labels
            metrics = {"loss": keras_compat.loss_tracker(self), **self._trackers}
            logs = {name: metric.result() for name, metric in metrics.items()}
        else:
            logs = self.compute_metrics(x, y, student_logits, sample_weight=sample_weight)
        return gatherable({name: value for name, value in logs.items() if name not in without})
