"""Labels with positions under augmentation: they move with what they belong to, or the augmentation is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfkd.data import dense_labels, frame_labels
from tfkd.data.augmentation import Augment, step_seeds
from tfkd.data.augmentations import AUGMENTATIONS, Chain
from tfkd.data.image_augmentation import Flip
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

# (labels [B, ...], seeds int32 [B, 2]) -> labels.
Mover = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]

# A side in the name of a point: a word, or a letter that stands alone, as in l_hip.
_SIDES = re.compile("(left|right|Left|Right|LEFT|RIGHT|(?<![A-Za-z])[lrLR](?![A-Za-z]))")
_PAIRS = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"))
_OTHER_SIDES = {one: other for a, b in _PAIRS for one, other in ((a, b), (b, a))}
_KINDS = (*dense_labels.KINDS, frame_labels.KIND)


def mover(augment: Augment | None, samples: object) -> Mover | None:
    """The function that moves the labels as an augmentation moves the samples; None where they stay.

    Args:
        augment: The augmentation, or a chain.
        samples: The samples, such as a `Split`.

    Raises:
        InputError: The augmentation moves pixels or frames in a way that the labels do not follow, or is a function
            that does not say whether it does.
    """
    kind = getattr(samples, "label_kind", "classes")
    if augment is None or kind not in _KINDS:
        return None
    steps = augment.steps if isinstance(augment, Chain) else (augment,)
    flips = [(number, step) for number, step in enumerate(steps) if _is_moving(step, kind) and isinstance(step, Flip)]
    if not flips:
        return None
    order = _mirrored_order(getattr(samples, "class_names", ())) if kind == "points" else ()

    def move(y: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        for number, step in flips:
            mirrors = tf.map_fn(step.mirrors, step_seeds(seeds, number), fn_output_signature=tf.bool)
            y = tf.where(tf.reshape(mirrors, [-1, 1, 1]), mirror(y, kind, order), y)
        return y

    return move


def _is_moving(step: Augment, kind: str) -> bool:
    """Whether a step moves pixels or frames.

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
    return bool(moves)


def mirror(y: tf.Tensor, kind: str, order: Sequence[int] = ()) -> tf.Tensor:
    """The labels of images that are mirrored left to right.

    Args:
        y: Masks [B, H, W], boxes [B, M, 5] or points [B, K, 3], see `tfkd.data.dense_labels`.
        kind: Their kind.
        order: For points, the number of the point that takes the place of each.
    """
    import tensorflow as tf

    if kind == "masks":
        return tf.reverse(y, [2])
    if kind == "boxes":
        left, top, right, bottom, number = tf.unstack(y, axis=-1)
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
        other = "".join(_OTHER_SIDES.get(part, part) for part in _SIDES.split(name))
        if other not in names:
            raise InputError(
                f"augment: flip needs for each point with a side that of the other side. Received: {name!r} without "
                f"{other!r}. Rename the points, or leave flip out."
            )
        found.append(names.index(other))
    return found
