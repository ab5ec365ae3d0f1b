"""Samples of models with several inputs: an array for each input, by its name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tfkd._internal.types import Nest
from tfkd.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


class NamedArrays:
    """Samples of several inputs, read-only: one array [N, ...] for each, by the name of the input.

    `len`, an index of rows and `take` are those of an array of samples; `arrays` has the array of each input. What
    needs samples of one array refuses these, since they have no shape and no type of their own.

    Args:
        arrays: The arrays by name, of equal length; see `named_arrays` for their checks.

    >>> samples = NamedArrays({"image": np.zeros((3, 8, 8, 1), "uint8"), "age": np.ones((3, 1), "float32")})
    >>> len(samples), samples.shapes
    (3, {'image': (8, 8, 1), 'age': (1,)})
    >>> samples[1:].arrays["age"].tolist()
    [[1.0], [1.0]]
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = {name: array.view() for name, array in arrays.items()}
        for array in self.arrays.values():
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice | np.ndarray | list[int]) -> NamedArrays:
        return NamedArrays({name: array[rows] for name, array in self.arrays.items()})

    def __getstate__(self) -> dict[str, np.ndarray]:
        return self.arrays

    def __setstate__(self, state: dict[str, np.ndarray]) -> None:
        NamedArrays.__init__(self, state)  # pickling drops the read-only flag of an array

    def take(self, rows: np.ndarray, axis: int = 0) -> NamedArrays:
        """Some of the samples.

        Args:
            rows: Positions, integers [M].
            axis: 0, as of an array of samples.
        """
        return self[rows]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a sample of each input."""
        return {name: array.shape[1:] for name, array in self.arrays.items()}

    def rows(self) -> Iterator[bytes]:
        """The values of each sample as bytes; equal values of other types, or in another order, have equal bytes."""
        arrays = [self.arrays[name] for name in sorted(self.arrays)]
        for row in range(len(self)):
            yield b"".join(array[row].astype(np.float64, order="C").tobytes() for array in arrays)

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"This step takes samples of one input. Received: the inputs {', '.join(self.arrays)}. Training, "
            "convert, validate, explain and diff take several."
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Refused: there is a shape for each input, see `shapes`."""
        self._refuse()

    @property
    def ndim(self) -> int:
        """Refused, as `shape`."""
        self._refuse()

    @property
    def dtype(self) -> np.dtype:
        """Refused, as `shape`."""
        self._refuse()

    def __iter__(self) -> Iterator[np.ndarray]:
        self._refuse()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        self._refuse()

    def astype(self, dtype: npt.DTypeLike, **options: Any) -> np.ndarray:
        """Refused, as `shape`."""
        self._refuse()


def check_same_inputs(parts: Iterable[Collection[str]], where: str, advice: str) -> None:
    """Refuses training and test samples whose inputs have other names.

    Args:
        parts: Names of the inputs of the training and of the test samples; none for an array without a name.
        where: Source of the data, for the message.
        advice: What to do, for the message.

    Raises:
        InputError: The names differ.
    """
    listed = [", ".join(sorted(names)) or "no name" for names in parts]
    if len(set(listed)) > 1:
        raise InputError(
            f"load: {where}: x_train and x_test must have the same inputs. Received: {listed[0]}, and {listed[1]}. "
            f"{advice}"
        )


def samples_of(arrays: Mapping[str, Nest], where: str) -> np.ndarray | NamedArrays:
    """Samples by name, checked; of one input its array as it is, since there is nothing that a name could tell apart.

    Args:
        arrays: An array [N, ...] for each input, by its name.
        where: Source of the data, for messages.

    Raises:
        InputError: See `named_arrays`.
    """
    return np.asarray(next(iter(arrays.values()))) if len(arrays) == 1 else named_arrays(arrays, where)


def named_arrays(
    arrays: Mapping[str, Nest], where: str, known: Mapping[str, tuple[int, ...]] | None = None
) -> NamedArrays:
    """Checked samples of several inputs. Floats become float32; integers, such as ids, keep their type.

    Args:
        arrays: An array [N, ...] for each input, by its name.
        where: Source of the data, for messages.
        known: Shape of a sample of each input in the batches before; None in the first.

    Raises:
        InputError: There is no array, a name is new or missing, an array is of another length or shape, or no finite
            numbers.
    """
    if not arrays:
        raise InputError(
            f"{where}: samples must have an array for each input. Received: an empty dict. Add the arrays."
        )
    if known is not None and set(arrays) != set(known):
        raise InputError(
            f"{where}: samples must have the inputs {', '.join(known)}, as those before. Received: "
            f"{', '.join(arrays)}. Give each sample all inputs."
        )
    checked = {str(name): _checked(array, f"{where}, input {name!r}") for name, array in arrays.items()}
    lengths = {name: len(array) for name, array in checked.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} of {name!r}" for name, length in lengths.items())
        raise InputError(
            f"{where}: all inputs must have the same number of samples. Received: {listed}. Give whole samples."
        )
    for name, shape in (known or {}).items():
        if checked[name].shape[1:] != shape:
            raise InputError(
                f"{where}, input {name!r}: all samples must have the same shape. Received: {checked[name].shape[1:]} "
                f"after {shape}. Resize or pad them."
            )
    return NamedArrays({name: checked[name] for name in known or checked})


def _checked(array: Nest, where: str) -> np.ndarray:
    if isinstance(array, Mapping | list | tuple):
        raise InputError(
            f"{where}: must be an array. Received: {type(array).__name__}. Give each array a name of its own."
        )
    array = np.asarray(array)
    if not array.ndim or array.dtype.kind not in "buif":
        what = "texts" if array.dtype.kind in "OSU" else f"{array.dtype} of shape {array.shape}"
        raise InputError(
            f"{where}: must be numbers [N, ...]. Received: {what}. Apply look-ups and other preprocessing to the data."
        )
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a float64 that exceeds float32 becomes infinite and raises below
            array = array.astype(np.float32, copy=False)
        bad = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if bad.any():
            raise InputError(
                f"{where}: must be finite. Received: NaN or infinity in {bad.sum()} rows, first in row {bad.argmax()}. "
                "Repair or remove these rows."
            )
    return array
