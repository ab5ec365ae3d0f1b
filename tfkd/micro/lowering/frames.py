"""SignalFramer, SignalStacker, SignalDelay and SignalOverlapAdd of int16, which keep samples between runs.

`hidden_states.add` gives these ops their states as the last inputs; the functions of `STATES` describe them.
"""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.custom_options import settings
from tfkd.micro.lowering.layer import Fields, Layer, Unsupported, shape_text, typed
from tfkd.micro.lowering.moves import move, strided

_MOST = 2**20  # samples that an op keeps: 65 s at 16 kHz


def _samples(graph: Graph, op: Op) -> tuple[Tensor, Tensor]:
    source, output = typed(graph, op.inputs[0], "int16"), typed(graph, op.outputs[0], "int16")
    if source.data is not None or not source.shape:
        raise Unsupported(f"{source.name!r} must be computed from the model's inputs. Remove the op from the model")
    return source, output


def framer(graph: Graph, op: Op) -> list[Layer]:
    """SignalFramer: samples [..., n * step] to overlapping frames [..., n, size], and whether all of them are valid."""
    return _framed(graph, op, _framer_fields(graph, op))


def stacker(graph: Graph, op: Op) -> list[Layer]:
    """SignalStacker: vectors [c] to c * (left + 1 + right) values, every `step` runs, and whether they are valid."""
    return _framed(graph, op, _stacker_fields(graph, op))


def framer_states(graph: Graph, op: Op) -> list[Tensor]:
    """The number of samples that are kept, and the samples: zeros where the option `prefill` is set."""
    fields = _framer_fields(graph, op)
    (prefilled,) = settings(op, prefill=(0, 1))
    return _frame_states(fields, prefilled * (_number(fields, "size") - _number(fields, "step")))


def stacker_states(graph: Graph, op: Op) -> list[Tensor]:
    """The number of values that are kept, -1 before the first run, and the values."""
    return _frame_states(_stacker_fields(graph, op), -1)


