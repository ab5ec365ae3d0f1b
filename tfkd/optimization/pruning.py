"""Pruning: the smallest weights become zero while the student goes on learning, by tensorflow-model-optimization."""

from __future__ import annotations

import re
from typing import Any

import keras

from tfkd.errors import InputError
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.twin import Twin, load_tfmot, select

# The mask is drawn anew so often while the sparsity grows.
_UPDATES = 50


def prepare(
    student: keras.Model,
    *,
    sparsity: float = 0.5,
    pattern: str = "unstructured",
    schedule: str = "polynomial",
    layers: str | None = None,
) -> Optimized:
    """Makes a student lose weights while it is trained.

    Kernels of convolutions, Dense and recurrent layers are pruned; biases and depthwise kernels are not.

    Args:
        student: trained, functional or Sequential; it is left as it is.
        sparsity: the share of a kernel's weights that become zero, 0..1 (exclusive); M:N has its own.
        pattern: `unstructured`; `M:N`, such as `2:4`: M zeros in each N consecutive weights along the input channels;
            or `RxC`, such as `4x1`: whole blocks of R inputs and C outputs, of Dense layers only.
        schedule: `polynomial`: the sparsity grows over the first half of the training; `constant`: from its first step
            on. With M:N the mask is drawn once, at the first step.
        layers: a regular expression that is searched in the names of layers; left out, all that can be pruned.

    Raises:
        ValueError: a bad option, or layers that cannot be pruned so.

    Reference:
        Zhu, Gupta: To Prune, or Not to Prune (arXiv:1710.01878). Mishra et al.: Accelerating Sparse Deep Neural
        Networks (arXiv:2104.08378).
    """
    if not isinstance(sparsity, (int, float)) or not 0 < sparsity < 1:
        raise InputError(f"prune: sparsity must be in 0..1 (exclusive). Received: {sparsity!r}. Use 0.5.")
    if schedule not in ("polynomial", "constant"):
        raise InputError(f"prune: schedule must be polynomial or constant. Received: {schedule!r}. Use polynomial.")
    form, ranks = _pattern(pattern)
    zeros, group = form.get("sparsity_m_by_n", (0, 1))
    sparsity = zeros / group or sparsity
    twin = Twin.of(student, "prune")
    _, tfmot = load_tfmot()
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    def kernels(layer: Any) -> list[Any]:
        if not PruneRegistry.supports(layer):
            raise InputError("tensorflow-model-optimization does not prune it")
        found = PruneRegistry.make_prunable(layer).get_prunable_weights()
        if any(len(kernel.shape) not in ranks for kernel in found):
            raise InputError(f"pattern {pattern} needs kernels of {' or '.join(map(str, ranks))} dimensions")
        if any(kernel.shape[-2] % group for kernel in found):
            raise InputError(f"pattern {pattern} needs input channels in groups of {group}")
        return found

    taken, notes = select(twin, "prune", layers, kernels)
    growth = _schedule(tfmot, schedule, sparsity)
    make = tfmot.sparsity.keras.prune_low_magnitude
    pruned = twin.wrap({name: lambda layer: make(layer, pruning_schedule=growth, **form) for name in taken})
    wrappers = [layer for layer in pruned.layers if hasattr(layer, "pruning_obj")]

    def restore() -> Twin:
        _check_reached(wrappers, sparsity, exact="block_size" not in form)
        return twin.restore(tfmot.sparsity.keras.strip_pruning(pruned))

    def outline() -> keras.Model:
        for wrapper in wrappers:
            for step in (1, 2):  # M:N draws its mask at the first, the others their last at the second
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


def _pattern(pattern: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The arguments of tensorflow-model-optimization for a pattern, and the ranks of kernels that it fits."""
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


def _schedule(tfmot: Any, name: str, sparsity: float) -> Any:
    if name == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(sparsity, begin_step=1, frequency=1)
    return tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=1, end_step=2, frequency=1)


def _check_reached(wrappers: list[Any], sparsity: float, *, exact: bool) -> None:
    """Refuses weights that are denser than asked; blocks at a kernel's border may be a little."""
    for wrapper in wrappers:
        wrapper.pruning_obj.weight_mask_op()
        for kernel, _, _ in wrapper.pruning_vars:
            zeros = float((kernel.numpy() == 0).mean())
            # A kernel of few weights cannot have each share.
            if zeros < sparsity * (1 if exact else 0.5) - 1 / kernel.numpy().size:
                raise InputError(
                    f"prune: {wrapper.layer.name} must have {sparsity:.0%} of its weights at zero before it is "
                    f"exported. Received: {zeros:.0%}. Train it, with what optimize() gave as callbacks."
                )


class _Steps(keras.callbacks.Callback):
    """What `tfmot.sparsity.keras.UpdatePruningStep` does, for Keras 3; and the schedule fitted to the training."""

    def __init__(self, wrappers: list[Any], growth: Any) -> None:
        super().__init__()
        self.wrappers, self.growth = wrappers, growth

    def on_train_begin(self, logs: Any = None) -> None:
        for wrapper in self.wrappers:
            if int(wrapper.pruning_step) < 0:  # else it goes on where it was cut off
                wrapper.pruning_step.assign(0)
        if not hasattr(self.growth, "final_sparsity"):
            return
        if not self.params.get("steps"):
            raise InputError(
                "prune: the polynomial schedule must know how many steps an epoch has. Received: a data set of unknown "
                "length. Use schedule='constant', or a data set that knows its length."
            )
        steps = max(2, self.params["epochs"] * self.params["steps"] // 2)
        self.growth.frequency = max(1, steps // _UPDATES)
        self.growth.end_step = self.growth.begin_step + (steps - 1) // self.growth.frequency * self.growth.frequency

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for wrapper in self.wrappers:
            wrapper.pruning_obj.weight_mask_op()
