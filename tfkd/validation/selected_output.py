"""One output of models with several: what a test split, which has one label for each sample, can judge."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING

from tfkd.conversion import signatures, tflite_reader
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.targets.target import Target

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd._internal.types import InputArrays, Tensor
    from tfkd.conversion.tflite_reader import TFLiteGraph
    from tfkd.targets.measurement import Measurement


@dataclasses.dataclass(frozen=True)
class SelectedOutput(TFLiteModel):
    """A .tflite of which one output is looked at; the file is that of all outputs.

    Args:
        position: Number of the output.
        names: Names of all outputs.
    """

    position: int = 0
    names: tuple[str, ...] = ()

    @functools.cached_property
    def subgraphs(self) -> tuple[TFLiteGraph, ...]:
        """Tensors and ops as in the file, with one output."""
        first, *others = tflite_reader.read(self.content, self._where)
        return (dataclasses.replace(first, outputs=(first.outputs[self.position],)), *others)


@dataclasses.dataclass(frozen=True)
class OneOutputTarget(Target):
    """A target that runs whole files, and returns the selected output.

    Args:
        target: The target.
        labels: [N] class of each sample by this output, see `Target.with_labels`; None where it has no such scores.
    """

    target: Target
    labels: Tensor = None

    @property
    def spec(self) -> str:
        """Specification of the target."""
        return self.target.spec

    @property
    def runs_in_parts(self) -> bool:
        """See `Target.runs_in_parts`."""
        return getattr(self.target, "runs_in_parts", True)

    def with_labels(self, labels: np.ndarray, output: int = 0) -> OneOutputTarget:
        """See `Target.with_labels`."""
        # An object of the user's may lack it.
        return dataclasses.replace(self, labels=labels if hasattr(self.target, "with_labels") else None)

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `Target.run`; the model is a `SelectedOutput`."""
        assert isinstance(model, SelectedOutput)
        target = self.target if self.labels is None else self.target.with_labels(self.labels, model.position)
        measured = target.run(TFLiteModel(model.content, model.path), inputs, latency=latency)
        return dataclasses.replace(measured, outputs=measured.outputs[model.position : model.position + 1])


def of_file(model: TFLiteModel, name: str, reference: keras.Model | None) -> SelectedOutput:
    """A .tflite of which one output is looked at.

    Args:
        model: The file.
        name: Name of the output in the signature of the file, or in the Keras model that the file was converted from,
            whose outputs have the same order.
        reference: That model; None where it is not given.

    Raises:
        InputError: There is no such output.
    """
    known = signatures.outputs_in_order(model.content)
    if reference is not None and name not in known:
        from tfkd.models import outputs

        of_reference = list(outputs.names(reference))
        known = of_reference if len(of_reference) == len(known) else known
    if name not in known:
        hint = "" if reference is not None else " Those of the Keras model are known where it is the reference."
        raise InputError(
            f"validate: output must be one of {', '.join(known) or 'a signature, which the file lacks'}. Received: "
            f"{name!r}. Correct the name.{hint}"
        )
    found = {field.name: getattr(model, field.name) for field in dataclasses.fields(TFLiteModel)}
    return SelectedOutput(**found, position=known.index(name), names=tuple(known))


def of_keras(model: keras.Model, name: str) -> keras.Model:
    """The model of one output of a Keras model, with the same layers.

    Args:
        model: A functional model.
        name: Name of the output, see `tfkd.models.outputs.names`.

    Raises:
        InputError: There is no such output.
    """
    from tfkd.models import outputs

    known = outputs.names(model)
    if name not in known:
        raise InputError(
            f"validate: output must be one of {', '.join(known)}, those of {model.name!r}. Received: {name!r}. Correct "
            "the name, or rename: keras.Model(model.inputs, {'name': model.outputs[0], ...})."
        )
    return outputs.single(model, known.index(name))
