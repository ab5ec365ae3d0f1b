"""Examines the samples of a data set: those in two splits, those that resemble each other, scales, small classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfkd import data
from tfkd.data import resemblance
from tfkd.data.lazy import LazySamples
from tfkd.recipes.findings import Finding

_FEW_PER_CLASS = 20
# Rows of a table are equal by chance more often than images: up to this share of the test part is a warning.
_EQUAL_ROWS = 0.05
# Factor between the values of two parts beyond which they were not prepared in the same way, such as 255.
_OTHER_SCALE = 20
# Samples of each part that show its scale.
_SCALED = 256
# Test images that are compared with ten times as many training images.
_COMPARED = 2000


def examine(splits: data.Splits) -> Iterator[Finding]:
    """Findings on samples that are in two splits, parts of other scales, and classes with few samples.

    Each sample is read once.

    Args:
        splits: The data.
    """
    for name, other in (("train", "test"), ("val", "test"), ("train", "val")):
        one, second = getattr(splits, name), getattr(splits, other)
        equal = len(one.overlap(second))
        if equal:
            by_chance = _are_rows(one) and equal <= _EQUAL_ROWS * len(second)
            yield Finding(
                "error" if other == "test" and not by_chance else "warning",
                f"Samples of {name} are in {other} too.",
                one.equal_samples(second),
                f"Remove them from {name}: accuracy on {other} would be too high.",
            )
    yield from _examine_scales(splits)
    if splits.train.label_kind != "classes":
        return
    counts = np.bincount(splits.train.y, minlength=splits.train.num_classes)
    few = np.flatnonzero(counts < _FEW_PER_CLASS)
    if len(few):
        names = ", ".join(f"{splits.train.class_names[c]} ({counts[c]})" for c in few[:5])
        yield Finding(
            "warning",
            "Some classes have few samples.",
            f"{len(few)} below {_FEW_PER_CLASS}: {names}",
            "Collect more samples, use an augmentation, or merge classes.",
        )


def _are_rows(split: data.Split) -> bool:
    """Whether the samples are rows of a table, those of several inputs all of them."""
    shapes = split.x.shapes.values() if isinstance(split.x, data.NamedArrays) else (split.input_shape,)
    return all(len(shape) <= 1 for shape in shapes)


def _examine_scales(splits: data.Splits) -> Iterator[Finding]:
    """Parts in memory whose values have other sizes than those of the training part, of several inputs each."""
    sizes = {split.role: _sizes(split) for split in splits if len(split) and not isinstance(split.x, LazySamples)}
    for role, by_input in sizes.items():
        for name, size in by_input.items():
            train = sizes.get("train", {}).get(name, 0.0)
            if not (train > 0 and size > 0) or 1 / _OTHER_SCALE <= size / train <= _OTHER_SCALE:
                continue
            yield Finding(
                "warning",
                f"Samples of {role} have another scale than those of train.",
                f"{f'input {name}: ' if name else ''}99% of their values are within {size:.3g}, those of train within "
                f"{train:.3g}",
                "Prepare all parts in the same way.",
            )


def _sizes(split: data.Split) -> dict[str, float]:
    """The size that 99% of the values of some samples do not exceed, by the name of the input, empty for one input."""
    x = split.sample(min(_SCALED, len(split))).x[:]
    arrays = x.arrays if isinstance(x, data.NamedArrays) else {"": x}
    # As floats, since NumPy has no quantile of truth values, such as those of a mask.
    return {name: float(np.quantile(np.abs(array.astype("float32")), 0.99)) for name, array in arrays.items()}


def examine_resemblance(splits: data.Splits) -> Iterator[Finding]:
    """Findings on images of the test split that are almost those of another split; of large splits on some of them.

    Args:
        splits: The data.
    """
    test = splits.test.sample(min(len(splits.test), _COMPARED))
    for name in ("train", "val"):
        split = getattr(splits, name)
        if not len(split):
            continue
        drawn = split.sample(min(len(split), 10 * _COMPARED))
        found = resemblance.pairs(drawn, test)
        if len(found):
            first, second = (_name_of(one, row) for one, row in zip((drawn, test), found[0], strict=True))
            yield Finding(
                "warning",
                f"Images of {name} resemble images of test.",
                f"{len(found)} of {len(test)} test images that were compared with {len(drawn)}, such as {second} and "
                f"{first}",
                "Look at them. If they show the same scene, keep them in one part: tfkd split --keep-similar.",
            )


def _name_of(split: data.Split, row: int) -> str:
    return f"sample {split.ids[row]}" if split.paths is None else str(split.paths[row])
