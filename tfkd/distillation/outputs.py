"""How each output of a student is trained: one output is the usual case, several are a list of the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras

from tfkd import losses, tasks
from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Tensor
from tfkd.distillation import arguments, inputs
from tfkd.distillation.labels.store import SoftLabels
from tfkd.distillation.reduction import total, weighted_mean
from tfkd.errors import InputError, ModelError
from tfkd.losses.loss import Setting
from tfkd.models import logits, outputs
from tfkd.tasks import Task

# What a student learns from: models, or stored outputs of a teacher by the name of the output.
Teachers = Sequence[keras.Model] | Mapping[str, SoftLabels]


@dataclasses.dataclass(frozen=True)
class Output:
    """How one output of a student is trained.

    Args:
        name: Name of the output.
        task: What its values are.
        alpha: Weight of the soft loss, 0..1 or a schedule; 0 without a soft loss.
        soft_losses: Loss of each teacher; empty without a soft loss.
        teacher_weights: Weight of each teacher in the soft loss.
        sources: Number of the output among those of each teacher.
    """

    name: str
    task: Task
    alpha: Setting
    soft_losses: tuple[losses.DistillationLoss, ...] = ()
    teacher_weights: tuple[float, ...] = ()
    sources: tuple[int, ...] = ()

    @property
    def used_soft_losses(self) -> tuple[losses.DistillationLoss, ...]:
        """The soft losses that are part of the loss."""
        return () if self.alpha == 0 else self.soft_losses

    def soft_loss(
        self,
        teacher_outputs: Sequence[Sequence[Tensor]],
        student_output: Tensor,
        y: Tensor | None,
        sample_weight: Tensor | None,
        step: Tensor,
    ) -> Tensor | None:
        """The mean soft loss of a batch; None without a soft loss.

        Args:
            teacher_outputs: All outputs of each teacher.
            student_output: This output [B, ..., C].
            y: Labels of the output, or None.
            sample_weight: Weights of the samples, or None.
            step: Training step.
        """
        if not self.soft_losses:
            return None
        terms = [
            weight * loss(of_teacher[source], student_output, y, step=step)
            for of_teacher, source, loss, weight in zip(
                teacher_outputs, self.sources, self.soft_losses, self.teacher_weights, strict=True
            )
        ]
        counted = None if y is None else self.task.counts(y)
        return weighted_mean(sum(terms[1:], terms[0]), student_output, sample_weight, counted)

    def total(self, soft_loss: Tensor | None, hard_loss: Tensor | None, step: Tensor) -> Tensor | None:
        """The loss `alpha · soft_loss + (1 − alpha) · hard_loss`; None for an output that is not trained."""
        # A term of weight 0 is left out rather than multiplied: 0 · inf is NaN.
        if self.alpha == 0:
            return hard_loss
        if self.alpha == 1:
            return soft_loss
        assert soft_loss is not None
        assert hard_loss is not None  # otherwise `Outputs.check_labels` has raised
        alpha = losses.value_at(self.alpha, step)
        return alpha * soft_loss + (1 - alpha) * hard_loss


class Outputs:
    """The outputs of a student, in the order of `keras.tree.flatten`, and how each is trained.

    Args:
        of_each: One `Output` for each output.
    """

    def __init__(self, of_each: Sequence[Output]) -> None:
        self.of_each = list(of_each)
        self.names = [output.name for output in of_each]
        self.hard_losses: list[Nest] = [None] * len(of_each)
        self.weights = [1.0] * len(of_each)

    def __len__(self) -> int:
        return len(self.of_each)

    @property
    def soft_losses(self) -> list[losses.DistillationLoss]:
        """The soft losses of all outputs and teachers."""
        return [loss for output in self.of_each for loss in output.soft_losses]

    @property
    def used_soft_losses(self) -> list[losses.DistillationLoss]:
        """The soft losses that are part of the loss."""
        return [loss for output in self.of_each if output.alpha != 0 for loss in output.soft_losses]

    def compile(self, loss: Nest, weights: Nest) -> None:
        """Takes the arguments `loss` and `loss_weights` of `keras.Model.compile`.

        Raises:
            InputError: They are not those of the outputs, or a loss does not fit the soft loss of its output.
        """
        self.hard_losses = outputs.by_name(self.names, loss, "loss")
        self.weights = arguments.check_weights(self.names, weights)
        for output, one in zip(self.of_each, self.hard_losses, strict=True):
            if output.soft_losses:
                with outputs.named(output.name, self.of_each):
                    logits.check_takes_logits(one)
                    arguments.check_losses(one, output.used_soft_losses)

    def examine(
        self, student: keras.Model, teachers: Sequence[keras.Model], batches: Sequence[tuple[Nest, Nest]]
    ) -> list[tuple[int | None, ...]]:
        """Checks outputs and labels on a few samples.

        Args:
            student: The student.
            teachers: The teachers; none for stored outputs.
            batches: Inputs and labels.

        Returns:
            The shape of each output [B, ..., C].

        Raises:
            ModelError: An output with a soft loss is not logits, or has one class.
            InputError: Labels are missing, or are not those of classes that exclude each other.
        """
        shapes = []
        for position, output in enumerate(self.of_each):
            check = (
                logits.check_are_logits if output.task.gives_logits and output.soft_losses else logits.shape_of_outputs
            )
            with outputs.named(output.name, self.of_each):
                x = [inputs.student_input(x, student) for x, _ in batches]
                shape = check("student", outputs.single(student, position), *x)
                for teacher, source in zip(teachers, output.sources, strict=False):
                    x = [inputs.teacher_input(x, teacher) for x, _ in batches]
                    check("teacher", outputs.single(teacher, source), *x)
                for loss in output.used_soft_losses:
                    arguments.check_classes(loss, shape[-1])
                for _, y in batches:
                    binary = logits.is_binary(self.hard_losses[position])
                    arguments.check_targets(self.labels(y)[position], shape, output.used_soft_losses, binary=binary)
            shapes.append(shape)
        return shapes

    def labels(self, y: Nest) -> list[Tensor | None]:
        """The labels of each output.

        Args:
            y: Labels of a batch, by output if there are several, or None.

        Raises:
            InputError: They are not by output, or an output with a compiled loss has none.
        """
        labels = outputs.by_name(self.names, y, "y, the labels,", shared=False)
        for name, loss, label in zip(self.names, self.hard_losses, labels, strict=True):
            if y is not None and label is None and loss is not None:
                raise InputError(
                    f"Distiller: the output {name!r} has a compiled loss and needs labels. Received: none in y. "
                    "Add them, or pass loss={...} without it."
                )
        return labels

    def check_labels(self, y: Nest) -> None:
        """Refuses a batch without the labels that are part of the loss.

        Raises:
            InputError: An output with alpha < 1 has no labels or no compiled loss.
        """
        for output, loss, label in zip(self.of_each, self.hard_losses, self.labels(y), strict=True):
            if loss is not None and label is None and not output.soft_losses:
                raise InputError(
                    f"Distiller: the output {output.name!r} has a compiled loss only, and needs labels. Received: y "
                    "missing. Add them, or pass loss={...} without it."
                )
            if output.alpha != 1 and output.soft_losses and (label is None or loss is None):
                where = "" if len(self) == 1 else f" of the output {output.name!r}"
                raise InputError(
                    f"Distiller: alpha={output.alpha} < 1{where} needs labels and a compiled loss. Received: y "
                    f"{'missing' if label is None else 'given'}, loss {'missing' if loss is None else 'given'}. "
                    "Use alpha=1.0 to learn from the teacher alone."
                )

    def like(self, student_outputs: Nest, y: Nest, sample_weight: Nest) -> tuple[Nest, Nest]:
        """Labels and sample weights in the structure of several outputs, the only one that Keras takes in all cases."""
        if len(self) == 1:
            return y, sample_weight
        labels = None if y is None else keras.tree.pack_sequence_as(student_outputs, self.labels(y))
        if keras.tree.is_nested(sample_weight):
            weights = outputs.by_name(self.names, sample_weight, "sample_weight")
            sample_weight = keras.tree.pack_sequence_as(student_outputs, weights)
        return labels, sample_weight

    def mean_soft_losses(
        self,
        teacher_outputs: Sequence[Sequence[Tensor]],
        student_outputs: Nest,
        y: Nest,
        sample_weight: Nest,
        step: Tensor,
    ) -> list[Tensor | None]:
        """The mean soft loss of each output, see `Output.soft_loss`."""
        weights = outputs.by_name(self.names, sample_weight, "sample_weight")
        of_each = zip(self.of_each, keras.tree.flatten(student_outputs), self.labels(y), weights, strict=True)
        return [output.soft_loss(teacher_outputs, z, label, weight, step) for output, z, label, weight in of_each]

    def weighted(self, values: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The losses of the outputs, multiplied by their weights."""
        return [
            value if value is None or weight == 1 else weight * value
            for value, weight in zip(values, self.weights, strict=True)
        ]

    def total(
        self, soft_losses: Sequence[Tensor | None], hard_losses: Sequence[Tensor | None], step: Tensor
    ) -> Tensor | None:
        """The sum of the losses of the outputs; see `Output.total`."""
        terms = zip(self.of_each, soft_losses, hard_losses, strict=True)
        return total([output.total(soft, hard, step) for output, soft, hard in terms])


