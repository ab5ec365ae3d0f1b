"""The command line: one verb for each arrow of the line, no logic."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import tfkd

app = typer.Typer(
    name="tfkd",
    help="Distil a Keras model, turn it into a .tflite and prove on its target that it can ship.\n\n"
    "Exit status: 0 done and the contract holds; 1 it does not hold or is not known to; 2 bad arguments or input; "
    "3 a missing tool or device; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_WITH_TENSORFLOW = ("train", "distill", "label", "doctor", "convert", "validate", "explain", "run")
_RESUMED = ("train", "distill", "label", "run")
_BROKEN, _BAD_INPUT, _MISSING_TOOL, _INTERNAL, _INTERRUPTED = 1, 2, 3, 70, 130

DataOption = Annotated[str, typer.Option("--data", help="A data set's name, a .npz file or a folder of classes.")]
OutOption = Annotated[Path, typer.Option("--out", help="The .keras file to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output, the rest on stderr.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training split.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in a step.")]
LearningRate = Annotated[float, typer.Option(min=1e-12, help="Of Adam at the start; it falls to 0 along a cosine.")]
Augment = Annotated[str, typer.Option(help="none or crop_flip.")]
Seed = Annotated[int, typer.Option(min=0, help="Of initial weights, order and augmentation.")]
TargetsOption = Annotated[list[str], typer.Option("--target", help="Where to run; give it once per target.")]
CompilerOption = Annotated[
    str | None, typer.Option("--cc", help="Compiler for the emulated cores, such as arm-none-eabi-gcc.")
]
BoardOption = Annotated[str | None, typer.Option(help="A microcontroller board to emulate, such as nrf52840.")]
ModelFile = Annotated[Path, typer.Argument(help="A .tflite file.")]


def _load_tensorflow() -> None:
    """Loads TensorFlow and finds its devices without the lines that both print from C++, which no setting stops."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every few models that predict
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            sink.seek(0)
            os.write(stderr, sink.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """A list that grows with each Ctrl-C, which interrupts as before."""
    interrupts: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    foreground = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    if not foreground or threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield interrupts
        return
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)


def _explain(error: Exception) -> int:
    """Prints what went wrong and gives the exit status for it."""
    from tfkd.child import ChildCrashed, ChildTimedOut

    if not isinstance(error, (ValueError, RuntimeError, OSError)):
        traceback.print_exception(error)  # a fault of ours must not look like a broken contract, which is status 1
        return _INTERNAL
    typer.echo(f"tfkd: {error}", err=True)
    missing = isinstance(error, RuntimeError) and not isinstance(error, ChildCrashed | ChildTimedOut)
    return _MISSING_TOOL if missing else _BAD_INPUT


