"""The Distiller: a Keras model whose training step adds a teacher's soft loss to the hard loss."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfkd import losses
from tfkd._internal import keras_compat
from tfkd.distillation import features as taps
from tfkd.errors import InputError
from tfkd.models import logits

log = logging.getLogger("tfkd")

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Distiller(keras.Model):
    """Trains `student` to match labels and a teacher's softened outputs.

    `loss = alpha · soft_loss + (1 − alpha) · hard_loss + Σ weight · feature_loss + regularization`, where
    `soft_loss` is `T² · KL(softmax(teacher / T) || softmax(student / T))` and `hard_loss` is the loss given to
    `compile`, on logits.

    It is a Keras model in everything: `compile`, `fit`, `evaluate`, `predict`, callbacks, `class_weight`,
    `sample_weight`, masks, mixed precision, `jit_compile`, `steps_per_execution` and `tf.distribute`. `evaluate` and
    `predict` run the student only. The teacher runs in inference mode and is not tracked: it is in neither `weights`
    nor a checkpoint, and its `trainable` flag is left as it was found. A step runs the student once, for its logits and
    its features. `save` writes the student, a plain Keras model that loads without tfkd.

    Logs of `fit`: `loss`, `soft_loss`, `hard_loss`, `feature_loss` where there are features, each setting that is a
    schedule (`alpha`, `temperature`, `feature_weight`, ...), and the compiled metrics; of `evaluate` (with `val_` in
    front in `fit`): `loss` (the hard loss and the regularization, so that it compares across alphas), `hard_loss` and
    the metrics. At the start of an epoch the data set of `Split.batches` is told the epoch, then the callbacks run in
    the order given.

    Args:
        student: a Keras model of any kind with one output, logits [B, ..., C].
        teacher: a Keras model with logits of the same classes, of any precision; several such models; or a store of
            soft labels, with data from `Split.batches(..., soft_labels=store)`.
        alpha: weight of the soft loss, 0..1, or a schedule over steps. 0 is plain training; 1 leaves the labels out of
            the loss.
        temperature: T > 0, for the default soft loss.
        soft_loss: a `tfkd.losses` loss in place of `SoftTarget(temperature)`; for several teachers one for all or one
            for each.
        features: `tfkd.features.Feature`s, losses between inner layers of the student and of the (first) teacher.
        teacher_weights: of several teachers in the soft loss; equal by default.

    Training data are those of the student: `(x, y)` or `(x, y, sample_weight)`. Where the teacher takes another
    input, `x` is `{"teacher": ..., "student": ...}`.

    Raises:
        ValueError: when a model has several outputs or ends in an activation such as softmax, the class counts
            differ, a layer does not exist, or alpha or temperature is out of range.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531).
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: Any,
        *,
        alpha: float | Callable[[Any], Any] = 0.9,
        temperature: float = 4.0,
        soft_loss: losses.DistillationLoss | Sequence[losses.DistillationLoss] | None = None,
        features: Sequence[taps.Feature] = (),
        teacher_weights: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "distiller", "dtype": student.dtype_policy, **kwargs})
        if not isinstance(alpha, Schedule) and not (isinstance(alpha, (int, float)) and 0 <= alpha <= 1):
            raise InputError(
                f"Distiller: alpha must be a number in 0..1 or a schedule. Received: alpha={alpha}. "
                "Use 0.9 for mostly the teacher, 0.0 for labels only."
            )
        self.student = student
        self.alpha = alpha if isinstance(alpha, Schedule) else float(alpha)
        soft_loss = losses.SoftTarget(temperature) if soft_loss is None else soft_loss
        stored = hasattr(teacher, "views")
        teachers = () if stored else tuple(teacher) if isinstance(teacher, (list, tuple)) else (teacher,)
        self.soft_losses: list[Any] = (
            list(map(losses.get, soft_loss))
            if isinstance(soft_loss, (list, tuple))
            else [losses.get(soft_loss)] * (len(teachers) or 1)
        )
        self._check_models(student, teachers, stored, features)
        if stored and logits.known_classes(student) not in (None, teacher.classes):
            raise InputError(
                f"Distiller: the student must have the {teacher.classes} classes of the soft labels. Received: student "
                f"{student.output_shape}. Give it as many logits."
            )
        self.teacher_weights = _normalized(teacher_weights, len(self.soft_losses))
        # A closure, because Keras tracks, counts and saves any model that it finds as an attribute or a property.
        self._teachers: Callable[[], tuple[keras.Model, ...]] = lambda: teachers
        self._features: Callable[[], tuple[taps.Feature, ...]] = lambda: tuple(features)
        self.feature_losses = [feature.loss for feature in features]
        self.adapters: list[taps.Adapter] = []
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in ("soft_loss", "hard_loss", *self._optional_logs())
        }
        self.built = student.built
        if features and all(keras_compat.shows_layers(model) for model in (student, *teachers)):
            self._connect(*(_zeros(model) for model in (teachers[0], student)))

    def _schedules(self) -> dict[str, Any]:
        """The settings that change over steps, by the name of their log; of several alike the later are numbered."""
        settings = [("alpha", self.alpha)]
        for loss in dict.fromkeys(self.soft_losses):
            settings += vars(loss).items()
        for feature in self._features():
            settings += [("feature_weight", feature.weight), *vars(feature.loss).items()]
        found: dict[str, Any] = {}
        for name, setting in settings:
            if isinstance(setting, Schedule):
                count = sum(one.rstrip("_0123456789") == name for one in found)
                found[f"{name}_{count}" if count else name] = setting
        return found

    def _optional_logs(self) -> tuple[str, ...]:
        return (*(("feature_loss",) if self.feature_losses else ()), *self._schedules())

    def _check_models(
        self, student: Any, teachers: tuple[Any, ...], stored: bool, features: Sequence[taps.Feature]
    ) -> None:
        for role, model in (("student", student), *(("teacher", teacher) for teacher in teachers)):
            logits.check_gives_logits(role, model)
        if stored and features:
            raise InputError(
                "Distiller: features need the teacher itself. Received: a store of soft labels, logits only. "
                "Pass the teacher's model, or leave the features out."
            )
        if not stored and len(self.soft_losses) != len(teachers):
            raise InputError(
                f"Distiller: soft_loss must be one loss or one for each teacher. Received: {len(self.soft_losses)} "
                f"losses for {len(teachers)} teachers."
            )
        for teacher, loss in zip(teachers, self.soft_losses, strict=False):
            sizes = {logits.known_classes(student), logits.known_classes(teacher)}
            if loss.aligns == "all" and None not in sizes and len(sizes) > 1:
                raise InputError(
                    f"Distiller: teacher and student must have the same classes. Received: teacher "
                    f"{teacher.output_shape}, student {student.output_shape}. Give both the same number of logits."
                )
        for feature in features:
            taps.find_layer(student, feature.student)
            taps.find_layer(teachers[0], feature.teacher)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles as `keras.Model.compile` does.

        `jit_compile="auto"` means XLA where there is a GPU or TPU, and no XLA on a CPU, where it is slower for
        convolutional networks. The choice is logged and stands in `self.jit_compile`.

        Raises:
            ValueError: when the loss expects probabilities.
        """
        arguments = inspect.signature(super().compile).bind(*args, **kwargs)
        logits.check_takes_logits(arguments.arguments.get("loss"))
        if arguments.arguments.get("jit_compile", "auto") == "auto":
            arguments.arguments["jit_compile"] = jit_by_device()
        super().compile(*arguments.args, **arguments.kwargs)

    def call(self, x: Any, training: bool = False, **kwargs: Any) -> Any:
        return self.student(_view("student", x), training=training, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does.

        Raises:
            ValueError: every weight of the student is frozen.
        """
        arguments = inspect.signature(super().fit).bind(*args, **kwargs)
        x = arguments.arguments.get("x")
        self._look_at(x)
        if self.student.built and not self.trainable_weights:
            raise InputError(
                "Distiller: the student must have weights to train. Received: all are frozen. Set "
                "student.trainable = True."
            )
        if isinstance(x, tf.data.Dataset):  # Keras warns of its own default, shuffle=True
            arguments.arguments.setdefault("shuffle", False)
        if hasattr(x, "epoch"):
            given = arguments.arguments.get("callbacks") or []
            given = given if isinstance(given, (list, tuple)) else [given]
            arguments.arguments["callbacks"] = [EpochSync(x), *given]
        return super().fit(*arguments.args, **arguments.kwargs)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras finds shapes under several workers by averaging their batches, which fails on integers (keras#20585);
        # this worker's own batch has the same.
        if iterator is not None and isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            local = self.distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                iterator, data_batch = None, keras.tree.map_structure(lambda value: local(value)[0], next(batches))
                break
        super()._maybe_symbolic_build(iterator, data_batch)

    def _look_at(self, x: Any) -> None:
        """Runs models that do not show their layers on a first batch: are these logits, and what shape are features?"""
        models = [("student", self.student), *(("teacher", teacher) for teacher in self._teachers())]
        opaque = [(role, model) for role, model in models if not keras_compat.shows_layers(model)]
        unconnected = bool(self.feature_losses) and not self.adapters
        if not opaque and not unconnected:
            return
        batch = _first_batch(x)
        if batch is None and unconnected:
            raise InputError(
                "Distiller: the shapes of features of a model built by code are found by running it on the data. "
                "Received: a generator, which would lose its first batch. Pass arrays or a tf.data.Dataset."
            )
        for role, model in opaque if batch is not None else ():
            logits.check_are_logits(role, model, _view(role, batch))
        if unconnected:
            self._connect(_view("teacher", batch), _view("student", batch))

    def _connect(self, teacher_x: Any, student_x: Any) -> None:
        """Makes an adapter for each feature, and the weights of the feature losses."""
        listed = self._features()
        with taps.tap(self._teachers()[0], [feature.teacher for feature in listed]) as theirs:
            self._teachers()[0](teacher_x, training=False)
        with taps.tap(self.student, [feature.student for feature in listed]) as ours:
            self.student(student_x, training=False)
        for feature in listed:
            teacher, student = theirs[feature.teacher], ours[feature.student]
            adapter = taps.Adapter.between(student.shape[1:], teacher.shape[1:], feature.loss.aligns)
            feature.loss(teacher, adapter(student), ops.zeros(len(student), "int32"), step=0)
            self.adapters.append(adapter)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.alpha != 1 and (y is None or self._compile_loss is None):
            raise InputError(
                f"Distiller: alpha={self.alpha} < 1 needs labels and a compiled loss. Received: y "
                f"{'missing' if y is None else 'given'}, loss {'missing' if self._compile_loss is None else 'given'}. "
                "Use alpha=1.0 to learn from the teacher alone."
            )
        # Outside the tape: nothing of the teacher is kept for the backward pass.
        taught, theirs = self._run_teachers(x)
        step = self.optimizer.iterations
        # Before the step counts up.
        scheduled = {name: schedule(step) for name, schedule in self._schedules().items()}
        with tf.GradientTape() as tape:
            with taps.tap(self.student, [feature.student for feature in self._features()]) as ours:
                said = self(x, training=True)
            terms = {
                "soft_loss": self._soft_loss(taught, said, y, sample_weight, step),
                "hard_loss": self._hard_loss(y, said, sample_weight),
                "feature_loss": self._feature_loss(theirs, ours, y, sample_weight, step),
            }
            alpha = losses.value_at(self.alpha, step)
            loss = self._total(alpha, **terms)
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, weights), weights, strict=True))
        self._track(x, {"loss": loss, **terms})
        for name, value in scheduled.items():
            self._trackers[name].update_state(value)
        return self._logs(x, y, said, sample_weight, without=() if terms["hard_loss"] is not None else ("hard_loss",))

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        said = self(x, training=False)
        hard_loss = self._hard_loss(y, said, sample_weight)
        self._track(x, {"loss": self._add_regularization(hard_loss), "hard_loss": hard_loss})
        return self._logs(x, y, said, sample_weight, without=("soft_loss", *self._optional_logs()))

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the student, as `keras.Model.save` does; the teacher, losses and adapters are not part of it."""
        self.student.save(filepath, overwrite=overwrite, **kwargs)

    def summary(self, print_fn: Callable[[str], Any] = print, **kwargs: Any) -> None:
        """Prints the student, then what teaches it."""
        self.student.summary(print_fn=print_fn, **kwargs)
        for teacher in self._teachers():
            print_fn(f"Teacher: {teacher.name}, {teacher.count_params():,} parameters (not tracked)")
        if not self._teachers():
            print_fn("Teacher: stored soft labels")
        alpha, rest = ("alpha", "(1 - alpha)") if isinstance(self.alpha, Schedule) else (self.alpha, 1 - self.alpha)
        soft = " + ".join(dict.fromkeys(map(_describe, self.soft_losses)))
        print_fn(f"Loss: {_short(alpha)} · {soft} + {_short(rest)} · hard loss")
        for i, feature in enumerate(self._features()):
            adapter = f", student {self.adapters[i].describe()}" if self.adapters else ""
            print_fn(
                f"Feature: {_short(feature.weight)} · {_describe(feature.loss)} of {feature.student!r} to "
                f"{feature.teacher!r}{adapter}"
            )

    def _run_teachers(self, x: Any) -> tuple[list[Any], dict[str, Any]]:
        """The logits of each teacher, and the tapped features of the first."""
        teachers = self._teachers()
        if not teachers:
            return [_view("soft_labels", x)], {}
        with taps.tap(teachers[0], [feature.teacher for feature in self._features()]) as seen:
            taught = [teacher(_view("teacher", x), training=False) for teacher in teachers]
        return taught, seen

    def _soft_loss(self, taught: list[Any], said: Any, y: Any, sample_weight: Any, step: Any) -> Any:
        terms = [
            weight * loss(teacher, said, y, step=step)
            for teacher, loss, weight in zip(taught, self.soft_losses, self.teacher_weights, strict=True)
        ]
        return _mean(sum(terms[1:], terms[0]), said, sample_weight)

    def _feature_loss(self, theirs: dict[str, Any], ours: dict[str, Any], y: Any, sample_weight: Any, step: Any) -> Any:
        total = None
        for feature, adapter in zip(self._features(), self.adapters, strict=True):
            values = feature.loss(theirs[feature.teacher], adapter(ours[feature.student]), y, step=step)
            term = losses.value_at(feature.weight, step) * _mean(values, None, sample_weight)
            total = term if total is None else total + term
        return total

    def _hard_loss(self, y: Any, said: Any, sample_weight: Any) -> Any:
        if y is None or self._compile_loss is None:
            return None
        return self._compile_loss(y, said, sample_weight)

    def _total(self, alpha: Any, soft_loss: Any, hard_loss: Any, feature_loss: Any) -> Any:
        # A term of weight 0 is left out rather than multiplied: 0 · inf is NaN.
        if self.alpha == 0:
            loss = hard_loss
        elif self.alpha == 1:
            loss = soft_loss
        else:
            loss = alpha * soft_loss + (1 - alpha) * hard_loss
        return self._add_regularization(loss if feature_loss is None else loss + feature_loss)

    def _add_regularization(self, loss: Any) -> Any:
        terms = [] if loss is None else [loss]
        terms += [ops.sum(ops.cast(term, "float32")) for term in self.losses]
        return terms[0] if len(terms) == 1 else ops.sum(terms)

    def _track(self, x: Any, values: Mapping[str, Any]) -> None:
        # Keras divides a loss by the number of replicas, so that gradients add up; the log shows it undivided.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        batch_size = ops.shape(keras.tree.flatten(x)[0])[0]
        for name, value in values.items():
            if value is not None:
                tracker = self._loss_tracker if name == "loss" else self._trackers[name]
                tracker.update_state(value * replicas, sample_weight=batch_size)

    def _logs(self, x: Any, y: Any, said: Any, sample_weight: Any, without: tuple[str, ...]) -> dict[str, Any]:
        if y is None:  # the compiled metrics compare with labels
            kept = {"loss": self._loss_tracker, **self._trackers}
            return {name: metric.result() for name, metric in kept.items() if name not in without}
        logs = self.compute_metrics(x, y, said, sample_weight=sample_weight)
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages the workers' logs along an axis that scalars do not have.
            logs = {name: ops.reshape(value, (1,)) for name, value in logs.items()}
        return {name: value for name, value in logs.items() if name not in without}


def jit_by_device() -> str | bool:
    """What `jit_compile` should be here: Keras's choice with a GPU or TPU, no XLA on a CPU, where it is slower."""
    accelerated = bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
    log.info("XLA is %s.", "left to Keras" if accelerated else "off: no GPU or TPU is at hand")
    return "auto" if accelerated else False


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


