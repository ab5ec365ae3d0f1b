"""What all parts of the generated C share: C types, names, and addresses in the arena."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np

from tfkd.micro.graph import Graph, Tensor
from tfkd.micro.placement import Placement

# A bool is stored as an int8 of 0 or 1, a uint64 as two uint32, the low half first: the arena is aligned to 4 bytes.
CTYPES = {
    **{name: f"{name}_t" for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")},
    "uint64": "uint32_t",
    "bool": "int8_t",
    "float32": "float",
}


@dataclasses.dataclass(frozen=True)
class Context:
    """A model, where its tensors are in the arena, and its name in C.

    Args:
        graph: The model.
        places: Offsets of its tensors and scratch buffers in the arena.
        name: C identifier; public names are `tfkd_<name>_...`.
    """

    graph: Graph
    places: Placement
    name: str

    @property
    def states(self) -> list[Tensor]:
        """Tensors that keep their values from one run to the next."""
        return [tensor for tensor in self.graph.tensors if tensor.variable and tensor.index in self.places.of_tensor]

    @property
    def has_single_io(self) -> bool:
        """Whether there is one input and one output, so that the run function takes plain pointers."""
        return len(self.graph.inputs) == len(self.graph.outputs) == 1

    def pointer(self, index: int, arena: str = "arena") -> str:
        """C expression of a pointer to a tensor in the arena, with the tensor's type; without outer parentheses."""
        tensor = self.graph.tensors[index]
        address = f"{arena} + {self.places.tensor(index)}"
        return address if tensor.dtype == "int8" else f"({CTYPES[tensor.dtype]} *)(void *)({address})"

    def signature(self) -> str:
        """C signature of the run function."""
        tensors = self.graph.tensors
        source, target = (value_type([tensors[i] for i in ends]) for ends in (self.graph.inputs, self.graph.outputs))
        io = f"const {source} *in, {target} *out"
        if not self.has_single_io:
            io = f"const {source} *const *in, {target} *const *out"
        return f"int tfkd_{self.name}_run(tfkd_{self.name}_ctx *ctx, {io})"


def value_type(tensors: Sequence[Tensor]) -> str:
    """C type of the values of all inputs or all outputs; `void` where their types differ."""
    types = {CTYPES[tensor.dtype] for tensor in tensors}
    return types.pop() if len(types) == 1 else "void"


def quantizer(name: str, inputs: Sequence[Tensor], dtype: str) -> str:
    """Name of the header's C function from a float to a quantized value.

    Args:
        name: C identifier of the model.
        inputs: The model's inputs. If they have several types, the name has the type.
        dtype: Type of the quantized value.
    """
    suffix = f"_{dtype}" if len({tensor.dtype for tensor in inputs if tensor.scales}) > 1 else ""
    return f"tfkd_{name}_quantize{suffix}"


def comment(text: str) -> str:
    """Text from a file, shortened, so that it can neither end a C comment nor begin a new line."""
    return "".join(c if c.isprintable() and c.isascii() and c not in "*\\" else "_" for c in text)[:80]


def array_text(label: str, values: np.ndarray, section: str = "", packed: bool = False) -> str:
    """C of a constant array.

    Args:
        label: C name.
        values: Its values, of any shape.
        section: Macro that stands behind the name.
        packed: Whether they are results of `lowering.channel_pairs.packed_weights`, which each core orders as it needs.
    """
    numbers = values.reshape(-1).astype("int8") if values.dtype == bool else values.reshape(-1)
    to_text = float_text if values.dtype == np.float32 else str
    items = _packed(numbers) if packed else map(to_text, numbers.tolist())
    text = textwrap.fill(", ".join(items), 118, break_on_hyphens=False)
    aligned = "TFKD_ALIGNED " if values.dtype.name == "int16" else ""  # kernels read int16 by words
    place = f" {section}" if section else ""
    return f"static const {CTYPES[values.dtype.name]} {aligned}{label}[{values.size}]{place} = {{\n{text}}};"


def float_text(value: float | np.float32) -> str:
    """C literal of a finite float32.

    >>> [float_text(x) for x in (1.0, -0.1, 1e-30)]
    ['1.0f', '-0.1f', '1e-30f']
    """
    return f"{np.float32(value)!s}f"


def _packed(words: np.ndarray) -> list[str]:
    """Macros of kernels/packed_weights.h: each has four weights of one channel, then four of the other."""
    fours = words.reshape(-1, 4)[:, [0, 2, 1, 3]].astype("int32")
    first = fours.astype("int8").astype("int32")
    second = ((fours - first) // 256).astype("int8")
    return [f"TFKD_PACKED({','.join(map(str, both))})" for both in np.hstack([first, second]).tolist()]


def include_guard(label: str, text: str) -> str:
    """Text that is compiled once although several models in one translation unit contain it."""
    return f"#ifndef TFKD_{label.upper()}\n#define TFKD_{label.upper()}\n{text}\n#endif"
