"""Samples for models with several inputs, read from the forms of data that Keras takes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfkd._internal.types import Nest, SampleData
from tfkd.conversion.samples import Samples
from tfkd.data.drawing import Drawn
from tfkd.data.model_inputs import ModelInput, as_type
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.splits import Split
from tfkd.data.streams import elements, form_of, repeats
from tfkd.errors import InputError

_FORMS = (
    "Pass a dict of arrays by the names of the inputs, a tuple of arrays in their order, or a tf.data.Dataset of such "
    "dicts, with or without labels; on the command line, a .npz with an array for each input."
)


def has_several(data: SampleData) -> bool:
    """Whether data tell by their form that they are for several inputs: they have dicts of several arrays."""
    if isinstance(data, Split):
        return isinstance(data.x, NamedArrays)
    spec = getattr(data, "element_spec", data)
    spec = spec[0] if isinstance(spec, list | tuple) and spec else spec
    return isinstance(spec, Mapping) and len(spec) > 1


def read(data: SampleData, inputs: Sequence[ModelInput], draw: int) -> Samples:
    """Draws samples for a model with several inputs.

    Args:
        data: A dict of arrays [N, ...], a tuple or list of arrays, a pair of one of these and labels, which are not
            used; or a `tf.data.Dataset`, `keras.utils.PyDataset`, `tfkd.data.Stream` or function without arguments that
            yields them, in batches or as single samples; or a split of `NamedArrays`.
        inputs: The inputs of the model; empty for those of a SavedModel, where data must be dicts by their names.
        draw: Number of samples that are drawn at random, >= 1, always the same ones.

    Raises:
        InputError: The data have another form, are empty, not finite or without an end, or do not fit the inputs.
    """
    where = f"convert: calibration from {form_of(data)}"
    if isinstance(data, Split) and isinstance(data.x, NamedArrays):
        where, data = f"convert: calibration from {data.name!r}", data.x.arrays
    found = iter([data]) if isinstance(data, Mapping | list | tuple) else elements(data)
    if found is None:
        raise InputError(f"{where} must have an array for each of {_listed(inputs)}. Received: {data!r:.80}. {_FORMS}")
    most, count, drawn = 20 * draw if repeats(data) else None, 0, Drawn(draw)
    for element in found:
        if not inputs:
            inputs = _inputs_of_dict(element, where)
        arrays = _batch(element, inputs, where)
        drawn.add(*arrays)
        count += len(arrays[0])
        if most is not None and count >= most:
            break
    if not count:
        raise InputError(f"{where} must have samples. Received: none.")
    return Samples(tuple(drawn.columns()), tuple(one.name for one in inputs))


def _inputs_of_dict(element: Nest, where: str) -> list[ModelInput]:
    """The inputs of a SavedModel, as the first batch tells them: the child process that loads it checks them."""
    found = element[0] if isinstance(element, list | tuple) and element else element
    if not isinstance(found, Mapping):
        raise InputError(f"{where} must be dicts by the names of the inputs. Received: {type(found).__name__}.")
    return [
        ModelInput(name, (name,), np.shape(value)[1:], np.asarray(value).dtype.name) for name, value in found.items()
    ]


def _batch(element: Nest, inputs: Sequence[ModelInput], where: str) -> list[np.ndarray]:
    """One array [B, ...] for each input."""
    parts = _parts(element, inputs)
    if parts is None:
        raise InputError(
            f"{where} must have an array for each of {_listed(inputs)}. Received: {_described(element)}. {_FORMS}"
        )
    arrays = [_checked(part, one, where) for part, one in zip(parts, inputs, strict=True)]
    if len({len(array) for array in arrays}) > 1:
        sizes = ", ".join(f"{len(array)} of {one.keys[0]!r}" for array, one in zip(arrays, inputs, strict=True))
        raise InputError(f"{where} must have as many samples for each input. Received: {sizes}. Give whole samples.")
    return arrays


def _parts(element: Nest, inputs: Sequence[ModelInput]) -> list[Nest] | None:
    """The value of each input; None where the element has another form."""
    if isinstance(element, Mapping):
        found = [[element[key] for key in one.keys if key in element][:1] for one in inputs]
        return [values[0] for values in found] if all(found) else None
    if not isinstance(element, list | tuple) or not element:
        return None
    if isinstance(element[0], Mapping | list | tuple):
        return _parts(element[0], inputs)
    fits = len(element) == len(inputs) and all(map(_fits, map(np.shape, element), inputs))
    return list(element) if fits else None


def _fits(shape: tuple[int, ...], one: ModelInput) -> bool:
    return one.shape in (shape, shape[1:]) or (one.shape == (1,) and len(shape) < 2)


def _checked(part: Nest, one: ModelInput, where: str) -> np.ndarray:
    """An array [B, ...] in the type of the input."""
    array = np.asarray(part)
    if array.dtype.kind not in "buif" or not _fits(array.shape, one):
        raise InputError(
            f"{where} must have numbers for the input {one}, in batches or as single samples. Received: {array.dtype} "
            f"of shape {array.shape}. Use the data that the model was trained on."
        )
    # A column [N] of a table is N samples of one value.
    array = array.reshape(-1, *one.shape) if array.shape == one.shape or one.shape == (1,) else array
    if not np.isfinite(array).all():
        raise InputError(f"{where} must be finite. Received: NaN or infinity for the input {one}. Repair the data.")
    return as_type(array, one, where)


def _listed(inputs: Sequence[ModelInput]) -> str:
    return f"the {len(inputs)} inputs {', '.join(map(str, inputs))}"


def _described(element: Nest) -> str:
    if isinstance(element, Mapping):
        return f"the names {', '.join(map(repr, element))}"
    if isinstance(element, list | tuple):
        return f"a {type(element).__name__} of {', '.join(map(_described, element))}"
    return f"an array of shape {np.shape(element)}"
