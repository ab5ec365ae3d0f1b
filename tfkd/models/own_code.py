"""Functions and classes of the user's own Python code, which is executed only where the user names it."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from tfkd.errors import InputError
from tfkd.models.loading import NAMES, build


def allow(imports: Sequence[str] = (), *, lambdas: bool = False) -> None:
    """Executes modules of the user and, if asked, lets Keras execute the code inside model files, in this process.

    Args:
        imports: Names of modules, found in the working directory or among the installed packages.
        lambdas: Whether Lambda layers of files are loaded from now on, as by
            `keras.config.enable_unsafe_deserialization`.

    Raises:
        InputError: A module does not exist, or its code raises an error.
    """
    for name in imports:
        _module(name)
    if lambdas:
        keras.config.enable_unsafe_deserialization()


def build_model(
    name: str, input_shape: tuple[int, ...] | dict[str, tuple[int, ...]], num_classes: int, /, **options: object
) -> keras.Model:
    """Builds a model by the name of a builder of tfkd, or by a function of the user.

    Args:
        name: One of `tfkd.models.NAMES`, or `module:function`. The function is called as
            `function(input_shape, num_classes, **options)` and returns a Keras model.
        input_shape: Shape of one sample, without the batch axis; of several inputs the shape of each, by its name.
        num_classes: Number of classes.
        **options: Further arguments.

    Raises:
        InputError: The samples have several inputs, which no builder of tfkd takes; or the builder, module or function
            does not exist, it raises an error, or returns something else.
    """
    if ":" not in name:
        if isinstance(input_shape, dict):
            listed = ", ".join(f"{one} {shape}" for one, shape in input_shape.items())
            raise InputError(
                f"models.build: the builders of tfkd.models have one input. Received: {name!r} for samples of the "
                f"inputs {listed}. Give a .keras file, or module:function, which is called with a dict of these shapes."
            )
        return build(name, input_shape, num_classes, **options)
    return call(name, keras.Model, input_shape, num_classes, **options)


def call(name: str, kind: type, /, *arguments: object, **options: object) -> Any:
    """What a function or class of the user returns.

    Args:
        name: `module:function`.
        kind: Type that the result must have.
        *arguments: Arguments of the function.
        **options: Further arguments.

    Raises:
        InputError: The module or function does not exist, it raises an error, or returns something else.
    """
    function = find(name)
    try:
        found = function(*arguments, **options)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{name}({', '.join(map(str, arguments))}) raised {_described(error)}") from error
    if not isinstance(found, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise InputError(
            f"{name} must return {article} {kind.__name__}. Received: {type(found).__name__}. Return another value."
        )
    return found


def source_files(names: Sequence[str]) -> list[Path]:
    """The files of modules and of functions `module:function` of the user, for hashes.

    Args:
        names: Names of modules or functions; builders of tfkd have no file here.
    """
    files = [inspect.getsourcefile(_module(name.partition(":")[0])) for name in names if name not in NAMES]
    return [Path(file) for file in files if file is not None]


def find(name: str) -> Callable[..., Any]:
    """A function or class of the user.

    Args:
        name: `module:function`.

    Raises:
        InputError: The module or function does not exist, or the module raises an error.
    """
    module_name, _, attribute = name.partition(":")
    module = _module(module_name)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise InputError(f"{name}: {module_name!r} must have a function {attribute!r}. Received: none. Add it.")
    return function


def raised_at(error: Exception) -> str | None:
    """The line of the user's code that raised an error: file and number; None where tfkd itself raised it.

    The error may have passed through Keras and TensorFlow, which hand it on as a text with its traceback.

    Args:
        error: What a command raised.
    """
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    frames += [(file, int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', str(error))]
    for file, line in (_source_of(*frame) for frame in reversed(frames)):
        if Path(file).is_relative_to(_PACKAGE):
            return None
        if _is_own(Path(file)):
            return f"{file}, line {line}"
    return None


def _source_of(file: str, line: int | None) -> tuple[str, int | None]:
    """The line of a source file that AutoGraph of TensorFlow turned into one of a temporary file; any other as it is.

    The function that raised the error, and with it AutoGraph's table of lines, are still in memory.
    """
    if Path(file).name.startswith("__autograph_generated_file"):
        for one in gc.get_objects():
            if type(one).__name__ == "_PythonFnFactory" and (origin := (one.source_map or {}).get((file, line))):
                return origin.loc.filename, origin.loc.lineno
    return file, line


def _is_own(file: Path) -> bool:
    """Whether a file is a module of the user, or beside one."""
    beside = "site-packages" not in file.parts and any(file.is_relative_to(own.parent) for own in _files)
    return beside or file in _files


# The package tfkd, and the files of the modules of the user that were imported.
_PACKAGE = Path(__file__).parents[1]
_files: set[Path] = set()


def _module(name: str) -> ModuleType:
    """A module of the user, imported once; the working directory comes first, as with `python -m`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(name)
        if file := getattr(module, "__file__", None):
            _files.add(Path(file))
        return module
    except Exception as error:  # the user's code may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
            raise InputError(
                f"the module {name!r} does not exist in the working directory {os.getcwd()} or among the installed "
                "packages. Give its name without .py, as after `import`."
            ) from None
        raise InputError(f"the module {name!r} raised {_described(error)}") from error


def _described(error: Exception) -> str:
    """An error of the user's code with the line that raised it."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}). Correct that code."
