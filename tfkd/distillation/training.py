"""One training run; if it is interrupted at any moment, the next run resumes it with equal results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from tfkd._internal import keras_compat
from tfkd.data import CropFlip, Partner, Split, Splits, crop_flip
from tfkd.distillation import optimizers
from tfkd.distillation.checkpoints import EpochCheckpoint, History, OnEpoch
from tfkd.distillation.compilation import jit_by_device
from tfkd.distillation.distiller import Distiller
from tfkd.distillation.epoch_sync import EpochSync
from tfkd.distillation.labels.store import SoftLabels
from tfkd.distillation.training_config import TrainingConfig
from tfkd.models import logits


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
    """Trains a model with logits, or a `Distiller`, on the training split.

    Args:
        model: Keras model with logits or `Distiller`, built, not compiled.
        splits: Data; the validation split is evaluated after each epoch.
        config: Epochs, batch size, optimizer, learning rate and augmentation.
        seed: Random seed of order and augmentation.
        checkpoint: Folder for the last finished epoch; training resumes from the epoch that is there. None for no
            checkpoint.
        on_epoch: Function that is called with (finished epochs, total epochs, logs).
        soft_labels: Store that a `Distiller` learns from, with its own augmentation.
        partner: Samples of the teacher of a `Distiller`, if they are not those of the student.
        callbacks: Further callbacks, see `tfkd.optimization.Optimized`.

    Returns:
        The logs of each epoch by name, including epochs before an interruption.

    Raises:
        InputError: The model, the data and the store or partner do not belong together.
        ModelError: The model returns probabilities.
    """
    augment = None if soft_labels is not None else augmentation(config)
    dataset = splits.train.batches(
        config.batch_size, shuffle=True, augment=augment, seed=seed, soft_labels=soft_labels, partner=partner
    )
    steps = config.epochs * -(-len(splits.train) // config.batch_size)
    model.compile(
        optimizers.build(config, model, steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_by_device(),
    )
    if not isinstance(model, Distiller):  # which does both itself
        shape = logits.check_are_logits("student", model, splits.train.x[:8].astype("float32"))
        keras_compat.build_training_state(model, splits.train.y[:8], shape)
    keeper = EpochCheckpoint(checkpoint, config.epochs, on_epoch)
    done = keeper.restore(model)
    # Callbacks that change the model at the end of an epoch come before the one that saves it.
    sync = [] if isinstance(model, Distiller) else [EpochSync(dataset)]
    model.fit(
        dataset,
        validation_data=splits.val.batches(256),
        epochs=config.epochs,
        initial_epoch=done,
        shuffle=False,
        verbose=0,
        callbacks=[*sync, *callbacks, keeper],
    )
    return keeper.history


def augmentation(config: TrainingConfig) -> CropFlip | None:
    """The augmentation of a training configuration; None for `none`."""
    return crop_flip(config.padding, flip=config.flip) if config.augment == "crop_flip" else None


def accuracy(model: keras.Model, split: Split) -> float:
    """The share of samples whose largest logit is that of the label, 0..1.

    Args:
        model: Keras model with logits [B, C].
        split: Samples and labels.
    """
    # Not `predict`, which traces a new graph for each of the many models of a run.
    correct = sum(int((model(x, training=False).numpy().argmax(-1) == y.numpy()).sum()) for x, y in split.batches(256))
    return correct / len(split)
