"""Writes a recipe to start from: each key of the schema, with its description as a comment."""

from __future__ import annotations

import contextlib
import json
import os
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pydantic
from pydantic.fields import FieldInfo

from tfkd import tasks
from tfkd._internal import atomic
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data import kinds
from tfkd.data.loading import load
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.reading import Request
from tfkd.data.sources import NAMES, SOURCES, folder, manifest, npy, npz
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError, TfkdError
from tfkd.recipes.recipe import Recipe, parse

_WIDTH = 100
# Students by task, where `resnet8` has no such outputs, and by the shape of the samples: small ones, as for a
# microcontroller, since a builder's defaults may be those of the teacher.
_STUDENTS: Mapping[str, JsonObject] = {
    "anomaly": {"model": "autoencoder", "options": {"width": 16, "code": 6}},
    "centroid_detection": {"model": "grid_detector", "options": {"alpha": 0.25}},
    "keypoints": {"model": "heatmap_net", "options": {"filters": 8}},
    "object_detection": {"model": "ssdlite", "options": {"alpha": 0.35}},
    "segmentation": {"model": "unet", "options": {"filters": 4, "depth": 2, "light": True}},
    "sequence_labelling": {"model": "frame_cnn", "options": {"filters": 8, "depth": 3}},
}
_OF_IMAGES: JsonObject = {"model": "resnet8"}
_OF_SIGNALS: JsonObject = {"model": "sensor_cnn", "options": {"filters": 8, "depth": 2}}
_OF_TOKENS: JsonObject = {"model": "text_encoder", "options": {"width": 16, "heads": 2, "depth": 1}}
_OF_TABLES: JsonObject = {"model": "mlp", "options": {"units": 12}}

DIGITS: JsonObject = {
    "output": "runs/digits",
    "seed": 0,
    "data": {"name": "digits", "validation": 0.1},
    "teacher": {"model": "digits_teacher", "epochs": 20, "batch_size": 64, "learning_rate": 2e-3},
    "student": {"model": "digits_student"},
    "distillation": {
        "alpha": 0.9,
        "temperature": 4.0,
        "seeds": 3,
        "epochs": 30,
        "batch_size": 64,
    },
    "conversion": {
        "modes": ["float32", "float16", "dynamic_range", "full_int8", "int16x8"],
        "ship": "full_int8",
        "calibration_samples": 256,
    },
    "targets": {"optional": ["cortex-m4:nrf52840", "browser"]},
    "contract": {
        "min_accuracy": 90.0,
        "max_accuracy_drop": 1.0,
        "max_drop_from_teacher": 5.0,
        "max_bytes": 16384,
        "max_arena_bytes": 32768,
    },
}


def write(
    path: str | os.PathLike[str],
    *,
    data: str | Request | None = None,
    teacher: str | os.PathLike[str] | None = None,
    student: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a recipe for the digits demonstration, or for a data set and a trained teacher.

    Args:
        path: TOML file to write.
        data: Data set, see `tfkd.data.load`; None for the demonstration.
        teacher: .keras or .h5 file; None for the demonstration.
        student: Builder of `tfkd.models`, or .keras or .h5 file to start from; by default one for the task, such as
            `resnet8` for classes.
        overwrite: Whether an existing file is replaced.

    Returns:
        The path.

    Raises:
        InputError: The file exists, or only one of data and teacher is given.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} already exists. Pass overwrite=True or choose another path.")
    if data is None and teacher is None and student is None:
        title = "The digits demonstration: scikit-learn's handwritten digits, about three minutes on two CPU cores."
        text = render(DIGITS, title)
    elif data is None or teacher is None:
        raise InputError(
            "init: a recipe for your own models needs --data and --teacher. Give both, or neither. A teacher can be "
            "trained first: tfkd train resnet50 --data photos --out teacher.keras."
        )
    else:
        request = Request.of(data)
        title = f"Distills {teacher} into a student for {request.reference}."
        text = render(_values(request, os.fspath(teacher), student), title)
    parse(text, str(path))
    atomic.write(path, text)
    return path


def _task_and_student(request: Request) -> tuple[tasks.Task, JsonObject | None]:
    """The task and a student for it, as tables and arrays, or the names of files, show them; None for several inputs.

    Files of images and sounds are not read, which may take long, and wrong data are left to the doctor.
    """
    source = next((one for one in SOURCES if one.accepts(request)), None)
    kind, files, train = source.labels if source else None, None, None
    with contextlib.suppress(TfkdError, OSError):
        if source is manifest.SOURCE:
            kind, files = manifest.kinds_of(request)
        elif source is folder.SOURCE:
            files = folder.kind_of(request.path)
        if files is None and source in (manifest.SOURCE, npy.SOURCE, npz.SOURCE):
            train = load(request).train
    if request.task is not None:
        task = tasks.get(request.task)
    elif train is not None:
        task = tasks.find(train)
    else:
        task = next((one for one in tasks.TASKS.values() if one.labels == kind), tasks.CLASSIFICATION)
    if train is not None and isinstance(train.x, NamedArrays):
        return task, None
    are_waves = files is kinds.SOUNDS and request.options.features == "none"
    if task.name in _STUDENTS or (train is None and not are_waves) or (train and len(train.input_shape) == 3):
        return task, _STUDENTS.get(task.name, _OF_IMAGES)
    if train is None or len(train.input_shape) == 2:
        return task, _OF_SIGNALS
    if source is manifest.SOURCE and request.path.suffix.lower() == ".csv":  # counts may be whole numbers, too
        return task, _OF_TABLES
    some = np.asarray(train.sample(min(len(train), 1000)).x[:])
    return task, _OF_TOKENS if ((some >= 0) & (some == np.floor(some))).all() else _OF_TABLES


