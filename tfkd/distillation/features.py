"""Outputs of inner layers, and adapters between features of different shapes."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Iterator

import keras
from keras import ops

from tfkd import losses
from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Tensor
from tfkd.errors import InputError
from tfkd.losses.loss import Setting


@dataclasses.dataclass(frozen=True)
class Feature:
    """A loss between an inner layer of the student and one of the teacher.

    Args:
        loss: Feature loss of `tfkd.losses`, such as `Hint()`.
        student: Name of the student's layer, or its path into nested models such as `backbone/conv4_block6_out`; with
            `/scores` after the name of an attention layer its probabilities, [B, heads, T, S].
        teacher: Name or path of the teacher's layer.
        weight: Factor of this loss in the total loss; a number or a schedule over steps.
    """

    loss: losses.DistillationLoss
    student: str
    teacher: str
    weight: Setting = 1.0


def find_layer(model: keras.Layer, path: str) -> keras.Layer:
    """The layer of a model with a given name or path.

    Args:
        model: Functional, Sequential, nested or subclassed model.
        path: Names joined by `/`, from the outermost model inwards; the last name is enough if it is unique.

    Returns:
        The layer.

    Raises:
        InputError: No layer, or more than one, has that name; the message lists similar names.
    """
    layers = dict(layer_paths(model))
    if path in layers:
        return layers[path]
    namesakes = [full for full in layers if full.rsplit("/", 1)[-1] == path]
    if len(namesakes) == 1:
        return layers[namesakes[0]]
    similar = namesakes or difflib.get_close_matches(path, layers, n=5, cutoff=0.4) or list(layers)[-5:]
    raise InputError(
        f"features: {path!r} must be the name or path of one layer of {model.name!r}. Received: the name of "
        f"{'several layers' if namesakes else 'no layer'}. Use one of {', '.join(similar)}."
    )


# The feature of an attention layer that is no output of a layer, after its name.
_SCORES = "/scores"


def _with_scores(model: keras.Model, path: str) -> tuple[keras.Layer, bool]:
    """The layer of a feature, and whether the feature is the probabilities of its attention."""
    if path.endswith(_SCORES):
        layer = find_layer(model, path.removesuffix(_SCORES))
        if isinstance(layer, (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)):
            return layer, True
    return find_layer(model, path), False


def check_path(model: keras.Model, path: str) -> None:
    """Refuses a feature that a model does not have.

    Raises:
        InputError: See `find_layer`.
    """
    _with_scores(model, path)


def layer_paths(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Yields the layers of a model and of the models nested in it, each with its path.

    Args:
        layer: Model or layer to search.
        prefix: Path of `layer`, with a `/` at its end.
    """
    for inner in keras_compat.inner_layers(layer, recursive=False):
        path = f"{prefix}{inner.name}"
        yield path, inner
        yield from layer_paths(inner, f"{path}/")


