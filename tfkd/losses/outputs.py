"""Losses on outputs: logits of classifiers and values of regressors."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import InputError
from tfkd.losses.loss import (
    DistillationLoss,
    Setting,
    check_logits,
    check_number,
    cross_entropy,
    divergence,
    divergence_of,
    labels,
    to_config,
    value_at,
)


@keras.saving.register_keras_serializable(package="tfkd")
class SoftTarget(DistillationLoss):
    """Kullback-Leibler divergence between softened teacher and student probabilities (KD).

    `T² · Σ_c p_c · (log p_c − log q_c)` with `p = softmax(teacher / T)` and `q = softmax(student / T)`. The factor T²
    keeps the gradient's magnitude independent of T. Log-probabilities are computed by `log_softmax`, so that the
    gradient does not vanish where teacher and student disagree confidently.

    Args:
        temperature: Temperature T > 0, or a schedule over steps; 1.0 for no softening.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B, ...] float32, each >= 0 up to rounding.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531), section 2.

    >>> round(float(SoftTarget(temperature=2.0)([[2.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    0.4438
    """

    needs_classes = True

    def __init__(self, temperature: Setting = 4.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number(type(self).__name__, "temperature", temperature, open_end=True)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits(type(self).__name__, teacher, student)
        temperature = value_at(self.temperature, step)
        return temperature**2 * divergence(teacher / temperature, student / temperature)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "temperature": to_config(self.temperature)}


@keras.saving.register_keras_serializable(package="tfkd")
class StandardizedSoftTarget(SoftTarget):
    """`SoftTarget` on logits standardized per sample, so that the student need not match the scale of the teacher's.

    `weight · T² · KL(softmax(Z(teacher) / T) || softmax(Z(student) / T))` with `Z(z) = (z − mean(z)) / std(z)`, where
    the variance is divided by C − 1. With two classes Z is ±1/√2 for any logits, so C >= 3.

    Args:
        temperature: Temperature T > 0, or a schedule over steps.
        weight: Factor of the loss >= 0, or a schedule; 9 in the paper.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B, ...] float32, each >= 0 up to rounding.

    Reference:
        Sun et al.: Logit Standardization in Knowledge Distillation (arXiv:2403.01427), algorithm 1.
    """

    def __init__(self, temperature: Setting = 2.0, weight: Setting = 9.0, **kwargs: object) -> None:
        super().__init__(temperature, **kwargs)
        self.weight = check_number(type(self).__name__, "weight", weight)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits(type(self).__name__, teacher, student, least=3)
        return value_at(self.weight, step) * super().call(_standardized(teacher), _standardized(student), y, step)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "weight": to_config(self.weight)}


def _standardized(logits: Tensor) -> Tensor:
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return centred * ops.rsqrt(ops.maximum(variance, 1e-14))


@keras.saving.register_keras_serializable(package="tfkd")
class DKD(SoftTarget):
    """Decoupled knowledge distillation: separate weights for the target class and for the other classes.

    `T² · [alpha · KL(b(teacher) || b(student)) + beta · KL(p̂(teacher) || p̂(student))]` with `b = (p_y, 1 − p_y)` and
    `p̂` the softmax over the classes other than y, all at temperature T. With two classes the second term is empty, so
    C >= 3.

    Args:
        temperature: Temperature T > 0, or a schedule over steps.
        alpha: Weight of the target class >= 0, or a schedule.
        beta: Weight of the other classes >= 0, or a schedule.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: [B, ...] class indices or [B, ..., C] one-hot rows or probabilities, whose largest counts; required.

    Returns:
        [B, ...] float32, each >= 0 up to rounding; 0 where y is no class, such as an ignored pixel.

    Reference:
        Zhao et al.: Decoupled Knowledge Distillation (arXiv:2203.08679), equation 7.
    """

    def __init__(self, temperature: Setting = 4.0, alpha: Setting = 1.0, beta: Setting = 8.0, **kwargs: object) -> None:
        super().__init__(temperature, **kwargs)
        self.alpha = check_number("DKD", "alpha", alpha)
        self.beta = check_number("DKD", "beta", beta)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("DKD", teacher, student, least=3)
        classes = student.shape[-1]
        rows = labels("DKD", y, student)
        known = ops.sum(rows, axis=-1, keepdims=True) > 0.5
        target = ops.where(known, ops.one_hot(ops.argmax(rows, axis=-1), classes), 0.0)
        temperature = value_at(self.temperature, step)
        teacher, student = teacher / temperature, student / temperature
        difference = teacher - student
        # Subtracting 1e4 from the target's logit removes it from the softmax: e^-10000 is 0 in float32.
        log_p, log_q = (ops.log_softmax(z - 1e4 * target, axis=-1) for z in (teacher, student))
        others = divergence_of(log_p, log_q, (1 - target) * difference)
        # The other classes together: logsumexp(teacher) − logsumexp(student) = Σ p̂ · difference − KL(p̂ || q̂).
        rest = ops.sum(ops.exp(log_p) * difference, axis=-1) - others
        log_p, log_q = (ops.log_softmax(_target_and_rest(z, target), axis=-1) for z in (teacher, student))
        binary = divergence_of(log_p, log_q, ops.stack([ops.sum(target * difference, axis=-1), rest], axis=-1))
        value = temperature**2 * (value_at(self.alpha, step) * binary + value_at(self.beta, step) * others)
        return ops.where(known[..., 0], value, 0.0)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "alpha": to_config(self.alpha), "beta": to_config(self.beta)}


def _target_and_rest(logits: Tensor, target: Tensor) -> Tensor:
    """[..., 2] logits whose softmax is (p_y, 1 − p_y), from [..., C] logits and one-hot targets."""
    return ops.stack([ops.sum(logits * target, axis=-1), ops.logsumexp(logits - 1e4 * target, axis=-1)], axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class DIST(SoftTarget):
    """Pearson correlation with the teacher, over the classes of each sample and over the samples of each class.

    `T² · [beta · (1 − ρ(rows)) + gamma · (1 − mean_c ρ(column c))]`, with ρ the Pearson correlation of
    `softmax(teacher / T)` and `softmax(student / T)`. Each position of a dense output is a row. The second term is one
    value per batch, over all its rows whatever their weight or mask, and is added to each row. With two classes the
    correlation of rows is ±1 for any logits, so C >= 3. ρ is 0 where the teacher or the student is constant.

    Args:
        temperature: Temperature T > 0, or a schedule over steps.
        beta: Weight of the correlation within samples >= 0, or a schedule.
        gamma: Weight of the correlation within classes >= 0, or a schedule.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B, ...] float32, each >= 0.

    Reference:
        Huang et al.: Knowledge Distillation from A Stronger Teacher (arXiv:2205.10536), equations 8 to 10.
    """

    def __init__(self, temperature: Setting = 4.0, beta: Setting = 2.0, gamma: Setting = 2.0, **kwargs: object) -> None:
        super().__init__(temperature, **kwargs)
        self.beta = check_number("DIST", "beta", beta)
        self.gamma = check_number("DIST", "gamma", gamma)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("DIST", teacher, student, least=3)
        temperature = value_at(self.temperature, step)
        p, q = (_from_uniform(z / temperature) for z in (teacher, student))
        rows = _decorrelation(p, q, axis=-1)
        columns = ops.mean(_decorrelation(p, q, axis=tuple(range(len(p.shape) - 1))))
        return temperature**2 * (value_at(self.beta, step) * rows + value_at(self.gamma, step) * columns)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "beta": to_config(self.beta), "gamma": to_config(self.gamma)}


def _from_uniform(logits: Tensor) -> Tensor:
    """softmax(z) − 1/C, whose small values at high temperatures have the relative precision of float32."""
    excess = ops.expm1(logits - ops.max(logits, axis=-1, keepdims=True))
    mean = ops.mean(excess, axis=-1, keepdims=True)
    return (excess - mean) / (logits.shape[-1] * (1 + mean))


def _decorrelation(a: Tensor, b: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """1 − ρ along axes, as ½‖a/‖a‖ − b/‖b‖‖² of the centred values; 1 where one of them is constant."""
    a, b = (x - ops.mean(x, axis=axis, keepdims=True) for x in (a, b))
    squares = [ops.sum(ops.square(x), axis=axis, keepdims=True) for x in (a, b)]
    varies = ops.minimum(*squares) > 1e-24
    a, b = (x * ops.rsqrt(ops.where(varies, square, 1.0)) for x, square in zip((a, b), squares, strict=True))
    half = ops.sum(ops.square(a - b), axis=axis, keepdims=True) / 2
    return ops.squeeze(ops.where(varies, half, 1.0), axis=axis)


@keras.saving.register_keras_serializable(package="tfkd")
class CTKD(DistillationLoss):
    """Curriculum temperature: `SoftTarget` at a temperature that is trained against the student.

    `T² · KL(softmax(teacher / T) || softmax(student / T))` with `T = low + span · sigmoid(w)` and one trainable weight
    w. The gradient of w is reversed and multiplied by `reversal`, so that training raises the loss through the
    temperature while the student lowers it.

    Args:
        low: Smallest temperature, > 0.
        span: Difference between the largest and the smallest temperature, > 0.
        reversal: Factor of the reversed gradient >= 0, or a schedule; the paper raises it from 0 to 1 along a cosine.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B, ...] float32, each >= 0 up to rounding.

    Reference:
        Li et al.: Curriculum Temperature for Knowledge Distillation (arXiv:2211.16231), section 3.2, global version.
    """

    needs_classes = True

    def __init__(self, low: float = 1.0, span: float = 20.0, reversal: Setting = 1.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.low = check_number("CTKD", "low", low, open_end=True)
        self.span = check_number("CTKD", "span", span, open_end=True)
        self.reversal = check_number("CTKD", "reversal", reversal)
        self.raw = self.add_weight(shape=(), initializer="zeros", name="temperature")

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("CTKD", teacher, student)
        factor = value_at(self.reversal, step)
        raw = ops.convert_to_tensor(self.raw)
        # The value of `raw`, with the gradient -factor.
        reversed_raw = (1 + factor) * ops.stop_gradient(raw) - factor * raw
        temperature = self.low + self.span * ops.sigmoid(reversed_raw)
        return temperature**2 * divergence(teacher / temperature, student / temperature)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "low": self.low, "span": self.span, "reversal": to_config(self.reversal)}


@keras.saving.register_keras_serializable(package="tfkd")
class WSLD(SoftTarget):
    """Weighted soft labels: a sample's weight grows with the student's cross-entropy relative to the teacher's.

    `T² · (1 − exp(−CE(y, student) / CE(y, teacher))) · H(softmax(teacher / T), softmax(student / T))`, with CE the
    cross-entropy with the labels at T = 1 and H the cross-entropy of the softened outputs. No gradient flows through
    the weight. The minimum is the weighted entropy of the teacher, not 0.

    Args:
        temperature: Temperature T > 0, or a schedule over steps.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: [B, ...] class indices or [B, ..., C] one-hot rows; required.

    Returns:
        [B, ...] float32, each >= 0; 0 where y is no class, such as an ignored pixel.

    Reference:
        Zhou et al.: Rethinking Soft Labels for Knowledge Distillation (arXiv:2102.00650), equation 10.
    """

    def __init__(self, temperature: Setting = 2.0, **kwargs: object) -> None:
        super().__init__(temperature, **kwargs)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("WSLD", teacher, student)
        target = labels("WSLD", y, student)
        ratio = cross_entropy(target, ops.stop_gradient(student)) / (cross_entropy(target, teacher) + 1e-7)
        temperature = value_at(self.temperature, step)
        teacher, student = teacher / temperature, student / temperature
        # H(p, q) = H(p) + KL(p || q), since the gradient of KL is precise at high temperatures too.
        entropy = cross_entropy(ops.softmax(teacher, axis=-1), teacher) + divergence(teacher, student)
        return temperature**2 * (1 - ops.exp(-ratio)) * entropy


@keras.saving.register_keras_serializable(package="tfkd")
class MeanSquared(DistillationLoss):
    """Mean squared difference of outputs, for regression or logits: `mean_d (teacher_d − student_d)²`.

    Call arguments:
        teacher: [B, ..., D] teacher outputs.
        student: [B, ..., D] student outputs.
        y: Not used.

    Returns:
        [B, ...] float32, each >= 0.

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep? (arXiv:1312.6184), section 2.2, which applies it to logits.
    """

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("MeanSquared", teacher, student, least=1)
        return ops.mean(ops.square(teacher - student), axis=-1)


# Losses whose targets are probabilities; so are those of every cross-entropy.
_ON_PROBABILITIES = (keras.losses.KLDivergence, keras.losses.Poisson, keras.losses.Dice, keras.losses.Tversky)


@keras.saving.register_keras_serializable(package="tfkd")
class FromKeras(DistillationLoss):
    """Adapter for a `keras.losses.Loss` on logits or a loss of `keras.distillation`.

    The value is `loss(teacher, student)`: one value per sample for a Keras loss. A loss of keras.distillation returns
    one value per batch, which is used for each of its samples.

    Args:
        loss: Instance of a Keras loss, or the configuration of one.

    Call arguments:
        teacher: [B, ..., C] teacher logits.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B, ...] float32.

    Raises:
        InputError: `loss` is of another type, or its targets are probabilities.
    """

    def __init__(self, loss: keras.Loss, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        batch_loss = getattr(self.loss, "compute_loss", None)
        if isinstance(getattr(self.loss, "loss", None), type(keras.losses.kl_divergence)) and batch_loss:
            raise InputError(
                f"FromKeras: the loss inside {type(self.loss).__name__} must be an instance. Received: a function, "
                "which keras.distillation applies without softmax. Pass keras.losses.KLDivergence(), or use SoftTarget."
            )
        probabilities = isinstance(self.loss, _ON_PROBABILITIES) or "Crossentropy" in type(self.loss).__name__
        if probabilities or not (isinstance(self.loss, keras.losses.Loss) or batch_loss):
            raise InputError(
                f"FromKeras: loss must be a loss of keras.distillation, or a keras.losses.Loss that takes logits as "
                f"targets too, such as MeanSquaredError(). Received: {self.loss!r}. Use SoftTarget for the divergence "
                "of softened probabilities."
            )
        self.needs_classes = isinstance(self.loss, keras.distillation.LogitsDistillation)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        if isinstance(self.loss, keras.losses.Loss):
            return self.loss.call(teacher, student)
        return ops.broadcast_to(self.loss.compute_loss(teacher, student), ops.shape(student)[:1])

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}
