"""Weight gradients of narrow convolutions with a stride, in which oneDNN writes outside of its memory.

oneDNN, which TensorFlow uses on CPUs of x86-64, copies the pixels that a 1×1 convolution with a stride reads into a
workspace of pixels × channels values before it computes the gradient of the weights. A thread that begins inside an
image writes to `pixel · block` instead of `pixel · channels`, where the block is 16 channels with AVX-512 and 8 with
AVX2. With fewer channels than that the end of the copy lies behind the workspace: the process crashes, or the gradient
is wrong without a message. Whether a thread begins inside an image depends on the batch size, the size of the images
and the number of threads: batches of 64 images of 32 × 32 are right on 2 threads, batches of 49 or 1 are not.

The gradient needs no stride. With x' = x[:, ::s, ::s, :], the pixels that the convolution reads,

    dL/dw[i, o] = sum over n, h, w of x'[n, h, w, i] · dL/dy[n, h, w, o],

the gradient of a convolution without stride, for which oneDNN makes no copy.

Reference: https://github.com/uxlfoundation/oneDNN/issues/6035
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from tfkd._internal.types import Tensor

# The operation whose gradient is computed: a `tf.Operation`, or in eager mode TensorFlow's record of the call.
_Op: TypeAlias = Any
_Gradients: TypeAlias = "Callable[[_Op, Tensor], list[Tensor | None]]"

# From as many channels on oneDNN's copy of a source stays inside its workspace, on every processor.
_BLOCK = 16


@functools.cache
def correct() -> None:
    """Makes TensorFlow compute these gradients without a stride, in graphs that are traced from now on in this process.

    They are equal up to the order of a sum. Every other gradient stays as it is.
    """
    from tensorflow.python.framework import ops

    # TensorFlow has no public function that replaces a gradient.
    registered = ops.gradient_registry._registry
    for name, gradients in (
        ("Conv2D", _convolution),
        ("Conv2DBackpropInput", _transposed_convolution),
        ("DepthwiseConv2dNative", _depthwise_convolution),
    ):
        registered[name]["type"] = functools.partial(_gradients, gradients, registered[name]["type"])


def _gradients(corrected: _Gradients, original: _Gradients, op: _Op, gradient: Tensor) -> list[Tensor | None]:
    source = gradient if op.type == "Conv2DBackpropInput" else op.inputs[0]
    return (corrected if _is_concerned(op, source) else original)(op, gradient)


def _is_concerned(op: _Op, source: Tensor) -> bool:
    """Whether oneDNN copies the source of an op into a workspace that may be too small."""
    channels_first = op.get_attr("data_format") in (b"NCHW", "NCHW")
    channels, kernel = source.shape[1 if channels_first else -1], op.inputs[1].shape
    return (
        list(kernel[:2]) == [1, 1]
        and channels == kernel[2]  # a convolution of one group, the only one that is computed so
        and channels < (2 if op.type == "DepthwiseConv2dNative" else _BLOCK)
        and max(op.get_attr("strides")) > 1
        and not any(op.get_attr("explicit_paddings"))
    )


def _convolution(op: _Op, gradient: Tensor) -> list[Tensor | None]:
    import tensorflow as tf

    source, kernel = op.inputs
    of_source = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(source), filter=kernel, out_backprop=gradient, **_attributes(op)
    )
    return [of_source, _of_kernel(op, source, gradient)]


def _transposed_convolution(op: _Op, gradient: Tensor) -> list[Tensor | None]:
    import tensorflow as tf

    _, kernel, source = op.inputs
    of_source = tf.raw_ops.Conv2D(input=gradient, filter=kernel, **_attributes(op))
    return [None, _of_kernel(op, gradient, source), of_source]


def _depthwise_convolution(op: _Op, gradient: Tensor) -> list[Tensor | None]:
    import tensorflow as tf

    source, kernel = op.inputs
    of_source = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(source), filter=kernel, out_backprop=gradient, **_attributes(op)
    )
    return [of_source, _of_kernel(op, source, gradient)]


def _of_kernel(op: _Op, source: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a kernel [1, 1, I, O], from the input of the convolution and the gradient of its output.

    A padding of "SAME" adds nothing to the input of a 1×1 convolution, so that it is the same as "VALID".
    """
    import tensorflow as tf

    read = source[tuple(slice(None, None, stride) for stride in op.get_attr("strides"))]
    return tf.raw_ops.Conv2DBackpropFilter(
        input=read,
        filter_sizes=tf.shape(op.inputs[1]),
        out_backprop=gradient,
        strides=[1, 1, 1, 1],
        padding="VALID",
        data_format=op.get_attr("data_format"),
    )


def _attributes(op: _Op) -> dict[str, Any]:
    names = ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    return {name: op.get_attr(name) for name in names}
