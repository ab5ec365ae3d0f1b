"""Reads a data set and divides it into training, validation and test split."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import logging
import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tfkd.data import abnormal_labels, checks, dense_labels, frame_labels, identity_labels, label_kinds, lazy, manifest
from tfkd.data.lazy import LazySamples
from tfkd.data.named_arrays import NamedArrays, check_same_inputs, samples_of
from tfkd.data.reading import Request
from tfkd.data.sources import NAMES, SOURCES
from tfkd.data.sources.source import Arrays, Samples
from tfkd.data.splits import Role, Split, Splits, class_ranks
from tfkd.errors import InputError

# A source without a test part is divided with this share and seed, whatever the user's seed, so that two runs are
# evaluated on the same samples.
_TEST_SHARE = 0.3
_TEST_SEED = 20240229
# Largest share of the test part whose rows of a table are moved to the training part because it has equal ones.
_MOST_COPIES = 0.05

log = logging.getLogger("tfkd")


def load(
    name_or_path: str | os.PathLike[str] | Request = "digits",
    *,
    validation: float = 0.1,
    seed: int = 0,
    labels: str | None = None,
    **options: object,
) -> Splits:
    """Loads a data set; the validation split is a stratified part of the training data unless the source has its own.

    Args:
        name_or_path: One of the following; a name has precedence over a path (write `./digits` for a folder `digits`).
            A name of `NAMES`: `digits` is embedded, `shapes` is generated, others come from `$TFKD_DATA/NAME.npz`, else
            from the cache of Keras, else by download. The name of another file `$TFKD_DATA/NAME.npz`. A `.npz` file
            with x_train, y_train, x_test, y_test, or a folder of `.npy` files of these names; of models with several
            inputs `x_train/NAME` and `x_test/NAME` for each, in a `.npz` file. A folder of images
            (PNG, JPEG, WebP, BMP, GIF) or sounds (WAV, FLAC, OGG) with one sub-folder per class, or with `train/`,
            `val/` and `test/` of that form, of which `val/` and `test/` may be missing. A manifest: a CSV or JSON-lines
            file with the columns `label`, optionally `split`, and either `path` of such files or values (columns of
            numbers, or lists in `x`). Or a `Request`.
        validation: Share of the training data for validation, 0 <= validation < 1; at least one sample of each class
            unless 0. Without effect where the source has a validation part.
        seed: Random seed of the validation split, >= 0.
        labels: Kind of the labels, see `tfkd.data.label_kinds`: `classes`, `values` of a regression, `multi_hot` rows
            of 0 and 1, `abnormal` samples, `identities`, classes of `frames`, or `masks`, `boxes` or `points` of
            images. By default the labels tell: floats that are no whole numbers are values, rows of 0 and 1 with
            another sum than 1 multi-hot, integers [N, H, W] masks.
        **options: Fields of `tfkd.data.ReadingOptions`, such as `image_size=(96, 96)`.

    Returns:
        The training, validation and test split. Grayscale images get a channel axis. A source without a test part is
        divided 70 : 30 into training and test data, stratified and always in the same way; for files the logger `tfkd`
        says so.

    Raises:
        InputError: The source is missing, malformed or too small, or an argument is out of range.
        ToolMissingError: A named data set could not be downloaded.

    >>> load("digits").test
    <Split digits/test: 539 x (8, 8, 1), 10 classes>
    """
    request = Request.of(name_or_path, **options)
    if labels is not None:
        request = dataclasses.replace(request, labels=labels)
    label_kinds.check_kind(request.labels, "load")
    source = next((source for source in SOURCES if source.accepts(request)), None)
    if source is None:
        near = difflib.get_close_matches(request.reference, NAMES, n=1)
        hint = (
            f"Did you mean {near[0]!r}?"
            if near
            else f"Use one of {', '.join(NAMES)}, a .npz file, a manifest or a folder."
        )
        raise InputError(f"load: {request.reference!r} is neither a known data set nor a file or folder. {hint}")
    request.options.check(source.options, request.reference)
    return _split(source.read(request), validation=validation, seed=seed, labels=request.labels)


def from_arrays(
    train: tuple[npt.ArrayLike | Mapping[str, npt.ArrayLike], npt.ArrayLike],
    test: tuple[npt.ArrayLike | Mapping[str, npt.ArrayLike], npt.ArrayLike],
    *,
    name: str = "arrays",
    class_names: tuple[str, ...] = (),
    validation: float = 0.1,
    seed: int = 0,
    labels: str | None = None,
) -> Splits:
    """Makes splits of arrays, with the checks of `load`.

    Args:
        train: Samples [N, ...] and labels [N] or [N, K] for training and validation. A large `numpy.memmap` is not read
            into memory; it must be uint8 or float32. Samples of several inputs are a dict of arrays by their names.
        test: Samples [M, ...] and labels [M] or [M, K] of the test split.
        name: Name of the data set.
        class_names: Name of each class or column of labels; by default "0", "1", ...
        validation: Share of the training data for validation, 0 <= validation < 1.
        seed: Random seed of the validation split, >= 0.
        labels: Kind of the labels, see `load`.

    Returns:
        The training, validation and test split; grayscale images get a channel axis.

    Raises:
        InputError: The arrays are malformed or too small, or an argument is out of range.

    >>> import numpy as np
    >>> x, y = np.zeros((6, 2), "float32"), np.array([0, 1] * 3)
    >>> from_arrays((x, y), (x, y), validation=0.34).val
    <Split arrays/val: 2 x (2,), 2 classes>
    """
    x_train, x_test = (_samples(part[0], f"{name}: {key}") for part, key in ((train, "x_train"), (test, "x_test")))
    names = ([*part[0]] if isinstance(part[0], Mapping) else [] for part in (train, test))
    check_same_inputs(names, name, "Give the arrays of an input one name in both.")
    y_train, y_test = np.asarray(train[1]), np.asarray(test[1])
    arrays = Arrays(x_train, y_train, x_test, y_test, tuple(class_names), name=name, location=name)
    label_kinds.check_kind(labels, "from_arrays")
    return _split(arrays, validation=validation, seed=seed, labels=labels)


def _samples(x: npt.ArrayLike | Mapping[str, npt.ArrayLike], where: str) -> np.ndarray | LazySamples | NamedArrays:
    """Samples as an array in memory, or by input; a large memory-mapped array stays in its file."""
    if isinstance(x, Mapping):
        return samples_of(x, where)
    if isinstance(x, np.memmap) and x.nbytes > lazy.IN_MEMORY_BYTES:
        return lazy.mapped(x, where)
    return np.asarray(x)


def _split(arrays: Arrays, *, validation: float, seed: int, labels: str | None) -> Splits:
    if not 0 <= validation < 1:
        raise InputError(f"load: validation must be in [0, 1). Received: validation={validation}. Use 0.1.")
    if seed < 0:
        raise InputError(f"load: seed must be >= 0. Received: seed={seed}. Use 0.")
    where = arrays.location
    if labels == abnormal_labels.KIND:
        arrays = _with_marks(arrays)
    if labels == identity_labels.KIND and arrays.labels == "classes":
        arrays = arrays._replace(labels=labels)
    if labels and arrays.labels and labels != arrays.labels:
        raise InputError(
            f"load: {where} has labels of the kind {arrays.labels!r}. Received: {labels!r}, declared or by its task. "
            "Leave that out, or give the labels in a manifest or arrays."
        )
    labels = labels or arrays.labels or label_kinds.detect(np.asarray(arrays.y_train))
    parts, class_names = _checked(_with_test_part(arrays, labels), arrays.class_names, where, labels)
    train_mean = parts["train"].y.mean(axis=0, dtype=np.float64) if labels == "values" else None
    ids = _ids(parts, where)

    def split(role: Role, held_out: Split | None) -> Split:
        x, y, paths = parts[role]
        given = (held_out, paths, train_mean, labels, arrays.frame_seconds)
        return Split(x, y, ids[role], role, arrays.name, class_names, *given)

    test = split("test", None)
    train = split("train", test)
    if "val" in parts:
        return Splits(train, split("val", test), test)
    if labels == identity_labels.KIND:
        in_val = identity_labels.choose(train.y, validation, seed, where)
    else:
        in_val = _choose(train.strata, validation, seed, part="validation", where=where, names=class_names)
        in_val = _with_classes_left(in_val, train.y, labels)
    val = dataclasses.replace(train.take(np.flatnonzero(in_val)), role="val")
    return Splits(train.take(np.flatnonzero(~in_val)), val, test)


def _with_marks(arrays: Arrays) -> Arrays:
    """The content of a source of classes with the labels of an anomaly detection."""
    normal = abnormal_labels.normal_class(arrays.class_names, arrays.labels, arrays.location)

    def marked(y: np.ndarray, key: str) -> np.ndarray:
        return abnormal_labels.check(np.asarray(y), key, len(y), arrays.location, normal)

    y_test = None if arrays.y_test is None else marked(arrays.y_test, "y_test")
    return arrays._replace(
        y_train=marked(arrays.y_train, "y_train"),
        y_test=y_test,
        class_names=abnormal_labels.CLASS_NAMES,
        labels=abnormal_labels.KIND,
    )


def _with_test_part(arrays: Arrays, labels: str) -> dict[Role, Samples]:
    """The parts of a source; the test part is split off the training part where the source has none."""
    parts, train = arrays.parts(), arrays.parts()["train"]
    if "test" not in parts:
        where, names = arrays.location, arrays.class_names
        train = train._replace(y=_CHECKS[labels](train.y, "y_train", len(train.x), where))
        if labels == "classes":
            checks.check_classes({"y_train": train.y}, names, where)
        strata = train.y if labels == "classes" else np.zeros(len(train.y), np.int64)
        if labels == identity_labels.KIND:
            in_test = identity_labels.choose(train.y, _TEST_SHARE, _TEST_SEED, where)
        else:
            in_test = _choose(strata, _TEST_SHARE, _TEST_SEED, part="test", where=where, names=names)
            in_test = _with_classes_left(_without_copies(train.x, in_test), train.y, labels)
        if labels == abnormal_labels.KIND:
            in_test |= train.y
        parts["train"], parts["test"] = (train.take(np.flatnonzero(mask)) for mask in (~in_test, in_test))
        if where not in NAMES:
            listed = train.paths is not None or where.endswith(manifest.SUFFIXES)
            advice = "`tfkd split` writes a list to train and test with" if listed else "save a test part of your own"
            log.warning(
                "%s has no test part: %s of %s samples were set aside for it, always the same ones. A teacher that was "
                "trained on some of them seems better than it is: %s.",
                where,
                f"{in_test.sum():,}",
                f"{len(in_test):,}",
                advice,
            )
    return parts


def _without_copies(x: np.ndarray | LazySamples | NamedArrays, in_test: np.ndarray) -> np.ndarray:
    """The mask of a test part without the few rows of a table that are equal to one outside of it.

    Many such rows stay, and the examinations before a training find them.
    """
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.nbytes > lazy.IN_MEMORY_BYTES:
        return in_test
    row = np.unique(x, axis=0, return_inverse=True)[1].ravel()
    copies = in_test & np.isin(row, row[~in_test])
    return in_test & ~copies if copies.sum() <= _MOST_COPIES * in_test.sum() else in_test


def _with_classes_left(chosen: np.ndarray, y: np.ndarray, kind: str) -> np.ndarray:
    """The mask of a part drawn at random, without the first sample of each class that the others would not show."""
    if kind not in ("multi_hot", "masks", "boxes"):
        return chosen
    shows = y.astype(bool) if kind == "multi_hot" else dense_labels.shows(y, kind)
    kept = shows[:, ~shows[~chosen].any(axis=0)].argmax(axis=0)
    found = chosen.copy()
    found[kept] = False
    return found if found.any() else chosen


def _checked(
    parts: Mapping[Role, Samples], names: tuple[str, ...], where: str, kind: str
) -> tuple[dict[Role, Samples], tuple[str, ...]]:
    """The parts with checked samples and labels, and the name of each class."""
    fits = all(checks.fits_uint8(part.x) for part in parts.values())
    first = _shape(parts["train"].x)
    for shape in first.values() if isinstance(first, dict) else (first,):
        checks.examine_layout(shape, where)
    checked = {}
    for role, part in parts.items():
        x = checks.check_x(part.x, f"x_{role}", where, fits)
        checked[role] = Samples(x, _CHECKS[kind](part.y, f"y_{role}", len(x), where), part.paths)
        first = _shape(checked["train"].x)  # a channel axis was added
        if _shape(x) != first:
            raise InputError(
                f"load: {where}: samples of x_train and x_{role} must have the same shape. "
                f"Received: {first} and {_shape(x)}. Resize or pad one of them."
            )
        if kind in dense_labels.KINDS:
            dense_labels.check_images(x.shape[1:], kind, where)
        if kind == "masks":
            dense_labels.check_sizes(checked[role].y, x.shape[1:], f"y_{role}", where)
    labels = {f"y_{role}": part.y for role, part in checked.items()}
    if kind in dense_labels.KINDS:
        return checked, dense_labels.check_names(labels, names, kind, where)
    if kind == abnormal_labels.KIND:
        return checked, abnormal_labels.check_names(labels, where)
    if kind == identity_labels.KIND:
        return checked, identity_labels.check_names(labels, names, where)
    if kind == frame_labels.KIND:
        return checked, frame_labels.check_names(labels, names, where)
    if kind != "classes":
        return checked, label_kinds.check_names(labels, names, kind, where)
    return checked, checks.check_classes(labels, names, where)


def _shape(x: np.ndarray | LazySamples | NamedArrays) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of a sample, of several inputs by name."""
    return x.shapes if isinstance(x, NamedArrays) else x.shape[1:]


