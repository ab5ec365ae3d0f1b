"""Layers that run by rows against TensorFlow Lite Micro's interpreter, bit for bit, and what they save."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net, samples
from tests.test_micro import native
from tfkd import child, firmware, micro, targets
from tfkd.micro import memory_plan, streaming
from tfkd.micro.elimination import eliminate
from tfkd.micro.emitter import emit
from tfkd.micro.graph import read
from tfkd.micro.lowering import lower
from tfkd.micro.merging import merge
from tfkd.micro.padding import fold_padding
from tfkd.micro.placement import Chain
from tfkd.tflite import TFLiteModel


def chain(seed: int) -> bytes:
    """A random graph of two to six convolutions, pools and others; often one more op reads what lies in between."""
    made = Net(random.Random(seed), kernel=5)
    x = made.input((1, made.random.randint(8, 28), made.random.randint(1, 14), made.random.randint(1, 6)))
    between = [x]
    for _ in range(made.random.randint(2, 6)):
        if made.random.random() < 0.15:
            x = padded(made, x)
        kinds = [made.convolution] * 8 + [made.pool] * 2 + [made.unary, made.binary]
        x = made.random.choice(kinds)(x)
        between.append(x)
    if made.random.random() < 0.5:
        x = joined(made, x, made.random.choice(between))
    return made.bytes(x)


def padded(made: Net, x: int) -> int:
    amounts = [(0, 0), *((made.random.randint(0, 2), made.random.randint(0, 2)) for _ in range(2)), (0, 0)]
    shape = tuple(d + a + b for d, (a, b) in zip(made.shape(x), amounts, strict=True))
    return made.op("PAD", [x, made.ints(amounts)], [made.same(x, shape)], schema.PadOptionsT())


def joined(made: Net, first: int, second: int) -> int:
    """The values of two tensors one after the other, so that each of them counts."""
    flat = []
    for x in (first, second):
        shape = made.shape(x)
        x = made.op("QUANTIZE", [x], [made.tensor(shape, scales=[0.1], zero_points=[3])])
        size = (1, int(np.prod(shape)))
        options = schema.ReshapeOptionsT(newShape=size)
        flat.append(made.op("RESHAPE", [x, made.ints(size)], [made.same(x, size)], options))
    out = made.same(flat[0], (1, made.shape(flat[0])[1] + made.shape(flat[1])[1]))
    return made.op("CONCATENATION", flat, [out], schema.ConcatenationOptionsT(axis=1))


def streamed(content: bytes, name: str, seed: int) -> tuple[micro.Program, tuple[Chain, ...]]:
    """A program with random chains, whether they pay or not; every third for size."""
    graph = fold_padding(read(TFLiteModel.load(content)))
    graph, elimination = eliminate(graph, lower(graph)[0])
    layers, aliases = lower(graph)
    numbers, chains, after = random.Random(seed), [], 0
    found = [one for ending in streaming.options(graph, layers, aliases) for one, _ in ending]
    numbers.shuffle(found)
    found.sort(key=lambda one: (one.first, -len(one.windows) if seed % 2 else 0))
    for one in found:
        if one.first >= after and numbers.random() < 0.6:
            chains.append(one)
            after = one.last + 1
    layers = merge(layers) if seed % 3 == 0 else layers
    return emit(graph, layers, aliases, name, elimination, chains), tuple(chains)


@pytest.mark.parametrize("part", range(2))
def test_random_chains_give_the_bits_of_tflite_micro(part: int, tmp_path: Path) -> None:
    seeds = range(part * 100, part * 100 + 100)
    models = [chain(seed) for seed in seeds]
    inputs = [samples(content, 2, seed) for seed, content in zip(seeds, models, strict=True)]
    expected = child.run("tests.test_micro:interpret", models=models, inputs=inputs, timeout_s=300,
                         what="running random chains on tflm")  # fmt: skip
    programs, used, chains = [], [], []
    for seed, content, rows in zip(seeds, models, expected, strict=True):
        if rows.size:
            program, found = streamed(content, f"n{seed}", seed)
            programs.append(program), used.append(seed - seeds[0]), chains.extend(found)
    assert len(used) >= 90
    assert sum(len(one.windows) > 1 for one in chains) > 30
    assert sum(len(one.windows) > 2 for one in chains) > 8
    assert sum(one.lag is not None for one in chains) > 30
    got = native(tmp_path, programs, [inputs[i] for i in used])
    assert not [seeds[i] for i, rows in zip(used, got, strict=True) if not np.array_equal(rows, expected[i])]
