"""Multi-label classification: each sample has any number of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd.tasks import bootstrap
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split


class MultiLabel(ScoredTask):
    """Decides for each of C labels whether it applies; labels are 0 and 1, int64 [N, C]."""

    name = "multi_label"
    labels = "multi_hot"
    metrics = (Metric("map", "mAP"), Metric("f1", "F1"))
    monitor = "label_accuracy"
    soft_loss = "sigmoid_target"
    stored = "labels"
    has_threshold = True

    def hard_loss(self) -> keras.losses.Loss:
        """Binary cross-entropy of the logits of each label."""
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True)

    def training_metrics(self) -> list[keras.Metric]:
        """The share of right decisions at the probability 0.5."""
        import keras

        return [keras.metrics.BinaryAccuracy(threshold=0.0, name=self.monitor)]

    def choose_threshold(self, outputs: np.ndarray, samples: Split) -> float | None:
        """The threshold, one for all labels, with the highest mean F1; None with too few positives or negatives."""
        y = samples.y
        if not bootstrap.are_enough(y == 1):
            return None
        occurring = y.any(axis=0)
        return bootstrap.best_threshold(outputs.reshape(y.shape)[:, occurring], y[:, occurring] == 1)

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """MAP and mean F1 over the labels that occur in the split, in percent."""
        import numpy as np
        from sklearn.metrics import average_precision_score, f1_score

        scores, positive = outputs.reshape(split.y.shape).astype(np.float64), split.y == 1
        limit = 0.0 if threshold is None else threshold
        called, n, occurring = scores > limit, len(scores), np.flatnonzero(positive.any(axis=0))
        precision = np.array([average_precision_score(positive[:, c], scores[:, c]) for c in occurring])
        by_label = f1_score(positive[:, occurring], called[:, occurring], average=None, zero_division=0)
        rankings = [bootstrap.Ranking(scores[:, c], positive[:, c]) for c in occurring]
        some, called_some = positive[:, occurring], called[:, occurring]

        def replicates_of(weights: np.ndarray) -> np.ndarray:
            ap = np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1)
            return np.stack([_mean(ap), bootstrap.f1(weights, some, called_some).mean(axis=1)], axis=1)

        if not len(occurring):
            nothing = np.full(bootstrap.RESAMPLES, np.nan)
            answer = ConstantAnswer("map", np.nan, None, "No label occurs in the split.")
            return Scored({"map": np.nan, "f1": np.nan}, {"map": nothing, "f1": nothing}, answer, threshold=limit)
        found = 100 * bootstrap.replicate(replicates_of, n, seed)
        share = 100 * float(positive[:, occurring].mean())
        orders = bootstrap.permutations(n)
        by_chance = np.mean([ranking.average_precision_of(orders) for ranking in rankings], axis=0)
        return Scored(
            {"map": 100 * float(precision.mean()), "f1": 100 * float(np.mean(by_label))},
            {"map": found[:, 0], "f1": found[:, 1]},
            ConstantAnswer(
                "map",
                share,
                bootstrap.is_significant(float(precision.mean()), by_chance),
                f"A constant answer has the mean share of the labels as its mAP, {share:.1f}%.",
            ),
            right=(called == positive).all(axis=1),
            threshold=limit,
            details={
                "by_label": [
                    {
                        "name": split.class_names[c],
                        "samples": int(positive[:, c].sum()),
                        "average_precision": 100 * float(precision[place]),
                        "f1": 100 * float(by_label[place]),
                    }
                    for place, c in enumerate(occurring)
                ],
                "missing": [split.class_names[c] for c in np.flatnonzero(~positive.any(axis=0))],
            },
        )


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the labels that occur in each resample, [B, C] -> [B]; NaN where none does."""
    import numpy as np

    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)


TASK = MultiLabel()
