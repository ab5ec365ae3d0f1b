"""The work of `tfkd label`: builds or verifies a store of teacher logits."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tfkd import data, tasks
from tfkd._internal.progress import Progress
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data import Split, augmentations
from tfkd.data.augmentation import Augment, CropFlip, EveryCropFlip
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError
from tfkd.models import own_code
from tfkd.recipes.distillation_section import Distillation
from tfkd.recipes.model_input import ModelInput

if TYPE_CHECKING:
    import keras

Views = int | Literal["all"]


@dataclasses.dataclass(frozen=True)
class Job:
    """The labelling of a training split.

    Args:
        teacher: .keras file that returns logits.
        out: Store: a folder, or a URL that fsspec opens.
        data: Data set, see `tfkd.data.load`.
        views: Views per sample, >= 1, or `all`: every shift and flip of crop_flip.
        augment: Augmentations of the views after the first, see `tfkd.data.augmentations`; `none` for none.
        augment_options: Their arguments, by name.
        padding: Padding of `crop_flip` in pixels, >= 0.
        flip: Whether `crop_flip` mirrors images at random.
        batch_size: Samples per teacher call, >= 1.
        hours: Time after which the labelling stops, > 0; the first view is always finished. None for no limit.
        seed: Seed of the views, >= 0.
        teacher_input: What the teacher expects for the pixels of images.
    """

    teacher: Path
    out: str
    data: str | data.Request
    views: Views = 1
    augment: Sequence[str] = ("crop_flip",)
    augment_options: Mapping[str, JsonRecord] = dataclasses.field(default_factory=dict)
    padding: int = 4
    flip: bool = True
    batch_size: int = 256
    hours: float | None = None
    seed: int = 0
    teacher_input: ModelInput = ModelInput()

    @property
    def task(self) -> str | None:
        """Name of the declared task; None to find it."""
        return self.data.task if isinstance(self.data, data.Request) else None

    def load_teacher(self) -> keras.Model:
        """The teacher; a regression keeps the activation at its end."""
        return self.teacher_input.load(self.teacher, logits=self.task is None or tasks.get(self.task).gives_logits)

    def augmentation(self) -> Augment | None:
        """The augmentation of the views; None for a single one.

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
        return every(augment) if self.views == "all" else augment if self.views != 1 else None


def parse_views(text: str) -> Views:
    """The number of views of a command line, or `all`.

    Raises:
        InputError: It is neither.
    """
    if text == "all":
        return "all"
    if not re.fullmatch(r"[1-9]\d*", text):
        raise InputError(f"label: --views must be a number > 0, or all. Received: {text!r}. Use 8.")
    return int(text)


def every(augment: Augment | None) -> EveryCropFlip:
    """All crops and flips of an augmentation.

    Raises:
        InputError: It is another one than crop_flip.
    """
    if not isinstance(augment, CropFlip):
        raise InputError('label: views="all" needs the augmentation crop_flip alone. Received: another. Use views=8.')
    return EveryCropFlip(augment.padding, augment.flip)


def store(
    path: Path,
    teacher: keras.Model,
    split: Split,
    settings: Distillation,
    *,
    most: int,
    seed: int,
    progress: Progress,
    task: str,
) -> SoftLabels:
    """Stores the logits that the training of a recipe needs.

    Args:
        path: Folder of the store.
        teacher: The teacher.
        split: Training split.
        settings: The table `[distillation]`.
        most: Largest number of views that the training uses.
        seed: Seed of the views.
        progress: Progress display.
        task: Name of the task.
    """
    from tfkd.distillation import training

    augment = training.augmentation(settings)[0]
    if isinstance(settings.views, str):
        augment = every(augment)
        views = min(augment.views, most)
    else:
        views = settings.views or 1
    return SoftLabels.build(
        path,
        teacher,
        split,
        views=views,
        augment=augment,
        seed=seed,
        hours=settings.label_hours,
        progress=with_speed(progress.advance, views * len(split), settings.label_hours),
        task=task,
    )


def with_speed(
    advance: Callable[[int, int, str], None], samples: int, hours: float | None = None
) -> Callable[[int, int], None]:
    """Adds samples per second and the time that is left to the progress of a labelling.

    Args:
        advance: Called with (chunks done, chunks in total, text).
        samples: Number of samples in all chunks, each view of one counted.
        hours: Limit of the time; None for none.
    """
    first, started = -1, 0.0

    def report(done: int, total: int) -> None:
        nonlocal first, started
        if first < 0:
            first, started = done, time.monotonic()
        passed = time.monotonic() - started
        if done == first or not passed:
            advance(done, total, "")
            return
        left = passed * (total - done) / (done - first)
        left = left if hours is None else max(0.0, min(left, 3600 * hours - passed))
        advance(done, total, f"{samples * (done - first) / total / passed:,.0f} samples/s, {left / 60:.1f} min left")

    return report


def build(job: Job, shard: str = "0/1", *, progress: Progress | None = None) -> JsonObject:
    """Labels the training split, or this machine's part of it.

    Args:
        job: The labelling.
        shard: Part of the work, `i/n`, see `SoftLabels.build`.
        progress: Progress display.

    Returns:
        path, views, missing (number of chunks) and summary, a sentence.

    Raises:
        InputError: `shard` is not `i/n`, or the store belongs to another teacher, data set or augmentation.
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if parts is None:
        raise InputError(f"label: shard must be i/n, such as 0/3. Received: {shard!r}.")
    augment = job.augmentation()
    train = data.load(job.data).train
    views = augment.views if isinstance(augment, EveryCropFlip) else int(job.views)
    part, machines = int(parts[1]), int(parts[2])
    samples = views * len(train) // max(1, machines)
    found = SoftLabels.build(
        job.out,
        job.load_teacher(),
        train,
        views=views,
        augment=augment,
        shard=(part, machines),
        batch_size=job.batch_size,
        seed=job.seed,
        hours=job.hours,
        progress=with_speed(progress.advance, samples, job.hours) if progress else None,
        task=job.task,
    )
    missing = f", {found.labelled} of them complete, {found.missing} chunks missing" if found.missing else ""
    return _record(job, found, f"{job.out}: {found.views} views of {len(train)} samples{missing}")


def verify(job: Job) -> JsonObject:
    """Recomputes the logits of random samples and compares them with the store; writes nothing.

    Args:
        job: The labelling that made the store, which knows the number of views itself.

    Returns:
        See `build`.

    Raises:
        InputError: There is no store, or it belongs to another teacher, data set or augmentation.
    """
    found = SoftLabels.open(job.out)
    job = dataclasses.replace(job, views="all" if isinstance(found.augment, EveryCropFlip) else found.views)
    largest = found.verify(job.load_teacher(), data.load(job.data).train, augment=job.augmentation())
    return _record(job, found, f"{job.out}: logits were recomputed; the largest divergence is {largest:.2g}")


def _record(job: Job, store: SoftLabels, summary: str) -> JsonObject:
    return {"path": job.out, "views": store.views, "missing": store.missing, "summary": summary}