@contextlib.contextmanager
def tap(model: keras.Model, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Records the outputs of inner layers while the model runs.

    The `call` method of each layer is replaced within the block. This works in functional, Sequential and subclassed
    models, eagerly and while a graph is traced, and needs no second forward pass.

    Args:
        model: Model that is called within the block.
        paths: Layers, see `find_layer`.

    Yields:
        A dictionary that has, after the call, the output of each layer by path; of a layer that is called several times
        the last output.

    Raises:
        InputError: A layer does not exist, or several have the name.
    """
    seen: dict[str, Tensor] = {}
    hooked = []
    try:
        for path in dict.fromkeys(paths):
            layer, scores = _with_scores(model, path)
            original = layer.call

            def keep(
                *args: object,
                path: str = path,
                original: Callable[..., Nest] = original,
                scores: bool = scores,
                **kwargs: object,
            ) -> Nest:
                both = kwargs.get("return_attention_scores", False)
                found = original(*args, **(kwargs | {"return_attention_scores": True} if scores else kwargs))
                seen[path] = found[1] if scores else found[0] if both else found
                return found[0] if scores and not both else found

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
    """Changes a student's feature to the shape of a teacher's feature.

    A spatial axis that shrinks by a whole factor is averaged in blocks, otherwise resized linearly; a map becomes a
    vector by its mean over the positions; the number of channels is changed by a trained 1×1 convolution. Axes of equal
    size are not changed.

    Args:
        shape: Shape of the teacher's feature without the batch: (H, W, C), (T, C) or (C,).
        channels: Whether the number of channels is changed too; False for losses that compare positions only.

    Call arguments:
        x: Student's feature [B, H, W, C], [B, T, C] or [B, C].

    Returns:
        float32 tensor `[B, *shape]`.

    Raises:
        InputError: The teacher's feature has more axes than the student's.
    """

    def __init__(self, shape: tuple[int, ...], channels: bool = True, **kwargs: object) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.shape = tuple(shape)
        self.channels = channels
        self.project: keras.layers.Dense | None = None

    @classmethod
    def between(cls, student: keras.Model, teacher: keras.Model, aligns: str) -> Adapter:
        """The adapter between two features.

        Args:
            student: Shape of the student's feature without the batch.
            teacher: Shape of the teacher's feature without the batch.
            aligns: Axes that the loss needs to be equal: `all`, `positions` or `none`.
        """
        if aligns == "none":
            return cls(tuple(student), channels=False)
        return cls(tuple(teacher), channels=aligns == "all")

    def build(self, shape: tuple[int | None, ...]) -> None:
        if len(shape) - 1 < len(self.shape):
            raise InputError(
                f"Adapter: cannot change a feature of shape {tuple(shape[1:])} to shape {self.shape}. "
                "Use a layer of the student before its pooling."
            )
        if self.channels and shape[-1] != self.shape[-1]:
            # On the last axis a dense layer is a 1×1 convolution, for maps, sequences and vectors alike.
            self.project = keras.layers.Dense(self.shape[-1], use_bias=False, dtype="float32", name="project")
            self.project.build((None, shape[-1]))

    def call(self, x: Tensor) -> Tensor:
        x = ops.cast(x, "float32")
        if len(x.shape) - 1 > len(self.shape):
            x = ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
        for axis in range(1, len(self.shape)):
            x = _resize(x, axis, self.shape[axis - 1])
        return x if self.project is None else self.project(x)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "shape": self.shape, "channels": self.channels}

    def describe(self) -> str:
        """One phrase for the summary of a Distiller."""
        convolution = f", 1×1 convolution of {self.project.count_params():,} parameters" if self.project else ""
        return f"as {self.shape}{convolution}"


def with_teacher_head(
    student: keras.Model, student_layer: str, teacher: keras.Model, teacher_layer: str
) -> keras.Model:
    """A student with the frozen classifier of its teacher, as in SimKD.

    Args:
        student: Functional model.
        student_layer: Last layer of the student that is used, with output [B, H, W, C] or [B, C].
        teacher: Functional model.
        teacher_layer: Layer before the classifier of the teacher, whose output has as many axes.

    Returns:
        A functional model of built-in layers: the student up to its layer, a 1×1 convolution with batch normalization
        and ReLU named `projector`, and a frozen copy of the teacher after its layer. Train it with a `Feature` between
        `projector` and `teacher_layer`.

    Raises:
        InputError: A layer does not exist, or the student's height and width are not multiples of the teacher's.

    Reference:
        Chen et al.: Knowledge Distillation with the Reused Teacher Classifier (arXiv:2203.14001), section 3.2.
    """
    x, target = find_layer(student, student_layer).output, find_layer(teacher, teacher_layer).output
    (*positions, _), (*target_positions, channels) = x.shape[1:], target.shape[1:]
    if len(positions) != len(target_positions) or any(a % b for a, b in zip(positions, target_positions, strict=True)):
        raise InputError(
            f"with_teacher_head: height and width of the student must be multiples of the teacher's. Received: student "
            f"{tuple(x.shape[1:])}, teacher {tuple(target.shape[1:])}. Use an earlier layer of the student."
        )
    if len(positions) == 2:
        if positions != target_positions:
            x = keras.layers.AveragePooling2D([a // b for a, b in zip(positions, target_positions, strict=True)])(x)
        x = keras.layers.Conv2D(channels, 1, use_bias=False, name="projector_conv")(x)
    else:
        x = keras.layers.Dense(channels, use_bias=False, name="projector_dense")(x)
    x = keras.layers.BatchNormalization(name="projector_norm")(x)
    x = keras.layers.ReLU(name="projector")(x)
    head = keras.Model(target, teacher.output)
    copy = keras.models.clone_model(head)
    copy.set_weights(head.get_weights())
    copy.trainable = False
    inputs = student.inputs[0] if len(student.inputs) == 1 else student.inputs
    return keras.Model(inputs, copy(x), name=f"{student.name}_with_teacher_head")


def _resize(x: Tensor, axis: int, size: int | None) -> Tensor:
    """Resizes one axis of [B, ..., C] to `size`: the mean of blocks if it divides, else linear interpolation."""
    old_size = x.shape[axis]
    if size is None or old_size is None or old_size == size:
        return x
    if old_size % size == 0:
        shape = ops.shape(x)
        x = ops.reshape(x, (*shape[:axis], size, old_size // size, *shape[axis + 1 :]))
        return ops.mean(x, axis=axis + 1)
    # The first and last positions are kept (align_corners). Output i lies at p = i (old - 1) / (new - 1), between the
    # inputs low = floor(p) and high = low + 1, with the share p - low of high. Example, 4 -> 3: p = 0, 1.5, 3.
    positions = [i * (old_size - 1) / max(size - 1, 1) for i in range(size)]
    low = [min(math.floor(p), old_size - 1) for p in positions]
    high = [min(i + 1, old_size - 1) for i in low]
    share = ops.reshape(
        ops.convert_to_tensor([p - i for p, i in zip(positions, low, strict=True)], "float32"),
        [size if i == axis else 1 for i in range(len(x.shape))],
    )
    return (1 - share) * ops.take(x, low, axis=axis) + share * ops.take(x, high, axis=axis)
