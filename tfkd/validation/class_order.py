"""Another order of the classes, in which a model would be much more accurate."""

from __future__ import annotations

import numpy as np

# So many moved classes are named.
_NAMED = 12


def better(confusion: np.ndarray) -> str | None:
    """The accuracy in the order of the outputs that suits the labels best, if it is much higher.

    Args:
        confusion: Number of samples, int [C, C]: rows are labels, columns are predictions.

    Returns:
        Text such as `95.0% if label 0 is output 1, label 1 is output 0`; None where the order seems right.
    """
    from scipy.optimize import linear_sum_assignment

    samples = confusion.sum()
    labels, predictions = linear_sum_assignment(-confusion)
    accuracy, permuted = np.trace(confusion) / samples, confusion[labels, predictions].sum() / samples
    if permuted <= max(accuracy + 0.2, 2 * accuracy):
        return None
    moved = [f"label {a} is output {b}" for a, b in zip(labels, predictions, strict=True) if a != b]
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    return f"{permuted:.1%} if {', '.join(moved[:_NAMED])}{more}"
