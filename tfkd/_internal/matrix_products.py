"""Products of matrices with one right side for all, in which oneDNN writes outside of its memory.

TensorFlow computes a product of x [B, 1, M, K] and y [K, N], [1, K, N] or [1, 1, K, N] by oneDNN on CPUs of x86-64.
With B > 1 the process crashes, at once or where memory is freed later. Other ranks, and a size other than 1 in the
second place, are right. The product needs no such shape: with x' of shape [B · 1, M, K], x' y is a product of rank 3.

Reference: https://github.com/tensorflow/tensorflow/issues/117700
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from tfkd._internal.types import Tensor


@functools.cache
def correct() -> None:
    """Makes `tf.matmul` and its gradients compute these products in rank 3 from now on in this process.

    The results are the same. Every other product stays as it is, and so do those of `tf.raw_ops` and of the graphs of a
    SavedModel.
    """
    from tensorflow.python.ops import gen_math_ops

    for name in ("batch_mat_mul_v2", "batch_mat_mul_v3"):
        setattr(gen_math_ops, name, functools.partial(_product, getattr(gen_math_ops, name)))


def _product(original: Callable[..., Tensor], x: Tensor, y: Tensor, *args: object, **options: object) -> Tensor:
    if not _is_concerned(x, y):
        return original(x, y, *args, **options)
    import tensorflow as tf

    flat = original(tf.reshape(x, (-1, *_sizes(x)[2:])), tf.reshape(y, _sizes(y)[y.shape.rank - 2 :]), *args, **options)
    return tf.reshape(flat, (*_sizes(x)[:2], *_sizes(flat)[1:]))


def _is_concerned(x: Tensor, y: Tensor) -> bool:
    """Whether oneDNN may compute the product of two tensors wrongly."""
    if x.shape.rank != 4 or x.shape[0] == 1 or x.shape[1] not in (1, None):
        return False
    return y.shape.rank is not None and all(size == 1 for size in y.shape[:-2])


def _sizes(tensor: Tensor) -> list[Tensor]:
    """The sizes of a tensor, as tensors where they are open."""
    import tensorflow as tf

    return [tf.shape(tensor)[axis] if size is None else size for axis, size in enumerate(tensor.shape)]
