"""Binary classification with one output: a logit, or its sigmoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd.errors import InputError
from tfkd.tasks import bootstrap
from tfkd.tasks.task import Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split


class Binary(ScoredTask):
    """Decides between two classes by one output; labels are 0 and 1, int64 [N]."""

    name = "binary"
    labels = "classes"
    metrics = (Metric("roc_auc", "ROC AUC"), Metric("pr_auc", "PR AUC"), Metric("f1", "F1"))
    soft_loss = "sigmoid_target"
    stored = "labels"
    has_threshold = True

    def outputs(self, split: Split) -> int:
        """One.

        Raises:
            InputError: The data do not have two classes.
        """
        self.check_labels(split)
        return 1

    def check_labels(self, split: Split) -> None:
        super().check_labels(split)
        if split.num_classes != 2:
            raise InputError(
                f"task 'binary' needs two classes. Received: {split.num_classes} in {split.name!r}. Use the task "
                "classification."
            )

    def hard_loss(self) -> keras.losses.Loss:
        """Binary cross-entropy of logits."""
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True)

    def training_metrics(self) -> list[keras.Metric]:
        """The accuracy at the probability 0.5."""
        import keras

        return [keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")]

    def choose_threshold(self, outputs: np.ndarray, samples: Split) -> float | None:
        """The threshold with the highest F1; None with too few positives or negatives."""
        y = samples.y.reshape(-1, 1)
        return bootstrap.best_threshold(outputs.reshape(len(y), 1), y == 1) if bootstrap.are_enough(y == 1) else None

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """ROC AUC, PR AUC (average precision) and F1 of the class 1, in percent; NaN where a class has no sample."""
        import numpy as np
        from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

        scores, positive = outputs.reshape(-1).astype(np.float64), split.y == 1
        limit = 0.0 if threshold is None else threshold
        called, n, both = scores > limit, len(scores), 0 < positive.sum() < len(positive)
        ranking = bootstrap.Ranking(scores, positive)
        replicates = {
            "roc_auc": 100 * bootstrap.replicate(ranking.roc_auc, n, seed),
            "pr_auc": 100 * bootstrap.replicate(ranking.average_precision, n, seed),
            "f1": 100
            * bootstrap.replicate(
                lambda weights: bootstrap.f1(weights, positive[:, None], called[:, None])[:, 0], n, seed
            ),
        }
        values = {
            "roc_auc": 100 * float(roc_auc_score(positive, scores)) if both else np.nan,
            "pr_auc": 100 * float(average_precision_score(positive, scores)) if both else np.nan,
            "f1": 100 * float(f1_score(positive, called, zero_division=0)),
        }
        return Scored(
            values,
            replicates,
            bootstrap.chance(scores, positive),
            right=called == positive,
            threshold=limit,
            details=bootstrap.curves(scores, positive, split.class_names[1]) if both else {},
        )


TASK = Binary()
