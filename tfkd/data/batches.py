"""Batches of a split as a `tf.data.Dataset`, for a student alone or with what its teacher gives or sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from tfkd._internal.types import Nest, Tensor
from tfkd.data import label_augmentation
from tfkd.data.augmentation import Augment, augment_batch, view_seeds
from tfkd.data.lazy import LazySamples, as_model_input, first_tried, lookups, sample_size
from tfkd.data.mixing import Mixing
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

# Batches that wait for the training. The number that TensorFlow chooses grows while it runs, and the memory with it.
_PREFETCHED = 2
# Makes the random numbers of mixing differ from those of the augmentation of the first sample.
_MIXING = 0x6D6978


class TeacherStudentInputs(NamedTuple):
    """Inputs of one batch where teacher and student see different inputs.

    The type marks the pair, so that a student whose own input is a dictionary is never split by mistake.

    Args:
        teacher: Input of the teacher [B, ...].
        student: Input of the student [B, ...], for the same samples in the same order. As of a teacher with several
            inputs, a dictionary by name.
    """

    teacher: Nest
    student: Nest


class SoftLabelInputs(NamedTuple):
    """Inputs of one batch with stored teacher logits.

    Args:
        soft_labels: Teacher logits, float32 [B, C], or those of each output by its name.
        student: Input of the student [B, ...], in the view that the teacher saw.
    """

    soft_labels: Tensor | Mapping[str, Tensor]
    student: Nest


_Function = TypeVar("_Function", bound=Callable[..., Any])

# What a batch has for a model: samples, of several inputs by name; for the teacher too where it sees others, or with
# its stored logits.
Inputs: TypeAlias = "tf.Tensor | dict[str, tf.Tensor] | TeacherStudentInputs | SoftLabelInputs"


class Samples(Protocol):
    """The properties of a `Split` that batching and its look-ups read."""

    @property
    def x(self) -> np.ndarray | LazySamples | NamedArrays: ...
    @property
    def y(self) -> np.ndarray: ...
    @property
    def ids(self) -> np.ndarray: ...
    @property
    def role(self) -> str: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def content_hash(self) -> str: ...
    def __len__(self) -> int: ...


class TeacherLogits(Protocol):
    """Stored teacher logits, such as `tfkd.SoftLabels`."""

    views: int
    seed: int

    @property
    def labelled(self) -> int: ...
    @property
    def augment(self) -> Augment | None: ...
    def lookup(
        self, samples: Samples, augment: Augment | None = None
    ) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Returns a function (x [B, ...], rows [B], ids [B], epoch) -> (augmented x, logits [B, C])."""


class TeacherSamples(Protocol):
    """Samples that a teacher sees, such as `tfkd.data.Partner`."""

    def lookup(self, samples: Samples, seed: int) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Nest]:
        """Returns a function (rows [B], ids [B], epoch) -> the teacher's x, float32 [B, ...], or such by input."""


class EpochCounter:
    """Number of the epoch that a data set of `Split.batches` is in; each pass over the data set adds 1.

    Args:
        epoch: Epoch of the last pass; -1 before the first.
    """

    def __init__(self, epoch: int = -1) -> None:
        import tensorflow as tf

        with tf.device("CPU:0"):
            self.variable = tf.Variable(epoch, dtype=tf.int64, trainable=False)

    def assign(self, epoch: int) -> None:
        """Sets the epoch of the last pass: the next pass is epoch + 1."""
        self.variable.assign(epoch)

    def __int__(self) -> int:
        return int(self.variable)


def epoch_counters(dataset: object) -> list[EpochCounter]:
    """The epoch counters of the data sets of `Split.batches` that a data set was made from.

    They are found through `map`, `filter`, `zip`, `prefetch` and all other transformations of `tf.data`, but not
    through `tf.data.Dataset.from_generator` or a Python generator.

    Args:
        dataset: A `tf.data.Dataset`; any other object has no counters.
    """
    found: dict[int, EpochCounter] = {}
    stack, visited = [dataset], set()
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        counter = getattr(node, "epoch", None)
        if isinstance(counter, EpochCounter):
            found[id(counter)] = counter
        # tf.data has no public way to ask for the inputs of a transformation; tests/data/test_batches.py fails where a
        # new version of TensorFlow lacks this one.
        elif callable(inputs := getattr(node, "_inputs", None)):
            stack.extend(inputs())
    return list(found.values())


