"""Losses on inner representations: one layer's features of the student against one of the teacher."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfkd.errors import InputError
from tfkd.losses.loss import DistillationLoss, check_number, flat, unit


def _check_batch(where: str, teacher: Any, student: Any) -> None:
    if student.shape[0] is not None and student.shape[0] < 2:
        raise InputError(f"{where}: compares samples with each other. Received: a batch of one. Use larger batches.")


@keras.saving.register_keras_serializable(package="tfkd")
class Hint(DistillationLoss):
    """Mean squared difference of features: `mean (r(student) − teacher)²`, r a learned adapter where shapes differ.

    Call arguments:
        teacher: [B, ..., C].
        student: [B, ..., C], adapted to the teacher's shape.

    Returns:
        [B] float32.

    Reference:
        Romero et al.: FitNets: Hints for Thin Deep Nets (arXiv:1412.6550), equation 3.
    """

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        return ops.mean(ops.square(flat(student) - flat(teacher)), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class SimKD(Hint):
    """`Hint` before the classifier, for a student that goes on with the teacher's own head.

    `mean (P(student) − teacher)²`; `tfkd.features.with_teacher_head` makes that student and names P `projector`. The
    paper trains with this loss alone: alpha 1, and a weight that lets it rule.

    Reference:
        Chen et al.: Knowledge Distillation with the Reused Teacher Classifier (arXiv:2203.14001), equation 2.
    """


@keras.saving.register_keras_serializable(package="tfkd")
class AttentionTransfer(DistillationLoss):
    """Squared distance of attention maps: `‖n(mean_c student²) − n(mean_c teacher²)‖²`, n the division by the L2 norm.

    Positions are aligned, channels may differ. Published results with MobileNetV2 as student are worse than training
    without it (64.60 to 59.40 % on CIFAR-100); measure before you use it there.

    Call arguments:
        teacher: [B, ..., C], a map or a sequence.
        student: [B, ..., C'], of the teacher's positions.

    Returns:
        [B] float32, 0..4.

    Reference:
        Zagoruyko, Komodakis: Paying More Attention to Attention (arXiv:1612.03928), equation 2 with p = 2.
    """

    aligns = "positions"

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        if len(student.shape) < 3:
            raise InputError(
                f"AttentionTransfer: features must have positions, [B, ..., C]. Received: {tuple(student.shape)}. Tap "
                "a layer before the pooling."
            )
        maps = [unit(flat(ops.mean(ops.square(x), axis=-1))) for x in (teacher, student)]
        return ops.sum(ops.square(maps[1] - maps[0]), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class SimilarityPreserving(DistillationLoss):
    """Difference of the batch's similarities: `‖n(F_t F_tᵀ) − n(F_s F_sᵀ)‖² / B²`, n scales rows to length 1.

    A sample's value is its row's share, `Σ_j (...)² / B`; their mean is the paper's loss.

    Call arguments:
        teacher: [B, ...].
        student: [B, ...], of any shape.

    Returns:
        [B] float32.

    Reference:
        Tung, Mori: Similarity-Preserving Knowledge Distillation (arXiv:1907.09682), equations 1 to 4.
    """

    aligns = "none"

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        _check_batch("SimilarityPreserving", teacher, student)
        rows = [unit(ops.matmul(x, ops.transpose(x))) for x in (flat(teacher), flat(student))]
        return ops.mean(ops.square(rows[1] - rows[0]), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class RelationalKD(DistillationLoss):
    """Huber loss between the batch's distances and between its angles.

    `distance · Huber(d_t / mean d_t, d_s / mean d_s) + angle · Huber(cos_t, cos_s)`, with d the pairwise distances and
    cos the cosine of the angle at sample k between samples i and j. A sample's value is the mean over the pairs and the
    triples that it begins; their mean is the paper's loss. Memory grows with B³.

    Args:
        distance: weight of the distances, >= 0.
        angle: weight of the angles, >= 0.

    Call arguments:
        teacher: [B, ...].
        student: [B, ...], of any shape.

    Returns:
        [B] float32.

    Reference:
        Park et al.: Relational Knowledge Distillation (arXiv:1904.05068), sections 3.2.1 and 3.2.2.
    """

    aligns = "none"

    def __init__(self, distance: float = 25.0, angle: float = 50.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.distance = check_number("RelationalKD", "distance", distance)
        self.angle = check_number("RelationalKD", "angle", angle)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        _check_batch("RelationalKD", teacher, student)
        (d_t, cos_t), (d_s, cos_s) = (_relations(flat(x)) for x in (teacher, student))
        distances = ops.mean(_huber(d_s - d_t), axis=-1)
        angles = ops.mean(_huber(cos_s - cos_t), axis=(1, 2))
        return self.distance * distances + self.angle * angles

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "distance": self.distance, "angle": self.angle}


def _relations(x: Any) -> tuple[Any, Any]:
    """Distances over their mean [B, B], and cosines [B, B, B] at the first index."""
    # Everything follows from inner products: no [B, B, D] of differences is made.
    x = x - ops.mean(x, axis=0, keepdims=True)
    inner = ops.matmul(x, ops.transpose(x))
    norms = ops.diagonal(inner)
    squared = ops.maximum(norms[:, None] + norms[None, :] - 2 * inner, 0.0)
    apart = ops.cast(squared > 1e-10, "float32")
    distances = apart * ops.sqrt(ops.where(squared > 1e-10, squared, 1.0))  # no gradient where samples coincide
    mean = ops.sum(distances) / ops.maximum(ops.sum(apart), 1.0)
    # (x_i − x_k)·(x_j − x_k), with k first
    products = inner[None, :, :] - inner[:, :, None] - inner[:, None, :] + norms[:, None, None]
    lengths = distances[:, :, None] * distances[:, None, :]
    cosines = ops.where(lengths > 0, products / ops.where(lengths > 0, lengths, 1.0), 0.0)
    return distances / ops.maximum(mean, 1e-12), cosines


def _huber(x: Any) -> Any:
    size = ops.abs(x)
    return ops.where(size < 1, 0.5 * size * size, size - 0.5)


@keras.saving.register_keras_serializable(package="tfkd")
class ProbabilisticTransfer(DistillationLoss):
    """Divergence of the batch's neighbourhoods: `KL(P_t || P_s)` per row, P the row-normalised (cos + 1) / 2.

    Call arguments:
        teacher: [B, ...].
        student: [B, ...], of any shape.

    Returns:
        [B] float32.

    Reference:
        Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer (arXiv:1803.10837),
        equations 4 to 6 with the cosine kernel.
    """

    aligns = "none"

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        _check_batch("ProbabilisticTransfer", teacher, student)
        p, q = (_neighbourhood(flat(x)) for x in (teacher, student))
        return ops.sum(p * (ops.log(p) - ops.log(q)), axis=-1)


def _neighbourhood(x: Any) -> Any:
    x = unit(x)
    kernel = ops.maximum((ops.matmul(x, ops.transpose(x)) + 1) / 2, 1e-7)
    return kernel / ops.sum(kernel, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="tfkd")
class VariationalInformation(DistillationLoss):
    """Negative log likelihood of the teacher's features: `mean ½[(r(student) − teacher)² / σ_c² + log σ_c²]`.

    σ² is learned per channel, as softplus of a weight; it starts at `variance`. Where the student equals the teacher
    the loss is `mean ½ log σ²`.

    Args:
        variance: of the start, > 0.

    Call arguments:
        teacher: [B, ..., C].
        student: [B, ..., C], adapted to the teacher's shape.

    Returns:
        [B] float32; may be negative.

    Reference:
        Ahn et al.: Variational Information Distillation for Knowledge Transfer (arXiv:1904.05835), equations 3 to 5.
    """

    def __init__(self, variance: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variance = check_number("VariationalInformation", "variance", variance, open_end=True)

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        start = math.log(math.expm1(self.variance))
        self.raw = self.add_weight(
            shape=(teacher_shape[-1],), initializer=keras.initializers.Constant(start), name="variance"
        )

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        variance = ops.softplus(ops.convert_to_tensor(self.raw)) + 1e-5
        values = 0.5 * (ops.square(student - teacher) / variance + ops.log(variance))
        return ops.mean(values, axis=tuple(range(1, len(student.shape))))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variance": self.variance}


@keras.saving.register_keras_serializable(package="tfkd")
class ContrastiveDistillation(DistillationLoss):
    """Contrastive distillation with the batch's own negatives.

    Both features are projected to `width` dimensions and L2-normalised; `s_ij` is the inner product of student i and
    teacher j over `temperature`. A sample's value is `½[−log softmax_j(s_ij)_i − log softmax_j(s_ji)_i]`. Negatives are
    the other samples of the batch of another class (all others without labels): the paper draws 16,384 from a memory
    bank instead, so larger batches come closer to it.

    Args:
        width: of the projections, >= 1.
        temperature: > 0.

    Call arguments:
        teacher: [B, ...].
        student: [B, ...], of any shape.
        y: [B] class numbers, optional.

    Returns:
        [B] float32, >= 0.

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation (arXiv:1910.10699), section 3; the loss over a
        batch as in van den Oord et al. (arXiv:1807.03748).
    """

    aligns = "none"

    def __init__(self, width: int = 128, temperature: float = 0.07, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = int(check_number("ContrastiveDistillation", "width", width, least=1))
        self.temperature = check_number("ContrastiveDistillation", "temperature", temperature, open_end=True)

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        self.project_teacher = self.add_weight(shape=(math.prod(teacher_shape[1:]), self.width), name="project_teacher")
        self.project_student = self.add_weight(shape=(math.prod(student_shape[1:]), self.width), name="project_student")

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        _check_batch("ContrastiveDistillation", teacher, student)
        theirs = unit(ops.matmul(flat(teacher), self.project_teacher))
        ours = unit(ops.matmul(flat(student), self.project_student))
        scores = ops.matmul(ours, ops.transpose(theirs)) / self.temperature
        same = ops.eye(ops.shape(scores)[0])
        if y is not None:
            y = ops.reshape(ops.convert_to_tensor(y), (ops.shape(scores)[0], -1))
            alike = ops.cast(ops.all(y[:, None] == y[None, :], axis=-1), "float32")
            scores = scores - 1e4 * (alike - same)  # samples of the same class are no negatives
        own = ops.diagonal(scores)
        return 0.5 * (ops.logsumexp(scores, axis=1) + ops.logsumexp(scores, axis=0)) - own

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "temperature": self.temperature}
