"""One training run; if it is interrupted at any moment, the next run resumes it with equal results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import tasks
from tfkd._internal import keras_compat, onednn
from tfkd._internal.types import JsonObject, Nest
from tfkd.data import Partner, Split, Splits, augmentations
from tfkd.data.augmentation import Augment
from tfkd.data.mixing import Mixing
from tfkd.distillation import label_losses, optimizers, precision
from tfkd.distillation.checkpoints import EpochCheckpoint, History, OnEpoch
from tfkd.distillation.compilation import jit_by_device
from tfkd.distillation.distiller import Distiller
from tfkd.distillation.early_stopping import BestWeights
from tfkd.distillation.epoch_sync import EpochSync
from tfkd.distillation.labels.store import SoftLabels
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.models import inputs, logits, own_code
from tfkd.tasks import ScoredTask, Task


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
    loggers: Sequence[keras.callbacks.Callback] = (),
    task: Task | None = None,
) -> History:
    """Trains a model with logits, or a `Distiller`, on the training split.

    After the training the model has the weights of the last epoch, or of the best epoch with early stopping. With `ema`
    these are moving averages. The validation measures the same weights.

    Args:
        model: Keras model with logits or `Distiller`, built, not compiled.
        splits: Data; the validation split is evaluated after each epoch.
        config: Epochs, batch size, optimizer, losses, augmentation and the other settings.
        seed: Random seed of order and augmentation.
        checkpoint: Folder for the last finished epoch; training resumes from the epoch that is there. None for no
            checkpoint.
        on_epoch: Function that is called with (finished epochs, total epochs, logs).
        soft_labels: Store that a `Distiller` learns from, with its own augmentation.
        partner: Samples of the teacher of a `Distiller`, if they are not those of the student.
        callbacks: Callbacks that may change the model, see `tfkd.optimization.Optimized`.
        loggers: Callbacks that read the logs, see `tfkd.distillation.loggers`.
        task: The task, which gives the loss on labels and the metrics; None for the one that labels and model show.

    Returns:
        The logs of each epoch by name, including epochs before an interruption.

    Raises:
        InputError: The model, the data and the store or partner do not belong together.
        ModelError: The model returns probabilities.
    """
    onednn.correct()
    augment, mixing = augmentation(config)
    if soft_labels is not None and (soft_labels.views == 1 or soft_labels.augment is not None):
        augment = None  # the store has its own
    dataset = splits.train.batches(
        config.batch_size,
        shuffle=True,
        augment=augment,
        seed=seed,
        soft_labels=soft_labels,
        partner=partner,
        mixing=mixing,
    )
    classes = logits.known_classes(_student(model))
    task = task or tasks.find(splits.train, classes)
    dataset, validation = task.with_targets(dataset), task.with_targets(splits.val.batches(256))
    steps = config.epochs * -(-len(splits.train) // config.batch_size)
    with precision.layers_in(_student(model), config.precision):
        model.compile(
            optimizers.build(config, model, steps),
            loss=label_losses.label_loss(config, mixed=mixing is not None, task=task),
            metrics=label_losses.metrics(config, mixed=mixing is not None, task=task),
            jit_compile=jit_by_device(),
        )
        if not isinstance(model, Distiller):  # which does both itself
            _check_and_build(model, splits.train, task)
            dataset, validation = _with_inputs(model, dataset), _with_inputs(model, validation)
        keeper = EpochCheckpoint(checkpoint, config.epochs, on_epoch)
        done = keeper.restore(model)
        best = _early_stopping(config, keeper, done, task)
        own = [own_code.call(name, keras.callbacks.Callback) for name in config.callbacks]
        with _differentiable(config):
            model.fit(
                dataset,
                validation_data=validation,
                epochs=config.epochs,
                initial_epoch=config.epochs if best and best.exhausted else done,
                shuffle=False,
                verbose=0,
                class_weight=label_losses.class_weights(config, splits.train),
                callbacks=[
                    *([] if isinstance(model, Distiller) else [EpochSync(dataset)]),
                    *callbacks,  # those that change the model come before the one that saves it
                    *own,
                    keeper,
                    *([best] if best else []),  # it needs the history of the epoch, and the averaged weights
                    *([keras.callbacks.SwapEMAWeights()] if config.ema else []),
                    *loggers,
                ],
            )
        if best:
            best.restore(model)
    return keeper.history


def _with_inputs(model: keras.Model, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Batches of several inputs with those of a model, by their names; others as they are."""
    if not isinstance(dataset.element_spec[0], dict):
        return dataset

    def with_inputs(x: Nest, y: Nest) -> tuple[Nest, Nest]:
        return keras.tree.lists_to_tuples(inputs.chosen(model, x, "training: the model")), y  # a list becomes a tensor

    return dataset.map(with_inputs)


