"""Which ops of a .tflite an accelerator takes, by published lists: an estimate, before any device.

A list says less than a compiler: it has the names of ops and the types of tensors, and few of the conditions on shapes.
For Ethos-U there is Arm's compiler, `tfkd.targets.vela`. How much of a graph leaves the CPU depends on
how a runtime divides it:

    take take no take take take no take        1 = taken, by the order of execution
    └─ A ─┘     └───── B ─────┘   └ C ┘        first: A; largest: B; all: A, B and C
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources

from ai_edge_litert import schema_py_generated as schema

from tfkd._internal.suggestion import suggestion
from tfkd._internal.types import JsonObject
from tfkd.conversion import tflite_reader
from tfkd.conversion.tflite import TFLiteGraph, TFLiteModel, op_macs
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets import vela

_VELA = "https://pypi.org/project/ethos-u-vela/"
_QUANTIZING = "Convert the model with --mode full_int8."
# What to do about an op that an accelerator does not take.
_REMEDIES = {
    "ARG_MAX": "Let the model end with its scores, and take the largest in the application.",
    "BATCH_MATMUL": "Replace attention by convolutions, or accept that it runs on the CPU.",
    "CAST": "Give the model its input in the type that it computes in.",
    "DEQUANTIZE": "Convert with --mode full_int8, whose outputs are integers.",
    "EMBEDDING_LOOKUP": "Look up embeddings on the CPU, and give the model their values.",
    "ERF": "Use a GELU by tanh, or a ReLU.",
    "EXP": "Use a ReLU or hard swish in place of an activation with an exponential.",
    "GATHER": "Look up on the CPU, and give the model the values.",
    "GELU": "Use a ReLU or ReLU6 in place of the GELU.",
    "HARD_SWISH": "Use a ReLU6 in place of the hard swish.",
    "LEAKY_RELU": "Use a ReLU in place of the leaky ReLU.",
    "LOG_SOFTMAX": "Let the model end with logits.",
    "PACK": "Concatenate in place of stacking.",
    "QUANTIZE": "Convert with --mode full_int8, whose inputs are integers.",
    **dict.fromkeys(
        ("ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"),
        "Give the model its state as an input, and take the new state as an output.",
    ),
    "RESIZE_BILINEAR": "Enlarge by 2 with interpolation nearest, or by a transposed convolution.",
    "SOFTMAX": "Let the model end with logits, as students of tfkd do.",
    "SPLIT": "Use separate convolutions in place of a split.",
    "TRANSPOSE": "Keep channels last throughout the model.",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "Use convolutions over time in place of the LSTM.",
    "WHILE": "Build recurrent layers with unroll=True, or use convolutions over time.",
}
_ENDS = ("QUANTIZE", "DEQUANTIZE")
_OTHER_REMEDY = "Replace the layer, or move it to the end of the model, where the CPU may compute it."
# Types of some ops besides those of a list: of integers and truth values that are no activations, and of the cell state
# of an LSTM, with which Coral's own compiled keras_lstm_mnist_ptq runs on the Edge TPU.
_OTHER_TYPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "edgetpu": {"UNIDIRECTIONAL_SEQUENCE_LSTM": ("int16",)},
    "gpu": {
        "CAST": ("int32", "bool"), "GATHER": ("int32",), "ONE_HOT": ("int32",), "SELECT": ("bool",),
        "SELECT_V2": ("bool",), "LOGICAL_AND": ("bool",), "EQUAL": ("bool",), "GREATER": ("bool",),
        "GREATER_EQUAL": ("bool",), "LESS": ("bool",), "LESS_EQUAL": ("bool",), "NOT_EQUAL": ("bool",),
    },
}  # fmt: skip
# Most axes of a tensor.
_MOST_AXES = {"gpu": 4, "nnapi": 4}


@dataclasses.dataclass(frozen=True)
class OpList:
    """The published list of an accelerator.

    Args:
        label: Name in tables.
        source: Where it was published.
        date: When.
        types: Data types of tensors; None where they are not published.
        partitions: Which parts of a graph run on it: `first`, `largest` or `all`.
        takes: Ops that it takes; empty where only `refuses` was published.
        refuses: Ops that it does not take.
        limits: Condition that was published for an op.
        custom: Custom ops that it takes, by their names.
    """

    label: str
    source: str
    date: str
    types: Sequence[str] | None
    partitions: str
    takes: Sequence[str] = ()
    refuses: Sequence[str] = ()
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    custom: Sequence[str] = ()


@functools.cache
def op_lists() -> dict[str, OpList]:
    """The published lists by the name of their accelerator."""
    table = json.loads(resources.files("tfkd.targets").joinpath("npu_ops.json").read_text("utf-8"))
    return {name: OpList(**record) for name, record in table.items()}


def names() -> tuple[str, ...]:
    """The names of all accelerators."""
    return (*vela.ACCELERATORS, *op_lists())


def defaults() -> tuple[str, ...]:
    """The accelerators that are estimated where none is named: of each family one."""
    return ("ethos-u55-128", "ethos-u65-256", *op_lists())


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an op runs.

    Args:
        op: Name of the op.
        tensor: Name of its output.
        macs: Its multiply-accumulates.
        taken: Whether the accelerator takes the op.
        runs_there: Whether the op runs on the accelerator, given how the graph is divided.
        reason: Why it is not taken, or the condition under which it is.
    """

    op: str
    tensor: str
    macs: int
    taken: bool
    runs_there: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How much of a model an accelerator takes; an estimate.

    Args:
        accelerator: Its name.
        label: Its name in tables.
        source: The list or the compiler.
        date: Date of the list, or version of the compiler.
        ops: Each op of the model, in the order of execution; None where it is unknown.
        macs: Multiply-accumulates of the model, those of bodies of loops included.
        unknown: Why it is unknown, and what to do.
        cycles: Cycles of an inference on the accelerator, by its compiler.
        sram_bytes: SRAM that it needs, by its compiler.
    """

    accelerator: str
    label: str
    source: str
    date: str
    ops: tuple[Placement, ...] | None
    macs: int
    unknown: str = ""
    cycles: int | None = None
    sram_bytes: int | None = None

    @property
    def mac_share(self) -> float | None:
        """Share of the multiply-accumulates that run on the accelerator, 0..1; None where it is unknown."""
        if self.ops is None or not self.macs:
            return None
        return sum(one.macs for one in self.ops if one.runs_there) / self.macs

    @property
    def first_break(self) -> Placement | None:
        """The first op that is not taken behind one that is, or else the first that is not taken."""
        refused = [i for i, one in enumerate(self.ops or ()) if not one.taken]
        begun = next((i for i, one in enumerate(self.ops or ()) if one.taken), -1)
        found = next((i for i in refused if i > begun), refused[0] if refused else None)
        return None if found is None or self.ops is None else self.ops[found]

    def to_json(self) -> JsonObject:
        """The estimate as plain JSON values."""
        broken = self.first_break
        return {
            "accelerator": self.accelerator,
            "label": self.label,
            "evidence": "estimated",
            "source": self.source,
            "date": self.date,
            "unknown": self.unknown or None,
            "mac_share": self.mac_share,
            "cycles": self.cycles,
            "sram_bytes": self.sram_bytes,
            "first_break": None if broken is None else {**dataclasses.asdict(broken), "remedy": remedy(broken)},
            "ops": None if self.ops is None else [dataclasses.asdict(one) for one in self.ops],
        }


def remedy(placement: Placement) -> str:
    """What to do about an op that is not taken.

    Args:
        placement: The op, with the reason.
    """
    if placement.op not in _ENDS and ("type float" in placement.reason or "DataType Float" in placement.reason):
        return _QUANTIZING
    if placement.reason.startswith("type "):
        return _REMEDIES.get(placement.op, _QUANTIZING)
    return _REMEDIES.get(placement.op, _OTHER_REMEDY)


def estimate(
    model: str | os.PathLike[str] | bytes | TFLiteModel, accelerators: Sequence[str] | None = None
) -> list[Estimate]:
    """Estimates how much of a model each accelerator takes. Nothing is run.

    Args:
        model: The model.
        accelerators: Names of accelerators, see `names`; None for `defaults`.

    Raises:
        InputError: There is no accelerator of a name, or the model cannot be read.
        ModelError: The model is damaged, or was compiled for an accelerator.

    >>> "edgetpu" in names()
    True
    """
    loaded = TFLiteModel.load(model)
    chosen = list(accelerators) if accelerators is not None else list(defaults())
    for name in chosen:
        if name not in names():
            raise InputError(
                f"npu: accelerator must be one of {', '.join(names())}. Received: {name!r}.{suggestion(name, names())}"
            )
    if why := tflite_reader.compiled(loaded.subgraphs):
        raise ModelError(f"npu: {why}")
    return [_by_compiler(loaded, name) if name in vela.ACCELERATORS else _by_list(loaded, name) for name in chosen]


def _by_list(model: TFLiteModel, name: str) -> Estimate:
    found, graph = op_lists()[name], model.graph
    reasons = [_reason(found, name, model, i) for i in range(len(graph.ops))]
    taken = [reason is None for reason in reasons]
    there = _divided(graph, taken, found.partitions)
    ops = tuple(
        Placement(
            op.name,
            graph.tensors[op.outputs[0]].name if op.outputs else "",
            _macs(graph, i),
            taken[i],
            i in there,
            _explained(found, op.name, reasons[i], runs=i in there),
        )
        for i, op in enumerate(graph.ops)
    )
    return Estimate(name, found.label, found.source, found.date, ops, model.macs)


def _explained(found: OpList, op: str, reason: str | None, *, runs: bool) -> str:
    if reason is not None:
        return reason
    if not runs:
        return {
            "first": "behind an op that is not taken",
            "largest": "outside the largest part that is taken",
        }[found.partitions]
    return f"if {found.limits[op]}" if op in found.limits else ""


def _reason(found: OpList, name: str, model: TFLiteModel, index: int) -> str | None:
    """Why a list does not have an op; None if it has."""
    op, tensors = model.graph.ops[index], model.graph.tensors
    listed = op.name if hasattr(schema.BuiltinOperator, op.name) else "CUSTOM"
    computed = [tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0 and model.graph.constants[i] == 0]
    allowed = None if found.types is None else {*found.types, *_OTHER_TYPES.get(name, {}).get(op.name, ())}
    wrong = [one for one in computed if allowed is not None and one.dtype not in allowed]
    for tensor in wrong:
        if tensor.dtype.startswith("float"):  # before the list of ops: the whole model must be quantized
            return f"type {tensor.dtype} of {tensor.name}"
    taken = listed in found.takes or op.name in found.custom
    if (found.takes and not taken) or listed in found.refuses:
        return "not in the list"
    if wrong:
        return f"type {wrong[0].dtype} of {wrong[0].name}"
    for tensor in computed:
        if len(tensor.shape) > _MOST_AXES.get(name, len(tensor.shape)):
            return f"{len(tensor.shape)} axes of {tensor.name}"
        if name == "edgetpu" and any(size > 1 for size in tensor.shape[:-3]):
            return f"more than 3 axes of {tensor.name}"
    return None


def _macs(graph: TFLiteGraph, index: int) -> int:
    op = graph.ops[index]
    return op_macs(op.name, op.inputs, op.outputs, [tensor.shape for tensor in graph.tensors])


def _divided(graph: TFLiteGraph, taken: Sequence[bool], partitions: str) -> set[int]:
    """The ops that run on an accelerator.

    Args:
        graph: The graph.
        taken: Whether each op is taken.
        partitions: `first`, `largest` or `all` of the parts that are taken.
    """
    parts = [part for part in _parts(graph, taken) if taken[part[0]]]
    if partitions == "largest":
        parts = sorted(parts, key=len, reverse=True)[:1]
    elif partitions == "first":
        parts = parts[:1]
    return {index for part in parts for index in part}


def _parts(graph: TFLiteGraph, taken: Sequence[bool]) -> list[list[int]]:
    """Divides a graph as LiteRT does: each part takes all ops of its kind whose inputs earlier parts have computed."""
    made_by = {tensor: i for i, op in enumerate(graph.ops) for tensor in op.outputs}
    needs = [{made_by[tensor] for tensor in op.inputs if tensor in made_by} for op in graph.ops]
    left, done, parts = list(range(len(graph.ops))), set[int](), list[list[int]]()
    while left:
        kind, part = taken[left[0]], list[int]()
        for index in left:  # an op never needs a later one
            if taken[index] == kind and needs[index] <= done:
                part.append(index)
                done.add(index)
        left = [index for index in left if index not in done]
        parts.append(part)
    return parts


def _by_compiler(model: TFLiteModel, name: str) -> Estimate:
    label = name.replace("ethos-u", "Ethos-U")
    try:
        compiled = vela.compile_model(model, name)
    except (ToolMissingError, ModelError, DeviceError) as error:
        return Estimate(name, label, _VELA, "", None, model.macs, unknown=str(error))
    # By the output alone: the compiler may write an op under another name, such as a RESHAPE for a SQUEEZE.
    on_cpu = {one.output: one.reason or "left by the compiler" for one in compiled.cpu_ops}
    graph, ops = model.graph, list[Placement]()
    for i, op in enumerate(graph.ops):
        output = graph.tensors[op.outputs[0]].name if op.outputs else ""
        reason = on_cpu.get(output)
        ops.append(Placement(op.name, output, _macs(graph, i), reason is None, reason is None, reason or ""))
    if strange := on_cpu.keys() - {one.tensor for one in ops}:
        why = f"{name}: the compiler left ops on the CPU that the model does not have: their outputs are "
        return Estimate(name, label, _VELA, "", None, model.macs, unknown=why + ", ".join(sorted(map(repr, strange))))
    return Estimate(
        name,
        label,
        _VELA,
        f"version {compiled.version}",
        tuple(ops),
        model.macs,
        cycles=compiled.cycles,
        sram_bytes=compiled.sram_bytes or None,
    )
