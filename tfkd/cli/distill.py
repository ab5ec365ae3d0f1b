"""`tfkd distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Json, Overwrite, Seed, command, print_result, progress_of
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.training_options import (
    DEFAULTS,
    StudentPreprocess,
    StudentRange,
    TeacherFile,
    TeacherPreprocess,
    TeacherRange,
    logging_options,
    training_options,
)
from tfkd.distillation.loggers import Loggers
from tfkd.distillation.training_config import TrainingConfig

_SEVERAL_MACHINES = """\
Several machines train one student through tf.distribute. Each runs the same script; TF_CONFIG says which machine it is.
A batch is divided among the machines, so choose the batch size for all of them. Save this as distill.py:

import keras, tensorflow as tf, tfkd

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow
keras.utils.set_random_seed(0)
train, val, test = tfkd.data.load("digits")
with strategy.scope():
    teacher = keras.saving.load_model("teacher.keras")
    student = tfkd.models.build("digits_student", train.input_shape, train.num_classes)
    distiller = tfkd.Distiller(student, teacher, alpha=0.9, temperature=4.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss=loss, metrics=["accuracy"])
distiller.fit(train.batches(128, shuffle=True), epochs=20)
if strategy.cluster_resolver.task_id == 0:
    student.save("student.keras")

Start it on each machine, with the same cluster and its own index:

TF_CONFIG='{"cluster": {"worker": ["first:2222", "second:2222"]}, "task": {"type": "worker", "index": 0}}' \
    python distill.py
"""


def _print_several_machines(requested: bool) -> None:
    if requested:
        typer.echo(_SEVERAL_MACHINES)
        raise typer.Exit


@command(tensorflow=True, resumes=True)
@code_options
@training_options
@logging_options
@data_options
def distill(
    teacher: TeacherFile,
    student: Annotated[
        str,
        typer.Option(
            "--student",
            help="Builder of tfkd.models, module:function of your own, or a .keras or .h5 file.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help=".keras file to write. With --optimize: a .tflite (prune, cluster: also a .keras)."),
    ],
    data: DataOption = DIGITS,
    optimize: Annotated[
        str | None,
        typer.Option(
            help="Train a .keras student further for its target: qat (quantization-aware training), prune (zero "
            "weights), cluster (few distinct weights). With the layers of tensorflow-model-optimization: tfmot_qat, "
            "pqat (keeps zeros), cqat (keeps clusters), pcqat (keeps both)."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the --optimize method, such as weight_bits=4; may be repeated."),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Weight of the distillation loss, 0..1; the loss on labels has 1 - alpha.")
    ] = 0.9,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Distillation loss: soft_target, standardized, dkd, dist, ctkd, wsld, mean_squared, "
            "teacher_bounded, sigmoid_target, heatmap_target, channel_wise, anchor_target, cosine, relational, "
            "or module:function of your own. Default: that of the task, such as soft_target for a "
            "classification and mean_squared for a regression."
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Temperature that divides the logits of teacher and student, > 0. Default: the loss's own."),
    ] = None,
    allow_bad_teacher: Annotated[
        bool,
        typer.Option(
            "--allow-bad-teacher",
            help="Train although the teacher is no better than a constant answer, expects other inputs or classes, or "
            "is less accurate than a trained student.",
        ),
    ] = False,
    output: Annotated[
        str, typer.Option(help="What the .keras file that is written returns: logits or softmax.")
    ] = "logits",
    teacher_range: TeacherRange = None,
    teacher_preprocess: TeacherPreprocess = None,
    student_range: StudentRange = None,
    student_preprocess: StudentPreprocess = None,
    config: TrainingConfig = DEFAULTS,
    seed: Seed = 0,
    loggers: Loggers | None = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            callback=_print_several_machines,
            is_eager=True,
            help="Print how to train on several machines, and exit.",
        ),
    ] = False,
) -> None:
    """Train a student on labels and on a teacher's logits.

    Examines data and teacher first, the teacher on at most 1,000 validation samples. A bad teacher is an error, and so
    is a training sample that is in the test part.

    Example: tfkd distill --teacher teacher.keras --student digits_student --data digits --out student.keras

    Then: tfkd distill --teacher teacher.keras --student student.keras --optimize qat --epochs 3 --learning-rate 1e-4
    --out student.tflite

    Or: tfkd distill --teacher teacher.keras --student student.keras --optimize prune --set sparsity=0.5
    --out pruned.keras, and then --student pruned.keras --optimize qat --out student.tflite
    """
    from tfkd.recipes import model_input, training
    from tfkd.report import console

    job = training.Job(
        student,
        out,
        data,
        config,
        output=output,
        model_input=model_input.parse("student", student_range, student_preprocess),
        seed=seed,
        overwrite=overwrite,
        loggers=loggers,
        distillation=training.Distillation(
            teacher,
            alpha,
            loss,
            temperature,
            allow_bad_teacher,
            model_input.parse("teacher", teacher_range, teacher_preprocess),
        ),
        optimization=training.parse_optimization(optimize, settings or []),
    )
    with progress_of(as_json) as progress:
        record = training.train(job, on_epoch=progress.epoch, on_note=progress.line)
        print_result(progress, record, as_json, console.trained(record))
