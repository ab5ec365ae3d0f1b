"""What all parts of the generated C share: C types, names, and addresses in the arena."""

from __future__ import annotations

import dataclasses

from tfkd.micro.graph import Graph, Tensor
from tfkd.micro.placement import Placement

CTYPES = {"int8": "int8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t", "int64": "int64_t"}


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
        value = CTYPES[self.graph.tensors[self.graph.inputs[0]].dtype]
        io = f"const {value} *in, {value} *out"
        if not self.has_single_io:
            io = f"const {value} *const *in, {value} *const *out"
        return f"int tfkd_{self.name}_run(tfkd_{self.name}_ctx *ctx, {io})"


def comment(text: str) -> str:
    """Text from a file, shortened, so that it can neither end a C comment nor begin a new line."""
    return "".join(c if c.isprintable() and c.isascii() and c not in "*\\" else "_" for c in text)[:80]


def include_guard(label: str, text: str) -> str:
    """Text that is compiled once although several models in one translation unit contain it."""
    return f"#ifndef TFKD_{label.upper()}\n#define TFKD_{label.upper()}\n{text}\n#endif"