def build(
    student: keras.Model,
    teachers: Teachers | SoftLabels,
    *,
    alpha: Mapping[str, Setting] | Setting,
    temperature: Setting,
    soft_loss: Nest,
    teacher_weights: Sequence[float] | None,
    task: Mapping[str, str] | str,
) -> Outputs:
    """The outputs of a student. The arguments are those of `Distiller`.

    Raises:
        ModelError: See `Distiller`.
        InputError: See `Distiller`.
    """
    names = outputs.names(logits.check_model("student", student))
    if isinstance(teachers, SoftLabels):
        if len(names) > 1:
            raise InputError(
                f"Distiller: a store holds one output of a teacher. Received: one store for the outputs "
                f"{', '.join(names)}. Pass a dictionary of stores by output."
            )
        teachers = {names[0]: teachers}
    of_teachers = [tuple(teachers)] if isinstance(teachers, Mapping) else [_names(one, student) for one in teachers]
    weights = tuple(arguments.normalize_weights(teacher_weights, len(of_teachers)))
    alphas, soft_losses = _by_output(names, alpha, "alpha"), _by_output(names, soft_loss, "soft_loss")
    default = losses.SoftTarget(temperature) if soft_loss is None else None  # one, so that its schedule is logged once
    found = []
    for position, name in enumerate(names):
        its_task = tasks.get(_by_output(names, task, "task")[position] or tasks.CLASSIFICATION.name)
        its_loss = soft_losses[position]
        if its_loss is None and soft_loss is not None:  # a dictionary by output without this one
            arguments.check_no_alpha(name, alpha)
            found.append(Output(name, its_task, 0.0))
            continue
        if its_loss is None:
            its_loss = default if its_task.is_classification else losses.build(its_task.soft_loss)
        several = isinstance(its_loss, (list, tuple))
        of_each = tuple(map(losses.get, its_loss)) if several else (losses.get(its_loss),) * len(of_teachers)
        if len(of_each) != len(of_teachers):
            raise InputError(
                f"Distiller: soft_loss must be one loss or one for each teacher. Received: {len(of_each)} losses for "
                f"{len(of_teachers)} teachers. Pass as many losses as teachers."
            )
        with outputs.named(name, names):
            its_alpha = arguments.check_alpha(alphas[position])
        sources = tuple(_source(name, names, of_teacher) for of_teacher in of_teachers)
        found.append(Output(name, its_task, its_alpha, of_each, weights, sources))
    _check(student, teachers, found)
    return Outputs(found)


