"""How many right answers are more than those of a constant answer, the most frequent label."""

from __future__ import annotations

import numpy as np

# Significance level of the test against a constant answer.
_SIGNIFICANCE = 0.05


def least_right(samples: int, share: float) -> int:
    """The smallest number of right answers that is significantly more than a constant answer gives.

    One-sided exact binomial test at 95 %: a model that answers right with the probability `share` gives so many right
    answers, or more, with a probability of at most 5 %.

    Args:
        samples: Number of samples.
        share: Share of the most frequent label, 0..1: the accuracy of the best constant answer.

    Returns:
        The number; more than `samples` if the samples are too few for any model.
    """
    from scipy.special import bdtrc  # scipy.stats takes longer to import than a validation takes to run

    above = bdtrc(np.arange(samples), samples, share)  # probability of more than 0, 1, ..., samples - 1 right answers
    return int((above > _SIGNIFICANCE).sum()) + 1
