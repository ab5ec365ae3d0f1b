"""Random .tflite graphs around one op each, for the ops that the random graphs of `random_graph` do not have."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net
from tests.signal_ops import SIGNAL_MAKERS

COMPARISONS = ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")


class Ops(Net):
    """Adds ops with random options and values to a net; each method returns the index of an output."""

    behind = False  # whether images come from a convolution with dead channels instead of an input

    def input(self, shape: tuple[int, ...]) -> int:
        """Adds an input of the model, or what a convolution computes from one."""
        if not self.behind or len(shape) != 4:
            return super().input(shape)
        x = super().input((*shape[:3], self.random.randint(1, 4)))
        self.behind = False
        channels, inputs = shape[3], self.shape(x)[3]
        values = np.random.default_rng(self.random.getrandbits(32)).integers(-127, 128, (channels, 1, 1, inputs))
        values[[self.random.random() < 0.3 for _ in range(channels)]] = 0
        scale = self.scale(0.001, 0.03)
        weights = self.tensor(values.shape, "int8", values.astype("int8"), [scale], [0])
        options = schema.Conv2DOptionsT(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
        return self.op("CONV_2D", [x, weights, self.bias(x, [scale], channels)], [self.output(shape)], options)

    def shaped(self, least: int, most: int, largest: int = 6) -> int:
        """An input of the model with a random number of axes; the first axis, the batch, has size 1."""
        return self.input((1, *(self.random.randint(1, largest) for _ in range(self.random.randint(least, most) - 1))))

    def axes(self, x: int) -> list[int]:
        """Some axes of a tensor, from either end."""
        rank = len(self.shape(x))
        chosen = self.random.sample(range(rank), self.random.randint(1, rank))
        return [axis - rank if self.random.random() < 0.3 else axis for axis in chosen]

    def constant(self, shape: tuple[int, ...], **quantization: Any) -> int:
        """A constant of random values of the type of activations."""
        return self.tensor(shape, data=self.values(shape), **quantization)

    def bools(self, shape: tuple[int, ...]) -> int:
        """Adds a tensor of bool."""
        return self.tensor(shape, "bool")

    def partner(self, x: int) -> int:
        """A second operand: a constant that is broadcast, or the input itself under another scale."""
        shape = self.shape(x)
        if self.random.random() < 0.3:
            return self.op("QUANTIZE", [x], [self.output(shape)])
        sizes = tuple(d if self.random.random() < 0.6 else 1 for d in shape)
        return self.constant(sizes[self.random.randint(0, len(sizes) - 1) :])

    def reduced(self, x: int, axes: list[int], keep: bool) -> tuple[int, ...]:
        """The shape of a reduction."""
        shape = self.shape(x)
        axes = [axis % len(shape) for axis in axes]
        return tuple(1 if d in axes else n for d, n in enumerate(shape) if keep or d not in axes)

    def prelu(self) -> int:
        x = self.shaped(2, 4)
        shape = self.shape(x)
        sizes = self.random.choice([shape[1:], shape[-1:], shape, tuple(1 for _ in shape)])
        slopes = np.random.default_rng(self.random.getrandbits(32)).integers(-128, 128, sizes).astype("int8")
        zero = self.random.randint(-128, 127)
        slope = self.tensor(sizes, "int8", slopes, [self.scale(0.002, 0.02)], [zero])
        return self.op("PRELU", [x, slope], [self.output(shape)])

    def split_v(self) -> int:
        x = self.shaped(1, 5)
        shape = self.shape(x)
        axis = self.random.randrange(len(shape))
        cuts = sorted(self.random.sample(range(1, shape[axis]), min(shape[axis] - 1, self.random.randint(0, 3))))
        sizes = np.diff([0, *cuts, shape[axis]]).tolist()
        outs = [self.same(x, (*shape[:axis], size, *shape[axis + 1 :])) for size in sizes]
        signed = axis - len(shape) if self.random.random() < 0.3 else axis
        self.op("SPLIT_V", [x, self.ints(sizes), self.ints(signed)], outs, schema.SplitVOptionsT(numSplits=len(sizes)))
        return self.random.choice(outs)

    def extreme(self, kind: str) -> int:
        x = self.shaped(1, 5)
        axes, keep = self.axes(x), self.random.random() < 0.5
        out = self.same(x, self.reduced(x, axes, keep) or (1,))
        return self.op(kind, [x, self.ints(axes)], [out], schema.ReducerOptionsT(keepDims=keep))

    def mean(self, kind: str) -> int:
        x = self.shaped(1, 5, 5)
        axes, keep = self.axes(x), self.random.random() < 0.5
        out = self.output(self.reduced(x, axes, keep) or (1,))
        return self.op(kind, [x, self.ints(axes)], [out], schema.ReducerOptionsT(keepDims=keep))

    def reduce_all(self) -> int:
        x = self.shaped(2, 4, 3)
        shape, axes = self.shape(x), self.axes(x)
        above = self.comparison(x, "GREATER_EQUAL", self.constant(shape))
        out = self.bools(self.reduced(x, axes, True))
        self.op("REDUCE_ALL", [above, self.ints(axes)], [out], schema.ReducerOptionsT(keepDims=True))
        return self.op("SELECT_V2", [out, x, self.same_constant(x, shape)], [self.same(x, shape)])

    def same_constant(self, x: int, shape: tuple[int, ...]) -> int:
        """A constant with the quantization of a tensor."""
        step, zero = self.steps(x)
        return self.constant(shape, scales=[step], zero_points=[zero])

    def log_softmax(self) -> int:
        x = self.shaped(1, 4, 12)
        self.graph.tensors[x].quantization.scale = np.array([self.scale(0.005, 0.5)], "f4")
        out = self.tensor(self.shape(x), scales=[1 / 16], zero_points=[127])
        return self.op("LOG_SOFTMAX", [x], [out])

    def broadcast_to(self) -> int:
        x = self.input((1, *(self.random.choice([1, self.random.randint(2, 5)]) for _ in range(3))))
        shape = tuple(d if d > 1 else self.random.randint(1, 4) for d in self.shape(x))
        if self.random.random() < 0.3:
            shape = (self.random.randint(1, 3), *shape)
        return self.op("BROADCAST_TO", [x, self.ints(shape)], [self.same(x, shape)])

    def table(self, kind: str) -> int:
        x = self.shaped(1, 5)
        if kind == "RSQRT":
            self.graph.tensors[x].quantization.zeroPoint = np.array([-128], "i8")
        out = self.same(x, self.shape(x)) if self.random.random() < 0.2 else self.output(self.shape(x))
        return self.op(kind, [x], [out])

    def gather(self) -> int:
        x = self.shaped(2, 4)
        shape, numbers = self.shape(x), np.random.default_rng(self.random.getrandbits(32))
        axis = self.random.randrange(1, len(shape))
        batch = self.random.randint(0, min(axis, 1))
        lead = shape[:batch]
        sizes = (*lead, *(self.random.randint(1, 12) for _ in range(self.random.randint(1 - batch, 2))))
        at = self.ints(numbers.integers(0, shape[axis], sizes))
        out = self.same(x, (*shape[:axis], *sizes[batch:], *shape[axis + 1 :]))
        return self.op("GATHER", [x, at], [out], schema.GatherOptionsT(axis=axis, batchDims=batch))

    def gather_computed(self) -> int:
        """Rows whose numbers are the indices of the largest values."""
        x = self.shaped(3, 4)
        shape = self.shape(x)
        at = self.indices(x, "ARG_MAX", 1)  # one row number for each value of the other axes
        flat = self.tensor((math.prod(shape[2:]),), "int32")
        self.op("RESHAPE", [at, self.ints([-1])], [flat], schema.ReshapeOptionsT(newShape=[-1]))
        out = self.same(x, (1, math.prod(shape[2:]), *shape[2:]))
        return self.op("GATHER", [x, flat], [out], schema.GatherOptionsT(axis=1))

    def embedding(self) -> int:
        x = self.shaped(2, 3)
        at = self.indices(x, "ARG_MIN", 1)
        ids = self.tensor((math.prod(self.shape(at)),), "int32")
        self.op("RESHAPE", [at, self.ints([-1])], [ids], schema.ReshapeOptionsT(newShape=[-1]))
        rows = self.constant((self.shape(x)[1], 3))
        return self.op("EMBEDDING_LOOKUP", [ids, rows], [self.same(rows, (*self.shape(ids), 3))])

    def gather_nd(self) -> int:
        x = self.shaped(2, 4)
        shape, numbers = self.shape(x), np.random.default_rng(self.random.getrandbits(32))
        count = self.random.randint(1, len(shape))
        places = self.random.randint(1, 9)
        at = self.ints(np.stack([numbers.integers(0, d, places) for d in shape[:count]], axis=1))
        return self.op("GATHER_ND", [x, at], [self.same(x, (places, *shape[count:]))], schema.GatherNdOptionsT())

    def depth_to_space(self) -> int:
        block, c = self.random.randint(1, 3), self.random.randint(1, 3)
        h, w = self.random.randint(1, 4), self.random.randint(1, 4)
        x = self.input((1, h, w, block * block * c))
        out = self.same(x, (1, h * block, w * block, c))
        return self.op("DEPTH_TO_SPACE", [x], [out], schema.DepthToSpaceOptionsT(blockSize=block))

    def space_to_depth(self) -> int:
        block, c = self.random.randint(1, 3), self.random.randint(1, 3)
        h, w = self.random.randint(1, 4), self.random.randint(1, 4)
        x = self.input((1, h * block, w * block, c))
        out = self.same(x, (1, h, w, block * block * c))
        return self.op("SPACE_TO_DEPTH", [x], [out], schema.SpaceToDepthOptionsT(blockSize=block))

    def batches(self) -> int:
        """SPACE_TO_BATCH_ND and back; padding has a test of its own, since the interpreter does not set its value."""
        axes = self.random.randint(1, 2)
        blocks = [self.random.randint(1, 3) for _ in range(axes)]
        parts = [self.random.randint(1, 3) for _ in range(axes)]
        c, sizes = self.random.randint(1, 3), [b * n for b, n in zip(blocks, parts, strict=True)]
        x = self.input((1, *sizes, c))
        middle = self.same(x, (math.prod(blocks), *parts, c))
        self.op("SPACE_TO_BATCH_ND", [x, self.ints(blocks), self.ints([[0, 0]] * axes)], [middle])
        crops = [(self.random.randint(0, (n - 1) // 2), self.random.randint(0, (n - 1) // 2)) for n in sizes]
        if self.random.random() < 0.3:
            crops = [(0, 0)] * axes
        out = self.same(x, (1, *(n - a - b for n, (a, b) in zip(sizes, crops, strict=True)), c))
        return self.op("BATCH_TO_SPACE_ND", [middle, self.ints(blocks), self.ints(crops)], [out])

    def mirror_pad(self) -> int:
        x, mode = self.shaped(2, 4), self.random.randint(0, 1)
        limits = [d - 1 + mode for d in self.shape(x)]
        pads = [(self.random.randint(0, min(2, n)), self.random.randint(0, n)) for n in limits]
        out = self.same(x, tuple(d + a + b for d, (a, b) in zip(self.shape(x), pads, strict=True)))
        return self.op("MIRROR_PAD", [x, self.ints(pads)], [out], schema.MirrorPadOptionsT(mode=mode))

    def indices(self, x: int, kind: str, axis: int) -> int:
        """An ARG_MAX or an ARG_MIN."""
        shape = self.shape(x)
        out = self.tensor(shape[:axis] + shape[axis + 1 :], "int32")
        name = {"ARG_MAX": schema.ArgMaxOptionsT, "ARG_MIN": schema.ArgMinOptionsT}[kind]
        return self.op(kind, [x, self.ints([axis])], [out], name(outputType=schema.TensorType.INT32))

    def extreme_index(self, kind: str) -> int:
        x = self.shaped(2, 4)
        return self.cast(self.indices(x, kind, self.random.randrange(len(self.shape(x)))))

    def cast(self, x: int) -> int:
        """A CAST to the type of activations, on some seeds by way of another type."""
        shape = self.shape(x)
        for dtype in self.random.choice([[], ["int16"], ["int32"], ["int32", "int16"]]):
            out = self.tensor(shape, dtype)
            x = self.op("CAST", [x], [out], schema.CastOptionsT())
        return self.op("CAST", [x], [self.tensor(shape)], schema.CastOptionsT())

    def fill(self) -> int:
        """FILL with a constant, or with the mean of the input."""
        x = self.shaped(2, 3)
        value = self.same_constant(x, ())
        if self.random.random() < 0.5:
            axes = list(range(len(self.shape(x))))
            value = self.op("MEAN", [x, self.ints(axes)], [self.same(x, ())], schema.ReducerOptionsT())
        filled = self.op(
            "FILL", [self.ints(self.shape(x)), value], [self.same(x, self.shape(x))], schema.FillOptionsT()
        )
        return self.op("ADD", [x, filled], [self.output(self.shape(x))], schema.AddOptionsT())

    def zeros_like(self) -> int:
        x = self.shaped(1, 4)
        zeros = self.op("ZEROS_LIKE", [x], [self.same(x, self.shape(x))], schema.ZerosLikeOptionsT())
        return self.op("ADD", [x, zeros], [self.output(self.shape(x))], schema.AddOptionsT())

    def add_n(self) -> int:
        x = self.shaped(1, 4)
        others = [self.same_constant(x, self.shape(x)) for _ in range(self.random.randint(1, 3))]
        out = self.tensor(self.shape(x), scales=[self.steps(x)[0] * self.random.uniform(0.5, 4)], zero_points=[3])
        return self.op("ADD_N", [x, *others], [out], schema.AddNOptionsT())

    def squared_difference(self) -> int:
        x = self.shaped(1, 4)
        other, out = self.partner(x), self.output(self.shape(x))
        common = max(self.steps(x)[0], self.steps(other)[0])
        reach = 2 ** (8 if self.dtype == "int8" else 16)
        self.graph.tensors[out].quantization.scale = np.array([common**2 * reach * self.random.uniform(0.1, 1)], "f4")
        return self.op("SQUARED_DIFFERENCE", [x, other], [out], schema.SquaredDifferenceOptionsT())

    def division(self) -> int:
        """A DIV by numbers of 1 to 15 steps; the interpreter's shifts are undefined for smaller quotients."""
        x = self.shaped(1, 4)
        shape, numbers = self.shape(x), np.random.default_rng(self.random.getrandbits(32))
        divisors = numbers.integers(1, 16, shape[-1:]) * numbers.choice([-1, 1], shape[-1:])
        step = self.scale()
        zero = self.random.randint(-100, 100)
        other = self.tensor(shape[-1:], data=(divisors + zero).astype("int8"), scales=[step], zero_points=[zero])
        out = self.tensor(shape, scales=[self.steps(x)[0] / step / self.random.uniform(16, 40)], zero_points=[-3])
        options = schema.DivOptionsT(fusedActivationFunction=self.activation())
        return self.op("DIV", [x, other], [out], options)

    def comparison(self, x: int, kind: str, other: int) -> int:
        name = "".join(word.capitalize() for word in kind.split("_"))
        return self.op(kind, [x, other], [self.bools(self.shape(x))], getattr(schema, f"{name}OptionsT")())

    def compared(self, kind: str) -> int:
        x = self.shaped(1, 4)
        other = self.same_constant(x, self.shape(x)[-1:]) if kind in ("EQUAL", "NOT_EQUAL") else self.partner(x)
        return self.cast(self.comparison(x, kind, other))

    def compared_ids(self, x: int) -> int:
        """A comparison of int32 with constants that are broadcast."""
        ids = self.op("CAST", [x], [self.tensor(self.shape(x), "int32")], schema.CastOptionsT())
        limits = self.ints([self.random.randint(-99, 99) for _ in range(self.shape(x)[-1])])
        return self.comparison(ids, self.random.choice(COMPARISONS), limits)

    def logical(self, kind: str) -> int:
        """A logical op of comparisons, on some seeds of a column that is broadcast."""
        x = self.shaped(2, 4)
        shape, conditions = self.shape(x), [self.compared_ids(x)]
        if kind != "LOGICAL_NOT":
            other, column = self.compared_ids(x), (*shape[:-1], 1)
            if self.random.random() < 0.5:
                bounds = [self.ints([0] * len(shape)), self.ints(column), self.ints([1] * len(shape))]
                options = schema.StridedSliceOptionsT()
                other = self.op("STRIDED_SLICE", [other, *bounds], [self.bools(column)], options)
            conditions.append(other)
        name = "".join(word.capitalize() for word in kind.split("_"))
        return self.cast(self.op(kind, conditions, [self.bools(shape)], getattr(schema, f"{name}OptionsT")()))

    def select(self) -> int:
        x = self.shaped(2, 4)
        shape = self.shape(x)
        narrow = x if self.dtype == "int8" else self.op("QUANTIZE", [x], [self.tensor(shape, "int8")])
        limit = self.tensor((1,), "int8", np.array([self.random.randint(-99, 99)], "int8"))
        condition = self.comparison(narrow, "LESS", limit)
        other = self.same_constant(x, self.random.choice([shape, shape[-1:], (1,)]))
        pair = [x, other] if self.random.random() < 0.5 else [other, x]
        return self.op("SELECT_V2", [condition, *pair], [self.same(x, shape)], schema.SelectV2OptionsT())

    def cumulative_sum(self) -> int:
        x = self.shaped(1, 4)
        axis = self.random.randrange(len(self.shape(x)))
        options = schema.CumsumOptionsT(exclusive=self.random.random() < 0.5, reverse=self.random.random() < 0.5)
        return self.op("CUMSUM", [x, self.ints([axis])], [self.output(self.shape(x))], options)

    def l2_normalization(self) -> int:
        x = self.shaped(2, 4, 20)
        out = self.tensor(self.shape(x), scales=[1 / 128], zero_points=[0])
        return self.op("L2_NORMALIZATION", [x], [out], schema.L2NormOptionsT())

    def update_slice(self) -> int:
        x = self.shaped(2, 4)
        shape = self.shape(x)
        part = tuple(self.random.randint(1, d) for d in shape)
        starts = self.ints([self.random.randint(-1, d) for d in shape])
        rank, count = len(shape), math.prod(shape)
        if self.dtype == "int8" and count % rank == 0:  # places computed from the input
            rows = self.same(x, (rank, count // rank))
            options = schema.ReshapeOptionsT(newShape=[*self.shape(rows)])
            self.op("RESHAPE", [x, self.ints(self.shape(rows))], [rows], options)
            starts = self.indices(rows, "ARG_MAX", 1)
        inputs = [x, self.same_constant(x, part), starts]
        return self.op("DYNAMIC_UPDATE_SLICE", inputs, [self.same(x, shape)], schema.DynamicUpdateSliceOptionsT())


# For each op a function that adds it, with what it needs around it, and returns the output.
MAKERS: dict[str, Callable[[Ops], int]] = {
    "ADD_N": Ops.add_n, "BATCH_TO_SPACE_ND": Ops.batches, "BROADCAST_TO": Ops.broadcast_to, "CAST": Ops.gather_computed,
    "CUMSUM": Ops.cumulative_sum, "DEPTH_TO_SPACE": Ops.depth_to_space, "DIV": Ops.division,
    "DYNAMIC_UPDATE_SLICE": Ops.update_slice, "EMBEDDING_LOOKUP": Ops.embedding, "FILL": Ops.fill, "GATHER": Ops.gather,
    "GATHER_ND": Ops.gather_nd, "L2_NORMALIZATION": Ops.l2_normalization, "LOG_SOFTMAX": Ops.log_softmax,
    "MIRROR_PAD": Ops.mirror_pad, "PRELU": Ops.prelu, "REDUCE_ALL": Ops.reduce_all, "SELECT_V2": Ops.select,
    "SPACE_TO_BATCH_ND": Ops.batches, "SPACE_TO_DEPTH": Ops.space_to_depth, "SPLIT_V": Ops.split_v,
    "SQUARED_DIFFERENCE": Ops.squared_difference, "ZEROS_LIKE": Ops.zeros_like,
    **SIGNAL_MAKERS,
    **{kind: functools.partial(Ops.table, kind=kind) for kind in ("ABS", "ELU", "RSQRT")},
    **{kind: functools.partial(Ops.compared, kind=kind) for kind in COMPARISONS},
    **{kind: functools.partial(Ops.extreme, kind=kind) for kind in ("REDUCE_MAX", "REDUCE_MIN")},
    **{kind: functools.partial(Ops.extreme_index, kind=kind) for kind in ("ARG_MAX", "ARG_MIN")},
    **{kind: functools.partial(Ops.logical, kind=kind) for kind in ("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR")},
    **{kind: functools.partial(Ops.mean, kind=kind) for kind in ("MEAN", "SUM")},
}  # fmt: skip
# Those of them that TensorFlow Lite Micro computes with int16 too.
WIDE = (
    "ABS",
    "BROADCAST_TO",
    "DYNAMIC_UPDATE_SLICE",
    "MEAN",
    "PRELU",
    "SELECT_V2",
    "SPLIT_V",
    "SQUARED_DIFFERENCE",
    "SUM",
)


def op_net(kind: str, seed: int, dtype: str = "int8") -> bytes:
    """A graph with an op of a kind, on some seeds between convolutions or before an activation function."""
    made = Ops(random.Random(f"{kind} {seed}"), dtype, kernel=3)
    made.behind = made.random.random() < 0.5
    out = MAKERS[kind](made)
    shape = made.shape(out)
    if dtype == "int8" and made.random.random() < 0.5:
        image = len(shape) == 4 and shape[0] == 1
        out = made.convolution(out) if image and made.random.random() < 0.5 else made.unary(out)
    return made.bytes(out)


def all_ops(seed: int) -> bytes:
    """One graph with each op, all of them with inputs and an output [1, n] of their own."""
    made, outputs = Ops(random.Random(seed)), []
    for maker in MAKERS.values():
        out = maker(made)
        flat = (1, math.prod(made.shape(out)))
        options = schema.ReshapeOptionsT(newShape=[*flat])
        outputs.append(made.op("RESHAPE", [out, made.ints(flat)], [made.same(out, flat)], options))
    return made.bytes(*outputs)
