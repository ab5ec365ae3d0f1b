"""The work of `tfkd label`: builds or verifies a store of teacher logits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfkd import data
from tfkd.data import CropFlip, crop_flip
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError
from tfkd.recipes.model_input import ModelInput


@dataclasses.dataclass(frozen=True)
class Job:
    """The labelling of a training split.

    Args:
        teacher: .keras file that returns logits.
        out: Store: a folder, or a URL that fsspec opens.
        data: Data set, see `tfkd.data.load`.
        views: Views per sample, >= 1.
        augment: Augmentation of the views after the first: `none` or `crop_flip`.
        padding: Padding of `crop_flip` in pixels, >= 0.
        flip: Whether `crop_flip` mirrors images at random.
        batch_size: Samples per teacher call, >= 1.
        seed: Seed of the views, >= 0.
        teacher_input: What the teacher expects for the pixels of images.
    """

    teacher: Path
    out: str
    data: str | data.Request
    views: int = 1
    augment: str = "crop_flip"
    padding: int = 4
    flip: bool = True
    batch_size: int = 256
    seed: int = 0
    teacher_input: ModelInput = ModelInput()

    def augmentation(self, views: int) -> CropFlip | None:
        """The augmentation of a store with so many views."""
        return crop_flip(self.padding, flip=self.flip) if views > 1 and self.augment == "crop_flip" else None


def build(job: Job, shard: str = "0/1", *, on_chunk: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Labels the training split, or this machine's part of it.

    Args:
        job: The labelling.
        shard: Part of the work, `i/n`, see `SoftLabels.build`.
        on_chunk: Called with (chunks done, chunks in total).

    Returns:
        path, views, missing (number of chunks) and summary, a sentence.

    Raises:
        InputError: `shard` is not `i/n`, or the store belongs to another teacher, data set or augmentation.
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if parts is None:
        raise InputError(f"label: shard must be i/n, such as 0/3. Received: {shard!r}.")
    if job.augment not in ("none", "crop_flip"):
        raise InputError(f"label: augment must be none or crop_flip. Received: augment={job.augment}.")
    train = data.load(job.data).train
    store = SoftLabels.build(
        job.out,
        job.teacher_input.load(job.teacher),
        train,
        views=job.views,
        augment=job.augmentation(job.views),
        shard=(int(parts[1]), int(parts[2])),
        batch_size=job.batch_size,
        seed=job.seed,
        progress=on_chunk,
    )
    missing = f", {store.missing} chunks missing" if store.missing else ""
    return _record(job, store, f"{job.out}: {store.views} views of {len(train)} samples{missing}")


def verify(job: Job) -> dict[str, Any]:
    """Recomputes the logits of random samples and compares them with the store; writes nothing.

    Args:
        job: The labelling that made the store.

    Returns:
        See `build`.

    Raises:
        InputError: There is no store, or it belongs to another teacher, data set or augmentation.
    """
    store = SoftLabels.open(job.out)
    largest = store.verify(
        job.teacher_input.load(job.teacher), data.load(job.data).train, augment=job.augmentation(store.views)
    )
    return _record(job, store, f"{job.out}: logits were recomputed; the largest divergence is {largest:.2g}")


def _record(job: Job, store: SoftLabels, summary: str) -> dict[str, Any]:
    return {"path": job.out, "views": store.views, "missing": store.missing, "summary": summary}
