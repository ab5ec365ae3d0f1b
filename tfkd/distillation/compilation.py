"""The choice of compiler for a training step."""

from __future__ import annotations

import logging
from typing import Literal

import tensorflow as tf

log = logging.getLogger("tfkd")


def jit_by_device() -> Literal["auto", False]:
    """The value of `jit_compile` for this machine.

    Returns:
        `"auto"`, which leaves the choice to Keras, where there is a GPU or TPU; False on a CPU, where XLA is slower for
        convolutional networks.
    """
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        log.info("XLA is left to Keras.")
        return "auto"
    log.info("XLA is off: there is no GPU or TPU.")
    return False