def _values(request: Request, teacher: str, student: str | None) -> JsonObject:
    """The keys of a recipe for a user's data and teacher."""
    data, options = request.reference, request.options
    task, suggested = _task_and_student(request)
    is_classification = task.is_classification
    if student is None and suggested is None:
        raise InputError(
            "init: samples of several inputs need --student, since the builders of tfkd.models have one. Received: "
            f"none, and the data {data}. Give a .keras file, or module:function."
        )
    if student is not None:
        suggested = {"path" if student.endswith((".keras", ".h5", ".hdf5")) else "model": student}
    reading = {name: getattr(options, name) for name in options.given}
    return {
        "output": f"runs/{Path(data).stem or 'run'}",
        "seed": 0,
        **({} if is_classification else {"task": task.name}),
        "data": {"name" if data in NAMES else "path": data, **reading, "validation": 0.1},
        "teacher": {"path": teacher},
        "student": suggested,
        "distillation": {
            "alpha": 0.9,
            **({"temperature": 4.0} if is_classification else {}),
            "seeds": 1,
            "epochs": 20,
            "batch_size": 64,
        },
        "conversion": {"modes": ["float32", "full_int8"], "ship": "full_int8", "calibration_samples": 256},
        "contract": {"max_accuracy_drop": 2.0, "max_drop_from_teacher": 5.0} if is_classification else _contract(task),
    }


def _contract(task: tasks.Task) -> dict[str, float]:
    """Limits on the last metric of a task whose larger values are better: shares in points, R² as a number."""
    metric = next(one for one in reversed(task.metrics) if one.larger_is_better)
    scale = 1.0 if metric.unit == "percent" else 0.01
    return {f"max_{metric.name}_drop": 2.0 * scale, f"max_{metric.name}_drop_from_teacher": 5.0 * scale}


def render(values: JsonRecord, title: str) -> str:
    """A recipe as TOML, with all keys that `tfkd run` reads; those without a value are commented out.

    Args:
        values: The keys that are set, by table.
        title: First line of the file.
    """
    blocks = ["\n".join([*_comment(title), *_comment((Recipe.__doc__ or "").partition(". ")[2])])]
    fields = {name: field for name, field in Recipe.model_fields.items() if name != "search"}  # of `tfkd search`
    tables = {name: field for name, field in fields.items() if _table_class(field) is not None}
    for name, field in fields.items():
        if name not in tables:
            blocks.append("\n".join(_key(name, field, values.get(name))))
    for name, field in tables.items():
        blocks += _table(name, field, values.get(name, {}))
    return "\n\n".join(blocks) + "\n"


def _table(name: str, field: FieldInfo, values: JsonRecord) -> Iterator[str]:
    """The blocks of a table and of the tables inside it."""
    section = _table_class(field)
    assert section is not None
    several = typing.get_origin(field.annotation) is list
    header = f"[[{name}]]" if several else f"[{name}]"
    # A table that may be left out is commented out as a whole: an empty one would be an error.
    absent = not values and (several or type(None) in typing.get_args(field.annotation))
    lines = [*_comment(field.description or ""), f"# {header}" if absent else header]
    inner = []
    for key, one in sorted(section.model_fields.items(), key=lambda item: item[0] in TrainingConfig.model_fields):
        if _table_class(one) is None:
            lines += _key(key, one, values.get(key))
        else:
            inner.append((f"{name}.{key}", one, values.get(key, {})))
    yield "\n".join(lines)
    for table in inner:
        yield from _table(*table)


def _table_class(field: FieldInfo) -> type[pydantic.BaseModel] | None:
    """The class of a key that is a table, an optional table or a list of tables; None for other keys."""
    for one in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(one, type) and issubclass(one, pydantic.BaseModel):
            return one
    return None


def _key(name: str, field: FieldInfo, value: object) -> list[str]:
    """The lines of a key: its description, then the key with its value, or commented out with its default."""
    lines = _comment(field.description or "")
    if value is not None:
        return [*lines, f"{name} = {_toml(value)}"]
    example = field.get_default() if not field.is_required() else None
    if example is None:
        example = (field.examples or [""])[0]
    return [*lines, f"# {name} = {_toml(example)}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _toml(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
