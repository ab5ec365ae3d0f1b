"""What all commands share: the application, errors and exit statuses, output, and common options."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.metadata
import json
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfkd.errors import InputError, TfkdError

if TYPE_CHECKING:
    from tfkd._internal.progress import Progress

app = typer.Typer(
    name="tfkd",
    help="Distill a Keras model, convert it to .tflite and check on the target device that it can ship.\n\n"
    "Exit status: 0 done, and the contract holds; 1 the contract does not hold, or a limit could not be checked; "
    "2 a wrong argument or input file; 3 a missing tool, or a missing or failed device; 70 an error inside tfkd, with "
    "its traceback; 130 interrupted by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CONTRACT_BROKEN, _BAD_INPUT, _MISSING_TOOL, _INTERNAL, _INTERRUPTED = 1, 2, 3, 70, 130

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output files.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output and progress on standard error.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of initial weights, sample order and augmentation.")]
TFLiteFile = Annotated[Path, typer.Argument(help="The .tflite file.")]
RecipeFile = Annotated[
    Path, typer.Argument(help="Recipe file (TOML). Paths in it are relative to the working directory.")
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="Target to run on, such as host (this machine), tflm (TensorFlow Lite Micro), cortex-m4 (an emulated "
        "microcontroller), android, ssh:USER@HOST or browser; may be repeated.",
    ),
]
CompilerOption = Annotated[
    str | None, typer.Option("--cc", help="C compiler for emulated microcontrollers, such as arm-none-eabi-gcc.")
]
BoardOption = Annotated[
    str | None,
    typer.Option(
        help="Board of the emulated microcontroller, such as nrf52840. Adds the target of its core if it is not given."
    ),
]


def _load_tensorflow() -> None:
    """Loads TensorFlow and finds its devices without the lines that both print from C++, which no setting stops."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns when several models predict
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
def _recorded_interrupts() -> Iterator[list[int]]:
    """Yields a list that grows with each Ctrl-C; Ctrl-C interrupts as before."""
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    foreground = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    if not foreground or threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield interrupts
        return
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)