_CHECKS = {
    "classes": checks.check_y,
    "values": label_kinds.check_values,
    "multi_hot": label_kinds.check_multi_hot,
    **dense_labels.CHECKS,
    abnormal_labels.KIND: abnormal_labels.check,
    frame_labels.KIND: frame_labels.check,
    identity_labels.KIND: checks.check_y,
}


def _ids(parts: Mapping[Role, Samples], where: str) -> dict[Role, np.ndarray]:
    """The ids of the samples of each part: hashes of their paths, or their numbers."""
    lengths = [len(part.y) for part in parts.values()]
    known = [part.paths for part in parts.values() if part.paths is not None]
    if len(known) == len(parts):
        ids = np.fromiter(map(_hash, itertools.chain.from_iterable(known)), np.int64, sum(lengths))
        if len(np.unique(ids)) < len(ids):
            raise InputError(f"load: {where}: each file must occur once. Received: a file twice. Remove duplicates.")
    else:
        ids = np.arange(sum(lengths))
    return dict(zip(parts, np.split(ids, np.cumsum(lengths)[:-1]), strict=True))


def _hash(path: str) -> int:
    """63 bits of the hash of a path."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)


def _choose(y: np.ndarray, share: float, seed: int, *, part: str, where: str, names: tuple[str, ...]) -> np.ndarray:
    """A mask [N] that chooses `share` of each class at random, at least one sample of it and never all."""
    if share == 0:
        return np.zeros(len(y), bool)
    rank, size = class_ranks(y, seed)
    if size.min() < 2:
        label = int(y[size.argmin()])
        of_class = f" of class {names[label] if names else label}" if y.any() else ""  # other labels have no classes
        raise InputError(
            f"load: {where}: a {part} part needs 2 training samples{' of each class' if of_class else ''}. Received: "
            f"1{of_class}. Add samples, or "
            f"{'use validation=0' if part == 'validation' else 'provide a separate test part'}."
        )
    return rank < np.clip(np.rint(share * size), 1, size - 1)
