"""A store of teacher logits, one per (sample, view), that outlives kills and knows what it was made from."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import tfkd
from tfkd.data.augmentation import CropFlip, augment_batch, view_seeds
from tfkd.distillation.labels import codec, teacher_pass
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras
    import zarr

    from tfkd.data import Split

SCHEMA = "tfkd.soft_labels/1"
# Up to here all logits in float16 take less room than the best few with their indices.
_ALL_CLASSES = 100
_TOP_K = 20
# The largest divergence, at temperature 1, between logits and what is stored of them.
_TOLERANCE = 1e-3


class SoftLabels:
    """Logits of a teacher for the views of a data set's samples; view 0 is the plain sample.

    A view is an augmentation replayed from a seed (`tfkd.augmentation.view_seeds`), so the student sees exactly the
    pixels that the teacher saw. The store is a zarr group: chunks carry checksums and are written whole or not at all,
    several machines may write at once, and its path may be a URL that fsspec opens. It holds all logits of up to 100
    classes, and of more the largest `top_k` with the log-sum-exp of the rest, so that any temperature works later.

    Open a store with `SoftLabels.open`; fill one from a Keras teacher with `SoftLabels.build`, or from any framework
    with `SoftLabels.create` and `write`.
    """

    def __init__(self, group: zarr.Group, path: str) -> None:
        self._group: Any = group
        self.path = path
        self.meta: dict[str, Any] = dict(group.attrs)
        self.views, self.classes, self.seed = (int(self.meta[key]) for key in ("views", "classes", "seed"))
        self.top_k: int | None = self.meta["top_k"]

    # Opening and creating.

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, writable: bool = False) -> SoftLabels:
        """Opens a store.

        Raises:
            ValueError: there is none, or it was written in another format.
            RuntimeError: a driver for its URL is missing, such as s3fs or gcsfs.
        """
        try:
            group = codec.open_group(str(path), "r+" if writable else "r")
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
        ids: Any,
        classes: int,
        *,
        views: int = 1,
        top_k: int | None = None,
        dtype: str = "float16",
        seed: int = 0,
        keys: Mapping[str, Any] | None = None,
    ) -> SoftLabels:
        """Creates an empty store, or opens the equal one that is there.

        Args:
            path: a folder or URL.
            ids: [N] integers, each once.
            classes: C >= 2.
            views: number of views, >= 1.
            top_k: logits kept of each sample; None for all of up to 100 classes and 20 of more.
            dtype: `float16` or `float32`.
            seed: of the views.
            keys: what the labels belong to: hashes of teacher, data and augmentation.

        Raises:
            ValueError: a bad argument, or a store of something else is there; the message says what differs.
        """
        ids = _check_ids(ids)
        top_k = _TOP_K if top_k is None and classes > _ALL_CLASSES else top_k
        if (
            classes < 2
            or views < 1
            or dtype not in ("float16", "float32")
            or not (top_k is None or 1 <= top_k < classes)
        ):
            raise InputError(
                f"SoftLabels.create: needs classes >= 2, views >= 1, dtype float16 or float32, 1 <= top_k < classes. "
                f"Received: classes={classes}, views={views}, dtype={dtype!r}, top_k={top_k}."
            )
        meta = {
            "schema": SCHEMA, "tfkd": tfkd.__version__, "classes": int(classes), "views": int(views), "seed": int(seed),
            "top_k": top_k, "dtype": dtype, "ids": hashlib.sha256(ids.tobytes()).hexdigest(), "keys": dict(keys or {}),
        }  # fmt: skip
        with codec.disk_errors(str(path)):
            codec.create(str(path), ids, meta)
        store = cls.open(path, writable=True)
        _check_equal(str(path), store.meta, meta)
        return store

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        teacher: keras.Model,
        split: Split,
        *,
        views: int = 1,
        augment: Any = None,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> SoftLabels:
        """Labels a split with a teacher; what is labelled already is kept.

        Args:
            path: a folder or URL.
            teacher: gives logits [B, C].
            split: the samples.
            views: how many; the first is the plain sample.
            augment: `(x, seed) -> x` of stateless ops for the others; needed for more than one view.
            seed: of the views.
            shard: (i, n): this call does every n-th chunk from the i-th; n machines finish one store.
            progress: called with (chunks done, chunks in all).
            **options: `batch_size` (256); `top_k` and `dtype` of `create`.

        Raises:
            ValueError: labels of something else are there, or the teacher does not fit the data.
            OSError: the store cannot be written; what was written stays and is gone on from.
        """
        from tfkd.models.logits import check_gives_logits

        check_gives_logits("teacher", teacher)
        if not (0 <= shard[0] < shard[1]):
            raise InputError(f"SoftLabels.build: shard must be (i, n) with 0 <= i < n. Received: {shard}.")
        if views > 1 and augment is None:
            raise InputError(f"SoftLabels.build: {views} views need an augmentation. Received: augment=None.")
        batch_size = options.pop("batch_size", 256)
        classes = int(teacher(split.x[:1].astype("float32"), training=False).shape[-1])
        if classes != split.num_classes:
            raise InputError(
                f"SoftLabels.build: the teacher must have the data's {split.num_classes} classes. Received: {classes}."
            )
        store = cls.create(
            path,
            split.ids,
            classes,
            views=views,
            seed=seed,
            keys=teacher_pass.keys(teacher, split, augment, seed),
            **options,
        )
        chunks = list(store._chunks())[shard[0] :: shard[1]]
        for done, (view, rows) in enumerate(chunks):
            if progress:
                progress(done, len(chunks))
            if not store._is_written(view, rows):
                logits = teacher_pass.run(
                    teacher, split, rows, view=view, augment=augment, seed=seed, batch_size=batch_size
                )
                store.write(split.ids[rows], logits, view)
        if progress:
            progress(len(chunks), len(chunks))
        return store

    # Reading and writing.

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """[N] int64, the samples' ids in the order of the rows."""
        return self._group["ids"][:]

    def write(self, ids: Any, logits: Any, view: int = 0) -> None:
        """Writes the logits of some samples in one view; those that are there are replaced.

        Args:
            ids: [n] ids of the store, each once.
            logits: [n, C], finite, not probabilities.
            view: 0 <= view < views.

        Raises:
            ValueError: ids that are unknown or twice, a wrong shape, NaN or infinity, probabilities, or values that
                `dtype` cannot hold closely enough.
            OSError: the store cannot be written.
        """
        rows, logits = self._rows(_check_ids(ids), view), np.asarray(logits, "float32")
        if logits.shape != (len(rows), self.classes):
            raise InputError(
                f"{self.path}: logits must be [{len(rows)}, {self.classes}]. Received: shape {logits.shape}. Give one "
                "row for each id."
            )
        if not np.isfinite(logits).all():
            bad = np.asarray(ids)[~np.isfinite(logits).all(axis=1)][:5]
            raise InputError(f"{self.path}: logits must be finite. Received: NaN or infinity for ids {bad.tolist()}.")
        if len(logits) > 1 and (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
            raise InputError(f"{self.path}: needs logits. Received: probabilities. Remove the softmax of the teacher.")
        packed = codec.pack(logits, self.top_k, self.meta["dtype"])
        exact = codec.pack(logits, self.top_k, "float32")
        error = codec.divergence(*(codec.unpack(one, self.classes) for one in (exact, packed))).max()
        if error > _TOLERANCE:
            raise InputError(
                f"{self.path}: {self.meta['dtype']} must hold the logits closely. Received: values up to "
                f"{np.abs(logits).max():g}, a divergence of {error:.2g}. Create the store with dtype='float32'."
            )
        order = np.argsort(rows)
        with codec.disk_errors(self.path):
            for name, values in packed.items():
                array = self._group[name]
                if len(rows) == rows.max() - rows.min() + 1:  # a whole range, as `build` writes it: no chunk is read
                    array[view, rows.min() : rows.max() + 1] = values[order]
                else:
                    array.oindex[view, rows[order]] = values[order]

    def read(self, ids: Any, view: int = 0) -> np.ndarray:
        """The logits [n, C] float32 of some samples in one view.

        Where only the largest were kept, the rest share their log-sum-exp equally.

        Raises:
            ValueError: ids that are unknown or not labelled yet, or a chunk that was damaged; it is named.
        """
        rows = self._rows(np.asarray(ids), view)
        packed = {name: self._array(name, view)[rows] for name in self._names}
        missing = np.isnan(packed["logits"]).any(axis=1)
        if missing.any():
            raise InputError(
                f"{self.path}: every sample must be labelled. Received: {missing.sum()} of {len(rows)} without labels "
                f"in view {view}, the first with id {np.asarray(ids)[missing][0]}. Finish with `tfkd label`."
            )
        return codec.unpack(packed, self.classes)

    def verify(
        self, teacher: keras.Model, split: Split, *, samples: int = 64, augment: Any = None, seed: int = 0
    ) -> float:
        """Labels a random sample again and compares.

        Args:
            teacher: the teacher that made the store.
            split: the samples that it was made for.
            samples: how many (sample, view) pairs.
            augment: its augmentation; None takes that of the store where it is known by name.
            seed: of the choice.

        Returns:
            The largest divergence found, at temperature 1.

        Raises:
            ValueError: the store belongs to something else, or a label differs.
        """
        augment = augment or self.augment
        self.check(teacher, split, augment)
        draw = np.random.default_rng(seed)
        worst = 0.0
        for view in range(self.views):
            rows = np.sort(draw.choice(len(split), min(len(split), -(-samples // self.views)), replace=False))
            again = teacher_pass.run(teacher, split, rows, view=view, augment=augment, seed=self.seed, batch_size=256)
            worst = max(worst, float(codec.divergence(again, self.read(split.ids[rows], view)).max()))
        if worst > 10 * _TOLERANCE:
            raise InputError(f"{self.path}: must repeat. Received: a divergence of {worst:.2g}. Label again.")
        return worst

    def check(self, teacher: keras.Model | None = None, split: Split | None = None, augment: Any = None) -> None:
        """Refuses labels of another teacher, other data or another augmentation; the message says which changed.

        What is None is not checked, nor what the store was not told.
        """
        known = self.meta["keys"]
        found = teacher_pass.keys(teacher, split, augment, self.seed)
        _check_equal(self.path, self.meta, {"keys": {key: value for key, value in found.items() if key in known}})

    @property
    def augment(self) -> CropFlip | None:
        """The augmentation, where it is one of tfkd's own."""
        about = self.meta["keys"].get("augmentation")
        return CropFlip(**about["parameters"]) if about and about["name"] == CropFlip.name else None

    @property
    def missing(self) -> int:
        """The number of chunks that are not written or damaged."""
        return sum(not self._is_written(view, rows) for view, rows in self._chunks())

    def lookup(self, split: Split, augment: Any = None) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
        """What `Split.batches` maps over its batches: the view of an epoch, and the labels of its samples.

        Args:
            split: of samples that are all in the store.
            augment: that of the store, where it is not tfkd's own.

        Returns:
            A function (x [B, ...], rows [B], ids [B], epoch) -> (x in that view, logits float32 [B, C]), of tf ops.

        Raises:
            ValueError: other data or another augmentation, samples without labels, or a damaged chunk.
        """
        import tensorflow as tf

        augment = augment or self.augment
        if self.views > 1 and augment is None:
            raise InputError(f"{self.path}: views need the augmentation that made them. Received: augment=None.")
        self.check(split=split, augment=augment if self.views > 1 else None)
        views = [{name: self._array(name, view) for name in self._names} for view in range(self.views)]
        for view in range(self.views):
            self.read(split.ids, view)  # names what is missing
        places = self._rows(split.ids, 0)
        stored = {name: tf.constant(np.stack([view[name][places] for view in views])) for name in self._names}

        def look(x: Any, rows: Any, ids: Any, epoch: Any) -> tuple[Any, Any]:
            view = epoch % self.views
            found = {name: tf.gather(tf.gather(values, view), rows) for name, values in stored.items()}
            if self.views > 1:
                seeds = view_seeds(ids, view, seed=self.seed)
                x = tf.cond(view == 0, lambda: x, lambda: augment_batch(augment, x, seeds))
            return x, codec.unpack_in_graph(found, self.classes)

        return look

    @property
    def _names(self) -> tuple[str, ...]:
        return ("logits",) if self.top_k is None else ("logits", "indices", "rest")

    def _chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        size = self._group["logits"].chunks[1]
        for view in range(self.views):
            for start in range(0, len(self.ids), size):
                yield view, np.arange(start, min(start + size, len(self.ids)))

    def _is_written(self, view: int, rows: np.ndarray) -> bool:
        """Whether a chunk is there and sound; what is damaged is labelled again."""
        try:
            return all(
                not np.isnan(self._group[name][view, rows[0] : rows[-1] + 1].astype("float32")).any()
                for name in reversed(self._names)
            )
        except ValueError:  # the checksum
            return False

    def _array(self, name: str, view: int) -> np.ndarray:
        array, size = self._group[name], self._group[name].chunks[1]
        try:
            return array[view]
        except ValueError:
            for number, start in enumerate(range(0, array.shape[1], size)):
                try:
                    array[view, start : start + size]
                except ValueError as error:
                    raise InputError(
                        f"{self.path}: chunk {name}/c/{view}/{number} must be undamaged. Received: {error} "
                        "Label again: `tfkd label` rewrites this chunk alone."
                    ) from None
            raise

    def _rows(self, ids: np.ndarray, view: int) -> np.ndarray:
        if not 0 <= view < self.views:
            raise InputError(f"{self.path}: view must be 0..{self.views - 1}. Received: {view}.")
        order = np.argsort(self.ids)
        places = np.searchsorted(self.ids, ids, sorter=order)
        known = places < len(self.ids)
        rows = order[np.where(known, places, 0)]
        known &= self.ids[rows] == ids
        if not known.all():
            raise InputError(
                f"{self.path}: ids must be those of the store. Received: {(~known).sum()} unknown, the first "
                f"{np.asarray(ids)[~known][0]}. Give the split that was labelled."
            )
        return rows


def _check_ids(ids: Any) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise InputError(f"SoftLabels: ids must be [N] integers. Received: shape {ids.shape}, {ids.dtype}.")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise InputError(f"SoftLabels: each id must occur once. Received: {unique[counts > 1][0]} twice or more.")
    return ids.astype("int64")


def _check_equal(path: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    changed = [key for key in expected.get("keys", {}) if found["keys"].get(key) != expected["keys"][key]]
    changed += [key for key in expected if key not in ("keys", "tfkd") and found.get(key) != expected[key]]
    if changed:
        raise InputError(
            f"{path}: the labels must belong to this teacher, data and augmentation. Received: another "
            f"{', '.join(changed)}. Label into another folder, or delete this one."
        )
