"""Reproducible augmentation: the result depends on the sample and its seed only."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from tfkd._internal.types import Tensor
from tfkd.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

# (sample, seed int32 [2]) -> sample, of TensorFlow ops.
Augment = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]


def view_seeds(ids: Tensor | np.ndarray, view: Tensor | np.ndarray | int, *, seed: int = 0) -> tf.Tensor:
    """The seeds with which the samples `ids` are augmented in view number `view`.

    All parts of tfkd take their seeds from here, so the same view of a sample always has the same pixels.

    Args:
        ids: Ids of the samples, integers [N].
        view: Number of the view, scalar or [N]; in training without stored labels the epoch.
        seed: Random seed of the user.

    Returns:
        Seeds, int32 [N, 2].
    """
    import tensorflow as tf

    ids = tf.cast(ids, tf.int64)
    view = tf.broadcast_to(tf.cast(view, tf.int64), tf.shape(ids))
    mixed = _mix(
        tf.cast(view, tf.uint64) + _mix(tf.fill(tf.shape(ids), tf.cast(tf.constant(seed, tf.int64), tf.uint64)))
    )
    return tf.stack([tf.cast(ids, tf.int32), tf.bitcast(tf.cast(mixed & 0xFFFFFFFF, tf.uint32), tf.int32)], axis=1)


def step_seeds(seeds: tf.Tensor, number: int) -> tf.Tensor:
    """The seeds of one step of a chain of augmentations, int32 [B, 2].

    Args:
        seeds: Seed of each sample, int32 [B, 2].
        number: Number of the step, from 0.
    """
    import tensorflow as tf

    # The first word of a seed is the sample, the second one random.
    return seeds if not number else tf.stack([seeds[:, 0], seeds[:, 1] + number * 0x3C6EF372], axis=1)


def _mix(value: tf.Tensor) -> tf.Tensor:
    """The finaliser of SplitMix64: a bijective hash of each uint64.

    The stateless random generators of TensorFlow take one seed per op; a batch needs one per sample.

    Reference:
        Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 17.
    """
    import tensorflow as tf

    def xor_shift(value: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(bits, tf.uint64)))

    value = value + tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    value = xor_shift(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    return xor_shift(xor_shift(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64), 31)


def augment_batch(augment: Augment, x: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Augments each sample of a batch with its own seed; see `Split.batches`.

    Args:
        augment: Function of one sample; its method `batch`, if it has one, is called instead.
        x: Samples [B, ...].
        seeds: Seed of each sample, int32 [B, 2].
    """
    import tensorflow as tf

    batch = getattr(augment, "batch", None)
    if batch is not None:
        return batch(x, seeds)
    # AutoGraph would turn our errors into errors of its own. A function of the user may need it.
    function = augment if dataclasses.is_dataclass(augment) else tf.function(augment)
    one = tf.autograph.experimental.do_not_convert(lambda pair: _checked(augment, function(*pair), *pair))
    signature = tf.TensorSpec(x.shape[1:], x.dtype)
    return tf.ensure_shape(tf.map_fn(one, (x, seeds), fn_output_signature=signature), x.shape)


