"""Golden vectors: inputs of a .tflite and the outputs it must return, to test a deployment on the device itself."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import atomic
from tfkd._internal.types import JsonObject, SampleData
from tfkd.data.streams import as_split
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.targets import Target

SCHEMA = "tfkd.golden/1"
SUFFIXES = (".npz", ".h", ".json")

_ARRAYS = ("raw", "input", "output", "label", "id")
_C_TYPES = {"float32": "float", **{name: f"{name}_t" for name in ("int8", "uint8", "int16", "int32", "int64")}}


@dataclasses.dataclass(frozen=True)
class Golden:
    """Samples with the model's inputs and outputs for them.

    Args:
        model: The .tflite.
        raw: Samples as the data set stores them, [N, ...].
        input: Inputs of the interpreter in the model's dtype, [N, ...].
        output: Outputs of the interpreter, [N, ...].
        label: Labels, int64 [N].
        id: Ids of the samples in the data set, int64 [N].
        target: Target that computed the outputs.
        against: Target that the tolerance refers to.
        tolerance: Largest difference of one output value between both targets: in quantization steps, for float
            outputs in the unit of the output.
    """

    model: TFLiteModel
    raw: np.ndarray
    input: np.ndarray
    output: np.ndarray
    label: np.ndarray
    id: np.ndarray
    target: str
    against: str
    tolerance: float

    def to_json(self) -> JsonObject:
        """The vectors as plain JSON values, with the quantization of inputs and outputs."""
        quantized = self.model.inputs[0]
        return {
            "schema": SCHEMA,
            "model_sha256": self.model.sha256,
            "target": self.target,
            "tolerance": {"against": self.against, "value": self.tolerance},
            "input": {"dtype": quantized.dtype, "scales": [*quantized.scales], "zero_points": [*quantized.zero_points]},
            "output": {
                "dtype": str(self.output.dtype),
                "scales": [*self.model.outputs[0].scales],
                "zero_points": [*self.model.outputs[0].zero_points],
            },
            "shapes": {name: [*getattr(self, name).shape] for name in _ARRAYS},
            "samples": [{name: getattr(self, name)[i].tolist() for name in _ARRAYS} for i in range(len(self.raw))],
        }

    def to_c(self, name: str = "golden") -> str:
        """A C99 header with constant arrays, one row per sample.

        Args:
            name: Prefix of all names in the header.
        """
        upper, tensor = name.upper(), self.model.inputs[0]
        lines = [
            f"/* {len(self.raw)} golden vectors of the model with SHA-256 {self.model.sha256}.",
            f" * Outputs of {self.target}; those of {self.against} differ by at most {self.tolerance:g}.",
            " * Each vector starts from the initial state of the model. */",
            f"#ifndef {upper}_H\n#define {upper}_H\n#include <stdint.h>\n",
            f"#define {upper}_SAMPLES {len(self.raw)}",
            *(f"#define {upper}_{part.upper()}_SIZE {getattr(self, part)[0].size}" for part in _ARRAYS[:3]),
            f"#define {upper}_TOLERANCE {_number(np.float32(self.tolerance))}",
        ]
        if tensor.scales:
            lines += [
                "/* input = saturate(round(raw / scale) + zero point) */",
                f"#define {upper}_INPUT_SCALE {_number(np.float32(tensor.scales[0]))}",
                f"#define {upper}_INPUT_ZERO_POINT ({tensor.zero_points[0]})",
            ]
        lines += [_c_array(f"{name}_{part}", getattr(self, part)) for part in _ARRAYS]
        return "\n".join([*lines, f"#endif /* {upper}_H */", ""])

    def save(self, stem: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, ...]:
        """Writes `STEM.npz`, `STEM.h` and `STEM.json`, each atomically.

        Args:
            stem: Path without suffix.
            overwrite: Whether to replace existing files.

        Returns:
            The three paths.

        Raises:
            InputError: One of the files exists.
        """
        paths = files(stem, overwrite=overwrite)
        archive = io.BytesIO()
        np.savez_compressed(archive, model_sha256=self.model.sha256, **{name: getattr(self, name) for name in _ARRAYS})
        name = re.sub(r"\W", "_", Path(stem).name)
        # A C name must not start with a digit.
        header = self.to_c(name if name[:1].isalpha() else f"golden_{name}")
        for path, content in zip(
            paths, (archive.getvalue(), header.encode(), json.dumps(self.to_json()).encode()), strict=True
        ):
            atomic.write(path, content)
        return paths


def files(stem: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, ...]:
    """The files that `Golden.save` writes.

    Args:
        stem: Path without suffix.
        overwrite: Whether they may exist.

    Raises:
        InputError: One of them exists.
    """
    paths = tuple(Path(f"{os.fspath(stem)}{suffix}") for suffix in SUFFIXES)
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
    return paths


def record(
    model: TFLiteModel | str | os.PathLike[str],
    split: SampleData,
    *,
    samples: int = 10,
    target: str | Target | None = None,
    against: str | Target = "host",
    seed: int = 0,
) -> Golden:
    """Runs a .tflite on samples and records its inputs and outputs.

    Args:
        model: A .tflite with one input and one output.
        split: Split with the samples; those of the test split were not used in training. Or another form of labelled
            data, such as a `tf.data.Dataset`, see `tfkd.data.as_split`.
        samples: Number of samples, stratified by class, 1..len(split).
        target: Target that computes the outputs. Default: `tflm`, whose kernels are those of a microcontroller, or
            `host:reference` if TensorFlow Lite Micro does not support the model or is not installed.
        against: Target that the tolerance refers to: a device with other kernels may differ by as much.
        seed: Random seed of the choice of samples, >= 0.

    Returns:
        The vectors, which `Golden.save` writes as .npz, .json and a C header.

    Raises:
        InputError: `samples` is out of range.
        ModelError: The model does not fit the split, a target does not support it, or its outputs are not finite.
        DeviceError: The process that runs the model crashed or timed out.
        ToolMissingError: A program or package that a target needs is not installed.
    """
    from tfkd.conversion.tflite import TFLiteModel

    model = TFLiteModel.load(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"golden: the model must have one input and one output. Received: {len(model.inputs)} and "
            f"{len(model.outputs)}. Pass a model with one of each."
        )
    split = as_split(split, "test")
    if model.inputs[0].sample_shape != split.input_shape:
        raise ModelError(
            f"golden: samples must have the model's input shape {model.inputs[0].sample_shape}. Received: "
            f"{split.input_shape} from {split.name!r}. Use the data set that the model was trained on."
        )
    chosen = split.sample(samples, seed=seed)
    raw = model.quantize_input(chosen.x)
    name, output = _default_outputs(model, raw) if target is None else _outputs(target, model, raw)
    other, compared = _outputs(against, model, raw)
    # The difference of two int8 values does not fit into int8.
    difference = np.abs(compared.astype(np.float64) - output.astype(np.float64)).max()
    return Golden(model, np.asarray(chosen.x), raw, output, chosen.y, chosen.ids, name, other, float(difference))


def _outputs(target: str | Target, model: TFLiteModel, inputs: np.ndarray) -> tuple[str, np.ndarray]:
    from tfkd import targets

    place = targets.get(target) if isinstance(target, str) else target
    measured = place.run(model, inputs, latency=False)
    if not measured.valid:
        raise DeviceError(f"golden: the run on {place.spec} is not valid: {measured.invalid_reason} Run it again.")
    if not np.isfinite(measured.outputs[0]).all():
        raise ModelError(
            f"golden: outputs must be finite. Received: NaN or infinity on {place.spec}. Check its weights."
        )
    return place.spec, measured.outputs[0]


def _default_outputs(model: TFLiteModel, inputs: np.ndarray) -> tuple[str, np.ndarray]:
    try:
        return _outputs("tflm", model, inputs)
    except (ModelError, ToolMissingError):  # not supported or not installed; the result names the target that ran
        return _outputs("host:reference", model, inputs)


def _c_array(name: str, values: np.ndarray) -> str:
    c_type = _C_TYPES.get(str(values.dtype))
    if c_type is None:
        raise ModelError(
            f"golden: values must be one of {', '.join(_C_TYPES)}. Received: {values.dtype}. Convert with another mode."
        )
    format_one: Callable[[np.generic], str] = _number if c_type == "float" else str
    rows = ",\n".join("  {" + ", ".join(map(format_one, row)) + "}" for row in values.reshape(len(values), -1))
    width = values[0].size
    return f"static const {c_type} {name}[{len(values)}][{width}] = {{\n{rows}\n}};"


def _number(value: np.generic) -> str:
    """A float literal in C with enough digits to restore every bit."""
    return f"{float(np.float32(value))!r}f"
