"""A trained student made ready for its target while it goes on learning from its teacher: QAT, pruning, clustering."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfkd.errors import InputError
from tfkd.optimization.optimized import Optimized

if TYPE_CHECKING:
    import keras

__all__ = ["CHAINED", "METHODS", "Optimized", "optimize", "rehearse"]

# Where each method is: a function (student, **options) -> Optimized.
_HOMES = {
    "qat": "tfkd.optimization.qat:prepare",
    "prune": "tfkd.optimization.pruning:prepare",
    "cluster": "tfkd.optimization.clustering:prepare",
    "tfmot_qat": "tfkd.optimization.preservation:tfmot_qat",
    "pqat": "tfkd.optimization.preservation:pqat",
    "cqat": "tfkd.optimization.preservation:cqat",
    "pcqat": "tfkd.optimization.preservation:pcqat",
}
METHODS = tuple(_HOMES)
# Those that give a Keras model, which another method can go on with.
CHAINED = ("prune", "cluster")


def optimize(student: keras.Model, method: str, **options: Any) -> Optimized:
    """Prepares a trained student for a method; what is returned is trained on, then exported.

    Args:
        student: a trained model with logits; it is left as it is.
        method: one of `METHODS`. `qat`: quantization-aware training. `prune`: weights become zero. `cluster`: the
            weights of a layer share few values. `pqat`, `cqat`, `pcqat`: quantization-aware training of a pruned, a
            clustered or a pruned and clustered student, which stays so. `tfmot_qat`: the same of any student.
        **options: of the method: see `prepare` in `tfkd.optimization.qat`, `.pruning` and `.clustering`; the others
            have none.

    Raises:
        ValueError: an unknown method or option, or layers that the method does not take, all in one message.

    Example: see "Quantization-aware training" in the README.
    """
    if method not in _HOMES:
        near = difflib.get_close_matches(str(method), METHODS, n=1)
        raise InputError(
            f"optimize: method must be one of {', '.join(METHODS)}. Received: {method!r}. "
            f"{f'Did you mean {near[0]!r}?' if near else 'Use qat.'}"
        )
    module, name = _HOMES[method].split(":")
    prepare = getattr(importlib.import_module(module), name)
    known = list(inspect.signature(prepare).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"optimize: method {method!r} takes the options: {', '.join(known) or 'none'}. "
            f"Received: {', '.join(unknown)}. Leave out or rename the unknown."
        )
    return prepare(student, **options)


def rehearse(student: keras.Model, stages: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Tries methods that are to follow one another without training: what the last refuses shows before the first.

    Args:
        student: see `optimize`.
        stages: methods with their options; all but the last from `CHAINED`.

    Raises:
        ValueError: see `optimize`; the message names the stage.
    """
    for number, (method, options) in enumerate(stages, 1):
        try:
            optimized = optimize(student, method, **options)
        except ValueError as error:
            if len(stages) == 1:
                raise
            said = str(error).removeprefix(f"{method}: ")
            raise InputError(f"optimization {number} of {len(stages)}, {method}: {said}") from None
        if number < len(stages):
            assert optimized.outline is not None  # CHAINED
            student = optimized.outline()
