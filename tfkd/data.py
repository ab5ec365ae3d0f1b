"""Splits of (x, y): embedded digits, keras.datasets, .npz files and folders of classes.

A data set is three splits. `test` judges and is never used to choose or to calibrate: each split knows its role and
`Split.require` refuses the wrong one.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

Role = Literal["train", "val", "test"]
Augment = Callable[[Any, Any], Any]

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
_CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "fashion_mnist": ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
}
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_SAVE = "Save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
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
            raise ValueError(
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
            raise ValueError(f"Split.sample: n must be in 1..{len(self)}. Received: n={n}. Ask for fewer samples.")
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
        first_epoch: int = 0,
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
            first_epoch: the number of the first pass: a resumed run goes on in the order of the run before.
        """
        import tensorflow as tf

        if batch_size < 1:
            raise ValueError(f"Split.batches: batch_size must be > 0. Received: batch_size={batch_size}. Use 128.")
        with tf.device("CPU:0"):  # tf.data works on the CPU: data that lies on a GPU would travel twice
            x, y, ids = tf.constant(self.x), tf.constant(self.y), tf.constant(self.ids)
            epochs = tf.Variable(first_epoch - 1, dtype=tf.int64, trainable=False)

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            rows = tf.range(len(self), dtype=tf.int64)
            if shuffle:
                rows = tf.random.experimental.stateless_shuffle(rows, seed=tf.stack([tf.cast(seed, tf.int64), epoch]))
            return tf.data.Dataset.from_tensor_slices((rows, tf.fill([len(self)], epoch)))

        def gather(rows: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = tf.cast(tf.gather(x, rows), tf.float32)
            if augment is not None:
                batch = _augment(augment, batch, view_seeds(tf.gather(ids, rows), epoch[0], seed=seed))
            return batch, tf.gather(y, rows)

        dataset = tf.data.Dataset.from_tensors(0).map(lambda _: epochs.assign_add(1)).flat_map(order)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(self))).batch(batch_size)
        return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def view_seeds(ids: Any, view: Any, *, seed: int = 0) -> tf.Tensor:
    """The seeds, int32 [N, 2], with which the samples `ids` are augmented in their view number `view`.

    The only place that says it: who replays a view of a sample gets the same pixels.

    Args:
        ids: [N], the samples' ids.
        view: the number of the view, scalar or [N]; in training without stored labels the epoch.
        seed: the user's seed.
    """
    import tensorflow as tf

    ids = tf.cast(ids, tf.int64)
    view = tf.broadcast_to(tf.cast(view, tf.int64), tf.shape(ids))
    mixed = _mix(tf.cast(view, tf.uint64) + _mix(tf.fill(tf.shape(ids), tf.cast(seed, tf.uint64))))
    return tf.stack([tf.cast(ids, tf.int32), tf.bitcast(tf.cast(mixed & 0xFFFFFFFF, tf.uint32), tf.int32)], axis=1)


def _mix(value: tf.Tensor) -> tf.Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014): a random-looking uint64 for each uint64.

    TensorFlow's stateless generators take one seed per op; a batch needs one per sample.
    """
    import tensorflow as tf

    def xor_shift(value: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(bits, tf.uint64)))

    value = value + tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    value = xor_shift(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    return xor_shift(xor_shift(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64), 31)


def _augment(augment: Augment, x: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    batch = getattr(augment, "batch", None)
    if batch is not None:
        return batch(x, seeds)
    signature = tf.TensorSpec(x.shape[1:], x.dtype)
    return tf.ensure_shape(tf.map_fn(lambda pair: augment(*pair), (x, seeds), fn_output_signature=signature), x.shape)


@dataclasses.dataclass(frozen=True)
class CropFlip:
    """Random shift by up to `padding` pixels (the rim is black) and a random left-right flip.

    The pixels depend on the sample and its seed only: `augment(x, seed)` for one sample [H, W, C] and
    `augment.batch(x, seeds)` for [B, H, W, C] give the same.

    Args:
        padding: the largest shift in pixels, >= 0.
        flip: whether to flip half of the samples; False for digits and letters.

    Reference: He et al., arXiv 1512.03385, section 4.2.
    """

    name: ClassVar[str] = "crop_flip"
    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"CropFlip: padding must be >= 0. Received: padding={self.padding}. Use 4 for 32x32.")

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return self.batch(x[None], seed[None])[0]

    def batch(self, x: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Augments each of x [B, H, W, C] with its seed of seeds, int32 [B, 2]."""
        import tensorflow as tf

        if x.shape.rank != 4:
            raise ValueError(f"CropFlip: a sample must be an image [H, W, C]. Received: shape {x.shape[1:]}.")
        words = tf.cast(tf.bitcast(seeds, tf.uint32), tf.uint64)
        bits = _mix(_mix(words[:, 0]) + words[:, 1])

        def draw(first_bit: int, values: int) -> tf.Tensor:
            part = tf.bitwise.right_shift(bits, tf.constant(first_bit, tf.uint64)) & 0xFFFFF
            return tf.cast(part % tf.constant(values, tf.uint64), tf.float32)

        down, right = (draw(bit, 2 * self.padding + 1) - self.padding for bit in (0, 20))
        flipped = draw(40, 2) if self.flip else tf.zeros_like(down)
        zero, one = tf.zeros_like(down), tf.ones_like(down)
        # One op moves and flips: output (column, row) comes from (a0 column + a2, row + b2); whole numbers, so nearest
        # is exact.
        column = right + flipped * (x.shape[2] - 1)
        return tf.ensure_shape(
            tf.raw_ops.ImageProjectiveTransformV3(
                images=x,
                transforms=tf.stack([one - 2 * flipped, zero, column, zero, one, down, zero, zero], axis=1),
                output_shape=x.shape[1:3],
                fill_value=0.0,
                interpolation="NEAREST",
                fill_mode="CONSTANT",
            ),
            x.shape,
        )


