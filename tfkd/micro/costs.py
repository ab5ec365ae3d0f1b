"""What a model costs on a microcontroller: flash, stack and instructions, as an emulated core measures them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tfkd._internal.types import InputArrays, JsonObject, JsonRecord
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, ModelError
from tfkd.micro.emitter import Program

_COSTS = ("flash_bytes", "code_bytes", "constant_bytes", "stack_bytes", "instructions")


class CoreMemory(Protocol):
    """Memory that a model takes on a core."""

    @property
    def flash_bytes(self) -> int | None:
        """Code and constants."""

    @property
    def stack_bytes(self) -> int | None:
        """Deepest stack."""


class CoreRun(Protocol):
    """Result of a run on an emulated core."""

    @property
    def memory(self) -> CoreMemory:
        """Memory of the run."""

    @property
    def instructions(self) -> int | None:
        """Instructions of one inference."""

    @property
    def environment(self) -> JsonRecord:
        """The compiler, the parts of the flash, and the instructions of each layer."""


class Core(Protocol):
    """An emulated core; the targets of microcontrollers are such."""

    @property
    def spec(self) -> str:
        """Name of the core, such as `cortex-m4`."""

    def run(self, model: TFLiteModel, inputs: InputArrays, *, latency: bool = True) -> CoreRun:
        """Runs a model on a list of arrays [N, ...], one for each input, and counts instructions."""


def costs_of(model: TFLiteModel, program: Program, core: Core | None) -> JsonObject:
    """Measures a model on an emulated core.

    Args:
        model: The model.
        program: The C generated from it, as the core compiles it.
        core: The emulated core, or None.

    Returns:
        `target` (specification of the core), `compiler`, `flash_bytes` with its parts `code_bytes` and
        `constant_bytes`, `stack_bytes`, `instructions` of one inference, `layers` with `instructions` and
        `weight_bytes` of each, `features`, what those of a sound cost beside the model, for a core that computes them,
        or None, `evidence` by the name of a number, and `refusal`, why the core does not run the model.
        Unknown numbers are None.
    """
    costs: JsonObject = {
        "target": core.spec if core else None,
        "compiler": None,
        **dict.fromkeys((*_COSTS, "features")),
    }
    executed: dict[str, int] = {}
    refusal = None
    if core:
        zeros = [np.zeros((1, *tensor.sample_shape), tensor.dtype) for tensor in model.inputs]
        try:
            run = core.run(model, zeros, latency=True)
        except (ModelError, DeviceError) as error:  # such as a model that is larger than the board
            refusal = str(error)
        else:
            executed = run.environment["layers"]
            costs |= {
                "compiler": run.environment["compiler"],
                "flash_bytes": run.memory.flash_bytes,
                "code_bytes": run.environment["code_bytes"],
                "constant_bytes": run.environment["constant_bytes"],
                "stack_bytes": run.memory.stack_bytes,
                "instructions": run.instructions,
                "features": run.environment.get("features"),
            }
    known = [name for name in (*_COSTS, "features") if costs[name] is not None]
    layers = [
        {
            "layer": step,
            "instructions": executed.get(function.replace(f"tfkd_{program.name}_", "tfkd_model_", 1)),
            "weight_bytes": weights,
        }
        for step, function, weights in zip(program.steps, program.layers, program.layer_weight_bytes, strict=True)
    ]
    return costs | {"layers": layers, "evidence": dict.fromkeys(known, "emulated"), "refusal": refusal}
