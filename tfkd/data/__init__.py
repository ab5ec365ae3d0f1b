"""Splits of (x, y): embedded digits, keras.datasets, .npz files and folders of classes.

A data set is three splits. `test` judges and is never used to choose or to calibrate: each split knows its role and
`Split.require` refuses the wrong one.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tfkd.data import sources
from tfkd.data.augmentation import Augment, CropFlip, augment_batch, crop_flip, view_seeds
from tfkd.data.partner import Partner
from tfkd.data.sources import NAMES, Arrays
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

Role = Literal["train", "val", "test"]

__all__ = [
    "NAMES",
    "CropFlip",
    "Partner",
    "Split",
    "Splits",
    "crop_flip",
    "from_arrays",
    "load",
    "view_seeds",
]

# Where a source has no test part of its own, one is carved out with this share and seed, whatever the user's seed: two
# runs are then judged on the same samples.
_TEST_SHARE = 0.3
_TEST_SEED = 20240229


class Splits(NamedTuple):
    """The three parts of one data set."""

    train: Split
    val: Split
    test: Split


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, in memory and read-only.

    Args:
        x: samples [N, ...]; images uint8 or float32 in 0..255, features float32 of any rank.
        y: labels [N], int64 in 0..num_classes-1.
        ids: [N], int64; the row in the source (train rows, then test rows), unique over the three splits and
            independent of `validation` and `seed`.
        role: `train`, `val` or `test`.
        name: of the data set.
        class_names: one per class.
        held_out: the test split that belongs to this one; None for the test split itself.
    """

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    role: Role
    name: str
    class_names: tuple[str, ...]
    held_out: Split | None = None

    def __post_init__(self) -> None:
        for field in ("x", "y", "ids"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # a pickled array forgets that it is read-only

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"<Split {self.name}/{self.role}: {len(self)} x {self.input_shape}, {self.num_classes} classes>"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.x.shape[1:]

    @property
    def num_classes(self) -> int:
        """The number of classes of the data set; a small split may lack some."""
        return len(self.class_names)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of samples, labels and ids with their shapes and dtypes."""
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.ids):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def digests(self) -> np.ndarray:
        """Content hash of each sample, uint64 [N]; an image is the same in uint8 and in float32."""
        hashes = (hashlib.blake2b(row.astype(np.float32, order="C").data, digest_size=8).digest() for row in self.x)
        return np.frombuffer(b"".join(hashes), dtype=np.uint64)

    def overlap(self, other: Split) -> np.ndarray:
        """The ids of the samples of this split that also stand, pixel for pixel, in `other`."""
        return self.ids[np.isin(self.digests, other.digests)]

    def require(self, *roles: Role, purpose: str) -> None:
        """Refuses this split where its role is not among `roles`.

        Args:
            roles: the roles that may serve.
            purpose: what the split is to serve for, such as `calibration`.

        Raises:
            ValueError: the role is another.
        """
        if self.role not in roles:
            raise InputError(
                f"Split: {purpose} needs a split with role {' or '.join(roles)}. Received: {self!r}. "
                f"{'The test split only judges' if self.role == 'test' else 'This split serves another end'}: "
                f"give the {roles[0]} split that load() returned."
            )

    def sample(self, n: int, *, seed: int = 0) -> Split:
        """A stratified subset with the same role; each class is in it where n >= num_classes.

        Args:
            n: how many samples, 1..len(self).
            seed: of the choice.

        >>> load("digits").train.sample(20).y.tolist() == sorted(2 * list(range(10)))
        True
        """
        if not 1 <= n <= len(self):
            raise InputError(f"Split.sample: n must be in 1..{len(self)}. Received: n={n}. Ask for fewer samples.")
        rank, count = _ranks(self.y, seed)
        chosen = np.lexsort((np.random.default_rng(seed).random(len(self)), rank / count))[:n]
        return self._take(chosen[np.argsort(self.y[chosen], kind="stable")])

    def _take(self, rows: np.ndarray) -> Split:
        return dataclasses.replace(self, x=self.x[rows], y=self.y[rows], ids=self.ids[rows])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        soft_labels: Any = None,
        partner: Partner | None = None,
    ) -> tf.data.Dataset:
        """The split as a `tf.data.Dataset` of (x float32 [B, ...], y int64 [B]); the last batch may be smaller.

        Each pass over the data set is one epoch. Order and augmentation are functions of `seed`, the epoch and the
        sample's id alone, so that a run repeats exactly.

        Args:
            batch_size: samples in a batch, > 0.
            shuffle: a new order of the whole split at each epoch.
            augment: `(x, seed) -> x` on one sample, made of stateless ops; seed is int32 [2] (see `view_seeds`, where
                the view is the epoch). An augmentation with a method `batch(x [B, ...], seeds [B, 2])` is run
                through that, which is faster.
            seed: of order and augmentation.
            soft_labels: a `tfkd.SoftLabels`. Batches are ({"soft_labels": float32 [B, C], "student": x}, y); in epoch e
                samples and labels are those of view e mod views, and `augment` need only be given where it is not
                tfkd's own.
            partner: what the teacher sees. Batches are ({"teacher": float32 [B, ...], "student": x}, y); `augment`
                changes the student's x only.

        Returns:
            The data set. Its attribute `epoch` counts the passes; `tfkd.distiller.EpochSync` sets it, so that a resumed
            run goes on in the order that the undisturbed run would have had.
        """
        import tensorflow as tf

        if batch_size < 1:
            raise InputError(f"Split.batches: batch_size must be > 0. Received: batch_size={batch_size}. Use 128.")
        with tf.device("CPU:0"):  # tf.data works on the CPU: data that lies on a GPU would travel twice
            x, y, ids = tf.constant(self.x), tf.constant(self.y), tf.constant(self.ids)
            epochs = tf.Variable(-1, dtype=tf.int64, trainable=False)
            lookup = None if soft_labels is None else soft_labels.lookup(self, augment)
        if soft_labels is not None and partner is not None:
            raise InputError(
                "Split.batches: soft_labels and partner exclude each other. Received: both. A store holds what its "
                "teacher said already."
            )
        theirs = None if partner is None else partner.lookup(self, seed)

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            rows = tf.range(len(self), dtype=tf.int64)
            if shuffle:
                rows = tf.random.experimental.stateless_shuffle(
                    rows, seed=tf.stack([tf.constant(seed, tf.int64), epoch])
                )
            return tf.data.Dataset.from_tensor_slices((rows, tf.fill([len(self)], epoch)))

        def gather(rows: tf.Tensor, epoch: tf.Tensor) -> tuple[Any, tf.Tensor]:
            batch = tf.cast(tf.gather(x, rows), tf.float32)
            if lookup is not None:
                student, said = lookup(batch, rows, tf.gather(ids, rows), epoch[0])
                return {"soft_labels": said, "student": student}, tf.gather(y, rows)
            if augment is not None:
                batch = augment_batch(augment, batch, view_seeds(tf.gather(ids, rows), epoch[0], seed=seed))
            if theirs is not None:
                batch = {"teacher": theirs(rows, tf.gather(ids, rows), epoch[0]), "student": batch}
            return batch, tf.gather(y, rows)

        dataset = tf.data.Dataset.from_tensors(0).map(lambda _: epochs.assign_add(1)).flat_map(order)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(self))).batch(batch_size)
        dataset = dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
        dataset.epoch = epochs
        return dataset


def load(
    name_or_path: str | os.PathLike[str] = "digits",
    *,
    validation: float = 0.1,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
) -> Splits:
    """Loads a data set and carves validation out of its training part, stratified.

    Args:
        name_or_path: a name of `NAMES` (`digits` is embedded; the others come from `$TFKD_DATA/NAME.npz`, else from
            Keras's cache, else by download), a `.npz` with x_train, y_train, x_test, y_test, or a folder of PNG and
            JPEG images with one sub-folder per class, or with `train/` and `test/` that hold these. A name goes
            before a path; write `./digits` for a folder of that name.
        validation: share of the training part, 0 <= validation < 1; at least one sample of each class unless 0.
        seed: of that choice.
        image_size: (height, width) to which a folder's images are resized; without it all must have one size.

    Returns:
        train, val, test. Grayscale images get a channel axis.

    Raises:
        ValueError: the source is missing, malformed or too small.
        RuntimeError: a named data set could not be downloaded.

    >>> load("digits").test
    <Split digits/test: 539 x (8, 8, 1), 10 classes>
    """
    name, path = str(name_or_path), Path(name_or_path)
    local = Path(os.environ.get("TFKD_DATA", "")) / f"{name}.npz" if os.environ.get("TFKD_DATA") else None
    if image_size is not None and not (name not in NAMES and path.is_dir()):
        raise InputError(f"load: image_size is for a folder of images. Received: {name}. Leave image_size out.")
    if name == "digits":
        arrays = sources.read_digits()
    elif local is not None and path.name == name and local.is_file():
        arrays, path = sources.read_npz(local), local
    elif name in NAMES:
        arrays = sources.read_keras(name)
    elif path.is_dir():
        arrays, name = sources.read_folder(path, image_size), path.resolve().name
    elif path.exists():
        arrays, name = sources.read_npz(path), path.stem
    else:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Names: {', '.join(NAMES)}; or a .npz file or a folder."
        raise InputError(f"load: no data set and no file or folder is called {name!r}. {hint}")
    arrays = arrays._replace(class_names=arrays.class_names or sources.CLASS_NAMES.get(str(name_or_path), ()))
    return _split(arrays, name=name, where=str(path), validation=validation, seed=seed)


def from_arrays(
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    name: str = "arrays",
    class_names: tuple[str, ...] = (),
    validation: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Splits of arrays (x, y) that are in memory, with the checks of `load`.

    Args:
        train: x [N, ...] and y [N] or [N, 1].
        test: the same for the test part.
        name: of the data set.
        class_names: one per class; by default "0", "1", ...
        validation: see `load`.
        seed: see `load`.
    """
    parts = [np.asarray(part) for part in (*train, *test)]
    arrays = Arrays(parts[0], parts[1], parts[2], parts[3], tuple(class_names))
    return _split(arrays, name=name, where=name, validation=validation, seed=seed)


def _split(arrays: Arrays, *, name: str, where: str, validation: float, seed: int) -> Splits:
    if not 0 <= validation < 1:
        raise InputError(f"load: validation must be in [0, 1). Received: validation={validation}. Use 0.1.")
    if seed < 0:
        raise InputError(f"load: seed must be >= 0. Received: seed={seed}. Use 0.")
    x_train, y_train, x_test, y_test, names = arrays
    if x_test is None or y_test is None:
        x_train, y_train, x_test, y_test = _carve_test(arrays, where)
    whole = _fits_uint8(x_train) and _fits_uint8(x_test)
    x_train, x_test = _check_x(x_train, "x_train", where, whole), _check_x(x_test, "x_test", where, whole)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"load: {where}: samples of x_train and x_test must have one shape. "
            f"Received: {x_train.shape[1:]} and {x_test.shape[1:]}. Bring both to one shape."
        )
    y_train = _check_y(y_train, "y_train", len(x_train), where)
    y_test = _check_y(y_test, "y_test", len(x_test), where)
    class_names = _check_classes(y_train, y_test, names, where)
    ids = np.arange(len(y_train) + len(y_test))
    test = Split(x_test, y_test, ids[len(y_train) :], "test", name, class_names)
    carved = _carve(y_train, validation, seed, part="validation", where=where, names=class_names)
    train = Split(x_train, y_train, ids[: len(y_train)], "train", name, class_names, held_out=test)
    val = dataclasses.replace(train._take(np.flatnonzero(carved)), role="val")
    return Splits(train._take(np.flatnonzero(~carved)), val, test)


def _fits_uint8(x: np.ndarray) -> bool:
    return x.dtype.kind in "bui" and x.size > 0 and x.min() >= 0 and x.max() <= 255


def _check_x(x: np.ndarray, key: str, where: str, fits_uint8: bool) -> np.ndarray:
    if x.dtype.kind not in "buif":
        raise InputError(f"load: {where}: {key} must hold numbers. Received: dtype {x.dtype}. Save uint8 or float32.")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"load: {where}: {key} must be [N, ...], not empty. Received: shape {x.shape}. Add samples.")
    if fits_uint8:
        x = x.astype(np.uint8, copy=False)
        return x[..., None] if x.ndim == 3 else x  # [N, H, W]: grayscale images; float [N, T, F] stays a sequence
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
        x = x.astype(np.float32, copy=False)
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        raise InputError(
            f"load: {where}: {key} must be finite in float32. Received: NaN or infinity in {bad.sum()} samples, first "
            f"in row {bad.argmax()}. Remove these rows, from the labels too, or repair them."
        )
    return x


