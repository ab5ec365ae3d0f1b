"""Golden vectors: what goes into a .tflite and what must come out, to test a deployment on the device itself."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd._internal import atomic
from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.targets import Target

SCHEMA = "tfkd.golden/1"
SUFFIXES = (".npz", ".h", ".json")

_ARRAYS = ("raw", "input", "output", "label", "id")
_C_TYPES = {"float32": "float", **{name: f"{name}_t" for name in ("int8", "uint8", "int16", "int32", "int64")}}


@dataclasses.dataclass(frozen=True)
class Golden:
    """Samples with what the model takes and gives for them.

    Args:
        model: the .tflite.
        raw: [N, ...] samples as the data set stores them.
        input: [N, ...] of the model's dtype, as it goes into the interpreter.
        output: [N, ...] as it comes out.
        label: int64 [N], the data set's.
        id: int64 [N], of the samples in the data set.
        target: which gave the output.
        against: the other target that was compared with.
        tolerance: largest difference of one output value between both, in steps, for float outputs in their own unit.
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

    def to_json(self) -> dict[str, Any]:
        """The vectors as plain JSON values, and how raw values become input."""
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
        """A C99 header with constant arrays, one row for each sample; `name` starts each of its names."""
        upper, tensor = name.upper(), self.model.inputs[0]
        lines = [
            f"/* {len(self.raw)} golden vectors of the model with SHA-256 {self.model.sha256}.",
            f" * Outputs come from {self.target}; {self.against} differs from it by {self.tolerance:g} at most. */",
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
        """Writes `STEM.npz`, `STEM.h` and `STEM.json`, each whole or not at all.

        Returns:
            The three paths.

        Raises:
            ValueError: one of them exists.
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
    """The files that `Golden.save` writes; refuses one that exists."""
    paths = tuple(Path(f"{os.fspath(stem)}{suffix}") for suffix in SUFFIXES)
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(
                f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path."
            )
    return paths


def record(
    model: TFLiteModel | str | os.PathLike[str],
    split: Split,
    *,
    samples: int = 10,
    target: str | Target | None = None,
    against: str | Target = "host",
    seed: int = 0,
) -> Golden:
    """Runs a .tflite on samples and keeps what went in and came out.

    Args:
        model: with one input and one output.
        split: any; the test split gives samples that the model has not learnt.
        samples: how many, stratified, 1..len(split).
        target: gives the outputs; by default `tflm`, whose kernels are those of a microcontroller, or
            `host:reference` where TensorFlow Lite Micro does not take the model or is not installed.
        against: gives the tolerance: a device with other kernels may differ by as much.
        seed: of the choice of samples.

    Raises:
        ValueError: the model does not fit the split, or a target refuses it.
        RuntimeError: the model's process crashed or hung, or a target's tool is missing.
    """
    from tfkd.conversion.tflite import TFLiteModel

    model = TFLiteModel.load(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"golden: the model must have one input and one output. Received: {len(model.inputs)} and "
            f"{len(model.outputs)}. Give a model with one of each."
        )
    if model.inputs[0].shape[1:] != split.input_shape:
        raise InputError(
            f"golden: samples must have the model's shape {model.inputs[0].shape[1:]}. Received: {split.input_shape} "
            f"from {split.name!r}. Give the data set that the model was made for."
        )
    chosen = split.sample(samples, seed=seed)
    raw = model.quantize_input(chosen.x)
    name, output = _oracle(model, raw) if target is None else _outputs(target, model, raw)
    other, compared = _outputs(against, model, raw)
    # Of int8 values the difference does not fit into int8.
    difference = np.abs(compared.astype(np.float64) - output.astype(np.float64)).max()
    return Golden(model, chosen.x, raw, output, chosen.y, chosen.ids, name, other, float(difference))


def _outputs(target: str | Target, model: TFLiteModel, inputs: np.ndarray) -> tuple[str, np.ndarray]:
    from tfkd import targets

    engine = targets.get(target) if isinstance(target, str) else target
    measured = engine.run(model, inputs, latency=False)
    if not measured.valid:
        raise InputError(f"golden: {engine.spec} must give outputs. Received: {measured.invalid_reason}.")
    if not np.isfinite(measured.outputs[0]).all():
        raise InputError(
            f"golden: outputs must be finite. Received: NaN or infinity on {engine.spec}. Repair the model first."
        )
    return engine.spec, measured.outputs[0]


def _oracle(model: TFLiteModel, inputs: np.ndarray) -> tuple[str, np.ndarray]:
    try:
        return _outputs("tflm", model, inputs)
    except (ValueError, RuntimeError):  # it refuses the model or is not installed; the result says which engine ran
        return _outputs("host:reference", model, inputs)


def _c_array(name: str, values: np.ndarray) -> str:
    kind = _C_TYPES.get(str(values.dtype))
    if kind is None:
        raise InputError(
            f"golden: values must be one of {', '.join(_C_TYPES)}. Received: {values.dtype}. Convert to another mode."
        )
    format_one: Callable[[Any], str] = _number if kind == "float" else str
    rows = ",\n".join("  {" + ", ".join(map(format_one, row)) + "}" for row in values.reshape(len(values), -1))
    width = values[0].size
    return f"static const {kind} {name}[{len(values)}][{width}] = {{\n{rows}\n}};"


def _number(value: Any) -> str:
    """A float in C, with as many digits as give the same bits again."""
    return f"{float(np.float32(value))!r}f"
