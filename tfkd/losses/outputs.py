"""Losses on outputs: logits of classifiers, values of regressors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfkd.errors import InputError
from tfkd.losses.loss import (
    DistillationLoss,
    check_logits,
    check_number,
    cross_entropy,
    divergence,
    labels,
    to_config,
    value_at,
)


@keras.saving.register_keras_serializable(package="tfkd")
class SoftTarget(DistillationLoss):
    """Kullback-Leibler divergence from the softened teacher to the softened student.

    `T² · Σ_c p_c · (log p_c − log q_c)` with `p = softmax(teacher / T)`, `q = softmax(student / T)`. The factor T²
    keeps the size of the gradient as T changes. Both logarithms come from `log_softmax`, so that a confident
    disagreement keeps its gradient.

    Args:
        temperature: T > 0, or a schedule over steps; 1.0 for no softening.

    Call arguments:
        teacher: [B, ..., C] logits.
        student: [B, ..., C] logits.
        y: not used.

    Returns:
        [B, ...] float32, each >= 0 up to rounding.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531), section 2.

    >>> round(float(SoftTarget(temperature=2.0)([[2.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    0.4438
    """

    def __init__(self, temperature: Any = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number(type(self).__name__, "temperature", temperature, open_end=True)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits(type(self).__name__, teacher, student)
        temperature = value_at(self.temperature, step)
        return temperature**2 * divergence(teacher / temperature, student / temperature)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": to_config(self.temperature)}


@keras.saving.register_keras_serializable(package="tfkd")
class StandardizedSoftTarget(SoftTarget):
    """`SoftTarget` on logits that are standardized per sample: the student need not match the teacher's scale.

    `weight · T² · KL(softmax(Z(teacher) / T) || softmax(Z(student) / T))` with `Z(z) = (z − mean(z)) / std(z)`, std
    with C − 1. Of two classes Z is ±1/√2 whatever the logits, so C >= 3.

    Args:
        temperature: T > 0, or a schedule.
        weight: of the loss, 9 in the paper.

    Reference:
        Sun et al.: Logit Standardization in Knowledge Distillation (arXiv:2403.01427), algorithm 1.
    """

    def __init__(self, temperature: Any = 2.0, weight: Any = 9.0, **kwargs: Any) -> None:
        super().__init__(temperature, **kwargs)
        self.weight = check_number(type(self).__name__, "weight", weight)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits(type(self).__name__, teacher, student, least=3)
        return value_at(self.weight, step) * super().call(_standardized(teacher), _standardized(student), y, step)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight": to_config(self.weight)}


def _standardized(logits: Any) -> Any:
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return centred * ops.rsqrt(ops.maximum(variance, 1e-14))


@keras.saving.register_keras_serializable(package="tfkd")
class DKD(SoftTarget):
    """Decoupled knowledge distillation: the target class and the others have weights of their own.

    `T² · [alpha · KL(b(teacher) || b(student)) + beta · KL(p̂(teacher) || p̂(student))]` with `b = (p_y, 1 − p_y)` and
    `p̂` the softmax over the classes other than y, all at temperature T. Of two classes the second term is empty, so
    C >= 3. Needs labels.

    Args:
        temperature: T > 0, or a schedule.
        alpha: weight of the target class >= 0, or a schedule.
        beta: weight of the others >= 0, or a schedule.

    Reference:
        Zhao et al.: Decoupled Knowledge Distillation (arXiv:2203.08679), equation 7.
    """

    def __init__(self, temperature: Any = 4.0, alpha: Any = 1.0, beta: Any = 8.0, **kwargs: Any) -> None:
        super().__init__(temperature, **kwargs)
        self.alpha = check_number("DKD", "alpha", alpha)
        self.beta = check_number("DKD", "beta", beta)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits("DKD", teacher, student, least=3)
        target = labels("DKD", y, student.shape[-1])
        temperature = value_at(self.temperature, step)
        teacher, student = teacher / temperature, student / temperature
        binary = divergence(_target_and_rest(teacher, target), _target_and_rest(student, target))
        others = divergence(teacher - 1e4 * target, student - 1e4 * target)  # e^-10000 is 0
        return temperature**2 * (value_at(self.alpha, step) * binary + value_at(self.beta, step) * others)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": to_config(self.alpha), "beta": to_config(self.beta)}


def _target_and_rest(logits: Any, target: Any) -> Any:
    """Two logits whose softmax is (p_y, 1 − p_y)."""
    return ops.stack([ops.sum(logits * target, axis=-1), ops.logsumexp(logits - 1e4 * target, axis=-1)], axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class DIST(SoftTarget):
    """Correlation with the teacher, over the classes of a sample and over the samples of a class.

    `T² · [beta · (1 − ρ(rows)) + gamma · (1 − mean_c ρ(column c))]` with ρ Pearson's correlation of `softmax(z / T)`;
    the second term belongs to the batch and is the same for each of its samples. Of two classes the first is ±1
    whatever the logits, so C >= 3.

    Args:
        temperature: T > 0, or a schedule.
        beta: weight of the correlation within samples, >= 0.
        gamma: weight of the correlation within classes, >= 0.

    Reference:
        Huang et al.: Knowledge Distillation from A Stronger Teacher (arXiv:2205.10536), equations 8 to 10.
    """

    def __init__(self, temperature: Any = 4.0, beta: Any = 2.0, gamma: Any = 2.0, **kwargs: Any) -> None:
        super().__init__(temperature, **kwargs)
        self.beta = check_number("DIST", "beta", beta)
        self.gamma = check_number("DIST", "gamma", gamma)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits("DIST", teacher, student, least=3)
        temperature = value_at(self.temperature, step)
        p, q = (ops.softmax(z / temperature, axis=-1) for z in (teacher, student))
        rows = 1 - _correlation(p, q, axis=-1)
        columns = ops.mean(1 - _correlation(p, q, axis=0))
        return temperature**2 * (value_at(self.beta, step) * rows + value_at(self.gamma, step) * columns)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": to_config(self.beta), "gamma": to_config(self.gamma)}


def _correlation(a: Any, b: Any, axis: int) -> Any:
    a, b = (x - ops.mean(x, axis=axis, keepdims=True) for x in (a, b))
    norms = ops.sqrt(ops.maximum(ops.sum(a * a, axis=axis) * ops.sum(b * b, axis=axis), 1e-16))
    return ops.sum(a * b, axis=axis) / norms


@keras.saving.register_keras_serializable(package="tfkd")
class CTKD(DistillationLoss):
    """Curriculum temperature: `SoftTarget` at a temperature that learns to make the task harder.

    `T = low + span · sigmoid(w)` with one weight w, whose gradient is reversed and multiplied by `reversal`: the
    student lowers the loss, the temperature raises it.

    Args:
        low: smallest temperature, > 0.
        span: how far above it T may rise, > 0.
        reversal: factor of the reversed gradient, >= 0, or a schedule; the paper raises it from 0 to 1 along a cosine.

    Reference:
        Li et al.: Curriculum Temperature for Knowledge Distillation (arXiv:2211.16231), section 3.2, global version.
    """

    def __init__(self, low: float = 1.0, span: float = 20.0, reversal: Any = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low = check_number("CTKD", "low", low, open_end=True)
        self.span = check_number("CTKD", "span", span, open_end=True)
        self.reversal = check_number("CTKD", "reversal", reversal)
        self.raw = self.add_weight(shape=(), initializer="zeros", name="temperature")

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits("CTKD", teacher, student)
        factor = value_at(self.reversal, step)
        raw = ops.convert_to_tensor(self.raw)
        reversed_raw = (1 + factor) * ops.stop_gradient(raw) - factor * raw
        temperature = self.low + self.span * ops.sigmoid(reversed_raw)
        return temperature**2 * divergence(teacher / temperature, student / temperature)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "low": self.low, "span": self.span, "reversal": to_config(self.reversal)}


@keras.saving.register_keras_serializable(package="tfkd")
class WSLD(SoftTarget):
    """Weighted soft labels: a sample counts the more, the less the student knows it beside the teacher.

    `T² · (1 − exp(−CE(y, student) / CE(y, teacher))) · H(softmax(teacher / T), softmax(student / T))`; no gradient
    flows through the weight. Its minimum is not 0 but the teacher's weighted entropy. Needs labels.

    Args:
        temperature: T > 0, or a schedule.

    Reference:
        Zhou et al.: Rethinking Soft Labels for Knowledge Distillation (arXiv:2102.00650), equation 10.
    """

    def __init__(self, temperature: Any = 2.0, **kwargs: Any) -> None:
        super().__init__(temperature, **kwargs)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits("WSLD", teacher, student)
        target = labels("WSLD", y, student.shape[-1])
        ratio = cross_entropy(target, ops.stop_gradient(student)) / (cross_entropy(target, teacher) + 1e-7)
        temperature = value_at(self.temperature, step)
        entropy = cross_entropy(ops.softmax(teacher / temperature, axis=-1), student / temperature)
        return temperature**2 * (1 - ops.exp(-ratio)) * entropy


@keras.saving.register_keras_serializable(package="tfkd")
class MeanSquared(DistillationLoss):
    """Mean squared difference of outputs, for regression: `mean_d (teacher_d − student_d)²` over the last axis.

    Call arguments:
        teacher: [B, ..., D].
        student: [B, ..., D].

    Returns:
        [B, ...] float32.

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep? (arXiv:1312.6184), section 2.2, which matches logits so.
    """

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits("MeanSquared", teacher, student, least=1)
        return ops.mean(ops.square(teacher - student), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class FromKeras(DistillationLoss):
    """A `keras.losses.Loss` of (teacher logits, student logits), or a loss of `keras.distillation`.

    A Keras loss is called as `loss(teacher, student)` and gives one value per sample; one of keras.distillation gives
    one value for the batch, which each sample gets.

    Args:
        loss: the loss.

    Raises:
        ValueError: something else, or a loss that works on probabilities.
    """

    def __init__(self, loss: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        probabilities = (keras.losses.KLDivergence, keras.losses.Poisson)
        batch_loss = getattr(self.loss, "compute_loss", None)
        if isinstance(getattr(self.loss, "loss", None), type(keras.losses.kl_divergence)) and batch_loss:
            raise InputError(
                f"FromKeras: the loss inside {type(self.loss).__name__} must be an instance. Received: a function, "
                "which keras.distillation applies to raw logits. Pass keras.losses.KLDivergence(), or use SoftTarget."
            )
        if isinstance(self.loss, probabilities) or not (isinstance(self.loss, keras.losses.Loss) or batch_loss):
            raise InputError(
                f"FromKeras: loss must be a keras.losses.Loss on logits or a loss of keras.distillation. Received: "
                f"{self.loss!r}. Use SoftTarget for the divergence of softened outputs."
            )

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        if isinstance(self.loss, keras.losses.Loss):
            return self.loss.call(teacher, student)
        return ops.broadcast_to(self.loss.compute_loss(teacher, student), ops.shape(student)[:1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}