# Errors of the file system that carry no path: a full disk, a quota, a read-only file system, a file that is too large.
_STORAGE = frozenset({errno.ENOSPC, errno.EROFS, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


def _report_error(error: Exception, options: dict[str, str]) -> int:
    """Prints an error and returns the exit status: a message for the user's errors, a traceback for ours.

    Args:
        error: What the command raised.
        options: Command-line option by Python name.
    """
    if isinstance(error, TfkdError):
        typer.echo(f"tfkd: {_as_options(str(error), options)}", err=True)
        return _BAD_INPUT if isinstance(error, InputError) else _MISSING_TOOL
    if (message := _input_error_in_tensorflow(error)) is not None:
        typer.echo(f"tfkd: {_as_options(message, options)}", err=True)
        return _BAD_INPUT
    if isinstance(error, OSError) and _is_environment(error):
        path = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"tfkd: {path}{error.strerror or error}.", err=True)
        return _BAD_INPUT
    traceback.print_exception(error)
    if (line := _line_of_own_code(error)) is not None:
        typer.echo(f"tfkd: your own code raised this error: {line}. Correct it.", err=True)
        return _BAD_INPUT
    typer.echo("tfkd: this is an error inside tfkd. Please report it with the lines above.", err=True)
    return _INTERNAL


def _line_of_own_code(error: Exception) -> str | None:
    """The line of the user's code that raised an error, where the command loaded such code and it did; else None."""
    own_code = sys.modules.get("tfkd.models.own_code")
    return None if own_code is None else own_code.raised_at(error)


def _input_error_in_tensorflow(error: Exception) -> str | None:
    """The message of an `InputError` that a function of tf.data raised, such as that of a broken image; else None."""
    if not type(error).__module__.startswith("tensorflow"):
        return None
    found = re.search(r"\bInputError: (.*)", str(error))
    return found[1] if found else None


def _is_environment(error: OSError) -> bool:
    """Whether a file cannot be opened, read or written because of the user's system: not an error inside tfkd."""
    full = os.strerror(errno.ENOSPC) in str(error)  # HDF5 has the system's message only
    return error.filename is not None or error.errno in _STORAGE or full


def _as_options(message: str, options: dict[str, str]) -> str:
    """A message in terms of the command line: `overwrite=True` becomes `--overwrite`.

    >>> _as_options("Pass overwrite=True or seed=1.", {"overwrite": "--overwrite", "seed": "--seed"})
    'Pass --overwrite or --seed 1.'
    >>> _as_options("Pass check=False.", {"check": "--check/--no-check"})
    'Pass --no-check.'
    >>> _as_options("Pass image_size=(96, 64).", {"image_size": "--image-size"})
    'Pass --image-size 96 64.'
    """

    def replace(found: re.Match[str]) -> str:
        name, value = found[1], found[2].strip("'\"()").replace(", ", " ")
        if name not in options:
            return found[0]
        on, _, off = options[name].partition("/")
        return on if value == "True" else off if off and value == "False" else f"{on} {value}"

    return re.sub(r"(?<![\w,.-])(\w+)=('[^']*'|\"[^\"]*\"|\(\d+, \d+\)|[\w/-]+(?:\.\w+)*)", replace, message)


def _options_of(name: str) -> dict[str, str]:
    """The option of each parameter of a command that has one, such as `--check/--no-check`."""
    group: Any = typer.main.get_command(app)
    options = {one.name: (*one.opts[:1], *one.secondary_opts) for one in group.commands[name].params}
    return {parameter: "/".join(names) for parameter, names in options.items() if names[0].startswith("--")}


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of tfkd as a sentence; other warnings as Python prints them."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"tfkd: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def command(
    *, tensorflow: bool | tuple[str, ...] = False, resumes: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a command and turns its errors into a message and an exit status.

    Args:
        tensorflow: Whether the command uses TensorFlow, or the names of the options that make it do so.
        resumes: Whether the same command continues after an interruption.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__.replace("_", "-")

        @functools.wraps(function)
        def guarded(*args: object, **kwargs: object) -> None:
            warnings.formatwarning = _format_warning
            with _recorded_interrupts() as interrupts:
                try:
                    if any(map(kwargs.get, tensorflow)) if isinstance(tensorflow, tuple) else tensorflow:
                        _load_tensorflow()
                    function(*args, **kwargs)
                except (typer.Exit, typer.Abort, BrokenPipeError):  # Typer ends on these itself
                    raise
                except (Exception, KeyboardInterrupt) as error:
                    # Native code that a Ctrl-C reaches while it calls Python turns it into an error of its own.
                    if interrupts or isinstance(error, KeyboardInterrupt):
                        again = " The same command resumes the work." if resumes else ""
                        typer.echo(f"tfkd: interrupted.{again}", err=True)
                        raise typer.Exit(_INTERRUPTED) from None
                    raise typer.Exit(_report_error(error, _options_of(name))) from None

        return app.command(name=name)(guarded)

    return register


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"tfkd {importlib.metadata.version('tfkd')}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def progress_of(as_json: bool) -> Progress:
    """The progress display of a command, on standard error when JSON goes to standard output."""
    import rich.console

    from tfkd._internal.progress import Progress

    return Progress(rich.console.Console(stderr=as_json, highlight=False))


def print_result(progress: Progress, value: object, as_json: bool, text: str) -> None:
    """Prints the result of a command.

    Args:
        progress: Progress display of the command.
        value: JSON value, printed if `as_json`.
        as_json: The command's `--json`.
        text: Lines for a person, printed otherwise.
    """
    if as_json:
        typer.echo(json.dumps(value))
    else:
        progress.line(text)


def command_line() -> str:
    """The command as it was typed, for reports."""
    return shlex.join(["tfkd", *sys.argv[1:]])
