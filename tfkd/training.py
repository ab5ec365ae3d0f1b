"""One training run that a kill at any moment only interrupts: the next run goes on with equal results."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfkd import data, losses, models, optimization
from tfkd.augmentation import CropFlip, crop_flip
from tfkd.data import Split, Splits
from tfkd.distiller import Distiller, EpochSync, jit_by_device
from tfkd.recipe import Schedule, Student
from tfkd.soft_labels import SoftLabels

History = dict[str, list[float]]
OnEpoch = Callable[[int, int, Mapping[str, float]], None]


def fit(
    model: keras.Model,
    splits: Splits,
    schedule: Schedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    soft_labels: SoftLabels | None = None,
    partner: data.Partner | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Trains a model with logits, or a `Distiller`, on the train split.

    Args:
        model: built, not compiled.
        splits: train is learned from, val is watched.
        schedule: epochs, batch size, learning rate and augmentation.
        seed: of order and augmentation.
        checkpoint: a folder where each finished epoch is kept; what lies there is gone on from.
        on_epoch: called with (epochs done, epochs in all, logs).
        soft_labels: the store that a `Distiller` learns from; it has its own augmentation.
        partner: what the teacher of a `Distiller` sees, where that is something else.
        callbacks: what the training needs besides, see `tfkd.optimization.Optimized`.

    Returns:
        The logs of each epoch by name, those before an interruption included.
    """
    augment = None if soft_labels is not None else augmentation(schedule)
    dataset = splits.train.batches(
        schedule.batch_size, shuffle=True, augment=augment, seed=seed, soft_labels=soft_labels, partner=partner
    )
    steps = schedule.epochs * -(-len(splits.train) // schedule.batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(schedule.learning_rate, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_by_device(),
    )
    keeper = _Keeper(checkpoint, schedule.epochs, on_epoch)
    done = keeper.restore(model)
    # What changes the model at the end of an epoch comes before what keeps it.
    first = [] if isinstance(model, Distiller) else [EpochSync(dataset)]
    model.fit(
        dataset, validation_data=splits.val.batches(256), epochs=schedule.epochs, initial_epoch=done, shuffle=False,
        verbose=0, callbacks=[*first, *callbacks, keeper],
    )  # fmt: skip
    return keeper.history


def start(settings: Student, split: Split) -> keras.Model:
    """The student of a recipe before its training.

    Raises:
        ValueError: a file is no model, or layers do not fit; see `tfkd.models.inherit`.
    """
    if settings.model is None:
        student = models.load(settings.file or "")
        if not student.trainable_weights:  # as a teacher is often saved
            student.trainable = True
        return student
    student = models.build(settings.model, split.input_shape, split.num_classes, **settings.options)
    if settings.file is not None:
        models.inherit(student, models.load(settings.file), settings.layers)
    return student


def augmentation(schedule: Schedule) -> CropFlip | None:
    """The augmentation that a schedule names."""
    return crop_flip(schedule.padding, flip=schedule.flip) if schedule.augment == "crop_flip" else None


