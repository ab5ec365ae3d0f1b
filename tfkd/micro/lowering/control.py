"""Marks of control flow, see `tfkd.micro.control_flow`: lines of C between the layers."""

from __future__ import annotations

from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.layer import Layer

# The line of C of each mark; {} is the number of the byte of the arena that holds the condition.
CONTROL = {
    "LOOP": "for (;;) {{",
    "LOOP_TEST": "if (!arena[{}]) break;",
    "LOOP_END": "}}",
    "BRANCH": "if (arena[{}]) {{",
    "BRANCH_ELSE": "}} else {{",
    "BRANCH_END": "}}",
}


def control(graph: Graph, op: Op) -> list[Layer]:
    """A layer without a kernel."""
    return [Layer(op, "", "", "", {}, op.inputs, op.outputs[0])]
