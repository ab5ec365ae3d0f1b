"""A store of teacher logits, one record per sample and augmented view, that resumes after an interruption."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd._internal.types import JsonObject, JsonRecord, SampleData, Tensor
from tfkd.data.augmentation import Augment, EveryCropFlip, augment_view
from tfkd.data.augmentations import from_key
from tfkd.data.batches import Samples
from tfkd.distillation.labels import archive, checks, codec, identity, kinds, teacher_pass
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfkd.data import Split

SCHEMA = "tfkd.soft_labels/1"
# Up to this number of classes all logits in float16 need less space than the largest 20 with their indices.
_ALL_CLASSES = 100
_TOP_K = 20


class SoftLabels:
    """Outputs of a teacher for the views of the samples of a data set; view 0 is the unchanged sample.

    A view is an augmentation that is repeated from a seed (`tfkd.data.view_seeds`), so the student sees exactly the
    pixels that the teacher saw. The store is a zarr group: chunks have checksums and are written atomically, several
    machines may write at the same time, and its path may be a URL of fsspec. All logits are stored for up to 100
    classes; for more the `top_k` largest with the log-sum-exp of the others, so that the temperature can be chosen
    later. Of other tasks than classification all outputs are stored, see `tfkd.distillation.labels.kinds`.

    Open a store with `SoftLabels.open`. Make one with a Keras teacher by `SoftLabels.build`, or with logits of any
    framework by `SoftLabels.create` and `write`.

    Args:
        group: Group of zarr that holds the arrays of the store.
        path: Folder or URL of the store, for error messages.
    """

    def __init__(self, group: archive.Group, path: str) -> None:
        self._group: archive.Group = group
        self.path = path
        self.meta: JsonObject = dict(group.attrs)
        self.views, self.classes, self.seed = (int(self.meta[key]) for key in ("views", "classes", "seed"))
        self.top_k: int | None = self.meta["top_k"]
        self.kind: str = self.meta.get("outputs", kinds.CLASSES)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, writable: bool = False) -> SoftLabels:
        """Opens a store.

        Args:
            path: Folder or URL.
            writable: Whether `write` is possible.

        Returns:
            The store; read-only unless `writable`.

        Raises:
            InputError: There is no store, or it has another format.
            ToolMissingError: The driver of the URL, such as s3fs or gcsfs, is not installed.
        """
        try:
            group = archive.open_group(str(path), "r+" if writable else "r")
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: must be a store of soft labels. Received: {error}. Make one with `tfkd label`."
            ) from None
        found = group.attrs.get("schema")
        if found != SCHEMA:
            raise InputError(
                f"{path}: must be a store of format {SCHEMA}. Received: {found!r}. Label again with this version."
            )
        return cls(group, str(path))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        ids: Tensor,
        classes: int,
        *,
        views: int = 1,
        top_k: int | None = None,
        dtype: str | None = None,
        seed: int = 0,
        keys: JsonRecord | None = None,
        kind: str = kinds.CLASSES,
    ) -> SoftLabels:
        """Creates an empty store, or opens an existing one with the same settings.

        Args:
            path: Folder or URL.
            ids: Ids of the samples, integers [N], each once.
            classes: Number C of classes, >= 2, or of other outputs, >= 1.
            views: Number of views, >= 1.
            top_k: Number of largest logits that are kept, 1..C-1; by default all of up to 100 classes, 20 of more.
            dtype: `float16` or `float32`, the type of the stored logits; by default float16, of values float32.
            seed: Random seed of the views.
            keys: Hashes of teacher, data and augmentation, which identify the labels.
            kind: What the outputs are: logits of `classes` that exclude each other, logits of independent `labels`, or
                `values`.

        Raises:
            InputError: An argument is out of range, or there is another store; the message names the difference.
            OSError: The store cannot be written.
        """
        ids = checks.check_ids(ids)
        top_k = _TOP_K if top_k is None and classes > _ALL_CLASSES and kind == kinds.CLASSES else top_k
        dtype = dtype or kinds.default_dtype(kind)
        checks.check_settings(classes, views, top_k, dtype, kind)
        meta = {
            "schema": SCHEMA,
            "tfkd": importlib.metadata.version("tfkd"),
            "classes": int(classes),
            "views": int(views),
            "seed": int(seed),
            "top_k": top_k,
            "dtype": dtype,
            "ids": hashlib.sha256(ids.tobytes()).hexdigest(),
            "keys": dict(keys or {}),
            **({} if kind == kinds.CLASSES else {"outputs": kind}),  # stores of earlier versions have no such entry
        }
        with archive.disk_errors(str(path)):
            archive.create(str(path), ids, meta)
        store = cls.open(path, writable=True)
        identity.check_equal(str(path), store.meta, meta)
        return store

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        teacher: keras.Model,
        split: SampleData,
        *,
        views: int = 1,
        augment: Augment | None = None,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        hours: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        task: str | None = None,
        **options: Any,
    ) -> SoftLabels:
        """Computes the teacher outputs of a split; chunks that are already in the store are kept.

        Args:
            path: Folder or URL.
            teacher: Model with outputs [B, C], logits unless the task is a regression.
            split: Samples to label. Or another form of labelled data that has the same order in each pass, see
                `tfkd.data.as_split`; the ids are then the numbers of the samples.
            views: Number of views, >= 1; the first is the unchanged sample.
            augment: Function `(x, seed) -> x` of stateless ops for the other views; needed for more than one view. With
                `tfkd.data.every_crop_flip` the views are all crops and flips, and a training takes those that exist.
            seed: Random seed of the views.
            shard: (i, n): this call computes every n-th chunk, from chunk i on, so that n machines share the work.
            hours: Time after which the labelling stops, > 0; the first view is always finished. None for no limit.
            progress: Function that is called with (finished chunks, total chunks).
            task: One of `tfkd.tasks.NAMES`; by default the one that labels and teacher show.
            **options: `batch_size`, the largest number of samples per call of the teacher (default 256; fewer where
                these need more than 16 MiB); `top_k` and `dtype` of `create`.

        Returns:
            The store; with `shard` other chunks may be missing, see `missing`.

        Raises:
            InputError: There is a store of another teacher, data or augmentation, or an argument is invalid.
            ModelError: The teacher does not end in logits or has another number of outputs than the data need.
            OSError: The store cannot be written; the next call with the same arguments resumes.
        """
        if not (0 <= shard[0] < shard[1]):
            raise InputError(f"SoftLabels.build: shard must be (i, n) with 0 <= i < n. Received: {shard}. Use (0, 1).")
        if views > 1 and augment is None:
            raise InputError(
                f"SoftLabels.build: {views} views need an augmentation. Received: augment=None. Pass one, or views=1."
            )
        batch_size = options.pop("batch_size", 256)
        split, outputs, kind = teacher_pass.prepare(teacher, split, task, augment if views > 1 else None)
        store = cls.create(
            path,
            split.ids,
            outputs,
            views=views,
            seed=seed,
            kind=kind,
            keys=identity.keys(teacher, split, augment, seed),
            **options,
        )
        chunks = list(archive.chunks(store._group, len(store.ids)))[shard[0] :: shard[1]]
        todo = [one for one in chunks if not archive.is_written(store._group, store._names, *one)]
        finished, started, report = len(chunks) - len(todo), time.monotonic(), progress or (lambda *_: None)
        shown = teacher_pass.views_of(augment, seed)
        for view, rows in todo:
            if view and hours is not None and time.monotonic() - started > 3600 * hours:
                break
            report(finished, len(chunks))
            logits = teacher_pass.run(teacher, split, rows, view=view, shown=shown, batch_size=batch_size)
            store.write(split.ids[rows], logits, view)
            finished += 1
        report(finished, len(chunks))
        return store

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """Ids of the samples in the order of the rows, int64 [N]."""
        return self._group["ids"][:]

    def write(self, ids: Tensor, logits: Tensor, view: int = 0) -> None:
        """Writes the logits of some samples in one view; existing logits are replaced.

        Args:
            ids: Ids of samples of the store, integers [n], each once.
            logits: Finite logits [n, C], not probabilities.
            view: Number of the view, 0 <= view < views.

        Raises:
            InputError: An id is unknown or occurs twice, the shape is wrong, the values are not finite or are
                probabilities, or `dtype` is not precise enough for them.
            OSError: The store cannot be written.
        """
        rows = checks.find_rows(self.path, self.ids, checks.check_ids(ids), view, self.views)
        logits = np.asarray(logits, "float32")
        checks.check_logits(self.path, np.asarray(ids), logits, self.classes, self.kind)
        packed = codec.pack(logits, self.top_k, self.meta["dtype"])
        checks.check_precision(self.path, logits, packed, self.top_k, self.kind)
        order = np.argsort(rows)
        with archive.disk_errors(self.path):
            for name, values in packed.items():
                array = self._group[name]
                if len(rows) == rows.max() - rows.min() + 1:  # consecutive rows, as `build` writes: no chunk is read
                    array[view, rows.min() : rows.max() + 1] = values[order]
                else:
                    array.oindex[view, rows[order]] = values[order]

    def read(self, ids: Tensor, view: int = 0) -> np.ndarray:
        """The logits of some samples in one view.

        Args:
            ids: Ids of samples of the store, integers [n].
            view: Number of the view, 0 <= view < views.

        Returns:
            float32 [n, C]. If only the `top_k` largest are stored, the others are equal and have the stored
            log-sum-exp.

        Raises:
            InputError: A sample is unknown or not labelled yet, or a chunk is damaged.
        """
        return codec.unpack(self._packed(ids, view), self.classes)

    def _packed(self, ids: Any, view: int) -> dict[str, np.ndarray]:
        """What `read` unpacks, in the order of the ids."""
        rows = checks.find_rows(self.path, self.ids, np.asarray(ids), view, self.views)
        packed = {name: archive.read_view(self._group, self.path, name, view)[rows] for name in self._names}
        missing = np.isnan(packed["logits"]).any(axis=1)
        if missing.any():
            raise InputError(
                f"{self.path}: every sample must be labelled. Received: {missing.sum()} of {len(rows)} without labels "
                f"in view {view}, the first with id {np.asarray(ids)[missing][0]}. Run `tfkd label` again."
            )
        return packed

    def verify(
        self,
        teacher: keras.Model,
        split: Split,
        *,
        samples: int = 64,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> float:
        """Computes the logits of random samples again and compares them with the store.

        Args:
            teacher: Teacher of the store.
            split: Data of the store.
            samples: Number of (sample, view) pairs.
            augment: Augmentation of the store; needed only if it is not one of tfkd.
            seed: Random seed of the choice, >= 0.

        Returns:
            The largest divergence, see `tfkd.distillation.labels.kinds.divergence`.

        Raises:
            InputError: The store belongs to another teacher, data or augmentation, or a label differs.
        """
        augment = self._augmentation(augment)
        self.check(teacher, split, augment)
        draw = np.random.default_rng(seed)
        worst, views, shown = 0.0, self._usable, teacher_pass.views_of(augment, self.seed)
        for view in range(views):
            rows = np.sort(draw.choice(len(split), min(len(split), -(-samples // views)), replace=False))
            again = teacher_pass.run(teacher, split, rows, view=view, shown=shown, batch_size=256)
            worst = max(worst, float(kinds.divergence(self.kind, again, self.read(split.ids[rows], view)).max()))
        if worst > 10 * checks.TOLERANCE:
            raise InputError(
                f"{self.path}: the stored logits must equal the teacher's. Received: a divergence of {worst:.2g}. "
                "Delete the store and label again."
            )
        return worst

    def check(
        self, teacher: keras.Model | None = None, split: Samples | None = None, augment: Augment | None = None
    ) -> None:
        """Raises if the labels belong to another teacher, other data or another augmentation.

        Args:
            teacher: Teacher to compare with; None for no comparison, as for the other arguments.
            split: Data to compare with.
            augment: Augmentation to compare with.

        Raises:
            InputError: One differs; the message names it. A key that the store does not have is not compared.
        """
        known = self.meta["keys"]
        found = identity.keys(teacher, split, augment, self.seed)
        identity.check_equal(
            self.path, self.meta, {"keys": {key: value for key, value in found.items() if key in known}}
        )

    @property
    def augment(self) -> Augment | None:
        """The augmentation of the views if it is one of tfkd, else None."""
        key = self.meta["keys"].get("augmentation")
        return from_key(key) if key else None

    def _augmentation(self, augment: Augment | None) -> Augment | None:
        augment = augment or self.augment
        if self.views > 1 and augment is None:
            raise InputError(
                f"{self.path}: its {self.views} views need the augmentation that made them. Received: augment=None. "
                "Pass that function."
            )
        return augment

    @property
    def missing(self) -> int:
        """Number of chunks that are not written or are damaged."""
        return sum(1 for _ in archive.unwritten(self._group, self._names, len(self.ids)))

    @property
    def labelled(self) -> int:
        """Number of views, from the first on, in which every sample is labelled."""
        return next((view for view, _ in archive.unwritten(self._group, self._names, len(self.ids))), self.views)

    @property
    def _usable(self) -> int:
        """Number of views that must be labelled: of all crops and flips those that are."""
        return max(1, self.labelled) if isinstance(self.augment, EveryCropFlip) else self.views

    def lookup(
        self, samples: Samples, augment: Augment | None = None
    ) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Prepares the look-up of stored logits for `Split.batches`.

        Args:
            samples: Split whose samples are all in the store.
            augment: Augmentation of the store; needed only if it is not one of tfkd.

        Returns:
            A function (x [B, ...], rows of the split [B], ids [B], epoch) -> (x in view epoch mod views, teacher logits
            float32 [B, C]), made of TensorFlow ops. Of all crops and flips only the `labelled` views count.

        Raises:
            InputError: The store has other data or another augmentation, a sample has no label, or a chunk is damaged.
        """
        import tensorflow as tf

        augment = self._augmentation(augment) if self.views > 1 else None
        self.check(split=samples, augment=augment)
        checks.check_sides(self.path, augment, samples)
        packed = [self._packed(samples.ids, view) for view in range(self._usable)]
        stored = {name: tf.constant(np.stack([one[name] for one in packed])) for name in self._names}

        def find(x: tf.Tensor, rows: tf.Tensor, ids: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            view = epoch % len(packed)
            found = {name: tf.gather(tf.gather(values, view), rows) for name, values in stored.items()}
            if augment is not None and len(packed) > 1:
                x = tf.cond(view == 0, lambda: x, lambda: augment_view(augment, x, ids, view, seed=self.seed))
            return x, codec.unpack_in_graph(found, self.classes)

        return find

    @property
    def _names(self) -> tuple[str, ...]:
        return ("logits",) if self.top_k is None else ("logits", "indices", "rest")
