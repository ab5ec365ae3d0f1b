"""Quantization-aware training, pruning and clustering of a student that is trained further by its teacher."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.optimization.optimized import Optimized

if TYPE_CHECKING:
    import keras

__all__ = ["CHAINED", "METHODS", "Optimized", "check_training", "optimize", "rehearse"]

# The function of each method: (student, **options) -> Optimized. A new method is one module and one line here.
_FUNCTIONS = {
    "qat": "tfkd.optimization.qat:prepare",
    "prune": "tfkd.optimization.pruning:prepare",
    "cluster": "tfkd.optimization.clustering:prepare",
    "tfmot_qat": "tfkd.optimization.preservation:tfmot_qat",
    "pqat": "tfkd.optimization.preservation:pqat",
    "cqat": "tfkd.optimization.preservation:cqat",
    "pcqat": "tfkd.optimization.preservation:pcqat",
}
METHODS = tuple(_FUNCTIONS)
# Methods whose result is a Keras model that another method can start from.
CHAINED = ("prune", "cluster")
# Methods whose weights are what the method promises after each epoch, also on average.
_EVERY_EPOCH_IS_COMPLETE = ("qat", "tfmot_qat")


def optimize(student: keras.Model, method: str, **options: object) -> Optimized:
    """Prepares a trained student for an optimization method; the result is trained further, then exported.

    Args:
        student: Trained model with logits; it is not changed.
        method: One of `METHODS`. `qat`: quantization-aware training. `prune`: weights become zero. `cluster`: the
            weights of a layer share few values. `pqat`, `cqat`, `pcqat`: quantization-aware training of a pruned, a
            clustered, or a pruned and clustered student that preserves zeros and clusters. `tfmot_qat`: the same for
            any student, by tensorflow-model-optimization.
        **options: Options of the method: see `prepare` in `tfkd.optimization.qat`, `.pruning` and `.clustering`; the
            other methods have none.

    Returns:
        The model to train, its callbacks and the function that exports it.

    Raises:
        InputError: The method or an option is unknown.
        ModelError: The method does not support some layers; one message names all of them.
    """
    if method not in _FUNCTIONS:
        near = difflib.get_close_matches(str(method), METHODS, n=1)
        raise InputError(
            f"optimize: method must be one of {', '.join(METHODS)}. Received: {method!r}. "
            f"{f'Did you mean {near[0]!r}?' if near else 'Use qat.'}"
        )
    module, name = _FUNCTIONS[method].split(":")
    prepare = getattr(importlib.import_module(module), name)
    known = list(inspect.signature(prepare).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"optimize: method {method!r} takes the options: {', '.join(known) or 'none'}. "
            f"Received: {', '.join(unknown)}. Remove or rename the unknown ones."
        )
    return prepare(student, **options)


def check_training(method: str, config: TrainingConfig) -> None:
    """Refuses settings of a training under which a method would not give what it promises.

    Args:
        method: One of `METHODS`.
        config: Settings of the training of the prepared student.

    Raises:
        InputError: An average of weights or those of an early epoch would have other zeros or clusters than the last
            step, or quantized layers would compute in half precision.
    """
    settings = {"precision": config.precision != "float32"}
    if method not in _EVERY_EPOCH_IS_COMPLETE:
        settings |= {"ema": config.ema is not None, "early_stopping": config.early_stopping is not None}
    for name, given in settings.items():
        if given:
            raise InputError(
                f"optimize: {name} does not go with method {method!r}. Received: {name} = {getattr(config, name)}. "
                "Leave it out."
            )


def rehearse(student: keras.Model, stages: Sequence[tuple[str, Mapping[str, object]]]) -> None:
    """Applies a sequence of methods without training, to find an unsupported layer or option before the first trains.

    Args:
        student: See `optimize`.
        stages: Methods with their options; all but the last from `CHAINED`.

    Raises:
        InputError: See `optimize`; the message names the stage.
        ModelError: See `optimize`; the message names the stage.
    """
    for number, (method, options) in enumerate(stages, 1):
        try:
            optimized = optimize(student, method, **options)
        except InputError as error:
            if len(stages) == 1:
                raise
            message = str(error).removeprefix(f"{method}: ")
            raise type(error)(f"optimization {number} of {len(stages)}, {method}: {message}") from None
        if number < len(stages):
            assert optimized.outline is not None  # CHAINED
            student = optimized.outline()
