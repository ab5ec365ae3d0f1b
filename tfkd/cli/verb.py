"""What all verbs share: the application, their errors and exit status, how they speak, and common options."""

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

_WITH_TENSORFLOW = ("train", "distill", "label", "doctor", "convert", "explain", "run")
_RESUMED = ("train", "distill", "label", "run")
BROKEN, _BAD_INPUT, _MISSING_TOOL, _INTERNAL, _INTERRUPTED = 1, 2, 3, 70, 130

DataOption = Annotated[str, typer.Option("--data", help="A data set's name, a .npz file or a folder of classes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output, the rest on stderr.")]
Seed = Annotated[int, typer.Option(min=0, help="Of initial weights, order and augmentation.")]
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
    from tfkd._internal.isolation import ChildCrashed, ChildTimedOut

    if not isinstance(error, (ValueError, RuntimeError, OSError)):
        traceback.print_exception(error)  # a fault of ours must not look like a broken contract, which is status 1
        return _INTERNAL
    typer.echo(f"tfkd: {error}", err=True)
    missing = isinstance(error, RuntimeError) and not isinstance(error, ChildCrashed | ChildTimedOut)
    return _MISSING_TOOL if missing else _BAD_INPUT


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a verb and turns its errors into a message and an exit status."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with _noted_interrupts() as interrupts:
            try:
                if function.__name__ in _WITH_TENSORFLOW or kwargs.get("reference"):  # a Keras model to compare with
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


def show(as_json: bool) -> Any:
    """The progress of a verb, on standard error where JSON goes to standard output."""
    import rich.console

    from tfkd._internal.progress import Progress

    return Progress(rich.console.Console(stderr=as_json, highlight=False))


def say(progress: Any, value: Any, as_json: bool, text: str) -> None:
    """Prints what came out: the value as JSON, or the text."""
    if as_json:
        typer.echo(json.dumps(value))
    else:
        progress.line(text)


def command_line() -> str:
    """What the user typed, for the report."""
    return shlex.join(["tfkd", *sys.argv[1:]])
