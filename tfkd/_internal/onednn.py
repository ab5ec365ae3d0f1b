"""Corrections of what oneDNN, which TensorFlow uses on CPUs of x86-64, computes outside of its memory."""

from __future__ import annotations

from tfkd._internal import convolution_gradients, matrix_products


def correct() -> None:
    """Corrects gradients of convolutions and products of matrices from now on in this process."""
    convolution_gradients.correct()
    matrix_products.correct()
