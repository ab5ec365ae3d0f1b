"""Options of custom ops, which their file holds as a map of FlexBuffers."""

from __future__ import annotations

from typing import Any

from flatbuffers import flexbuffers

from tfkd.micro.graph import Op
from tfkd.micro.lowering.layer import Unsupported


def custom_options(op: Op) -> Any:
    """The options of a custom op as they are; None for an op without any.

    Raises:
        Unsupported: The bytes are damaged.
    """
    content = op.options.get("CustomOptions", b"")
    if not content:
        return None
    try:
        return flexbuffers.GetRoot(content)
    except Exception as error:  # damaged bytes raise errors of many kinds
        raise damaged(error) from None


def settings(op: Op, **limits: tuple[int, int]) -> list[int]:
    """Integers of a custom op's options.

    Args:
        op: The op.
        limits: For each option its least and its largest value, both included.

    Raises:
        Unsupported: An option is missing, no integer, or outside its limits.
    """
    root, found = custom_options(op), []
    try:
        values: dict[str, Any] = root.AsMap.Value if root is not None and root.IsMap else {}
    except Exception as error:
        raise damaged(error) from None
    for name, (least, most) in limits.items():
        value = values.get(name)
        if not isinstance(value, int):
            raise Unsupported(f"its option {name} must be an integer, is {value}. The file is damaged")
        if not least <= value <= most:
            raise Unsupported(f"its option {name} must be in {least} ... {most}, is {value}. Convert the model again")
        found.append(int(value))
    return found


def damaged(error: Exception) -> Unsupported:
    """The error for options that cannot be read."""
    return Unsupported(f"its options cannot be read: {error}. The file is damaged")
