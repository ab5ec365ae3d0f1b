"""Output channels of a convolution two at a time, as kernels/convolution.h reads them.

Weights of a pair share 16 bits, so that one multiplication adds to both sums: `256 * second + first`.
Biases, multipliers and shifts of a pair are one record of seven 32-bit words:

    word  bits   content                        in the fast form
    0     31..0  bias of the second channel     256 * second bias + first bias, like the weights
    1     31..0  bias of the first channel
    2     7..0   shift of the first channel
          15..8  shift of the second channel    shift + 7, since its sum has a factor of 256 instead of 2
          31     0                              1 in the last full pair of a group: the loop ends
    3     31..0  multiplier of the first channel
    4     31..0  multiplier of the second channel
    5     31..0  0                              rounding offset of the first channel, with the zero point
    6     31..0  0                              rounding offset of the second channel, with the zero point

The fast form is the one without the flags ANY_SHIFT, WIDE and CLAMP. With ONE_PRODUCT, `tfkd.micro.one_product` wrote
the record: word 2 has bit 31 only, and the numbers of its formula are in the words of the fast form.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from tfkd.micro.lowering.layer import ANY_SHIFT, CLAMP, WIDE, Layer

# The first channel's sum is multiplied as 2 * sum, the second's as 256 * sum: 7 bits more.
_SECOND_BITS = 7
_GROUP_ENDS = np.int64(-(2**31))  # bit 31 of the word of shifts


class Word(enum.IntEnum):
    """The words of a record."""

    SECOND_BIAS = 0
    FIRST_BIAS = 1
    SHIFTS = 2
    FIRST_MULTIPLIER = 3
    SECOND_MULTIPLIER = 4
    FIRST_OFFSET = 5
    SECOND_OFFSET = 6


@dataclasses.dataclass(frozen=True)
class ChannelPairs:
    """Requantization of output channels, two at a time.

    Args:
        biases: [groups, pairs, 2] int64.
        multipliers: [groups, pairs, 2] int64.
        shifts: [groups, pairs, 2] int64, as other kernels take them: exponents with ANY_SHIFT, else right shifts minus
            one.
    """

    biases: np.ndarray
    multipliers: np.ndarray
    shifts: np.ndarray

    def pack(self, flags: int, *, odd: int, zero_point: int) -> np.ndarray:
        """The records.

        Args:
            flags: Flags of the layer.
            odd: 1 where the last pair of a group has one channel, else 0.
            zero_point: Zero point of the output.

        Returns:
            [groups, pairs, 7] int32.
        """
        records = np.zeros((*self.shifts.shape[:2], len(Word)), "int64")
        records[..., Word.FIRST_BIAS] = self.biases[..., 0]
        records[..., Word.SECOND_BIAS] = self.biases[..., 1]
        records[..., Word.FIRST_MULTIPLIER] = self.multipliers[..., 0]
        records[..., Word.SECOND_MULTIPLIER] = self.multipliers[..., 1]
        shifts = self.shifts
        if _fast(flags):
            records[..., Word.SECOND_BIAS] = 256 * self.biases[..., 1] + self.biases[..., 0]
            records[..., Word.FIRST_OFFSET], records[..., Word.SECOND_OFFSET] = self._offsets(zero_point)
            shifts = shifts + [0, _SECOND_BITS]
            last = np.arange(shifts.shape[1]) == shifts.shape[1] - 1 - odd
            records[..., Word.SHIFTS] = last * _GROUP_ENDS
        records[..., Word.SHIFTS] |= (shifts[..., 0] & 255) | (shifts[..., 1] & 255) << 8
        return records.astype("uint32").view("int32")

    def _offsets(self, zero_point: int) -> tuple[np.ndarray, np.ndarray]:
        """What is added before the right shift: zero point and 1/2 at the scale of the result, and rounding bits."""
        first, second = self.shifts[..., 0], self.shifts[..., 1]
        half = 2 * zero_point + 1  # zero point + 1/2; a last shift by one bit follows
        # The multiplication of the second channel drops 7 bits unrounded: half of their value rounds them.
        return half << first, (half << (second + _SECOND_BITS)) + (1 << (_SECOND_BITS - 1))

    @classmethod
    def unpack(cls, records: np.ndarray, flags: int) -> ChannelPairs:
        """The inverse of `pack`: the numbers in records [groups, pairs, 7] made with the same flags."""
        words = records.astype("int64")
        first, second, packed = (words[..., i] for i in (Word.FIRST_BIAS, Word.SECOND_BIAS, Word.SHIFTS))
        shifts = np.stack([packed.astype("int8"), (packed >> 8).astype("int8")], -1).astype("int64")
        if _fast(flags):
            second = (second - first).astype("int32").astype("int64") >> 8
            shifts = shifts - [0, _SECOND_BITS]
        multipliers = words[..., [Word.FIRST_MULTIPLIER, Word.SECOND_MULTIPLIER]]
        return cls(np.stack([first, second], -1), multipliers, shifts)


def _fast(flags: int) -> bool:
    return not flags & (ANY_SHIFT | WIDE | CLAMP)


def by_pairs(values: np.ndarray, groups: int) -> np.ndarray:
    """[channels, ...] as [groups, pairs, 2, ...]; the last pair of an odd number of channels has zeros."""
    grouped = values.reshape(groups, -1, *values.shape[1:])
    padded = np.pad(grouped, [(0, 0), (0, grouped.shape[1] % 2)] + [(0, 0)] * (values.ndim - 1))
    return padded.reshape(groups, -1, 2, *values.shape[1:])


def packed_weights(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Weights of two channels in 16 bits: 256 * second + first, modulo 2^16."""
    return ((256 * second + first + 2**15) % 2**16 - 2**15).astype("int16")


def unpacked_weights(packed: np.ndarray) -> np.ndarray:
    """The inverse of `packed_weights`: [..., depth] int16 as [..., 2, depth] int64, first and second channel."""
    words = packed.astype("int64")
    first = (words + 128) % 256 - 128
    return np.stack([first, ((words - first) // 256 + 128) % 256 - 128], axis=-2)


def scaling_of(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and shifts (as exponents of two) of a layer that requantizes: one, or one for each channel."""
    if layer.kernel == "convolution":
        pairs = ChannelPairs.unpack(np.asarray(layer.fields["pairs"]), layer.flags)
        count = layer.number("group_out_channels")
        multipliers, shifts = (x.reshape(len(x), -1)[:, :count].reshape(-1) for x in (pairs.multipliers, pairs.shifts))
    else:
        multipliers, shifts = (np.asarray(layer.fields[name]).reshape(-1) for name in ("multiplier", "shift"))
    return multipliers, shifts if layer.flags & ANY_SHIFT else -shifts.astype("int32") - 1