def _framer_fields(graph: Graph, op: Op) -> Fields:
    source, output = _samples(graph, op)
    size, step, prefilled = settings(op, frame_size=(1, _MOST), frame_step=(1, _MOST), prefill=(0, 1))
    frames, outer = source.shape[-1] // step, source.elements // source.shape[-1]
    if source.shape[-1] % step or output.shape != (*source.shape[:-1], frames, size) or prefilled * step > size:
        raise Unsupported(f"{source.shape} has no frames {output.shape} of {size} by {step}. The file is damaged")
    return {
        "outer": outer, "frames": frames, "added": step, "size": size, "step": step, "repeated": 0,
        "capacity": -(-size // step) * step,
    }  # fmt: skip


def _stacker_fields(graph: Graph, op: Op) -> Fields:
    source, output = _samples(graph, op)
    names = ("num_channels", "stacker_left_context", "stacker_right_context", "stacker_step")
    channels, left, right, step = settings(op, **dict.fromkeys(names, (0, _MOST)))
    size = channels * (left + 1 + right)
    if source.shape != (channels,) or output.shape != (size,) or not 0 < step <= left + 1 + right:
        raise Unsupported(f"{source.shape} is not stacked to {output.shape} by steps of {step}. The file is damaged")
    return {
        "outer": 1, "frames": 1, "added": channels, "size": size, "step": channels * step, "repeated": left,
        "capacity": size,
    }  # fmt: skip


def _number(fields: Fields, name: str) -> int:
    return int(np.asarray(fields[name]))


def _frame_states(fields: Fields, kept: int) -> list[Tensor]:
    count = np.array([kept], "int32")
    return [_state(1, "int32", count), _state(_number(fields, "outer") * _number(fields, "capacity"))]


def _state(count: int, dtype: str = "int16", initial: np.ndarray | None = None) -> Tensor:
    """A state of `count` values, 0 before the first run by default; its index and name are not yet known."""
    if count > _MOST:
        raise Unsupported(f"{count} samples are too many to keep, at most {_MOST}. Use shorter frames or delays")
    return Tensor(-1, "", (count,), dtype, variable=True, initial=initial)


def _framed(graph: Graph, op: Op, fields: Fields) -> list[Layer]:
    """The layers of SignalFramer and SignalStacker."""
    output, valid = graph.tensors[op.outputs[0]], typed(graph, op.outputs[1], "bool")
    if valid.elements != 1:
        raise Unsupported(f"{valid.name!r} must be one value, is {valid.shape}. The file is damaged")
    source, kept, buffer = op.inputs[0], *op.inputs[-2:]
    shapes = f"{shape_text(graph.tensors[source])} -> {shape_text(output)}"
    struct = "tfkd_frames_params"
    return [
        Layer(op, "frames_valid", "frames", struct, fields, (), valid.index, states=(kept,), comment="valid"),
        Layer(op, "frames", "frames", struct, fields, (source,), output.index, states=(kept, buffer), comment=shapes),
    ]


def delay(graph: Graph, op: Op) -> list[Layer]:
    """SignalDelay: samples [..., n], later by a number of them."""
    source, output = _samples(graph, op)
    length, outer = _delay(source, op)
    if source.shape != output.shape:
        raise Unsupported(f"{source.shape} and {output.shape} differ. The file is damaged")
    if not length:
        return [move(op, source, output, strided((source.elements,), (1,), (1,)))]
    fields: Fields = {"outer": outer, "size": source.shape[-1], "length": length}
    return [_stateful(op, "delay", fields, source, output)]


def delay_states(graph: Graph, op: Op) -> list[Tensor]:
    """The samples that come out later."""
    length, outer = _delay(_samples(graph, op)[0], op)
    return [_state(outer * length)] if length else []


def _delay(source: Tensor, op: Op) -> tuple[int, int]:
    """The number of samples by which a delay delays, and that of independent signals."""
    (length,) = settings(op, delay_length=(0, _MOST))
    return length, source.elements // source.shape[-1]


def overlap_add(graph: Graph, op: Op) -> list[Layer]:
    """SignalOverlapAdd: frames [..., n, size] to samples [..., n * step], the sums of overlapping frames."""
    source, output = _samples(graph, op)
    outer, frames, size = _overlapping(source)
    (step,) = settings(op, frame_step=(1, size))
    if output.shape != (*source.shape[:-2], frames * step):
        raise Unsupported(f"frames {source.shape} by {step} do not give {output.shape}. The file is damaged")
    fields: Fields = {"outer": outer, "frames": frames, "size": size, "step": step}
    return [_stateful(op, "overlap_add", fields, source, output)]


def overlap_add_states(graph: Graph, op: Op) -> list[Tensor]:
    """The sums that later frames add to."""
    outer, _, size = _overlapping(_samples(graph, op)[0])
    return [_state(outer * size)]


def _overlapping(source: Tensor) -> tuple[int, int, int]:
    """Independent signals, frames of each in a run, and their length."""
    if len(source.shape) < 2:
        raise Unsupported(f"{source.shape} has no axis of frames. The file is damaged")
    frames, size = source.shape[-2:]
    return math.prod(source.shape[:-2]), frames, size


def _stateful(op: Op, kernel: str, fields: Fields, source: Tensor, output: Tensor) -> Layer:
    return Layer(
        op,
        kernel,
        "frames",
        f"tfkd_{kernel}_params",
        fields,
        (source.index,),
        output.index,
        states=(op.inputs[-1],),
        comment=f"{shape_text(source)} -> {shape_text(output)}",
    )


def noise_states(graph: Graph, op: Op) -> list[Tensor]:
    """The noise of each channel of SignalFilterBankSpectralSubtraction."""
    return [_state(graph.tensors[op.inputs[0]].elements, "uint32")]


# For each op that keeps values inside of TensorFlow Lite Micro's kernel, a function that describes them.
STATES = {
    "SignalDelay": delay_states,
    "SignalFilterBankSpectralSubtraction": noise_states,
    "SignalFramer": framer_states,
    "SignalOverlapAdd": overlap_add_states,
    "SignalStacker": stacker_states,
}