def _verb(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a verb and turns its errors into a message and an exit status."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with _noted_interrupts() as interrupts:
            try:
                if function.__name__ in _WITH_TENSORFLOW:
                    _load_tensorflow()
                function(*args, **kwargs)
            except (typer.Exit, typer.Abort):  # RuntimeErrors, so they come first
                raise
            except (Exception, KeyboardInterrupt) as error:
                # Native code that a Ctrl-C reaches while it calls Python turns it into an error of its own.
                if interrupts or isinstance(error, KeyboardInterrupt):
                    again = " The same command again resumes." if function.__name__ in _RESUMED else ""
                    typer.echo(f"tfkd: interrupted.{again}", err=True)
                    raise typer.Exit(_INTERRUPTED) from None
                raise typer.Exit(_explain(error)) from None

    return app.command(name=function.__name__.rstrip("_").replace("_", "-"))(guarded)


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


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tfkd {tfkd.__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@_verb
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
    from tfkd import training

    with _progress(as_json) as progress:
        record = training.train(
            model, out, source=data, schedule=_schedule(epochs, batch_size, learning_rate, augment), seed=seed,
            overwrite=overwrite, on_epoch=progress.epoch,
        )  # fmt: skip
        _say(progress, record, as_json, f"{out}: validation accuracy {record['val_accuracy']:.4f}")


@_verb
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
    --set pattern=2:4 --out pruned.keras, and then --student pruned.keras --optimize qat --out student.tflite
    """
    from tfkd import deployment, training

    options = {} if temperature is None else {"temperature": temperature}
    with _progress(as_json) as progress:
        record = training.train(
            student, out, source=data, schedule=_schedule(epochs, batch_size, learning_rate, augment), seed=seed,
            overwrite=overwrite, on_epoch=progress.epoch,
            soft={"teacher": teacher, "alpha": alpha, "loss": loss, "options": options},
            method=optimize, settings=_settings(settings or []), say=progress.line,
        )  # fmt: skip
        lines = deployment.sizes(record) if "size_bytes" in record else []
        _say(progress, record, as_json, "\n".join([f"{out}: validation accuracy {record['val_accuracy']:.4f}", *lines]))


@_verb
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
    from tfkd import training

    with _progress(as_json) as progress:
        progress.start("label")
        record = training.label(
            out, teacher, data, {"kind": augment, "padding": padding, "flip": flip}, views=views, shard=shard,
            verify=verify, batch_size=batch_size, seed=seed, on_chunk=progress.advance,
        )  # fmt: skip
        _say(progress, record, as_json, record["summary"])


@_verb
def convert(
    model: Annotated[Path, typer.Argument(help="A .keras file or the folder of a SavedModel.")],
    out: Annotated[Path, typer.Argument(help="The .tflite file to write.")],
    mode: Annotated[str, typer.Option(help="float32, float16, dynamic_range, full_int8 or int16x8.")] = "full_int8",
    calibration: Annotated[str | None, typer.Option(help="A data set, of which the train split is used.")] = None,
    calibration_samples: Annotated[int, typer.Option(min=1, help="How many of its samples.")] = 256,
    float_io: Annotated[bool, typer.Option("--float-io", help="Keep float input and output.")] = False,
    allow_float: Annotated[bool, typer.Option("--allow-float", help="Accept ops that stay in float.")] = False,
    quantizer: Annotated[
        str | None, typer.Option(help="tensorflow or litert; by default litert where an option below needs it.")
    ] = None,
    ranges: Annotated[str, typer.Option("--range", help="Of activations: min_max, percentile or mse.")] = "min_max",
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Regular expression; layers that it fits stay in float.")
    ] = None,
    int16: Annotated[list[str] | None, typer.Option(help="The same, for activations of 16 bits.")] = None,
    int4: Annotated[list[str] | None, typer.Option(help="The same, for weights of 4 bits.")] = None,
    accuracy_drop: Annotated[
        float | None,
        typer.Option(help="Search the smallest mixture of precisions that loses no more points on validation samples."),
    ] = None,
    target: Annotated[str, typer.Option(help="Where --accuracy-drop measures.")] = "host:plain",
    golden: Annotated[
        int, typer.Option(min=0, help="Write so many test samples and their outputs as OUT.golden.npz, .h, .json.")
    ] = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a model into a .tflite.

    Example: tfkd convert student.keras student.tflite --mode full_int8 --calibration digits
    """
    from tfkd import deployment, quantization

    settings = quantization.select(
        quantizer, ranges=ranges, keep_float=keep_float or (), int16=int16 or (), int4=int4 or ()
    )
    with _progress(as_json) as progress:
        record = deployment.deploy(
            model, out, calibration, mode=mode, settings=settings, accuracy_drop=accuracy_drop, target=target,
            vectors=golden, seed=seed, overwrite=overwrite, calibration_samples=calibration_samples,
            say=progress.line, float_io=float_io, allow_float=allow_float,
        )  # fmt: skip
        _say(progress, record, as_json, deployment.words(record))


@_verb
def validate(
    model: ModelFile,
    data: DataOption = "digits",
    target: TargetsOption = ["host", "tflm"],  # noqa: B006 - Typer reads it and does not change it
    reference: Annotated[Path | None, typer.Option(help="The .keras file that the model came from.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Share of the test set, 0..1.")] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="Percentage points against --reference.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Share of equal labels with --reference.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of the file.")] = None,
    max_arena_bytes: Annotated[int | None, typer.Option(help="Of the tensor arena.")] = None,
    max_ram_bytes: Annotated[int | None, typer.Option(help="On a microcontroller: arena and stack.")] = None,
    max_flash_bytes: Annotated[int | None, typer.Option(help="On a microcontroller: code and weights.")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Latency.")] = None,
    max_drift_steps: Annotated[int | None, typer.Option(help="Quantization steps between targets.")] = None,
    report: Annotated[list[Path] | None, typer.Option(help="Write a report: .html, .md, .json or .xml.")] = None,
    board: BoardOption = None,
    cc: CompilerOption = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Judge a .tflite on the test split, on each target, over a contract.

    Example: tfkd validate student.tflite --data digits --target host --target tflm --max-bytes 16384
    """
    from tfkd import pipeline, targets
    from tfkd.contract import Contract

    contract = Contract(
        min_accuracy, max_accuracy_drop, min_agreement, max_bytes, max_arena_bytes, max_ram_bytes, max_flash_bytes,
        max_p90_ms, max_drift_steps,
    )  # fmt: skip
    engines = targets.with_compiler(targets.with_board(target, board), cc)
    with _progress(as_json) as progress:
        validation = pipeline.judge(
            model, data, targets=engines, reference=reference, contract=contract,
            reports=report or [], command=_command(), overwrite=overwrite, progress=progress,
        )  # fmt: skip
        record = validation.to_json()
        _say(progress, record, as_json, pipeline.summary(record))
    raise typer.Exit(0 if validation.ok else _BROKEN)


@_verb
def diff(
    a: Annotated[Path, typer.Argument(help="The .tflite that is in use.")],
    b: Annotated[Path, typer.Argument(help="The .tflite that is to take its place.")],
    data: DataOption = "digits",
    target: TargetsOption = ["host"],  # noqa: B006 - Typer reads it and does not change it
    max_accuracy_drop: Annotated[float | None, typer.Option(help="Percentage points that B may lose.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Share of equal labels, 0..1.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Of B: share of the test set, 0..1.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of the file B.")] = None,
    max_arena_bytes: Annotated[int | None, typer.Option(help="Of B's tensor arena.")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Latency of B.")] = None,
    as_json: Json = False,
) -> None:
    """Say what changed from one .tflite to the next: answers that flip, classes, ops, size.

    Exit status 1 where a limit is given and does not hold for B, or a model does not run.
    Example: tfkd diff old.tflite new.tflite --data digits --max-accuracy-drop 0.5
    """
    from tfkd import data as datasets
    from tfkd import difference
    from tfkd.contract import Contract

    contract = Contract(
        min_accuracy, max_accuracy_drop, min_agreement, max_bytes, max_arena_bytes, max_p90_ms=max_p90_ms
    )
    with _progress(as_json) as progress:
        progress.start("diff")
        found = difference.compare(
            a, b, datasets.load(data).test, targets=target, contract=contract, progress=progress.advance
        )
        _say(progress, found.to_json(), as_json, "\n".join(found.lines()))
    raise typer.Exit(0 if found.ok else _BROKEN)


@_verb
def explain(
    student: Annotated[Path, typer.Argument(help="The .keras file.")],
    model: Annotated[Path, typer.Argument(help="The .tflite file that it became.")],
    data: DataOption = "digits",
    teacher: Annotated[Path | None, typer.Option(help="A .keras file, where the way of the accuracy begins.")] = None,
    target: TargetsOption = ["host:plain", "host", "tflm"],  # noqa: B006 - Typer reads it and does not change it
    samples: Annotated[int, typer.Option(min=1, help="On which layers are compared.")] = 64,
    worst: Annotated[int, typer.Option(min=1, help="How many layers to speak of.")] = 5,
    as_json: Json = False,
) -> None:
    """Say why a quantized model is worse: layer by layer, with causes and remedies, and where the accuracy goes.

    Example: tfkd explain student.keras student.tflite --data digits --teacher teacher.keras
    """
    from tfkd import data as datasets
    from tfkd import explanation

    with _progress(as_json) as progress:
        found = explanation.explain(
            student, model, datasets.load(data), teacher=teacher, targets=target, samples=samples, worst=worst,
            progress=progress.start,
        )  # fmt: skip
        _say(progress, found.to_json(), as_json, "\n".join(found.lines()))


@_verb
def benchmark(
    model: Annotated[list[Path], typer.Argument(help="A .tflite; on this machine also a .keras or a SavedModel.")],
    target: TargetsOption = ["host"],  # noqa: B006 - Typer reads it and does not change it
    threads: Annotated[int | None, typer.Option(min=1, help="Of one inference.")] = None,
    batch: Annotated[
        list[int], typer.Option(min=1, help="Samples in one inference, on host; several give the curve of a server.")
    ] = [1],  # noqa: B006 - Typer reads it and does not change it
    board: BoardOption = None,
    as_json: Json = False,
) -> None:
    """Time inferences of models on random input, side by side.

    Example: tfkd benchmark student.tflite student.keras --threads 2 --batch 1 --batch 8 --batch 64
    """
    from tfkd import pipeline, targets

    with _progress(as_json) as progress:
        runs = pipeline.benchmark(model, targets.with_board(target, board), threads=threads, batches=batch)
        found = [{"model": str(path), **run.to_json()} for path, run in runs]
        _say(progress, found, as_json, pipeline.latencies(runs))


@_verb
def export_c(
    model: ModelFile,
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
    name: Annotated[str, typer.Option(help="In all names of the C, a C identifier in lower case.")] = "model",
    form: Annotated[str, typer.Option("--format", help="c, or tflm for TensorFlow Lite Micro's users.")] = "c",
    layout: Annotated[str, typer.Option(help="plain (CMake and Make), arduino or zephyr.")] = "plain",
    size: Annotated[bool, typer.Option("--size", help="The smallest code rather than the fastest.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn an int8 or int16x8 .tflite into C99 for a microcontroller, with a self-test and a report of sizes.

    Example: tfkd export-c student.tflite --out firmware --size
    """
    from tfkd import firmware

    with _progress(as_json) as progress:
        sizes = firmware.write(model, out, name=name, format=form, layout=layout, size=size, overwrite=overwrite)
        removed = f"; {sizes['removed']['summary']}" if "removed" in sizes else ""
        _say(progress, sizes, as_json, f"{out}: arena {sizes['arena_bytes']:,} bytes{removed}")


@_verb
def report(
    source: Annotated[Path, typer.Argument(help="The folder of a run, or a report that was written as .json.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .html, .md, .json or .xml (JUnit).")],
    overwrite: Overwrite = False,
) -> None:
    """Write a report of a run or a validation in another form.

    Example: tfkd report runs/digits --out report.xml
    """
    from tfkd import pipeline

    typer.echo(pipeline.rewrite(source, out, overwrite=overwrite))


@_verb
def doctor(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; its paths are relative to the working directory.")],
    as_json: Json = False,
) -> None:
    """Look for what would spoil hours of training: a broken teacher, leaking data, a student that does not fit.

    Exit status 1 where an error is found. Example: tfkd doctor recipes/digits.toml
    """
    import dataclasses

    from tfkd import doctor as examination
    from tfkd.recipe import load

    with _progress(as_json) as progress:
        findings = examination.examine(load(recipe), progress=progress.start)
        lines = [f"{one.severity}: {one.what}\n  seen: {one.evidence}\n  do: {one.remedy}" for one in findings]
        _say(progress, [*map(dataclasses.asdict, findings)], as_json, "\n".join(lines) or "Nothing was found.")
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(_BROKEN)


@_verb
def run(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; its paths are relative to the working directory.")],
    as_json: Json = False,
) -> None:
    """Run a recipe from data to report; the same command again resumes and keeps what is finished.

    Example: tfkd run recipes/digits.toml
    """
    from tfkd import pipeline
    from tfkd import recipe as recipes

    with _progress(as_json) as progress:
        result = pipeline.run(recipes.load(recipe), command=_command(), progress=progress)
        page = result.folder / "report.html"
        value = {"ok": result.ok, "report": str(page), "steps": result.steps, "validation": result.record}
        _say(progress, value, as_json, f"{pipeline.summary(result.record)}\nReport: {page}")
    raise typer.Exit(0 if result.ok else _BROKEN)


def _settings(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is JSON, or text where it is none."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ValueError(f"distill: --set must be NAME=VALUE. Received: {pair!r}. Use --set weight_bits=4.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _schedule(epochs: int, batch_size: int, learning_rate: float, augment: str) -> Any:
    from tfkd import recipe

    return recipe.schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, augment=augment)


def _progress(as_json: bool) -> Any:
    import rich.console

    from tfkd.progress import Progress

    return Progress(rich.console.Console(stderr=as_json, highlight=False))


def _say(progress: Any, value: Any, as_json: bool, text: str) -> None:
    if as_json:
        typer.echo(json.dumps(value))
    else:
        progress.line(text)


def _command() -> str:
    return shlex.join(["tfkd", *sys.argv[1:]])


def main() -> None:
    """The entry point of the `tfkd` command."""
    app()


if __name__ == "__main__":
    main()