def _mean(values: Any, said: Any, sample_weight: Any) -> Any:
    """The weighted mean of per-sample values, as Keras takes it for a compiled loss."""
    mask = keras_compat.mask_of(said)
    if mask is not None:
        keras_compat.set_mask(values, mask)
    return _Mean(name="mean", dtype="float32")(values, values, sample_weight)


def _view(role: str, x: Any) -> Any:
    return x[role] if isinstance(x, Mapping) and role in x and len(x) == 2 and "student" in x else x


def _first_batch(x: Any) -> Any:
    """A first batch of inputs, or None of what cannot be looked into without losing it."""
    if isinstance(x, tf.data.Dataset):
        return keras.utils.unpack_x_y_sample_weight(next(iter(x.take(1))))[0]
    if all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
        return keras.tree.map_structure(lambda leaf: ops.convert_to_tensor(leaf[:32]), x)
    return None


def _zeros(model: Any) -> Any:
    """Two empty samples; open dimensions are taken as 8."""
    return keras.tree.map_structure(
        lambda tensor: ops.zeros((2, *(size or 8 for size in tensor.shape[1:])), tensor.dtype),
        keras_compat.input_structure(model),
    )


def _normalized(weights: Sequence[float] | None, count: int) -> list[float]:
    weights = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise InputError(
            f"Distiller: teacher_weights must be {count} numbers >= 0, not all 0. Received: {weights}. "
            "Leave it out for equal weights."
        )
    return [weight / sum(weights) for weight in weights]


def _describe(loss: losses.DistillationLoss) -> str:
    layer = ("name", "trainable", "dtype", "autocast")
    return f"{type(loss).__name__}({', '.join(f'{k}={v}' for k, v in loss.get_config().items() if k not in layer)})"


def _short(weight: Any) -> str:
    return (
        f"{weight:g}"
        if isinstance(weight, (int, float))
        else type(weight).__name__
        if not isinstance(weight, str)
        else weight
    )
