"""Magnitude pruning: the smallest weights become zero during training, by tensorflow-model-optimization."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import keras

from tfkd.errors import InputError, ModelError
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.twin import Twin, load_tfmot, select

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import PruningSchedule

# Number of mask updates while the sparsity grows.
_UPDATES = 50


def prepare(
    student: keras.Model,
    *,
    sparsity: float = 0.5,
    pattern: str = "unstructured",
    schedule: str = "polynomial",
    layers: str | None = None,
) -> Optimized:
    """Sets the smallest weights of each kernel to zero while the student is trained.

    Kernels of convolutions, Dense and recurrent layers are pruned; biases and depthwise kernels are not.

    Args:
        student: Trained functional or Sequential model; it is not changed.
        sparsity: Share of a kernel's weights that become zero, 0..1 (exclusive); ignored by the pattern M:N.
        pattern: `unstructured`; `M:N`, such as `2:4`: M zeros in each N consecutive weights along the input channels;
            or `RxC`, such as `4x1`: blocks of R inputs and C outputs, for Dense layers only.
        schedule: `polynomial`: the sparsity grows over the first half of the training; `constant`: full sparsity from
            the first step. With M:N the mask is computed once, at the first step.
        layers: Regular expression that is searched in layer names; None for all layers that can be pruned.

    Raises:
        InputError: An option is out of range.
        ModelError: A selected layer cannot be pruned with this pattern.

    Reference:
        Zhu, Gupta: To Prune, or Not to Prune (arXiv:1710.01878). Mishra et al.: Accelerating Sparse Deep Neural
        Networks (arXiv:2104.08378).
    """
    if not isinstance(sparsity, (int, float)) or not 0 < sparsity < 1:
        raise InputError(f"prune: sparsity must be in 0..1 (exclusive). Received: {sparsity!r}. Use 0.5.")
    if schedule not in ("polynomial", "constant"):
        raise InputError(f"prune: schedule must be polynomial or constant. Received: {schedule!r}. Use polynomial.")
    form, _ = _pattern(pattern)
    zeros, group = form.get("sparsity_m_by_n", (0, 1))
    sparsity = zeros / group or sparsity
    twin = Twin.of(student, "prune")
    _, tfmot = load_tfmot()
    taken, notes = select(twin, "prune", layers, lambda layer: _kernels(layer, pattern))
    growth = _schedule(tfmot, schedule, sparsity)
    make = tfmot.sparsity.keras.prune_low_magnitude
    pruned = twin.wrap({name: lambda layer: make(layer, pruning_schedule=growth, **form) for name in taken})
    wrappers = [layer for layer in pruned.layers if hasattr(layer, "pruning_obj")]

    def restore() -> Twin:
        _check_reached(wrappers, sparsity, exact="block_size" not in form)
        return twin.restore(tfmot.sparsity.keras.strip_pruning(pruned))

    def outline() -> keras.Model:
        for wrapper in wrappers:
            for step in (1, 2):  # M:N computes its mask at step 1, the other patterns their last one at step 2
                wrapper.pruning_step.assign(step)
                wrapper.pruning_obj.conditional_mask_update()
        return restore().student

    return Optimized(
        twin.trainable(pruned),
        (_Steps(wrappers, growth),),
        lambda path, **options: restore().export("prune", path, **options),
        lambda: restore().student,
        outline,
        notes,
    )


def _kernels(layer: tf_keras.layers.Layer, pattern: str) -> list[tf.Variable]:
    """The weights of a layer that can be pruned with a pattern.

    Raises:
        ModelError: The layer cannot be pruned, or not with this pattern.
    """
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    if not PruneRegistry.supports(layer):
        raise ModelError("tensorflow-model-optimization does not support it")
    form, ranks = _pattern(pattern)
    _, group = form.get("sparsity_m_by_n", (0, 1))
    found = PruneRegistry.make_prunable(layer).get_prunable_weights()
    if any(len(kernel.shape) not in ranks for kernel in found):
        raise ModelError(f"pattern {pattern} needs kernels of {' or '.join(map(str, ranks))} dimensions")
    if any(kernel.shape[-2] % group for kernel in found):
        raise ModelError(f"pattern {pattern} needs input channels in groups of {group}")
    return found


def _pattern(pattern: str) -> tuple[dict[str, tuple[int, int]], tuple[int, ...]]:
    """The arguments of tensorflow-model-optimization for a pattern, and the kernel ranks that it supports."""
    if pattern == "unstructured":
        return {}, (1, 2, 3, 4, 5)
    found = re.fullmatch(r"(\d+)([:x])(\d+)", str(pattern))
    if found:
        first, last = int(found[1]), int(found[3])
        if found[2] == ":" and 0 < first < last:
            return {"sparsity_m_by_n": (first, last)}, (2, 4)
        if found[2] == "x" and first * last > 1:
            return {"block_size": (first, last)}, (2,)
    raise InputError(
        f"prune: pattern must be unstructured, M:N with 0 < M < N, or RxC with more than one weight. "
        f"Received: {pattern!r}. Use unstructured, 2:4 or 4x1."
    )


def _schedule(tfmot: ModuleType, name: str, sparsity: float) -> PruningSchedule:
    if name == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(sparsity, begin_step=1, frequency=1)
    return tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=1, end_step=2, frequency=1)


def _check_reached(wrappers: list[tf_keras.layers.Layer], sparsity: float, *, exact: bool) -> None:
    """Raises when a kernel has fewer zeros than requested; blocks at the border of a kernel may be incomplete."""
    for wrapper in wrappers:
        wrapper.pruning_obj.weight_mask_op()
        for kernel, _, _ in wrapper.pruning_vars:
            zeros = float((kernel.numpy() == 0).mean())
            # In a small kernel not every share is possible.
            if zeros < sparsity * (1 if exact else 0.5) - 1 / kernel.numpy().size:
                raise InputError(
                    f"prune: {wrapper.layer.name} must have {sparsity:.0%} of its weights at zero before it is "
                    f"exported. Received: {zeros:.0%}. Train it with the callbacks that optimize() returned."
                )


class _Steps(keras.callbacks.Callback):
    """`tfmot.sparsity.keras.UpdatePruningStep` for Keras 3; it also fits the schedule to the number of steps."""

    def __init__(self, wrappers: list[tf_keras.layers.Layer], growth: PruningSchedule) -> None:
        super().__init__()
        self.wrappers, self.growth = wrappers, growth

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        for wrapper in self.wrappers:
            if int(wrapper.pruning_step) < 0:  # otherwise an interrupted training resumes
                wrapper.pruning_step.assign(0)
        if not hasattr(self.growth, "final_sparsity"):
            return
        if not self.params.get("steps"):
            raise InputError(
                "prune: the polynomial schedule needs the number of steps per epoch, which this data set does not "
                "give. Use schedule='constant', or a data set with a cardinality."
            )
        steps = max(2, self.params["epochs"] * self.params["steps"] // 2)
        self.growth.frequency = max(1, steps // _UPDATES)
        self.growth.end_step = self.growth.begin_step + (steps - 1) // self.growth.frequency * self.growth.frequency

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for wrapper in self.wrappers:
            wrapper.pruning_obj.weight_mask_op()
