"""The three splits of a data set.

The test split serves for the final evaluation only, never for training, selection or calibration: each split knows its
role, and `Split.require` raises where the role is wrong.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tfkd.data import label_kinds
from tfkd.data.augmentation import Augment
from tfkd.data.batches import TeacherLogits, TeacherSamples, batch_dataset
from tfkd.data.lazy import LazySamples
from tfkd.data.mixing import Mixing
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = ("train", "val", "test")
# Equal samples that a message names.
_LISTED = 5


class Splits(NamedTuple):
    """The training, validation and test split of one data set."""

    train: Split
    val: Split
    test: Split


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, read-only.

    Args:
        x: Samples [N, ...]; images uint8 or float32 in 0..255, other features float32 of any rank. An array in memory;
            `LazySamples`, which are read when they are used; or `NamedArrays`, an array for each of several inputs.
        y: Labels: classes, int64 [N] in 0..num_classes-1; values of a regression, float32 [N, K]; multi-hot rows of
            0 and 1, int64 [N, C]; or other kinds, such as masks of images. See `tfkd.data.label_kinds`.
        ids: Number of each sample, int64 [N]; unique over the three splits and independent of the arguments
            `validation` and `seed` of `load`. Of files a hash of the path within the data set, so that it stays where
            files are added; otherwise the row in the source (training rows first, then test rows).
        role: `train`, `val` or `test`.
        name: Name of the data set.
        class_names: Name of each class, or of each column of y.
        held_out: Test split of the same data set, or None. It is there for audits only: calibration reads it to refuse
            samples that are also in the test split or have another value range. None for the test split itself.
        paths: File of each sample, relative to the data set, str [N]; None where a sample is not a file.
        train_mean: Mean of the training labels of a regression, float64 [K]; None where it is not known.
        labels: Kind of the labels; None for the kind that their type and shape show.
        frame_seconds: Time from one frame of a sequence to the next in seconds; None where it is not known.
    """

    x: np.ndarray | LazySamples | NamedArrays
    y: np.ndarray
    ids: np.ndarray
    role: Role
    name: str
    class_names: tuple[str, ...]
    held_out: Split | None = None
    paths: np.ndarray | None = None
    train_mean: np.ndarray | None = None
    labels: str | None = None
    frame_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in ("x", "y", "ids"):
            if not isinstance(getattr(self, field), np.ndarray):
                continue
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # pickling drops the read-only flag of an array

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        what = {"values": "values", "multi_hot": "labels", "points": "points"}.get(self.label_kind, "classes")
        return f"<Split {self.name}/{self.role}: {len(self)} x {self.sample_shape}, {self.num_classes} {what}>"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample.

        Raises:
            InputError: The samples have several inputs: `x.shapes` has the shape of each.
        """
        return self.x.shape[1:]

    @property
    def sample_shape(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """Shape of one sample; of several inputs the shape of each, by name."""
        return self.x.shapes if isinstance(self.x, NamedArrays) else self.x.shape[1:]

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set, or of columns of y; a small split may lack some of the classes."""
        return len(self.class_names)

    @property
    def label_kind(self) -> str:
        """Kind of the labels, see `tfkd.data.label_kinds`."""
        return self.labels or label_kinds.kind_of(self.y)

    @property
    def strata(self) -> np.ndarray:
        """The class of each sample, whose shares random subsets keep, int64 [N]; 0 for labels of other kinds."""
        return self.y if self.label_kind == "classes" else np.zeros(len(self), np.int64)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hexadecimal) of samples, labels and ids with their shapes and dtypes.

        Of samples that are not in memory, the bytes of their files and the options with which they are read count.
        """
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.ids):
            if isinstance(array, LazySamples):
                digest.update(array.fingerprint)
                continue
            for name, one in sorted(array.arrays.items()) if isinstance(array, NamedArrays) else (("", array),):
                digest.update(f"{name}{one.dtype.str}{one.shape}".encode())
                digest.update(np.ascontiguousarray(one).data)
        return digest.hexdigest()

    @cached_property
    def digests(self) -> np.ndarray:
        """Hash of the values of each sample, uint64 [N]; equal images in uint8 and in float32 have equal hashes."""
        x = self.x
        rows = x.rows() if isinstance(x, NamedArrays) else (row.astype(np.float32, order="C").data for row in x)
        return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows), dtype=np.uint64)

    def overlap(self, other: Split) -> np.ndarray:
        """Ids of the samples of this split whose values equal those of a sample in `other`, int64 [M].

        Args:
            other: Another split with samples of the same shape.
        """
        return self.ids[np.isin(self.digests, other.digests)]

    def equal_samples(self, other: Split) -> str:
        """How many samples of this split equal one of another split, and which, by their files or their ids.

        Args:
            other: Another split with samples of the same shape.

        >>> from tfkd.data import load
        >>> train = load("digits").train
        >>> train.equal_samples(train.take([4]))
        '1 equal sample (train 4 and train 4)'
        """
        found = np.flatnonzero(np.isin(self.digests, other.digests))
        pairs = []
        for row in found[:_LISTED]:
            second = int(np.flatnonzero(other.digests == self.digests[row])[0])
            pairs.append(f"{self.role} {self._name(row)} and {other.role} {other._name(second)}")
        more = f" and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
        return f"{len(found)} equal sample{'s' * (len(found) != 1)} ({', '.join(pairs)}{more})"

    def _name(self, row: int) -> str:
        return str(self.ids[row] if self.paths is None else self.paths[row])

    def require(self, *roles: Role, purpose: str) -> None:
        """Raises unless the role of this split is one of `roles`.

        Args:
            roles: Permitted roles.
            purpose: What the split is used for, such as `calibration`; part of the error message.

        Raises:
            InputError: The split has another role.
        """
        if self.role not in roles:
            reason = "The test split is for the final evaluation only" if self.role == "test" else "The role is wrong"
            raise InputError(
                f"Split: {purpose} needs a split with role {' or '.join(roles)}. Received: {self!r}. "
                f"{reason}: pass the {roles[0]} split that load() returned."
            )

    def take(self, rows: np.ndarray) -> Split:
        """The split of some of the samples, with the same role.

        Args:
            rows: Positions in this split, integers [M].
        """
        paths = None if self.paths is None else self.paths[rows]
        return dataclasses.replace(self, x=self.x.take(rows, axis=0), y=self.y[rows], ids=self.ids[rows], paths=paths)

    def sample(self, n: int, *, seed: int = 0) -> Split:
        """A random subset with the same role; of classes it is stratified, and has every class if n >= num_classes.

        Args:
            n: Number of samples, 1..len(self).
            seed: Random seed of the choice, >= 0.

        Raises:
            InputError: n is out of range.

        >>> from tfkd.data import load
        >>> load("digits").train.sample(20).y.tolist() == sorted(2 * list(range(10)))
        True
        """
        if not 1 <= n <= len(self):
            raise InputError(f"Split.sample: n must be in 1..{len(self)}. Received: n={n}. Use a smaller number.")
        rank, count = class_ranks(self.strata, seed)
        chosen = np.lexsort((np.random.default_rng(seed).random(len(self)), rank / count))[:n]
        return self.take(chosen[np.argsort(self.strata[chosen], kind="stable")])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        soft_labels: TeacherLogits | Mapping[str, TeacherLogits] | None = None,
        partner: TeacherSamples | None = None,
        mixing: Mixing | None = None,
    ) -> tf.data.Dataset:
        """The split as a `tf.data.Dataset` of (x float32 [B, ...], y [B, ...]); the last batch may be smaller.

        Of several inputs x is a dictionary by their names, of integers and floats as the split has them.

        Each pass over the data set is one epoch. Order and augmentation depend on `seed`, the epoch and the ids only,
        so that a run can be repeated exactly.

        Args:
            batch_size: Samples per batch, >= 1.
            shuffle: Whether each epoch has a new random order of the whole split.
            augment: Function `(x, seed) -> x` of one sample, made of stateless TensorFlow ops; seed is int32 [2] (see
                `view_seeds`; the view is the epoch). If it has a method `batch(x [B, ...], seeds [B, 2])`, that is
                called instead, which is faster.
            seed: Random seed of order and augmentation.
            soft_labels: A `tfkd.SoftLabels`, or one for each output by its name. Batches are then (`SoftLabelInputs`,
                y); epoch e has samples and teacher logits of view e mod views. `augment` is needed only where the store
                does not know its augmentation, which is the case for functions other than those of tfkd.
            partner: A `tfkd.data.Partner`, the samples of the teacher. Batches are then (`TeacherStudentInputs`, y);
                `augment` changes the student's x only.
            mixing: A `tfkd.data.Mixing` (mixup, CutMix). y is then a mixture of classes, float32 [B, C].

        Returns:
            The data set. Its attribute `epoch` is an `EpochCounter`. `tfkd.Distiller.fit` sets it at the start of each
            epoch, so that a resumed run continues in the order that it would have had without the interruption; with
            any other model pass `tfkd.distillation.epoch_sync.EpochSync(dataset)` as a callback.

        Raises:
            InputError: batch_size < 1, more than one of soft_labels, partner and mixing, or one does not belong to this
                split.
        """
        return batch_dataset(
            self,
            batch_size,
            shuffle=shuffle,
            augment=augment,
            seed=seed,
            soft_labels=soft_labels,
            partner=partner,
            mixing=mixing,
        )


def class_ranks(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random order within each class.

    Args:
        y: Labels [N].
        seed: Random seed, >= 0.

    Returns:
        The position of each sample in its class, from 0, and the size of that class; both int64 [N].
    """
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    _, first, count = np.unique(y[order], return_index=True, return_counts=True)
    rank, size = np.empty(len(y), np.int64), np.empty(len(y), np.int64)
    rank[order] = np.arange(len(y)) - np.repeat(first, count)
    size[order] = np.repeat(count, count)
    return rank, size
