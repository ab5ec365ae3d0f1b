"""Labels with positions under augmentation: they move with what they belong to, or the augmentation is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd.data import dense_labels, frame_labels
from tfkd.data.augmentation import Augment, CropFlip, step_seeds
from tfkd.data.augmentations import AUGMENTATIONS, Chain
from tfkd.data.image_augmentation import Flip
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

# (labels [B, ...], seeds int32 [B, 2]) -> labels.
Mover = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]

log = logging.getLogger("tfkd")

# A side in the name of a point or class: a word, or a letter that stands alone, as in l_hip.
_SIDES = re.compile("(left|right|Left|Right|LEFT|RIGHT|(?<![A-Za-z])[lrLR](?![A-Za-z]))")
_PAIRS = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"))
_OTHER_SIDES = {one: other for a, b in _PAIRS for one, other in ((a, b), (b, a))}
# A side as a whole word, also within leftArm and armLeft.
_WORDS = re.compile("(?<![A-Za-z])(left|right)(?![a-z])|(Left|Right)(?![a-z])|(?<![A-Za-z])(LEFT|RIGHT)(?![A-Za-z])")
_KINDS = (*dense_labels.KINDS, frame_labels.KIND)
# A finding on classes with a side and without a counterpart, and what to do.
LONE = "Classes with a side keep their names in mirrored images."
LONE_REMEDY = "Leave flip out, or use crop_flip with flip = false, if the mirrored one is another class."


def mover(augment: Augment | None, samples: object) -> Mover | None:
    """The function that moves the labels as an augmentation moves the samples; None where they stay.

    Args:
        augment: The augmentation, or a chain.
        samples: The samples, such as a `Split`.

    Raises:
        InputError: See `check`.
    """
    lone = check(augment, samples)
    if lone:
        log.warning("augment: %s Received: %s. %s", LONE, ", ".join(lone), LONE_REMEDY)
    kind, names = _kind_and_names(samples)
    if kind not in _KINDS:
        return None
    flips = [(number, step) for number, step in enumerate(_steps(augment)) if isinstance(step, Flip)]
    if not flips:
        return None
    order = _mirrored_order(names) if kind == "points" else _mirrored_classes(names)
    by_letter = [(name, names[order[number]]) for number, name in enumerate(names) if order[number] > number]
    by_letter = [pair for pair in by_letter if kind != "points" and not _WORDS.search(pair[0])]
    if by_letter:
        log.warning(
            "augment: flip takes letters for sides. Received: the classes %r and %r, which exchange their names in "
            "mirrored images. Rename them if l and r are no sides, such as sizes.",
            *by_letter[0],
        )

    def move(y: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        for number, step in flips:
            mirrors = tf.map_fn(step.mirrors, step_seeds(seeds, number), fn_output_signature=tf.bool)
            y = tf.where(tf.reshape(mirrors, [-1, 1, 1]), mirror(y, kind, order), y)
        return y

    return move


def check(augment: Augment | None, samples: object) -> list[str]:
    """Checks that the labels stay right under an augmentation.

    Args:
        augment: The augmentation, or a chain.
        samples: The samples, such as a `Split`.

    Returns:
        Names of classes with a side, such as `left_lane`, whose mirrored images keep their label, since there is no
        class of the other side. That may be right, as for `right_whale`.

    Raises:
        InputError: The augmentation moves pixels or frames in a way that the labels do not follow, is a function that
            does not say whether it does, or mirrors images of a class that belong to another class then; or the samples
            have several inputs.
    """
    if augment is not None and isinstance(x := getattr(samples, "x", None), NamedArrays):
        raise InputError(
            f"augment: an augmentation changes samples of one input. Received: samples of the inputs "
            f"{', '.join(x.arrays)}. Leave it out, or put layers such as keras.layers.RandomFlip into the model."
        )
    kind, names = _kind_and_names(samples)
    steps = _steps(augment)
    if kind in _KINDS:
        for step in steps:
            _check_moves(step, kind)
    mirroring = [step for step in steps if isinstance(step, Flip) or (isinstance(step, CropFlip) and step.flip)]
    if not mirroring:
        return []
    if kind == "points":
        _mirrored_order(names)
        return []
    pair = exchanged(augment, samples)
    if pair is not None and kind not in _KINDS:
        raise InputError(
            f"augment: {mirroring[0].name} mirrors images, which keep their labels. Received: the classes {pair[0]!r} "
            f"and {pair[1]!r}, of which one mirrored is the other. Leave it out, use crop_flip with flip = false, or "
            "rename classes that are no sides."
        )
    others = [names[number] for number in _mirrored_classes(names)]
    return [name for name, other in zip(names, others, strict=True) if name == other and _WORDS.search(name)]


def exchanged(augment: Augment | None, samples: object) -> tuple[str, str] | None:
    """Two classes of which one is the other in a mirrored image; None where there are none, or nothing is mirrored.

    Args:
        augment: The augmentation, or a chain.
        samples: The samples, such as a `Split`.
    """
    if not any(isinstance(step, Flip) or (isinstance(step, CropFlip) and step.flip) for step in _steps(augment)):
        return None
    names = _kind_and_names(samples)[1]
    pairs = ((name, names[number]) for name, number in zip(names, _mirrored_classes(names), strict=True))
    return next((pair for pair in pairs if pair[0] != pair[1]), None)


def _kind_and_names(samples: object) -> tuple[str, Sequence[str]]:
    return getattr(samples, "label_kind", "classes"), getattr(samples, "class_names", ())


def _steps(augment: Augment | None) -> tuple[Augment, ...]:
    return augment.steps if isinstance(augment, Chain) else () if augment is None else (augment,)


def _check_moves(step: Augment, kind: str) -> None:
    """Checks that a step moves no pixels or frames, or labels with them.

    Raises:
        InputError: It does so without the labels, or does not say.
    """
    known = isinstance(step, tuple(AUGMENTATIONS.values()))
    moves = getattr(step, "moves", False if known else None)
    name = getattr(step, "name", getattr(step, "__name__", type(step).__name__))
    if moves is None:
        raise InputError(
            f"augment: a function for samples with {kind} must say that it moves no pixels or frames, which their "
            f"labels would not follow. Received: {name} without the attribute moves. Set {name}.moves = False if "
            "everything stays in its place."
        )
    if moves and not (isinstance(step, Flip) and kind in dense_labels.KINDS):
        raise InputError(
            f"Split.batches: {name} changes the samples only, and moves them away from their {kind}. Received: "
            f"augment={name!r}. Use flip, color_jitter or cutout of images, noise or spec_augment of sequences, or "
            "augment samples and labels before."
        )


def mirror(y: tf.Tensor, kind: str, order: Sequence[int] = ()) -> tf.Tensor:
    """The labels of images that are mirrored left to right.

    Args:
        y: Masks [B, H, W], boxes [B, M, 5] or points [B, K, 3], see `tfkd.data.dense_labels`.
        kind: Their kind.
        order: The number of the class, or of the point, that is in a mirrored image what each one was.
    """
    import tensorflow as tf

    if kind == "masks":
        numbers = np.arange(256)  # those that are no class stay
        numbers[: len(order)] = order
        return tf.reverse(tf.gather(tf.constant(numbers, y.dtype), tf.cast(y, tf.int32)), [2])
    if kind == "boxes":
        left, top, right, bottom, number = tf.unstack(y, axis=-1)
        number = tf.gather(tf.constant(order, y.dtype), tf.cast(tf.maximum(number, 0), tf.int32))
        moved = tf.stack([1 - right, top, 1 - left, bottom, number], axis=-1)
        return tf.where(y[..., 4:] >= 0, moved, y)
    x, down, visible = tf.unstack(tf.gather(y, order, axis=1), axis=-1)
    return tf.stack([tf.where(visible > 0, 1 - x, x), down, visible], axis=-1)


def _mirrored_order(names: Sequence[str]) -> list[int]:
    """The number of the point that is, in a mirrored image, what each point was: `left_eye` for `right_eye`.

    Raises:
        InputError: The points have numbers for names, or one with a side has no counterpart.

    >>> _mirrored_order(("nose", "left_eye", "right_eye"))
    [0, 2, 1]
    >>> _mirrored_order(("r_hip", "l_hip", "collar"))
    [1, 0, 2]
    """
    if all(name.isdecimal() for name in names):
        raise InputError(
            "augment: flip needs the names of the points, since a left eye becomes a right one. Received: points "
            "without names. Load the data with names such as left_eye and right_eye, or leave flip out."
        )
    found = []
    for name in names:
        other = _other_side(name)
        if other not in names:
            raise InputError(
                f"augment: flip needs for each point with a side that of the other side. Received: {name!r} without "
                f"{other!r}. Rename the points, or leave flip out."
            )
        found.append(names.index(other))
    return found


def _mirrored_classes(names: Sequence[str]) -> list[int]:
    """The number of the class that is, in a mirrored image, what each class was; its own without a counterpart.

    >>> _mirrored_classes(("road", "left_lane", "right_lane", "right_whale", "l", "r"))
    [0, 2, 1, 3, 4, 5]
    """
    numbers = {name: number for number, name in enumerate(names)}
    others = [_other_side(name) if len(name) > 1 else name for name in names]  # a letter alone is no side
    return [numbers.get(other, number) for number, other in enumerate(others)]


def _other_side(name: str) -> str:
    return "".join(_OTHER_SIDES.get(part, part) for part in _SIDES.split(name))
