"""Golden vectors: inputs of a .tflite and the outputs it must return, to test a deployment on the device itself."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd._internal import atomic
from tfkd._internal.types import InputArrays, JsonObject, SampleData
from tfkd.conversion import file_inputs
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.streams import as_split
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.conversion.tflite_reader import TensorInfo
    from tfkd.targets import Target

SCHEMA = "tfkd.golden/1"
SUFFIXES = (".npz", ".h", ".json")

_C_TYPES = {"float32": "float", **{name: f"{name}_t" for name in ("int8", "uint8", "int16", "int32", "int64")}}


@dataclasses.dataclass(frozen=True)
class Golden:
    """Samples with the model's inputs and outputs for them.

    Args:
        model: The .tflite.
        raw: Samples as the data set stores them, [N, ...]; of several inputs those of the first.
        input: Inputs of the interpreter in the model's dtype, [N, ...]; of several the first.
        output: Outputs of the interpreter, [N, ...]; of several the first.
        label: Labels, int64 [N].
        id: Ids of the samples in the data set, int64 [N].
        target: Target that computed the outputs.
        against: Target that the tolerance refers to.
        tolerance: Largest difference of one output value between both targets: in quantization steps, for float
            outputs in the unit of the output.
        others: The other outputs of a model with several, `output_1`, `output_2` and so on in files.
        other_tolerances: The tolerance of each of them.
        other_raw: Samples of the other inputs of a model with several, `raw_1`, `raw_2` and so on in files.
        other_inputs: The same in the model's dtype, `input_1`, `input_2` and so on in files.
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
    others: tuple[np.ndarray, ...] = ()
    other_tolerances: tuple[float, ...] = ()
    other_raw: tuple[np.ndarray, ...] = ()
    other_inputs: tuple[np.ndarray, ...] = ()

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by their names in files."""
        raw = _numbered("raw", (self.raw, *self.other_raw))
        return {**raw, **self._inputs, **self._outputs, "label": self.label, "id": self.id}

    @property
    def input_names(self) -> tuple[str, ...]:
        """The name of each input of the model, in the order of `raw`, `raw_1`, ... and `input`, `input_1`, ..."""
        return tuple(one.name for one in file_inputs.of(self.model))

    @property
    def _inputs(self) -> dict[str, np.ndarray]:
        return _numbered("input", (self.input, *self.other_inputs))

    @property
    def _outputs(self) -> dict[str, np.ndarray]:
        return _numbered("output", (self.output, *self.others))

    @property
    def _tolerances(self) -> dict[str, float]:
        return dict(zip(self._outputs, (self.tolerance, *self.other_tolerances), strict=True))

    def to_json(self) -> JsonObject:
        """The vectors as plain JSON values, with the quantization of inputs and outputs."""
        several = len(self.model.inputs) > 1
        return {
            "schema": SCHEMA,
            "model_sha256": self.model.sha256,
            "target": self.target,
            "tolerance": {
                "against": self.against,
                "value": self.tolerance,
                **({"others": list(self.other_tolerances)} if self.others else {}),
            },
            **{
                key: {**({"name": name} if several else {}), **_quantization(tensor)}
                for key, name, tensor in zip(self._inputs, self.input_names, self.model.inputs, strict=True)
            },
            **{key: _quantization(tensor) for key, tensor in zip(self._outputs, self.model.outputs, strict=True)},
            "shapes": {name: [*values.shape] for name, values in self.arrays.items()},
            "samples": [
                {name: values[i].tolist() for name, values in self.arrays.items()} for i in range(len(self.raw))
            ],
        }

    def to_c(self, name: str = "golden") -> str:
        """A C99 header with constant arrays, one row per sample.

        Args:
            name: Prefix of all names in the header.
        """
        upper = name.upper()
        sized = {part: values for part, values in self.arrays.items() if part not in ("label", "id")}
        most = ", ".join(f"{one:g}" for one in self._tolerances.values())
        lines = [
            f"/* {len(self.raw)} golden vectors of the model with SHA-256 {self.model.sha256}.",
            f" * Outputs of {self.target}; those of {self.against} differ by at most {most}.",
            *(
                f" * {part} is the input {one}."
                for part, one in zip(self._inputs, self.input_names, strict=True)
                if self.other_inputs
            ),
            " * Each vector starts from the initial state of the model. */",
            f"#ifndef {upper}_H\n#define {upper}_H\n#include <stdint.h>\n",
            f"#define {upper}_SAMPLES {len(self.raw)}",
            *(f"#define {upper}_{part.upper()}_SIZE {values[0].size}" for part, values in sized.items()),
            *(
                f"#define {upper}_{part.upper().replace('OUTPUT', 'TOLERANCE')} {_number(np.float32(one))}"
                for part, one in self._tolerances.items()
            ),
        ]
        for part, tensor in zip(self._inputs, self.model.inputs, strict=True):
            if tensor.scales:
                lines += [
                    f"/* {part} = saturate(round({part.replace('input', 'raw')} / scale) + zero point) */",
                    f"#define {upper}_{part.upper()}_SCALE {_number(np.float32(tensor.scales[0]))}",
                    f"#define {upper}_{part.upper()}_ZERO_POINT ({tensor.zero_points[0]})",
                ]
        lines += [_c_array(f"{name}_{part}", values) for part, values in self.arrays.items()]
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
        content: dict[str, Any] = {"model_sha256": self.model.sha256, **self.arrays}
        np.savez_compressed(archive, **content)
        name = re.sub(r"\W", "_", Path(stem).name)
        # A C name must not start with a digit.
        header = self.to_c(name if name[:1].isalpha() else f"golden_{name}")
        for path, written in zip(
            paths, (archive.getvalue(), header.encode(), json.dumps(self.to_json()).encode()), strict=True
        ):
            atomic.write(path, written)
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
        model: A .tflite.
        split: Split with the samples; those of the test split were not used in training. Or another form of labelled
            data, such as a `tf.data.Dataset`, see `tfkd.data.as_split`. Samples of several inputs are found by their
            names.
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
    split = as_split(split, "test")
    if not isinstance(split.x, NamedArrays):
        file_inputs.check_one(model, "golden: the model")
        if model.inputs[0].sample_shape != split.input_shape:
            raise ModelError(
                f"golden: samples must have the model's input shape {model.inputs[0].sample_shape}. Received: "
                f"{split.input_shape} from {split.name!r}. Use the data set that the model was trained on."
            )
    chosen = split.sample(samples, seed=seed)
    if isinstance(chosen.x, NamedArrays):
        raw = file_inputs.real(model, chosen.x, "golden: the model")
    else:
        raw = [np.asarray(chosen.x)]
    inputs = [model.quantize_input(array, index) for index, array in enumerate(raw)]
    name, outputs = _default_outputs(model, inputs) if target is None else _outputs(target, model, inputs)
    other, compared = _outputs(against, model, inputs)
    tolerances = tuple(
        # The difference of two int8 values does not fit into int8.
        float(np.abs(one.astype(np.float64) - output.astype(np.float64)).max())
        for one, output in zip(compared, outputs, strict=True)
    )
    return Golden(
        model,
        raw=raw[0],
        input=inputs[0],
        output=outputs[0],
        label=chosen.y,
        id=chosen.ids,
        target=name,
        against=other,
        tolerance=tolerances[0],
        others=outputs[1:],
        other_tolerances=tolerances[1:],
        other_raw=tuple(raw[1:]),
        other_inputs=tuple(inputs[1:]),
    )


def _numbered(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by their names in files: `input`, `input_1`, `input_2`, ..."""
    return {f"{name}_{number}" if number else name: one for number, one in enumerate(arrays)}


def _quantization(tensor: TensorInfo) -> JsonObject:
    return {"dtype": tensor.dtype, "scales": [*tensor.scales], "zero_points": [*tensor.zero_points]}


def _outputs(target: str | Target, model: TFLiteModel, inputs: InputArrays) -> tuple[str, tuple[np.ndarray, ...]]:
    from tfkd import targets

    place = targets.get(target) if isinstance(target, str) else target
    measured = place.run(model, inputs, latency=False)
    if not measured.valid:
        raise DeviceError(f"golden: the run on {place.spec} is not valid: {measured.invalid_reason} Run it again.")
    if not all(np.isfinite(output).all() for output in measured.outputs):
        raise ModelError(
            f"golden: outputs must be finite. Received: NaN or infinity on {place.spec}. Check its weights."
        )
    return place.spec, tuple(measured.outputs)


def _default_outputs(model: TFLiteModel, inputs: InputArrays) -> tuple[str, tuple[np.ndarray, ...]]:
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