def train(
    name: str,
    out: Path,
    *,
    source: str,
    schedule: Schedule,
    seed: int = 0,
    overwrite: bool = False,
    on_epoch: OnEpoch | None = None,
    soft: Mapping[str, Any] | None = None,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Builds or loads a model, trains it and saves it, or, where it is optimized, what it becomes.

    Each finished epoch is kept beside `out` until that is there: the same call again goes on after the last.

    Args:
        name: one of `tfkd.models.NAMES`, or a `.keras` file to start from.
        out: the `.keras` file to write; with a method the `.tflite`, or, of a pruned or clustered student, a `.keras`
            file to optimize further.
        source: what `tfkd.data.load` takes.
        schedule: see `fit`.
        seed: of initial weights, order and augmentation.
        overwrite: replace an existing file.
        on_epoch: see `fit`.
        soft: for a student: `teacher` (path of a `.keras` file), `alpha`, `loss` (a name of `tfkd.losses.NAMES`)
            and its `options`.
        method: one of `tfkd.optimization.METHODS`, for a model from a file.
        settings: its options.
        say: called with what a method takes of the model, before the training.

    Returns:
        path, val_accuracy and history; of a .tflite also what it says of itself.

    Raises:
        ValueError: `out` exists or is of another suffix, or a model does not fit the data or the method.
    """
    suffixes, loaded = (".tflite", ".keras") if method else (".keras",), name.endswith(".keras")
    if out.suffix not in suffixes or (out.exists() and not overwrite):
        found = "an existing file" if out.exists() else f"suffix {out.suffix!r}"
        raise ValueError(
            f"{out}: must be a new {suffixes[0]} file. Received: {found}. Choose another name or --overwrite."
        )
    if method and not loaded:
        raise ValueError(
            f"distill: --optimize starts from a trained student, a .keras file. Received: {name!r}. Train it first: "
            f"tfkd distill --student {name} --out student.keras."
        )
    if settings and not method:
        raise ValueError(f"distill: --set is for --optimize. Received: {', '.join(settings)}. Add --optimize qat.")
    splits = data.load(source)
    keras.utils.set_random_seed(seed)
    shape = (splits.train.input_shape, splits.train.num_classes)
    model = models.load(name) if loaded else models.build(name, *shape)
    optimized = optimization.optimize(model, method, **(settings or {})) if method else None
    if optimized and out.suffix == ".keras" and optimized.student is None:
        raise ValueError(f"{out}: must be a new .tflite file, which {method} gives. Received: suffix '.keras'.")
    for note in optimized.notes if optimized else ():
        say(note)
    student = optimized.model if optimized else model
    trained = student
    if soft is not None:
        soft_loss = losses.build(soft["loss"], **soft["options"])
        trained = Distiller(student, models.load(soft["teacher"]), alpha=soft["alpha"], soft_loss=soft_loss)
    files = [Path(name)] if loaded else []
    files += [Path(soft["teacher"])] if soft else []
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    asked = [name, splits.train.content_hash, schedule.model_dump(), seed, soft, method, settings, hashes]
    key = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()
    checkpoint = out.with_name(f".{out.name}.{key[:16]}")
    for stale in out.parent.glob(f".{out.name}.*"):
        if stale != checkpoint:
            shutil.rmtree(stale)
    callbacks = optimized.callbacks if optimized else ()
    history = fit(
        trained, splits, schedule, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, callbacks=callbacks
    )  # fmt: skip
    record = {"val_accuracy": accuracy(student, splits.val), "history": history}
    if optimized and out.suffix == ".tflite":
        record |= optimized.export(out, calibration=splits.train, overwrite=overwrite, seed=seed).to_json()
    else:
        part = checkpoint / "model.keras"
        (optimized.student() if optimized and optimized.student else model).save(part)
        part.replace(out)
    shutil.rmtree(checkpoint)
    return {**record, "path": str(out)}


def label(
    out: str,
    teacher: Path,
    source: str,
    augment: Mapping[str, Any],
    *,
    shard: str = "0/1",
    verify: bool = False,
    on_chunk: Callable[[int, int], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Labels the train split of a data set, or verifies its labels.

    Args:
        out: the store.
        teacher: a `.keras` file.
        source: what `tfkd.data.load` takes.
        augment: `kind` (none or crop_flip), `padding` and `flip`.
        shard: `i/n`, see `SoftLabels.build`.
        verify: label a random sample again and compare instead.
        on_chunk: called with (chunks done, chunks in all).
        **options: `views`, `batch_size` and `seed` of `SoftLabels.build`.

    Returns:
        path, views, missing (chunks), and summary, a sentence.
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if parts is None:
        raise ValueError(f"label: shard must be i/n, such as 0/3. Received: {shard!r}.")
    model, train = models.load(teacher), data.load(source).train
    changed = crop_flip(augment["padding"], flip=augment["flip"]) if augment["kind"] == "crop_flip" else None
    if verify:
        store = SoftLabels.open(out)
        worst = store.verify(model, train, augment=changed if store.views > 1 else None)
        summary = f"{out}: a random sample was labelled again; the largest divergence is {worst:.2g}"
    else:
        store = SoftLabels.build(
            out, model, train, augment=changed if options.get("views", 1) > 1 else None,
            shard=(int(parts[1]), int(parts[2])), progress=on_chunk, **options,
        )  # fmt: skip
        missing = store.missing
        summary = f"{out}: {store.views} views of {len(train)} samples" + (
            f", {missing} chunks missing" if missing else ""
        )
    return {"path": out, "views": store.views, "missing": store.missing, "summary": summary}


def accuracy(model: keras.Model, split: Split) -> float:
    """The share of samples whose highest logit is the label."""
    # Not `predict`, which traces a graph anew for each of the many models of a run.
    right = sum(int((model(x, training=False).numpy().argmax(-1) == y.numpy()).sum()) for x, y in split.batches(256))
    return right / len(split)


class _Keeper(keras.callbacks.Callback):
    """Keeps weights, optimizer and history of the last finished epoch.

    `keras.callbacks.BackupAndRestore` writes weights and epoch number one after the other: a kill between the two, or
    inside the first, leaves a backup that does not resume equally. Here one rename makes an epoch count.
    """

    def __init__(self, folder: Path | None, epochs: int, on_epoch: OnEpoch | None) -> None:
        super().__init__()
        self.folder, self.epochs, self.on_epoch = folder, epochs, on_epoch
        self.history: History = {}

    def restore(self, model: keras.Model) -> int:
        """Takes up the last kept epoch and returns how many are done."""
        kept = sorted(self.folder.glob("epoch-*.weights.h5")) if self.folder else []
        if not kept:
            return 0
        # The file holds the optimizer's state, which must exist before it can be filled.
        model.optimizer.build(model.trainable_variables)
        model.load_weights(kept[-1])
        done = int(kept[-1].name.split("-")[1].split(".")[0])
        self.history = json.loads((kept[-1].parent / f"epoch-{done:06d}.json").read_text())
        return done

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"epoch-{epoch + 1:06d}"
            write_atomically(self.folder / f"{name}.json", json.dumps(self.history))
            self.model.save_weights(self.folder / "part.weights.h5", overwrite=True)
            (self.folder / "part.weights.h5").replace(self.folder / f"{name}.weights.h5")
            for old in self.folder.glob("epoch-*"):
                if not old.name.startswith(name):
                    old.unlink()
        if self.on_epoch is not None:
            self.on_epoch(epoch + 1, self.epochs, {name: values[-1] for name, values in self.history.items()})


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader, after a crash too, sees the old one or the whole new one."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