def _check_and_build(model: keras.Model, train: Split, task: Task) -> None:
    """Checks the outputs of a compiled model, and builds the variables of its optimizer and metrics."""
    check = logits.check_are_logits if task.gives_logits else logits.shape_of_outputs
    shape = check("student", model, inputs.taken(model, train.x[:8], "training: the model"))
    _check_outputs(shape[1:], train, task)
    keras_compat.build_training_state(model, train.y[:8], [shape])


def _check_outputs(shape: tuple[int | None, ...], train: Split, task: Task) -> None:
    """Refuses outputs that the labels do not fit; the shape is that of a sample, () where it is not known."""
    if not shape:
        return
    expected = task.check_outputs(shape, train)
    if expected is None and task.is_classification and len(shape) != 1:
        expected = f"outputs of the shape ({shape[-1]},) for class numbers"
    if expected is not None:
        raise InputError(
            f"training: the model must have {expected}. Received: outputs of the shape {shape} for each sample. Choose "
            "a model, or a task, that fits the labels."
        )


def _early_stopping(config: TrainingConfig, keeper: EpochCheckpoint, done: int, task: Task) -> BestWeights | None:
    """The callback that keeps the best weights; a history of other logs does not say which epoch was the best."""
    if not config.early_stopping:
        return None
    name = f"val_{task.monitor}"
    if len(keeper.history.get(name, [])) != done:
        raise InputError(
            f"training: the checkpoint in {keeper.folder} must have {name} of each of its {done} epochs. Received: "
            f"{', '.join(keeper.history)}, as an earlier version of tfkd wrote them. Remove the folder to train again."
        )
    return BestWeights(config.early_stopping, keeper.history, keeper.folder, task.monitor, rises=task.monitor_rises)


@contextlib.contextmanager
def _differentiable(config: TrainingConfig) -> Iterator[None]:
    """Names the loss of the user where no gradient passes through it."""
    try:
        yield
    except ValueError as error:
        if not config.label_loss or "No gradients provided" not in str(error):
            raise
        raise InputError(
            f"training: label_loss={config.label_loss!r} must be differentiable. Received: no gradient of any weight, "
            "as after tf.numpy_function or argmax. Use operations of keras.ops."
        ) from error


def _student(model: keras.Model) -> keras.Model:
    return model.student if isinstance(model, Distiller) else model


def augmentation(config: TrainingConfig) -> tuple[Augment | None, Mixing | None]:
    """The augmentation of samples and the mixing of batches of a training configuration.

    Raises:
        InputError: A function of the user does not exist.
    """
    names = config.augment_names
    options: dict[str, JsonObject] = dict(config.augment_options)
    if "crop_flip" in names:
        options.setdefault("crop_flip", {"padding": config.padding, "flip": config.flip})
    own = {name: own_code.find(name) for name in names if ":" in name}
    return augmentations.build(names, options, own)


def evaluate(model: keras.Model, split: Split, task: ScoredTask) -> dict[str, float]:
    """The metrics of a task other than classification, by name.

    Args:
        model: Keras model with outputs [B, ...].
        split: Samples and labels.
        task: The task. Its threshold, if it has one, is the probability 0.5.
    """
    batches = _with_inputs(model, split.batches(256))
    outputs = np.concatenate([model(x, training=False).numpy() for x, _ in batches])
    return dict(task.score(outputs, split).values)


def accuracy(model: keras.Model, split: Split) -> float:
    """The share of samples whose largest logit is that of the label, 0..1.

    Args:
        model: Keras model with logits [B, C].
        split: Samples and labels.
    """
    # Not `predict`, which traces a new graph for each of the many models of a run.
    batches = _with_inputs(model, split.batches(256))
    correct = sum(int((model(x, training=False).numpy().argmax(-1) == y.numpy()).sum()) for x, y in batches)
    return correct / len(split)
