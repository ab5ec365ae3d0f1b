"""Checks of the arguments of builders."""

from __future__ import annotations

from tfkd.errors import InputError


def check(where: str, input_shape: tuple[int, ...], num_classes: int, axes: tuple[str, ...]) -> None:
    """Checks the shape of a sample and the number of outputs.

    Args:
        where: Name of the builder, for messages.
        input_shape: Shape of one sample.
        num_classes: Number of outputs.
        axes: Names of the axes that the builder needs.

    Raises:
        InputError: The shape has other axes, or a size or the number of outputs is < 1.
    """
    if len(input_shape) != len(axes) or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise InputError(
            f"{where}: input_shape must be ({', '.join(axes)}), integers > 0. Received: {tuple(input_shape)}. "
            f"Use the input_shape of a split."
        )
    if num_classes < 1:
        raise InputError(f"{where}: num_classes must be >= 1. Received: {num_classes}. Use the num_classes of a split.")


def check_positive(where: str, **values: float) -> None:
    """Checks that other arguments are > 0.

    Raises:
        InputError: One is not.
    """
    for name, value in values.items():
        if value <= 0:
            raise InputError(f"{where}: {name} must be > 0. Received: {name}={value}. Leave it out for the default.")
