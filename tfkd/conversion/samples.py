"""Calibration samples of a model with one or several inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tfkd.conversion import signatures
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples as one array for each input. Iteration yields each sample as a list of arrays [1, ...].

    Args:
        arrays: One array [N, ...] for each input of the model, all of the same length.
        names: Their names in the signature of the model, in the order of the arrays; empty where there is one array.

    >>> samples = Samples((np.zeros((3, 2)), np.ones((3, 4, 1))), ("left", "right"))
    >>> len(samples), [array.shape for array in next(iter(samples))]
    (3, [(1, 2), (1, 4, 1)])
    """

    arrays: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return ([array[row : row + 1] for array in self.arrays] for row in range(len(self)))

    def __getitem__(self, rows: slice | np.ndarray) -> Samples:
        return dataclasses.replace(self, arrays=tuple(array[rows] for array in self.arrays))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of one sample of each input."""
        return [array.shape[1:] for array in self.arrays]

    def ordered(self, names: Sequence[str]) -> Samples:
        """The arrays in the order of these names, which are those of all inputs.

        Raises:
            ModelError: The inputs have other names.
        """
        if not self.names:
            return self
        if sorted(names) != sorted(self.names):
            raise ModelError(
                f"calibration samples must have an array for each input, {', '.join(sorted(names))}. Received: "
                f"{', '.join(sorted(self.names))}. Name the arrays like the inputs."
            )
        return Samples(tuple(self.arrays[self.names.index(name)] for name in names), tuple(names))

    def of(self, content: bytes) -> Samples:
        """The arrays in the order and in the types of the inputs of a .tflite.

        Args:
            content: A .tflite with a signature, whose inputs are not quantized.

        Raises:
            ModelError: It has other inputs.
        """
        ordered = self.ordered(signatures.inputs_in_order(content)) if self.names else self
        arrays = zip(ordered.arrays, TFLiteModel(content).inputs, strict=True)
        return dataclasses.replace(ordered, arrays=tuple(array.astype(tensor.dtype) for array, tensor in arrays))