def _checked(augment: Augment, found: Any, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The augmented sample, which has the shape and the type of the sample."""
    import tensorflow as tf

    if not tf.is_tensor(found) or found.dtype != x.dtype or not found.shape.is_compatible_with(x.shape):
        received = f"{found.dtype.name} of shape {found.shape}" if tf.is_tensor(found) else type(found).__name__
        raise InputError(
            f"augment: {getattr(augment, '__name__', type(augment).__name__)} must return a tensor like its sample, "
            f"{x.dtype.name} of shape {x.shape}. Received: {received}. Correct the function."
        )
    return found


@dataclasses.dataclass(frozen=True)
class CropFlip:
    """Random shift by up to `padding` pixels, with zeros at the border, and a random left-right flip.

    `augment(x, seed)` of one sample [H, W, C] equals `augment.batch(x, seeds)` of a batch [B, H, W, C].

    Args:
        padding: Largest shift in pixels, >= 0.
        flip: Whether half of the samples are mirrored; use False for digits and letters.

    Raises:
        InputError: padding is negative, or a sample is not an image.

    Reference:
        He et al.: Deep Residual Learning for Image Recognition (arXiv:1512.03385), section 4.2.
    """

    name: ClassVar[str] = "crop_flip"
    moves: ClassVar[bool] = True
    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"CropFlip: padding must be >= 0. Received: padding={self.padding}. Use 4 for 32x32.")

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return self.batch(x[None], seed[None])[0]

    def batch(self, x: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Augments a batch.

        Args:
            x: Images [B, H, W, C].
            seeds: Seed of each image, int32 [B, 2].
        """
        import tensorflow as tf

        words = tf.cast(tf.bitcast(seeds, tf.uint32), tf.uint64)
        bits = _mix(_mix(words[:, 0]) + words[:, 1])

        # The 64 random bits of a sample: 0..19 vertical shift, 20..39 horizontal shift, 40..59 flip.
        def draw(first_bit: int, values: int) -> tf.Tensor:
            part = tf.bitwise.right_shift(bits, tf.constant(first_bit, tf.uint64)) & 0xFFFFF
            return tf.cast(part % tf.constant(values, tf.uint64), tf.float32)

        down, right = (draw(bit, 2 * self.padding + 1) - self.padding for bit in (0, 20))
        return self._moved(x, down, right, draw(40, 2) if self.flip else tf.zeros_like(down))

    def _moved(self, x: tf.Tensor, down: tf.Tensor, right: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C], each shifted by so many pixels and flipped where 1 is given; all float32 [B]."""
        import tensorflow as tf

        if x.shape.rank != 4:
            raise InputError(
                f"CropFlip: a sample must be an image [H, W, C]. Received: shape {x.shape[1:]}. Leave it out."
            )
        zero, one = tf.zeros_like(down), tf.ones_like(down)
        # One op shifts and flips. The output pixel (column, row) is the input pixel (a0 column + a2, row + b2), where
        # a0 = 1 and a2 = right, or a0 = -1 and a2 = right + W - 1 if flipped; b2 = down. All are whole numbers, so
        # NEAREST is exact.
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


@dataclasses.dataclass(frozen=True)
class EveryCropFlip(CropFlip):
    """`CropFlip` whose views of a sample in a store are all shifts and flips, each once: 162 with a padding of 4.

    Each sample has an order of its own, so that a few views of all samples hold all shifts, too. Outside of a store it
    is `CropFlip`.

    Raises:
        InputError: There is no other view than the sample.
    """

    name: ClassVar[str] = "every_crop_flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 2:
            raise InputError("EveryCropFlip: padding must be > 0 without a flip. Received: padding=0. Use 4 for 32x32.")

    @property
    def views(self) -> int:
        """Number of different views, the unchanged sample included."""
        return (2 * self.padding + 1) ** 2 * (2 if self.flip else 1)

    @functools.cached_property
    def _moves(self) -> list[tuple[int, int, int]]:
        """Shifts down and right, and flip of each view; first the unchanged sample."""
        shifts = range(-self.padding, self.padding + 1)
        found = [(down, right, flip) for down in shifts for right in shifts for flip in range(1 + self.flip)]
        return sorted(found, key=lambda move: move != (0, 0, 0))

    def view(self, x: tf.Tensor, ids: tf.Tensor | np.ndarray, view: tf.Tensor | int, seed: int) -> tf.Tensor:
        """One view of a batch.

        Args:
            x: Images [B, H, W, C].
            ids: Ids of the samples, integers [B].
            view: Number of the view; 0 is the unchanged sample.
            seed: Random seed of the order.
        """
        import tensorflow as tf

        others = self.views - 1
        strides = [stride for stride in range(1, others + 1) if math.gcd(stride, others) == 1]
        words = tf.cast(tf.bitcast(view_seeds(ids, 0, seed=seed), tf.uint32), tf.uint64)
        mixed = _mix(_mix(words[:, 0]) + words[:, 1])
        bits = tf.cast(tf.bitwise.right_shift(mixed, tf.constant(2, tf.uint64)), tf.int64)
        # A stride that shares no divisor with the number of the other views visits each of them once.
        stride = tf.gather(tf.constant(strides, tf.int64), bits % len(strides))
        number = tf.cast(view, tf.int64) % self.views
        other = 1 + (bits // len(strides) + number * stride) % others
        moves = tf.gather(tf.constant(self._moves, tf.float32), tf.where(number == 0, tf.zeros_like(other), other))
        return self._moved(x, moves[:, 0], moves[:, 1], moves[:, 2])


def augment_view(
    augment: Augment, x: tf.Tensor, ids: tf.Tensor | np.ndarray, view: tf.Tensor | int, *, seed: int
) -> tf.Tensor:
    """One view of a batch in a store, view 0 excepted.

    Args:
        augment: See `augment_batch`.
        x: Samples [B, ...].
        ids: Ids of the samples, integers [B].
        view: Number of the view, > 0.
        seed: Random seed of the views.
    """
    if isinstance(augment, EveryCropFlip):
        return augment.view(x, ids, view, seed)
    return augment_batch(augment, x, view_seeds(ids, view, seed=seed))


def crop_flip(padding: int = 4, *, flip: bool = True) -> CropFlip:
    """The usual augmentation of small images: `CropFlip(padding, flip)`.

    Args:
        padding: Largest shift in pixels, >= 0.
        flip: Whether half of the samples are mirrored.
    """
    return CropFlip(padding, flip)


def every_crop_flip(padding: int = 4, *, flip: bool = True) -> EveryCropFlip:
    """All crops and flips of small images, for a store of soft labels: `EveryCropFlip(padding, flip)`.

    Args:
        padding: Largest shift in pixels, >= 0.
        flip: Whether mirrored images are views too.
    """
    return EveryCropFlip(padding, flip)
