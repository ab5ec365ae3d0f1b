"""Losses on features: outputs of a layer inside the student and of one inside the teacher."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import InputError
from tfkd.losses.loss import DistillationLoss, Shape, check_number, flat, unit


def _check_batch(where: str, teacher: Tensor, student: Tensor) -> None:
    if student.shape[0] is not None and student.shape[0] < 2:
        raise InputError(f"{where}: compares the samples of a batch. Received: a batch of 1. Use a larger batch.")


@keras.saving.register_keras_serializable(package="tfkd")
class Hint(DistillationLoss):
    """Mean squared difference of features (FitNets): `mean (r(student) − teacher)²` over all axes but the batch.

    r is a trained adapter, which `tfkd.features.Feature` inserts where the shapes differ.

    Call arguments:
        teacher: [B, ..., C] teacher feature.
        student: [B, ..., C] student feature, adapted to the teacher's shape.
        y: Not used.

    Returns:
        [B] float32, each >= 0.

    Reference:
        Romero et al.: FitNets: Hints for Thin Deep Nets (arXiv:1412.6550), equation 3.
    """

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        return ops.mean(ops.square(flat(student) - flat(teacher)), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class SimKD(Hint):
    """`Hint` on the classifier's input, for a student that reuses the teacher's classifier.

    `mean (P(student) − teacher)²` over all axes but the batch. `tfkd.features.with_teacher_head` builds such a
    student, with the projector P in the layer `projector`. The paper trains with this loss only: set alpha to 1 and
    the feature's weight much higher than that of the soft loss.

    Call arguments:
        teacher: [B, ..., C] teacher feature.
        student: [B, ..., C] projected student feature.
        y: Not used.

    Returns:
        [B] float32, each >= 0.

    Reference:
        Chen et al.: Knowledge Distillation with the Reused Teacher Classifier (arXiv:2203.14001), equation 2.
    """


@keras.saving.register_keras_serializable(package="tfkd")
class AttentionTransfer(DistillationLoss):
    """Squared distance of attention maps: `‖n(mean_c student²) − n(mean_c teacher²)‖²`.

    The mean is over the channels, and n divides the flattened map by its L2 norm. Channels may differ in number. With
    MobileNetV2 as the student, published accuracy on CIFAR-100 is lower than without this loss (59.40 instead of
    64.60 %): compare before using it there.

    Call arguments:
        teacher: [B, ..., C] teacher feature, an image or a sequence.
        student: [B, ..., C'] student feature with the same positions.
        y: Not used.

    Returns:
        [B] float32, 0..4.

    Reference:
        Zagoruyko, Komodakis: Paying More Attention to Attention (arXiv:1612.03928), equation 2 with p = 2.
    """

    aligns = "positions"

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        if len(student.shape) < 3:
            raise InputError(
                f"AttentionTransfer: features must have positions, [B, ..., C]. Received: {tuple(student.shape)}. "
                "Select a layer before the pooling."
            )
        maps = [unit(flat(ops.mean(ops.square(x), axis=-1))) for x in (teacher, student)]
        return ops.sum(ops.square(maps[1] - maps[0]), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class SimilarityPreserving(DistillationLoss):
    """Difference of the similarities within a batch: `‖n(F_t F_tᵀ) − n(F_s F_sᵀ)‖² / B²`.

    F are the features flattened to [B, D], and n divides each row by its L2 norm. The value of sample i is the share
    of row i, `Σ_j (...)²_ij / B`; the mean over the batch is the paper's loss.

    Call arguments:
        teacher: [B, ...] teacher feature, B >= 2.
        student: [B, ...] student feature; its shape may differ.
        y: Not used.

    Returns:
        [B] float32, each >= 0.

    Reference:
        Tung, Mori: Similarity-Preserving Knowledge Distillation (arXiv:1907.09682), equations 1 to 4.
    """

    aligns = "none"

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        _check_batch("SimilarityPreserving", teacher, student)
        rows = [unit(ops.matmul(x, ops.transpose(x))) for x in (flat(teacher), flat(student))]
        return ops.mean(ops.square(rows[1] - rows[0]), axis=-1)


@keras.saving.register_keras_serializable(package="tfkd")
class RelationalKD(DistillationLoss):
    """Huber loss between the pairwise distances and between the angles within a batch.

    `distance · Huber(d_t / mean d_t, d_s / mean d_s) + angle · Huber(cos_t, cos_s)`, with d the pairwise distances and
    cos the cosine of the angle at sample k between samples i and j. The value of sample k is the mean over the pairs
    (k, j) and the triples (k, i, j); the mean over the batch is the paper's loss. Memory grows with B³.

    Args:
        distance: Weight of the distances, >= 0.
        angle: Weight of the angles, >= 0.

    Call arguments:
        teacher: [B, ...] teacher feature, B >= 2.
        student: [B, ...] student feature; its shape may differ.
        y: Not used.

    Returns:
        [B] float32, each >= 0.

    Reference:
        Park et al.: Relational Knowledge Distillation (arXiv:1904.05068), sections 3.2.1 and 3.2.2.
    """

    aligns = "none"

    def __init__(self, distance: float = 25.0, angle: float = 50.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.distance = check_number("RelationalKD", "distance", distance)
        self.angle = check_number("RelationalKD", "angle", angle)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        _check_batch("RelationalKD", teacher, student)
        (d_t, cos_t), (d_s, cos_s) = (_relations(flat(x)) for x in (teacher, student))
        distances = ops.mean(_huber(d_s - d_t), axis=-1)
        angles = ops.mean(_huber(cos_s - cos_t), axis=(1, 2))
        return self.distance * distances + self.angle * angles

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "distance": self.distance, "angle": self.angle}


def _relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pairwise distances divided by their mean, [B, B], and cosines of angles, [B, B, B], of samples x [B, D].

    The cosine at [k, i, j] is that of the angle at sample k between samples i and j:

            i
           /      cos = (x_i − x_k)·(x_j − x_k) / (d_ki · d_kj)
          k---j       = (x_i·x_j − x_k·x_i − x_k·x_j + x_k·x_k) / (d_ki · d_kj)

    Everything is computed from the inner products, so that no [B, B, D] array of differences is needed.
    """
    x = x - ops.mean(x, axis=0, keepdims=True)
    inner = ops.matmul(x, ops.transpose(x))
    norms = ops.diagonal(inner)
    squared = ops.maximum(norms[:, None] + norms[None, :] - 2 * inner, 0.0)
    apart = ops.cast(squared > 1e-10, "float32")
    # The square root has an infinite gradient at 0: coincident samples get distance 0 without a gradient.
    distances = apart * ops.sqrt(ops.where(squared > 1e-10, squared, 1.0))
    mean = ops.sum(distances) / ops.maximum(ops.sum(apart), 1.0)
    products = inner[None, :, :] - inner[:, :, None] - inner[:, None, :] + norms[:, None, None]
    lengths = distances[:, :, None] * distances[:, None, :]
    cosines = ops.where(lengths > 0, products / ops.where(lengths > 0, lengths, 1.0), 0.0)
    return distances / ops.maximum(mean, 1e-12), cosines


def _huber(x: Tensor) -> Tensor:
    """½x² where |x| < 1, else |x| − ½."""
    size = ops.abs(x)
    return ops.where(size < 1, 0.5 * size * size, size - 0.5)


@keras.saving.register_keras_serializable(package="tfkd")
class ProbabilisticTransfer(DistillationLoss):
    """Divergence of the similarity distributions within a batch (PKT): `Σ_j P_ij · (log P_ij − log Q_ij)` for sample i.

    P (teacher) and Q (student) are the matrices of (cos + 1) / 2 between samples, divided by the sum of each row.

    Call arguments:
        teacher: [B, ...] teacher feature, B >= 2.
        student: [B, ...] student feature; its shape may differ.
        y: Not used.

    Returns:
        [B] float32, each >= 0 up to rounding.

    Reference:
        Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer (arXiv:1803.10837),
        equations 4 to 6 with the cosine kernel.
    """

    aligns = "none"

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        _check_batch("ProbabilisticTransfer", teacher, student)
        p, q = (_similarity_distribution(flat(x)) for x in (teacher, student))
        return ops.sum(p * (ops.log(p) - ops.log(q)), axis=-1)


def _similarity_distribution(x: Tensor) -> Tensor:
    """[B, B] similarities (cos + 1) / 2 of samples x [B, D], divided by the sum of each row."""
    x = unit(x)
    kernel = ops.maximum((ops.matmul(x, ops.transpose(x)) + 1) / 2, 1e-7)
    return kernel / ops.sum(kernel, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="tfkd")
class VariationalInformation(DistillationLoss):
    """Negative log-likelihood of the teacher's feature (VID): `mean ½[(r(student) − teacher)² / σ_c² + log σ_c²]`.

    The mean is over all axes but the batch, and r is a trained adapter, which `tfkd.features.Feature` inserts where
    the shapes differ. The variance σ_c² of each channel is the softplus of a trained weight. Where the student equals
    the teacher, the loss is `mean ½ log σ_c²`.

    Args:
        variance: Initial variance, > 0.

    Call arguments:
        teacher: [B, ..., C] teacher feature.
        student: [B, ..., C] student feature, adapted to the teacher's shape.
        y: Not used.

    Returns:
        [B] float32; may be negative.

    Reference:
        Ahn et al.: Variational Information Distillation for Knowledge Transfer (arXiv:1904.05835), equations 3 to 5.
    """

    def __init__(self, variance: float = 5.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.variance = check_number("VariationalInformation", "variance", variance, open_end=True)

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        start = math.log(math.expm1(self.variance))
        self.raw = self.add_weight(
            shape=(teacher_shape[-1],), initializer=keras.initializers.Constant(start), name="variance"
        )

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        variance = ops.softplus(ops.convert_to_tensor(self.raw)) + 1e-5
        values = 0.5 * (ops.square(student - teacher) / variance + ops.log(variance))
        return ops.mean(values, axis=tuple(range(1, len(student.shape))))

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "variance": self.variance}


@keras.saving.register_keras_serializable(package="tfkd")
class ContrastiveDistillation(DistillationLoss):
    """Contrastive distillation (CRD) with negatives from the batch.

    Both features are projected to `width` dimensions by trained matrices and L2-normalized; `s_ij` is the inner product
    of student i and teacher j, divided by `temperature`. The value of sample i is
    `½[−log softmax_j(s_ij)_i − log softmax_j(s_ji)_i]`. Negatives are the samples of the batch with another label (all
    other samples without labels). The paper draws 16,384 negatives from a memory bank instead; larger batches are
    closer to it.

    Args:
        width: Dimensions of the projections, >= 1.
        temperature: Temperature of the similarities, > 0.

    Call arguments:
        teacher: [B, ...] teacher feature, B >= 2.
        student: [B, ...] student feature; its shape may differ.
        y: [B] class indices or [B, C] one-hot rows; optional.

    Returns:
        [B] float32, >= 0.

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation (arXiv:1910.10699), section 3; the loss over a
        batch as in van den Oord et al. (arXiv:1807.03748).
    """

    aligns = "none"

    def __init__(self, width: int = 128, temperature: float = 0.07, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.width = int(check_number("ContrastiveDistillation", "width", width, least=1))
        self.temperature = check_number("ContrastiveDistillation", "temperature", temperature, open_end=True)

    def build(self, teacher_shape: tuple[int, ...], student_shape: tuple[int, ...]) -> None:
        self.project_teacher = self.add_weight(shape=(math.prod(teacher_shape[1:]), self.width), name="project_teacher")
        self.project_student = self.add_weight(shape=(math.prod(student_shape[1:]), self.width), name="project_student")

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        _check_batch("ContrastiveDistillation", teacher, student)
        teacher_projection = unit(ops.matmul(flat(teacher), self.project_teacher))
        student_projection = unit(ops.matmul(flat(student), self.project_student))
        scores = ops.matmul(student_projection, ops.transpose(teacher_projection)) / self.temperature
        same = ops.eye(ops.shape(scores)[0])
        if y is not None:
            y = ops.reshape(ops.convert_to_tensor(y), (ops.shape(scores)[0], -1))
            alike = ops.cast(ops.all(y[:, None] == y[None, :], axis=-1), "float32")
            # Samples with the same label are not negatives: their score is lowered so far that e^score is 0.
            scores = scores - 1e4 * (alike - same)
        own = ops.diagonal(scores)
        return 0.5 * (ops.logsumexp(scores, axis=1) + ops.logsumexp(scores, axis=0)) - own

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "width": self.width, "temperature": self.temperature}
