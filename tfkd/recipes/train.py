"""The work of `tfkd train` and `tfkd distill`: one model built or loaded, trained and saved."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from tfkd import data, losses, models, optimization
from tfkd.distillation.checkpoints import OnEpoch
from tfkd.distillation.distiller import Distiller
from tfkd.distillation.training import accuracy, fit
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError


def train(
    name: str,
    out: Path,
    *,
    source: str,
    config: TrainingConfig,
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
        config: see `fit`.
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
        raise InputError(
            f"{out}: must be a new {suffixes[0]} file. Received: {found}. Choose another name or --overwrite."
        )
    if method and not loaded:
        raise InputError(
            f"distill: --optimize starts from a trained student, a .keras file. Received: {name!r}. Train it first: "
            f"tfkd distill --student {name} --out student.keras."
        )
    if settings and not method:
        raise InputError(f"distill: --set is for --optimize. Received: {', '.join(settings)}. Add --optimize qat.")
    splits = data.load(source)
    keras.utils.set_random_seed(seed)
    shape = (splits.train.input_shape, splits.train.num_classes)
    model = models.load(name) if loaded else models.build(name, *shape)
    optimized = optimization.optimize(model, method, **(settings or {})) if method else None
    if optimized and out.suffix == ".keras" and optimized.student is None:
        raise InputError(f"{out}: must be a new .tflite file, which {method} gives. Received: suffix '.keras'.")
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
    asked = [name, splits.train.content_hash, config.model_dump(), seed, soft, method, settings, hashes]
    key = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()
    checkpoint = out.with_name(f".{out.name}.{key[:16]}")
    for stale in out.parent.glob(f".{out.name}.*"):
        if stale != checkpoint:
            shutil.rmtree(stale)
    callbacks = optimized.callbacks if optimized else ()
    history = fit(trained, splits, config, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, callbacks=callbacks)
    record = {"val_accuracy": accuracy(student, splits.val), "history": history}
    if optimized and out.suffix == ".tflite":
        record |= optimized.export(out, calibration=splits.train, overwrite=overwrite, seed=seed).to_json()
    else:
        part = checkpoint / "model.keras"
        (optimized.student() if optimized and optimized.student else model).save(part)
        part.replace(out)
    shutil.rmtree(checkpoint)
    return {**record, "path": str(out)}
