"""Taps on inner layers, and adapters between features of unequal shapes."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops

from tfkd import losses
from tfkd._internal import keras_compat
from tfkd.errors import InputError


@dataclasses.dataclass(frozen=True)
class Feature:
    """A loss between an inner layer of the student and one of the teacher.

    Args:
        loss: a feature loss of `tfkd.losses`, such as `Hint()`.
        student: the student's layer: its name, or a path into nested models such as `backbone/conv4_block6_out`.
        teacher: the teacher's layer, likewise.
        weight: of the loss beside the soft and the hard loss; a number or a schedule over steps.
    """

    loss: losses.DistillationLoss
    student: str
    teacher: str
    weight: Any = 1.0


def find_layer(model: keras.Layer, path: str) -> keras.Layer:
    """The layer of a model with a given name or path.

    Args:
        model: functional, Sequential, nested or subclassed.
        path: names joined by `/`, from the model inwards; the last name alone suffices where no other layer bears it.

    Raises:
        ValueError: no layer, or more than one, of that name; the message lists the near ones.
    """
    layers = dict(layer_paths(model))
    if path in layers:
        return layers[path]
    ends = [full for full in layers if full.rsplit("/", 1)[-1] == path]
    if len(ends) == 1:
        return layers[ends[0]]
    near = ends or difflib.get_close_matches(path, layers, n=5, cutoff=0.4) or list(layers)[-5:]
    problem = "names several layers" if ends else "names no layer"
    raise InputError(
        f"features: a tap must be the name or path of one layer of {model.name!r}. Received: {path!r}, which "
        f"{problem}. Near: {', '.join(near)}."
    )


def layer_paths(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """The layers of a model and of those nested in it, each with its path."""
    for inner in keras_compat.inner_layers(layer, recursive=False):
        path = f"{prefix}{inner.name}"
        yield path, inner
        yield from layer_paths(inner, f"{path}/")


@contextlib.contextmanager
def tap(model: keras.Model, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Keeps the outputs of inner layers while the model runs.

    The hook sits on the layers' `call` and is gone afterwards, so it works in models of any kind, eagerly and while a
    graph is traced, and one forward pass gives the outputs and the features.

    Args:
        model: the model that is called within the block.
        paths: layers, see `find_layer`.

    Yields:
        A dictionary that holds, after the call, the output of each layer by path; of a layer called more than once the
        last.
    """
    seen: dict[str, Any] = {}
    hooked = []
    try:
        for path in dict.fromkeys(paths):
            layer = find_layer(model, path)
            original = layer.call

            def keep(*args: Any, path: str = path, original: Any = original, **kwargs: Any) -> Any:
                seen[path] = original(*args, **kwargs)
                return seen[path]

            hooked.append((layer, layer.__dict__.get("call")))
            layer.__dict__["call"] = keep
        yield seen
    finally:
        for layer, previous in reversed(hooked):
            if previous is None:
                del layer.__dict__["call"]
            else:
                layer.__dict__["call"] = previous