def _by_output(names: Sequence[str], given: Nest, what: str) -> list[Nest]:
    return outputs.by_name(names, given, what) if isinstance(given, Mapping) else [given] * len(names)


def _names(teacher: keras.Model, student: keras.Model) -> tuple[str, ...]:
    """The names of a teacher's outputs; where neither model names them those of the student, in the same order.

    Of another number of outputs that neither model names, equal names such as `dense_1` are an accident.
    """
    found, others = outputs.names(logits.check_model("teacher", teacher)), outputs.names(student)
    if not (outputs.are_unnamed(teacher) and outputs.are_unnamed(student)):
        return found
    return others if len(found) == len(others) else tuple(f"{name} (a name that Keras gave)" for name in found)


def _source(name: str, names: Sequence[str], of_teacher: Sequence[str]) -> int:
    """The number of the output of a teacher that a student's output learns from."""
    if len(names) == len(of_teacher) == 1:
        return 0
    if name in of_teacher:
        return of_teacher.index(name)
    raise ModelError(
        f"Distiller: the teacher must have the output {name!r} of the student. Received: outputs named "
        f"{', '.join(of_teacher)}. Pass keras.Model(teacher.inputs, {{{name!r}: teacher.outputs[i], ...}}), or "
        "soft_loss={...} with those outputs only that the teacher has."
    )


def _check(student: keras.Model, teachers: Teachers, found: Sequence[Output]) -> None:
    """Refuses outputs of teachers and student that do not fit each other or the losses."""
    every = [loss for one in found for loss in set(one.soft_losses)]
    learned = [loss for loss in every if loss.weights or keras_compat.may_add_weights(loss)]
    if len(set(learned)) < len(learned):
        raise InputError(
            "Distiller: a soft loss with weights of its own belongs to one output. Received: "
            f"{type(learned[0]).__name__} for several outputs. Pass soft_loss={{...}} with a loss for each."
        )
    for position, one in enumerate(found):
        if not one.soft_losses:
            continue
        its_student = outputs.single(student, position)
        with outputs.named(one.name, found):
            if isinstance(teachers, Mapping):
                arguments.check_store(its_student, teachers[one.name], one.task)
            else:
                its_teachers = list(map(outputs.single, teachers, one.sources))
                arguments.check_teachers(its_student, its_teachers, one.soft_losses, one.task)
