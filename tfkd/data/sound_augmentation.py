"""Augmentation of sounds and other sequences: waveforms [T] or [T, 1], and features [T, F] or [T, F, 1]."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from tfkd.data.image_augmentation import check_range
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds white noise.

    Args:
        level: Largest standard deviation of the noise, as a share of the standard deviation of the sample, 0..10.
    """

    name: ClassVar[str] = "noise"
    level: float = 0.1

    def __post_init__(self) -> None:
        check_range(self.name, "level", self.level, 0, 10)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        level = tf.random.stateless_uniform((), tf.random.fold_in(seed, 1), 0.0, self.level)
        noise = tf.random.stateless_normal(tf.shape(x), tf.random.fold_in(seed, 2))
        return x + level * tf.math.reduce_std(x) * noise


@dataclasses.dataclass(frozen=True)
class TimeShift:
    """Shifts a sample in time; zeros come in.

    Args:
        share: Largest shift to either side, as a share of the length, 0..1.
    """

    name: ClassVar[str] = "time_shift"
    moves: ClassVar[bool] = True
    share: float = 0.1

    def __post_init__(self) -> None:
        check_range(self.name, "share", self.share, 0, 1)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        length = tf.shape(x)[0]
        most = tf.cast(self.share * tf.cast(length, tf.float32), tf.int32)
        shift = tf.random.stateless_uniform((), seed, -most, most + 1, tf.int32)
        time = tf.reshape(tf.range(length), [-1, *[1] * (x.shape.rank - 1)])
        inside = (time >= shift) & (time < length + shift)
        return tf.where(inside, tf.roll(x, shift, axis=0), 0.0)


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Sets some ranges of time and of frequency of a spectrogram to its mean.

    Args:
        time_masks: Number of ranges of time, 0..10.
        time_share: Largest length of each, as a share of all frames, 0..1.
        frequency_masks: Number of ranges of frequency, 0..10.
        frequency_share: Largest width of each, as a share of all bands, 0..1.

    Reference:
        Park et al.: SpecAugment (arXiv:1904.08779). Its time warping is left out.
    """

    name: ClassVar[str] = "spec_augment"
    time_masks: int = 2
    time_share: float = 0.2
    frequency_masks: int = 2
    frequency_share: float = 0.2

    def __post_init__(self) -> None:
        for option in ("time", "frequency"):
            check_range(self.name, f"{option}_masks", getattr(self, f"{option}_masks"), 0, 10)
            check_range(self.name, f"{option}_share", getattr(self, f"{option}_share"), 0, 1)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        if x.shape.rank not in (2, 3) or x.shape[1] == 1:
            raise InputError(
                f"augment: {self.name} needs features [T, F] or [T, F, 1]. Received: shape {tuple(x.shape)}. Read the "
                "sounds with features, or leave it out."
            )
        mean, masks = tf.reduce_mean(x), [(0, self.time_share)] * self.time_masks
        masks += [(1, self.frequency_share)] * self.frequency_masks
        for number, (axis, share) in enumerate(masks):
            size = tf.shape(x)[axis]
            draws = tf.random.stateless_uniform((2,), tf.random.fold_in(seed, number))
            width = draws[0] * share * tf.cast(size, tf.float32)
            begin = tf.floor(draws[1] * (tf.cast(size, tf.float32) - width + 1))
            place = tf.cast(tf.range(size), tf.float32)
            masked = (place >= begin) & (place < begin + tf.floor(width))
            shape = [1] * x.shape.rank
            shape[axis] = -1
            x = tf.where(tf.reshape(masked, shape), mean, x)
        return x