@keras.saving.register_keras_serializable(package="tfkd")
class Adapter(keras.layers.Layer):
    """Turns a student's feature into the shape of a teacher's.

    Positions are averaged where they shrink by a whole factor and resized bilinearly otherwise; a map becomes a vector
    by its mean; channels pass through a learned 1×1 convolution. What fits already is left alone.

    Args:
        shape: of the teacher's feature without the batch: (H, W, C), (T, C) or (C,).
        channels: whether channels are adapted too; False for losses that compare positions only.

    Call arguments:
        x: [B, H, W, C], [B, T, C] or [B, C].

    Returns:
        [B, *shape] float32.
    """

    def __init__(self, shape: tuple[int, ...], channels: bool = True, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.shape = tuple(shape)
        self.channels = channels
        self.project: keras.layers.Dense | None = None

    @classmethod
    def between(cls, student: Any, teacher: Any, aligns: str) -> Adapter:
        """The adapter for a loss that aligns `all` axes, `positions` only or `none`."""
        if aligns == "none":
            return cls(tuple(student), channels=False)
        return cls(tuple(teacher), channels=aligns == "all")

    def build(self, shape: tuple[int | None, ...]) -> None:
        if len(shape) - 1 < len(self.shape):
            raise InputError(
                f"Adapter: cannot make a map {self.shape} from a vector {tuple(shape[1:])}. "
                "Tap a layer of the student before its pooling."
            )
        if self.channels and shape[-1] != self.shape[-1]:
            # On the last axis a dense layer is a 1×1 convolution, for maps, sequences and vectors alike.
            self.project = keras.layers.Dense(self.shape[-1], use_bias=False, dtype="float32", name="project")
            self.project.build((None, shape[-1]))

    def call(self, x: Any) -> Any:
        x = ops.cast(x, "float32")
        if len(x.shape) - 1 > len(self.shape):
            x = ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
        for axis in range(1, len(self.shape)):
            x = _resize(x, axis, self.shape[axis - 1])
        return x if self.project is None else self.project(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape, "channels": self.channels}

    def describe(self) -> str:
        """In words, for the summary."""
        learned = f", 1×1 convolution of {self.project.count_params():,} parameters" if self.project else ""
        return f"as {self.shape}{learned}"


def with_teacher_head(
    student: keras.Model, student_layer: str, teacher: keras.Model, teacher_layer: str
) -> keras.Model:
    """A student that ends in the teacher's own classifier, frozen, as SimKD trains it.

    Args:
        student: functional, image to anything.
        student_layer: the last layer that is kept of it, [B, H, W, C] or [B, C].
        teacher: functional.
        teacher_layer: the layer before its head, of as many axes.

    Returns:
        A functional model of built-in layers: the student up to its layer, a 1×1 convolution with normalization named
        `projector`, and a copy of the teacher from its layer on. Tap `projector` and `teacher_layer`.

    Raises:
        ValueError: a layer does not exist, or the teacher's positions do not divide the student's.

    Reference:
        Chen et al.: Knowledge Distillation with the Reused Teacher Classifier (arXiv:2203.14001).
    """
    x, target = find_layer(student, student_layer).output, find_layer(teacher, teacher_layer).output
    ours, theirs = tuple(x.shape[1:]), tuple(target.shape[1:])
    if len(ours) != len(theirs) or any(a % b for a, b in zip(ours[:-1], theirs[:-1], strict=True)):
        raise InputError(
            f"with_teacher_head: the teacher's positions must divide the student's. Received: student {ours}, teacher "
            f"{theirs}. Tap an earlier layer of the student."
        )
    if len(ours) == 3:
        if ours[:-1] != theirs[:-1]:
            x = keras.layers.AveragePooling2D([a // b for a, b in zip(ours[:-1], theirs[:-1], strict=True)])(x)
        x = keras.layers.Conv2D(theirs[-1], 1, use_bias=False, name="projector_conv")(x)
    else:
        x = keras.layers.Dense(theirs[-1], use_bias=False, name="projector_dense")(x)
    x = keras.layers.BatchNormalization(name="projector_norm")(x)
    x = keras.layers.ReLU(name="projector")(x)
    head = keras.Model(target, teacher.output)
    copy = keras.models.clone_model(head)
    copy.set_weights(head.get_weights())
    copy.trainable = False
    inputs = student.inputs[0] if len(student.inputs) == 1 else student.inputs
    return keras.Model(inputs, copy(x), name=f"{student.name}_with_teacher_head")


def _resize(x: Any, axis: int, size: int | None) -> Any:
    """Resizes one axis of [B, ..., C] to `size`: the mean of blocks if it divides, else linear interpolation."""
    have = x.shape[axis]
    if size is None or have is None or have == size:
        return x
    if have % size == 0:
        shape = ops.shape(x)
        x = ops.reshape(x, (*shape[:axis], size, have // size, *shape[axis + 1 :]))
        return ops.mean(x, axis=axis + 1)
    # Corners stay corners, as in the attention maps that are compared.
    positions = [i * (have - 1) / max(size - 1, 1) for i in range(size)]
    low = [min(math.floor(p), have - 1) for p in positions]
    high = [min(i + 1, have - 1) for i in low]
    share = ops.reshape(
        ops.convert_to_tensor([p - i for p, i in zip(positions, low, strict=True)], "float32"),
        [size if i == axis else 1 for i in range(len(x.shape))],
    )
    return (1 - share) * ops.take(x, low, axis=axis) + share * ops.take(x, high, axis=axis)