# Size of the inputs of which a model computes the outputs at a time. The values between its layers need more.
_OUTPUT_BATCH_BYTES = 16 << 20


def output_batch_size(samples: Samples, most: int = 256) -> int:
    """Number of samples of which a model computes the outputs at a time: fewer where samples are large.

    Args:
        samples: The samples.
        most: Largest number, >= 1.
    """
    bytes_of_one = 4 * max(1, sample_size(samples.x))
    return max(1, min(most, _OUTPUT_BATCH_BYTES // bytes_of_one))


def batch_dataset(
    samples: Samples,
    batch_size: int,
    *,
    shuffle: bool,
    augment: Augment | None,
    seed: int,
    soft_labels: TeacherLogits | Mapping[str, TeacherLogits] | None,
    partner: TeacherSamples | None,
    mixing: Mixing | None = None,
) -> tf.data.Dataset:
    """The data set that `Split.batches` returns; see there.

    Args:
        samples: The split.
        batch_size: Samples per batch.
        shuffle: Whether each epoch has a new order.
        augment: Augmentation of a sample, or None.
        seed: Random seed of order and augmentation.
        soft_labels: Stored teacher logits, those of each output by its name, or None.
        partner: Samples of the teacher, or None.
        mixing: Mixing of the samples of a batch, or None.

    Raises:
        InputError: batch_size < 1, more than one of soft_labels, partner and mixing, one does not belong to the
            samples, or the augmentation moves pixels or frames whose labels do not follow.
    """
    import tensorflow as tf

    if batch_size < 1:
        raise InputError(f"Split.batches: batch_size must be > 0. Received: batch_size={batch_size}. Use 128.")
    if soft_labels is not None and partner is not None:
        raise InputError(
            "Split.batches: soft_labels and partner exclude each other. Received: both. A store already holds the "
            "logits of its teacher; leave partner out."
        )
    move = label_augmentation.mover(augment, samples)
    if move is not None and partner is not None:
        raise InputError(
            "Split.batches: a partner is not augmented, and its labels would not be those of the mirrored image. "
            "Received: partner and an augmentation that moves pixels. Leave one out."
        )
    if mixing is not None and isinstance(samples.x, NamedArrays):
        raise InputError(
            f"Split.batches: mixing needs samples of one input. Received: samples of the inputs "
            f"{', '.join(samples.x.arrays)}. Leave it out."
        )
    if mixing is not None and (soft_labels is not None or partner is not None):
        raise InputError(
            "Split.batches: mixing needs a teacher that sees the mixed samples in each step. Received: "
            f"{'soft_labels, which have none' if soft_labels is not None else 'a partner'}. Leave one out."
        )
    counter = EpochCounter()
    make_batch = _batch_function(samples, augment, seed, soft_labels, partner, move)

    def rows_of(epoch: tf.Tensor) -> tf.Tensor:
        rows = tf.range(len(samples), dtype=tf.int64)
        if not shuffle:
            return rows
        return tf.random.experimental.stateless_shuffle(rows, seed=tf.stack([tf.constant(seed, tf.int64), epoch]))

    def order(_: tf.Tensor) -> tf.data.Dataset:
        epoch = counter.variable.assign_add(1)
        rows = rows_of(epoch)
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
        if fast:  # `first_tried` needs an end
            batches = batches.concatenate(tf.data.Dataset.from_tensors(rows[:0]))
        return tf.data.Dataset.zip(batches, tf.data.Dataset.from_tensors(epoch).repeat())

    make = make_batch if mixing is None else _mixed(make_batch, mixing, samples, seed)
    with tf.device("CPU:0"):
        *fast, look_up = lookups(samples.x)

    def batch(rows: tf.Tensor, epoch: tf.Tensor) -> tuple[Inputs, tf.Tensor]:
        return make(look_up(rows), rows, epoch)

    def tried_batch(
        step: tf.Tensor, found: tf.Tensor, x: Nest, rows: tf.Tensor, epoch: tf.Tensor
    ) -> tuple[Inputs, tf.Tensor]:
        def again() -> tuple[Nest, tf.Tensor]:
            missing = rows_of(epoch)[step * batch_size : (step + 1) * batch_size]
            return look_up(missing), missing

        samples_of_step, rows_of_step = tf.cond(step == found, lambda: (x, rows), again)
        return make(samples_of_step, rows_of_step, epoch)

    dataset = tf.data.Dataset.from_tensors(0).flat_map(_plain(order))
    dataset = first_tried(dataset, fast[0], batch_size * sample_size(samples.x)) if fast else dataset
    dataset = dataset.map(
        _plain(tried_batch if fast else batch), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-len(samples) // batch_size)))
    dataset = dataset.prefetch(_PREFETCHED)
    dataset.epoch = counter
    return dataset


def _plain(function: _Function) -> _Function:
    """A function that AutoGraph leaves alone: it would take time for it and turn our errors into errors of its own."""
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def _batch_function(
    samples: Samples,
    augment: Augment | None,
    seed: int,
    soft_labels: TeacherLogits | Mapping[str, TeacherLogits] | None,
    partner: TeacherSamples | None,
    move: label_augmentation.Mover | None,
) -> Callable[[Nest, tf.Tensor, tf.Tensor], tuple[Inputs, tf.Tensor]]:
    """A function (x [B, ...], rows [B], epoch) -> (inputs, labels [B]).

    `move` moves the labels as `augment` moves the samples.
    """
    import tensorflow as tf

    with tf.device("CPU:0"):  # tf.data runs on the CPU: data placed on a GPU would be copied twice
        y, ids = tf.constant(samples.y), tf.constant(samples.ids)
        find_logits = None if soft_labels is None else _logits_lookup(soft_labels, samples, augment)
        find_partner = None if partner is None else partner.lookup(samples, seed)

    def make_batch(x: Nest, rows: tf.Tensor, epoch: tf.Tensor) -> tuple[Inputs, tf.Tensor]:
        batch, batch_ids = as_model_input(x), tf.gather(ids, rows)
        labels = tf.gather(y, rows)
        if find_logits is not None:
            student, teacher_logits = find_logits(batch, rows, batch_ids, epoch)
            return SoftLabelInputs(soft_labels=teacher_logits, student=student), labels
        if augment is not None:
            seeds = view_seeds(batch_ids, epoch, seed=seed)
            batch = augment_batch(augment, batch, seeds)
            labels = labels if move is None else move(labels, seeds)
        if find_partner is not None:
            return TeacherStudentInputs(teacher=find_partner(rows, batch_ids, epoch), student=batch), labels
        return batch, labels

    return make_batch


def _logits_lookup(
    soft_labels: TeacherLogits | Mapping[str, TeacherLogits], samples: Samples, augment: Augment | None
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, Nest]]:
    """The look-up of one store, or of one for each output, which all show the same view of a sample."""
    if not isinstance(soft_labels, Mapping):
        return soft_labels.lookup(samples, augment)
    settings = [(one.views, one.seed, one.labelled, one.augment) for one in soft_labels.values()]
    if not settings or any(one != settings[0] for one in settings):
        raise InputError(
            "Split.batches: the stores of all outputs must have the same views, seed and augmentation. Received: "
            f"{dict(zip(soft_labels, settings, strict=True))}. Make them with the same settings."
        )
    lookups = {name: store.lookup(samples, augment) for name, store in soft_labels.items()}

    def find(x: tf.Tensor, rows: tf.Tensor, ids: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, Nest]:
        found = {name: lookup(x, rows, ids, epoch) for name, lookup in lookups.items()}
        views = [view for view, _ in found.values()]
        return views[0], {name: logits for name, (_, logits) in found.items()}

    return find


def _mixed(
    make_batch: Callable[[Nest, tf.Tensor, tf.Tensor], tuple[Inputs, tf.Tensor]],
    mixing: Mixing,
    samples: Samples,
    seed: int,
) -> Callable[[Nest, tf.Tensor, tf.Tensor], tuple[Inputs, tf.Tensor]]:
    """A function (x [B, ...], rows [B], epoch) -> (mixed inputs, mixed labels float32 [B, C])."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        ids = tf.constant(samples.ids)

    def make(found: Nest, rows: tf.Tensor, epoch: tf.Tensor) -> tuple[Inputs, tf.Tensor]:
        x, y = make_batch(found, rows, epoch)
        one_seed = view_seeds(tf.gather(ids, rows[:1]), epoch, seed=seed)[0]
        return mixing(x, tf.one_hot(y, samples.num_classes), tf.random.fold_in(one_seed, _MIXING))

    return make
