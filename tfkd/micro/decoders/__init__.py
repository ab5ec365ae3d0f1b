"""C that finds objects in the raw outputs of a model.

Each decoder computes what the decoder of its task in Python computes from the same integers, in float32 instead of
float64: probabilities agree within 1e-6. Nothing is allocated; results go to an array of the caller.
"""

from __future__ import annotations

from tfkd.errors import ModelError
from tfkd.micro.c_context import CTYPES
from tfkd.micro.emitter import Program
from tfkd.micro.rendering import rendered
from tfkd.tasks import anchors


def files(program: Program, decoder: str) -> dict[str, str]:
    """The files `<name>_decode.h` and `<name>_decode.c`.

    Args:
        program: The program whose only output is decoded.
        decoder: One of `NAMES`.

    Raises:
        ModelError: The program has several outputs, or one of another shape or without a scale.
    """
    if len(program.outputs) != 1:
        raise ModelError(
            f"export-c: decode needs a model with one output. Received: {len(program.outputs)}. Leave the option out."
        )
    tensor = program.outputs[0].tensor
    if not tensor.scales:
        raise ModelError(
            f"export-c: decode needs an output with a scale. Received: {tensor.dtype} without one. Leave the option "
            "out."
        )
    shape = tuple(tensor.shape[1:])
    variables = {
        "name": program.name,
        "upper": program.name.upper(),
        "tensor": tensor,
        "value": CTYPES[tensor.dtype],
        "shape": shape,
        **_DECODERS[decoder](program, shape),
    }
    kinds = {"h": f"{decoder}_header.jinja", "c": f"{decoder}.jinja"}
    return {
        f"{program.name}_decode.{end}": rendered(__package__, template, variables) for end, template in kinds.items()
    }


def _grid(program: Program, shape: tuple[int, ...]) -> dict[str, object]:
    """Centres of objects from the logits of cells, see `tfkd.tasks.grid`."""
    if len(shape) != 3 or shape[2] < 2:
        raise _other_shape("grid", "[rows, columns, 1 + classes]", shape)
    return {}


def _ssd(program: Program, shape: tuple[int, ...]) -> dict[str, object]:
    """Boxes from the offsets and logits of anchors, see `tfkd.tasks.anchors`."""
    images = [one.tensor.shape[1:] for one in program.inputs if len(one.tensor.shape) == 4]
    strides = anchors.strides_of(images[0], shape[0]) if len(images) == 1 and len(shape) == 2 else None
    if strides is None or shape[1] < 5:
        raise _other_shape(
            "ssd",
            f"[anchors, 4 + classes] of one image, with the anchors of one of the strides {anchors.STRIDES}",
            shape,
        )
    layout, levels, first = anchors.of(*images[0][:2], strides), [], 0
    per_cell = len(anchors.RATIOS)
    for stride in strides:
        rows, columns = (-(-side // stride) for side in images[0][:2])
        sizes = ", ".join(f"{{{wide!r}f, {high!r}f}}" for wide, high in layout[first : first + per_cell, 2:].tolist())
        levels.append((rows, columns, sizes))
        first += rows * columns * per_cell
    return {"anchors": anchors, "levels": levels, "per_cell": per_cell}


_DECODERS = {"grid": _grid, "ssd": _ssd}
NAMES = tuple(_DECODERS)


def _other_shape(decoder: str, expected: str, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"export-c: the decoder {decoder} takes an output {expected}. Received: {list(shape)}. Leave the option out."
    )
