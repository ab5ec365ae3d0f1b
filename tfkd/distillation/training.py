"""One training run that a kill at any moment only interrupts: the next run goes on with equal results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from tfkd.data import CropFlip, Partner, Split, Splits, crop_flip
from tfkd.distillation.checkpoints import EpochCheckpoint, History, OnEpoch
from tfkd.distillation.distiller import Distiller, EpochSync, jit_by_device
from tfkd.distillation.labels.store import SoftLabels
from tfkd.distillation.training_config import TrainingConfig


def fit(
    model: keras.Model,
    splits: Splits,
    config: TrainingConfig,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    soft_labels: SoftLabels | None = None,
    partner: Partner | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Trains a model with logits, or a `Distiller`, on the train split.

    Args:
        model: built, not compiled.
        splits: train is learned from, val is watched.
        config: epochs, batch size, learning rate and augmentation.
        seed: of order and augmentation.
        checkpoint: a folder where each finished epoch is kept; what lies there is gone on from.
        on_epoch: called with (epochs done, epochs in all, logs).
        soft_labels: the store that a `Distiller` learns from; it has its own augmentation.
        partner: what the teacher of a `Distiller` sees, where that is something else.
        callbacks: what the training needs besides, see `tfkd.optimization.Optimized`.

    Returns:
        The logs of each epoch by name, those before an interruption included.
    """
    augment = None if soft_labels is not None else augmentation(config)
    dataset = splits.train.batches(
        config.batch_size, shuffle=True, augment=augment, seed=seed, soft_labels=soft_labels, partner=partner
    )
    steps = config.epochs * -(-len(splits.train) // config.batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_by_device(),
    )
    keeper = EpochCheckpoint(checkpoint, config.epochs, on_epoch)
    done = keeper.restore(model)
    # What changes the model at the end of an epoch comes before what keeps it.
    first = [] if isinstance(model, Distiller) else [EpochSync(dataset)]
    model.fit(
        dataset,
        validation_data=splits.val.batches(256),
        epochs=config.epochs,
        initial_epoch=done,
        shuffle=False,
        verbose=0,
        callbacks=[*first, *callbacks, keeper],
    )
    return keeper.history


def augmentation(config: TrainingConfig) -> CropFlip | None:
    """The augmentation that a schedule names."""
    return crop_flip(config.padding, flip=config.flip) if config.augment == "crop_flip" else None


def accuracy(model: keras.Model, split: Split) -> float:
    """The share of samples whose highest logit is the label."""
    # Not `predict`, which traces a graph anew for each of the many models of a run.
    right = sum(int((model(x, training=False).numpy().argmax(-1) == y.numpy()).sum()) for x, y in split.batches(256))
    return right / len(split)