def crop_flip(padding: int = 4, *, flip: bool = True) -> CropFlip:
    """The usual augmentation for small images; see `CropFlip`."""
    return CropFlip(padding, flip)


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
    <Split digits/test: 540 x (8, 8, 1), 10 classes>
    """
    name, path = str(name_or_path), Path(name_or_path)
    local = Path(os.environ.get("TFKD_DATA", "")) / f"{name}.npz" if os.environ.get("TFKD_DATA") else None
    if image_size is not None and not (name not in NAMES and path.is_dir()):
        raise ValueError(f"load: image_size is for a folder of images. Received: {name}. Leave image_size out.")
    arrays: _Arrays
    if name == "digits":
        arrays = _digits()
    elif local is not None and path.name == name and local.is_file():
        arrays, path = _read_npz(local), local
    elif name in NAMES:
        arrays = _keras_dataset(name)
    elif path.is_dir():
        arrays, name = _read_folder(path, image_size), path.resolve().name
    elif path.exists():
        arrays, name = _read_npz(path), path.stem
    else:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Names: {', '.join(NAMES)}; or a .npz file or a folder."
        raise ValueError(f"load: no data set and no file or folder is called {name!r}. {hint}")
    arrays = arrays._replace(class_names=_CLASS_NAMES.get(name, arrays.class_names))
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
    arrays = _Arrays(parts[0], parts[1], parts[2], parts[3], tuple(class_names))
    return _split(arrays, name=name, where=name, validation=validation, seed=seed)


class _Arrays(NamedTuple):
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...] = ()


def _split(arrays: _Arrays, *, name: str, where: str, validation: float, seed: int) -> Splits:
    if not 0 <= validation < 1:
        raise ValueError(f"load: validation must be in [0, 1). Received: validation={validation}. Use 0.1.")
    x_train, x_test = (_check_x(getattr(arrays, key), key, where) for key in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"load: {where}: samples of x_train and x_test must have one shape. "
            f"Received: {x_train.shape[1:]} and {x_test.shape[1:]}. Bring both to one shape."
        )
    y_train = _check_y(arrays.y_train, "y_train", len(x_train), where)
    y_test = _check_y(arrays.y_test, "y_test", len(x_test), where)
    class_names = _check_classes(y_train, y_test, arrays.class_names, where)
    ids = np.arange(len(y_train) + len(y_test))
    test = Split(x_test, y_test, ids[len(y_train) :], "test", name, class_names)
    carved = _carve(y_train, validation, seed, part="validation", where=where)
    train = Split(x_train, y_train, ids[: len(y_train)], "train", name, class_names, held_out=test)
    val = dataclasses.replace(train._take(np.flatnonzero(carved)), role="val")
    return Splits(train._take(np.flatnonzero(~carved)), val, test)


def _check_x(x: np.ndarray, key: str, where: str) -> np.ndarray:
    if x.dtype.kind not in "buif":
        raise ValueError(f"load: {where}: {key} must hold numbers. Received: dtype {x.dtype}. Save uint8 or float32.")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"load: {where}: {key} must be [N, ...], not empty. Received: shape {x.shape}. Add samples.")
    if x.dtype.kind in "bui" and x.min() >= 0 and x.max() <= 255:
        x = x.astype(np.uint8, copy=False)
        return x[..., None] if x.ndim == 3 else x  # [N, H, W]: grayscale images; float [N, T, F] stays a sequence
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
        x = x.astype(np.float32, copy=False)
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"load: {where}: {key} must be finite in float32. Received: NaN or infinity in {bad.sum()} samples, first "
            f"in row {bad.argmax()}. Remove these rows, from the labels too, or repair them."
        )
    return x


def _check_y(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    if y.dtype.kind not in "bui":
        raise ValueError(
            f"load: {where}: {key} must be integers. Received: dtype {y.dtype}. Save class numbers 0..C-1."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(
            f"load: {where}: {key} must be [N] or [N, 1]. Received: shape {y.shape}. For one-hot labels save "
            f"{key}.argmax(axis=1)."
        )
    if len(y) != rows:
        raise ValueError(
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
            raise ValueError(
                f"load: {where}: labels must be in 0..{classes - 1}, the classes of y_train. Received: {outside} in "
                f"{key}. Renumber the classes from 0 and give each a training sample."
            )
    if len(found) < classes:
        gaps = np.flatnonzero(found != np.arange(len(found)))
        empty = int(gaps[0]) if len(gaps) else len(found)
        raise ValueError(
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


def _carve(y: np.ndarray, share: float, seed: int, *, part: str, where: str) -> np.ndarray:
    """Marks `share` of each class, at least one sample and never all."""
    if share == 0:
        return np.zeros(len(y), bool)
    rank, size = _ranks(y, seed)
    if size.min() < 2:
        raise ValueError(
            f"load: {where}: a {part} part needs 2 training samples of each class. Received: 1 of class "
            f"{y[size.argmin()]}. Add samples{', or use validation=0' if part == 'validation' else ' or a test part'}."
        )
    return rank < np.clip(np.rint(share * size), 1, size - 1)


def _carve_test(x: np.ndarray, y: np.ndarray, class_names: tuple[str, ...], where: str) -> _Arrays:
    test = _carve(y, _TEST_SHARE, _TEST_SEED, part="test", where=where)
    return _Arrays(x[~test], y[~test], x[test], y[test], class_names)


def _digits() -> _Arrays:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]  # stored as 0..16
    return _carve_test(x, bunch.target, (), "digits")


def _keras_dataset(name: str) -> _Arrays:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise RuntimeError(
            f"load: {name} is not in $TFKD_DATA nor in Keras's cache, and could not be downloaded: {error}. "
            f"Put {name}.npz, with {', '.join(_KEYS)}, into a folder and set TFKD_DATA to it."
        ) from error
    return _Arrays(x_train, y_train, x_test, y_test)


def _read_npz(path: Path) -> _Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"load: {path} must be a .npz archive. Received: {error}. {_SAVE}") from error
    if missing := [key for key in _KEYS if key not in sizes]:
        raise ValueError(
            f"load: {path} must hold {', '.join(missing)}. Received: {', '.join(sizes) or 'none'}. {_SAVE}"
        )
    needed, memory = sum(sizes[key] for key in _KEYS), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ValueError(
            f"load: {path} must fit into memory ({memory:,} bytes). Received: {needed:,} bytes once decompressed. "
            f"Save fewer samples, or uint8 in place of floats."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _Arrays(*(archive[key] for key in _KEYS))
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ValueError(
            f"load: {path} must hold plain, whole arrays. Received: {type(error).__name__}: {error}. {_SAVE}"
        ) from error


def _read_folder(path: Path, image_size: tuple[int, int] | None) -> _Arrays:
    parts = {folder.name for folder in _visible(path) if folder.is_dir()}
    if not parts & {"train", "test"}:
        x, y, names = _read_classes(path, image_size)
        return _carve_test(x, y, names, str(path))
    if parts != {"train", "test"}:
        raise ValueError(
            f"load: {path} must hold train/ and test/ and no other folder, or class folders only. "
            f"Received: {', '.join(sorted(parts))}. Move validation images into train/: load carves its own."
        )
    x_train, y_train, names = _read_classes(path / "train", image_size)
    x_test, y_test, test_names = _read_classes(path / "test", image_size)
    if names != test_names:
        odd = ", ".join(sorted(set(names) ^ set(test_names)))
        raise ValueError(f"load: {path}: train/ and test/ must have the same classes. Received: {odd} in one only.")
    return _Arrays(x_train, y_train, x_test, y_test, names)


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))


def _read_classes(path: Path, image_size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    folders = [folder for folder in _visible(path) if folder.is_dir()]
    if not folders:
        raise ValueError(f"load: {path} must hold one folder of images per class. Received: no folder.")
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = list(_visible(folder))
        if not files:
            raise ValueError(
                f"load: {folder}: each class needs images. Received: an empty folder. Add some or remove it."
            )
        for file in files:
            images.append(_read_image(file, image_size))
            labels.append(label)
            if images[-1].shape[:2] != images[0].shape[:2]:
                raise ValueError(
                    f"load: {file} must be as large as the first image, {images[0].shape[:2]} (height, width). "
                    f"Received: {images[-1].shape[:2]}. Resize it, or pass image_size=(height, width) to load()."
                )
    if len({image.shape for image in images}) > 1:  # grayscale among colour images
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images), np.array(labels), tuple(folder.name for folder in folders)


def _read_image(file: Path, image_size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as source:
            if source.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of more than 8 bits (mode {source.mode})")
            image = ImageOps.exif_transpose(source).convert("L" if source.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"load: {file} must be a readable PNG or JPEG of 8 bits a channel. Received: {error}. Repair or remove it."
        ) from error
    if image_size is not None:
        image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
