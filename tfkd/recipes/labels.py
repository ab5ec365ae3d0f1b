"""The work of `tfkd label`: builds or verifies a store of teacher logits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd import data, tasks
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data import augmentations
from tfkd.data.augmentation import Augment
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError
from tfkd.models import own_code
from tfkd.recipes.model_input import ModelInput

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Job:
    """The labelling of a training split.

    Args:
        teacher: .keras file that returns logits.
        out: Store: a folder, or a URL that fsspec opens.
        data: Data set, see `tfkd.data.load`.
        views: Views per sample, >= 1.
        augment: Augmentations of the views after the first, see `tfkd.data.augmentations`; `none` for none.
        augment_options: Their arguments, by name.
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
    augment: Sequence[str] = ("crop_flip",)
    augment_options: Mapping[str, JsonRecord] = dataclasses.field(default_factory=dict)
    padding: int = 4
    flip: bool = True
    batch_size: int = 256
    seed: int = 0
    teacher_input: ModelInput = ModelInput()

    @property
    def task(self) -> str | None:
        """Name of the declared task; None to find it."""
        return self.data.task if isinstance(self.data, data.Request) else None

    def load_teacher(self) -> keras.Model:
        """The teacher; a regression keeps the activation at its end."""
        return self.teacher_input.load(self.teacher, logits=self.task is None or tasks.get(self.task).gives_logits)

    def augmentation(self, views: int) -> Augment | None:
        """The augmentation of a store with so many views.

        Raises:
            InputError: A name or an option is unknown, or an augmentation mixes samples.
        """
        names = [name for name in self.augment if name != "none"]
        if mixed := augmentations.mixes(names):
            raise InputError(
                f"label: {mixed[0]} mixes the samples of a batch, of which a store has no logits. Received: augment="
                f"{mixed[0]}. Distill without a store."
            )
        options = {"crop_flip": {"padding": self.padding, "flip": self.flip}} if "crop_flip" in names else {}
        own = {name: own_code.find(name) for name in names if ":" in name}
        augment, _ = augmentations.build(names, options | dict(self.augment_options), own)
        return augment if views > 1 else None


def build(job: Job, shard: str = "0/1", *, on_chunk: Callable[[int, int], None] | None = None) -> JsonObject:
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
    augment = job.augmentation(job.views)
    train = data.load(job.data).train
    store = SoftLabels.build(
        job.out,
        job.load_teacher(),
        train,
        views=job.views,
        augment=augment,
        shard=(int(parts[1]), int(parts[2])),
        batch_size=job.batch_size,
        seed=job.seed,
        progress=on_chunk,
        task=job.task,
    )
    missing = f", {store.missing} chunks missing" if store.missing else ""
    return _record(job, store, f"{job.out}: {store.views} views of {len(train)} samples{missing}")


def verify(job: Job) -> JsonObject:
    """Recomputes the logits of random samples and compares them with the store; writes nothing.

    Args:
        job: The labelling that made the store.

    Returns:
        See `build`.

    Raises:
        InputError: There is no store, or it belongs to another teacher, data set or augmentation.
    """
    store = SoftLabels.open(job.out)
    largest = store.verify(job.load_teacher(), data.load(job.data).train, augment=job.augmentation(store.views))
    return _record(job, store, f"{job.out}: logits were recomputed; the largest divergence is {largest:.2g}")


def _record(job: Job, store: SoftLabels, summary: str) -> JsonObject:
    return {"path": job.out, "views": store.views, "missing": store.missing, "summary": summary}
