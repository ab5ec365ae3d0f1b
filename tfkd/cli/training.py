"""Verbs that train: on labels, on a teacher, and what a teacher says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tfkd.cli.verb import DataOption, Json, Overwrite, Seed, say, show, verb
from tfkd.errors import InputError

OutOption = Annotated[Path, typer.Option("--out", help="The .keras file to write.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training split.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in a step.")]
LearningRate = Annotated[float, typer.Option(min=1e-12, help="Of Adam at the start; it falls to 0 along a cosine.")]
Augment = Annotated[str, typer.Option(help="none or crop_flip.")]


_WORKERS = """\
Several machines train one student through tf.distribute: each runs the same script, told by TF_CONFIG which one it is.
Each step takes the batch apart between them, so choose a batch size for all. Save this as distill.py:

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


def _workers(asked: bool) -> None:
    if asked:
        typer.echo(_WORKERS)
        raise typer.Exit


@verb
def train(
    model: Annotated[str, typer.Argument(help="A builder of tfkd.models, such as digits_teacher.")],
    out: OutOption,
    data: DataOption = "digits",
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 1e-3,
    augment: Augment = "none",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a model on labels.

    Example: tfkd train digits_teacher --data digits --out teacher.keras --epochs 20
    """
    from tfkd.recipes.train import train as work

    with show(as_json) as progress:
        record = work(
            model,
            out,
            source=data,
            config=_config(epochs, batch_size, learning_rate, augment),
            seed=seed,
            overwrite=overwrite,
            on_epoch=progress.epoch,
        )
        say(progress, record, as_json, f"{out}: validation accuracy {record['val_accuracy']:.4f}")


@verb
def distill(
    teacher: Annotated[Path, typer.Option("--teacher", help="The teacher, a .keras file that gives logits.")],
    student: Annotated[
        str, typer.Option("--student", help="A builder of tfkd.models, such as digits_student; or a .keras file.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="The .keras file to write; with --optimize the .tflite (prune, cluster: either)."),
    ],
    data: DataOption = "digits",
    optimize: Annotated[
        str | None,
        typer.Option(
            help="Train a student from a .keras file on: qat (made fit for int8; zeros stay), prune, cluster; or by "
            "tfmot: tfmot_qat, pqat (zeros stay), cqat (clusters stay), pcqat (both stay)."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option of --optimize, such as weight_bits=4; one at a time.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Weight of the soft loss, 0..1.")] = 0.9,
    loss: Annotated[
        str, typer.Option(help="soft_target, standardized, dkd, dist, ctkd, wsld or mean_squared.")
    ] = "soft_target",
    temperature: Annotated[
        float | None, typer.Option(help="Softens both sides, > 0; default: that of the loss.")
    ] = None,
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 1e-3,
    augment: Augment = "none",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    workers: Annotated[
        bool,
        typer.Option("--workers", callback=_workers, is_eager=True, help="Show how several machines train, and leave."),
    ] = False,
) -> None:
    """Train a student on labels and on a teacher's softened outputs.

    Example: tfkd distill --teacher teacher.keras --student digits_student --data digits --out student.keras

    Then: tfkd distill --teacher teacher.keras --student student.keras --optimize qat --epochs 3 --learning-rate 1e-4
    --out student.tflite

    Or: tfkd distill --teacher teacher.keras --student student.keras --optimize prune --set sparsity=0.5
    --out pruned.keras, and then --student pruned.keras --optimize qat --out student.tflite
    """
    from tfkd.recipes import deployment
    from tfkd.recipes import train as training

    options = {} if temperature is None else {"temperature": temperature}
    with show(as_json) as progress:
        record = training.train(
            student,
            out,
            source=data,
            config=_config(epochs, batch_size, learning_rate, augment),
            seed=seed,
            overwrite=overwrite,
            on_epoch=progress.epoch,
            soft={"teacher": teacher, "alpha": alpha, "loss": loss, "options": options},
            method=optimize,
            settings=_settings(settings or []),
            say=progress.line,
        )
        lines = deployment.sizes(record) if "size_bytes" in record else []
        say(progress, record, as_json, "\n".join([f"{out}: validation accuracy {record['val_accuracy']:.4f}", *lines]))


@verb
def label(
    teacher: Annotated[Path, typer.Option("--teacher", help="The teacher, a .keras file that gives logits.")],
    out: Annotated[str, typer.Option("--out", help="The store: a folder, or a URL that fsspec opens.")],
    data: DataOption = "digits",
    views: Annotated[int, typer.Option(min=1, help="Views of each sample; the first is the plain sample.")] = 1,
    augment: Augment = "crop_flip",
    padding: Annotated[int, typer.Option(min=0, help="Pixels of crop_flip.")] = 4,
    flip: Annotated[bool, typer.Option(help="Whether crop_flip flips left and right.")] = True,
    shard: Annotated[
        str, typer.Option(help="i/n: label every n-th chunk from the i-th; n machines share the work.")
    ] = "0/1",
    verify: Annotated[
        bool, typer.Option("--verify", help="Label a random sample again and compare; writes nothing.")
    ] = False,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Store what a teacher says of each view of each training sample; the same command again resumes.

    Example: tfkd label --teacher teacher.keras --data digits --views 8 --padding 1 --no-flip --out labels/
    """
    from tfkd.recipes import label as labelling

    with show(as_json) as progress:
        progress.start("label")
        record = labelling.label(
            out,
            teacher,
            data,
            {"kind": augment, "padding": padding, "flip": flip},
            views=views,
            shard=shard,
            verify=verify,
            batch_size=batch_size,
            seed=seed,
            on_chunk=progress.advance,
        )
        say(progress, record, as_json, record["summary"])


def _settings(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is JSON, or text where it is none."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InputError(f"distill: --set must be NAME=VALUE. Received: {pair!r}. Use --set weight_bits=4.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _config(epochs: int, batch_size: int, learning_rate: float, augment: str) -> Any:
    from tfkd.recipes import recipe

    return recipe.training_config(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, augment=augment)