def _check_y(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    if y.dtype.kind not in "bui":
        raise InputError(
            f"load: {where}: {key} must be integers. Received: dtype {y.dtype}. Save class numbers 0..C-1."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"load: {where}: {key} must be [N] or [N, 1]. Received: shape {y.shape}. For one-hot labels save "
            f"{key}.argmax(axis=1)."
        )
    if len(y) != rows:
        raise InputError(
            f"load: {where}: {key} must be as long as {key.replace('y', 'x', 1)}. Received: {len(y)} labels for {rows} "
            f"samples. Save one label per sample."
        )
    return y.astype(np.int64)


def _check_classes(y_train: np.ndarray, y_test: np.ndarray, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    found = np.unique(y_train)
    classes = len(names) or int(found[-1]) + 1
    for key, labels in (("y_train", found), ("y_test", np.unique(y_test))):
        if labels[0] < 0 or labels[-1] >= classes:
            outside = labels[0] if labels[0] < 0 else labels[-1]
            raise InputError(
                f"load: {where}: labels must be in 0..{classes - 1}, the classes of y_train. Received: {outside} in "
                f"{key}. Renumber the classes from 0 and give each a training sample."
            )
    if len(found) < classes:
        gaps = np.flatnonzero(found != np.arange(len(found)))
        empty = int(gaps[0]) if len(gaps) else len(found)
        raise InputError(
            f"load: {where}: each class needs training samples. Received: none of class "
            f"{names[empty] if names else empty}, while there are {classes} classes. Add some or renumber."
        )
    return names or tuple(str(number) for number in range(classes))


def _ranks(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each sample its place in a random order of its class, from 0, and the size of that class."""
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    _, first, count = np.unique(y[order], return_index=True, return_counts=True)
    rank, size = np.empty(len(y), np.int64), np.empty(len(y), np.int64)
    rank[order] = np.arange(len(y)) - np.repeat(first, count)
    size[order] = np.repeat(count, count)
    return rank, size


def _carve(y: np.ndarray, share: float, seed: int, *, part: str, where: str, names: tuple[str, ...]) -> np.ndarray:
    """Marks `share` of each class, at least one sample and never all."""
    if share == 0:
        return np.zeros(len(y), bool)
    rank, size = _ranks(y, seed)
    if size.min() < 2:
        lone = int(y[size.argmin()])
        raise InputError(
            f"load: {where}: a {part} part needs 2 training samples of each class. Received: 1 of class "
            f"{names[lone] if names else lone}. Add samples, or "
            f"{'use validation=0' if part == 'validation' else 'give a test part of its own'}."
        )
    return rank < np.clip(np.rint(share * size), 1, size - 1)


def _carve_test(arrays: Arrays, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y, names = arrays.x_train, arrays.y_train, arrays.class_names
    test = _carve(y, _TEST_SHARE, _TEST_SEED, part="test", where=where, names=names)
    return x[~test], y[~test], x[test], y[test]
