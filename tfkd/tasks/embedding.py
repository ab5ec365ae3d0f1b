"""Embedding: vectors whose cosine tells whether two samples are of one identity, for faces, voices and retrieval."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfkd.tasks import bootstrap
from tfkd.tasks.task import Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split

# Values of an embedding that a builder is asked for.
SIZE = 32
# Pairs of samples for the verification; of more, so many are drawn at random.
_MOST_PAIRS = 10_000


class Embedding(ScoredTask):
    """Gives each sample a vector [D]; labels are identities, int64 [N], and those of the test part were not trained on.

    Two samples are compared by the cosine of their vectors. Retrieval: the most similar other test samples.
    Verification: whether a pair is of one identity, at any threshold.

    Reference:
        Musgrave et al.: A Metric Learning Reality Check (arXiv:2003.08505), section 2, for Recall@1; ISO/IEC 19795-1
        for the equal error rate.
    """

    name = "embedding"
    labels = "identities"
    metrics = (
        Metric("recall_at_1", "Recall@1"),
        Metric("recall_at_5", "Recall@5"),
        Metric("roc_auc", "ROC AUC"),
        Metric("eer", "EER", larger_is_better=False),
    )
    soft_loss = "cosine"
    gives_logits = False
    monitor = "loss"
    monitor_rises = False

    def outputs(self, split: Split) -> int:
        """The number of values that a builder is asked for, 32; a model may have any other number from two on."""
        return SIZE

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        """A vector of two values or more."""
        return None if len(shape) == 1 and shape[0] != 1 else "an embedding, a vector of two values or more"

    def hard_loss(self) -> keras.losses.Loss:
        """Supervised contrastive loss within a batch."""
        from tfkd.tasks.contrastive import SupervisedContrastive

        return SupervisedContrastive()

    def training_metrics(self) -> list[keras.Metric]:
        """None: the loss is logged."""
        return []

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """Recall@1 and @5, ROC AUC and equal error rate of pairs, in percent; NaN without pairs of one identity.

        Resamples of the bootstrap are of whole identities.
        """
        import numpy as np
        from sklearn.metrics import roc_auc_score

        y = np.asarray(split.y)
        vectors = unit(outputs)
        found = hits(vectors, y)
        first, second = pairs(y, seed)
        same: np.ndarray = y[first] == y[second]
        cosines = (vectors[first] * vectors[second]).sum(axis=1)
        if same.all() or not same.any():
            nothing = {metric.name: np.nan for metric in self.metrics}
            empty = {metric.name: np.full(bootstrap.RESAMPLES, np.nan) for metric in self.metrics}
            return Scored(nothing, empty, bootstrap.chance(cosines, same), right=found[:, 0])
        ranking, queries = bootstrap.Ranking(cosines, same), found[:, 2].astype(np.float64)
        place = np.unique(y, return_inverse=True)[1]

        def of(weights: np.ndarray) -> np.ndarray:
            """The metrics for weights of the identities, [B, G] -> [B, 4]."""
            of_samples = weights[:, place]
            of_pairs = of_samples[:, first] * of_samples[:, second]
            with np.errstate(invalid="ignore", divide="ignore"):
                recalls = of_samples @ (found[:, :2] * queries[:, None]) / (of_samples @ queries)[:, None]
            rates = [ranking.roc_auc(of_pairs), ranking.equal_error_rate(of_pairs)]
            return 100 * np.column_stack([recalls, *rates])

        identities = int(place.max()) + 1
        replicates = np.concatenate(
            [of(part) for block in bootstrap.counts(identities, seed) for part in np.array_split(block, 20)]
        )
        values = of(np.ones((1, identities)))[0]
        values[2] = 100 * roc_auc_score(same, cosines)
        constant = dataclasses.replace(bootstrap.chance(cosines, same), units=f"{identities} identities")
        if constant.better:  # pairs that share a sample are not independent, whole identities are
            constant = dataclasses.replace(constant, better=bootstrap.is_above(replicates[:, 2], constant.value))
        return Scored(
            {metric.name: float(values[number]) for number, metric in enumerate(self.metrics)},
            {metric.name: replicates[:, number] for number, metric in enumerate(self.metrics)},
            constant,
            right=found[:, 0],
            details=bootstrap.curves(cosines, same, "pairs of one identity"),
        )


def unit(outputs: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float64 [N, D]; a vector of zeros stays."""
    import numpy as np

    vectors = outputs.reshape(len(outputs), -1).astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def hits(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the most similar other sample has the identity, one of the five most similar has, and any other has.

    Args:
        vectors: Vectors of length 1, [N, D].
        y: Identities [N].

    Returns:
        bool [N, 3].
    """
    import numpy as np

    found = np.zeros((len(y), 3), bool)
    if len(y) < 2:
        return found
    for start in range(0, len(y), 512):
        rows = np.arange(start, min(start + 512, len(y)))
        cosines = vectors[rows] @ vectors.T
        cosines[np.arange(len(rows)), rows] = -np.inf  # not the sample itself
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(5, len(y) - 1)]
        same = y[nearest] == y[rows][:, None]
        known = (y[rows][:, None] == y).sum(axis=1) > 1
        found[rows] = np.stack([same[:, 0], same.any(axis=1), known], axis=1)
    return found


def pairs(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second sample of each pair.

    Of more than 10,000 pairs as many are drawn at random, half of them of one identity: among all pairs of many
    identities these are rare. ROC AUC and equal error rate do not depend on their share. The result is the same for the
    same arguments.

    Args:
        y: Identities [N].
        seed: Random seed.
    """
    import numpy as np

    samples = len(y)
    if samples * (samples - 1) // 2 <= _MOST_PAIRS:
        return np.triu_indices(samples, 1)
    rng, order = np.random.default_rng(seed), np.argsort(y, kind="stable")
    starts, sizes = np.unique(y[order], return_index=True, return_counts=True)[1:]
    start, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)  # of the identity at each place of the order
    place = np.arange(samples)

    def draw(partners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the first samples, and which of the partners of each is the second: of all pairs any as likely."""
        if not partners.any():
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        first = rng.choice(samples, _MOST_PAIRS // 2, p=partners / partners.sum())
        return first, rng.integers(0, partners[first])

    one, step = draw(size - 1)
    same = start[one] + (place[one] - start[one] + 1 + step) % size[one]
    other, step = draw(samples - size)
    different = (start[other] + size[other] + step) % samples
    return order[np.concatenate([one, other])], order[np.concatenate([same, different])]


TASK = Embedding()
