"""Doubts about a number of a validation: models that are not the ones that are meant, classes in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfkd.validation.results import Row

# Points by which a conversion or a distillation does not exceed the model that it comes from.
_MOST_GAIN = 5.0
# So many samples per class tell an order of classes from chance.
_LEAST_PER_CLASS = 10
_REMEDY = "Give the model, and the range of pixels, that it was trained with."


def on_other(other: Row, gain: float) -> str | None:
    """Why a model that another one is compared with cannot be the one that is meant.

    It is no better than a constant answer; or it is significantly worse than the model, by more than 5 points, though
    the model comes from it: it is the teacher, or the student before the conversion.

    Args:
        other: The other model.
        gain: Points by which the model is significantly better than the other one, but should not be; otherwise 0.

    Returns:
        Sentences; None where there is no such doubt.
    """
    if other.result is not None and other.result.constant.better is False:
        return f"The model {other.name!r} is not better than a constant answer. {other.result.constant.answer}"
    if other.accuracy is not None and other.constant_accuracy is not None:
        from tfkd.data.constant_answer import least_right

        least = least_right(other.samples, other.constant_accuracy)
        if round(other.accuracy * other.samples) < least <= other.samples:
            return (
                f"The model {other.name!r} classifies {other.accuracy:.1%} right, no better than the most frequent "
                f"label, which reaches {other.constant_accuracy:.1%}: it is untrained, or gets its samples in another "
                f"way than in its training. {_REMEDY}"
            )
    if gain <= _MOST_GAIN:
        return None
    return (
        f"The model {other.name!r} is worse than this one by {gain:.1f} points: it is another model, or gets its "
        f"samples in another way than in its training. {_REMEDY}"
    )


def other_order(row: Row) -> str | None:
    """A sentence on the order of classes in which a classification would be much more accurate; None without one."""
    if row.confusion is None or row.samples < _LEAST_PER_CLASS * len(row.confusion):
        return None
    from tfkd.validation import class_order

    found = class_order.better(row.confusion)
    return None if found is None else f"The classes of the model seem to be in another order: accuracy {found}."
