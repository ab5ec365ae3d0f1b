"""States that TensorFlow Lite Micro's kernels keep inside become tensors, as the variable tensors of LSTM and SVDF are.

The ops of its signal library have no tensors for the samples that they keep between runs. Here such an op gets them as
its last inputs.
"""

from __future__ import annotations

import dataclasses

from tfkd.micro.graph import Graph
from tfkd.micro.lowering.frames import STATES
from tfkd.micro.lowering.layer import Unsupported


def add(graph: Graph) -> Graph:
    """Gives each op of `STATES` its states.

    Args:
        graph: A model.

    Returns:
        The graph, with the tensors of the states behind all others. An op that `lowering.lower` refuses may stay as it
        is.
    """
    tensors, ops = list(graph.tensors), []
    for op in graph.ops:
        try:
            states = STATES[op.kind](graph, op) if op.kind in STATES else []
        except (Unsupported, IndexError):
            states = []
        indices = range(len(tensors), len(tensors) + len(states))
        tensors += [
            dataclasses.replace(state, index=i, name=f"state of {graph.label(op)}")
            for i, state in zip(indices, states, strict=True)
        ]
        ops.append(dataclasses.replace(op, inputs=(*op.inputs, *indices)))
    return dataclasses.replace(graph, tensors=tuple(tensors), ops=tuple(ops))
