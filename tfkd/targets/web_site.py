"""A static folder in which a browser runs a model on pictures or sounds of its device: a demonstration to share.

The page prepares its input as `tfkd.data` does for the training: pictures bit for bit, features of sounds to the
rounding of float32. It needs no server of its own and no other network.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np

from tfkd._internal import atomic
from tfkd._internal.suggestion import suggestion
from tfkd._internal.types import JsonObject
from tfkd.conversion import input_room
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data import sound_features
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError, ModelError
from tfkd.targets import browser_model, litert_js, target
from tfkd.targets.browser_model import End
from tfkd.targets.browser_trial import keeps_state

_PAGE = ("page.css", "site.css", "guard.js", "site.js", "site_worker.js", "engine.js", "preprocess.js")
# The tasks whose answers the page shows.
_TASKS = ("classification", "binary", "multi_label", "regression")
# Builds of LiteRT.js for one thread; the second one is for browsers without relaxed SIMD.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")
_NOTICE = """\
LiteRT.js {version}, npm packages @litertjs/core and @litertjs/wasm-utils, copyright Google LLC, under the Apache
License, version 2.0: https://www.apache.org/licenses/LICENSE-2.0. Changed: index.js imports wasm_utils.js by its path.
"""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How the input of a model is prepared from a picture or a sound.

    Args:
        resize: Filter that resizes pictures, one of `tfkd.data.reading.RESIZES`.
        crop: How a picture of another aspect ratio fits, one of `tfkd.data.reading.CROPS`.
        input_range: The values (low, high) that the model takes for the pixels 0 and 255.
        sample_rate: Sample rate of sounds in Hz, 3,000..192,000; None for a model of pictures.
        features: `none`, `log_mel` or `mfcc`.
        mel_bands: Bands that `mfcc` is computed from.
        frame_ms: Length of a frame of the features, in milliseconds.
        hop_ms: Time from one frame to the next, in milliseconds.
    """

    resize: str = "bilinear"
    crop: str = "none"
    input_range: tuple[float, float] = (0.0, 255.0)
    sample_rate: int | None = None
    features: str = "none"
    mel_bands: int = 40
    frame_ms: float = 30.0
    hop_ms: float = 20.0


_PICTURES = Preparation()


def write(
    model: str | os.PathLike[str] | TFLiteModel,
    folder: str | os.PathLike[str],
    library: litert_js.Library,
    *,
    task: str = "classification",
    labels: Sequence[str] = (),
    preparation: Preparation = _PICTURES,
    title: str = "",
    overwrite: bool = False,
) -> JsonObject:
    """Writes the folder, atomically.

    Args:
        model: A .tflite with one input and one output.
        folder: Folder to create.
        library: LiteRT.js, which is copied.
        task: What the outputs mean: `classification`, `binary`, `multi_label` or `regression`.
        labels: Name of each class or output; the two classes of a binary task, the positive one last. By default
            their numbers.
        preparation: How the input is prepared.
        title: Heading of the page; by default the name of the file.
        overwrite: Whether to replace an existing folder that this function wrote.

    Returns:
        `files`, `bytes` of all files, `input` (`picture` or `sound`) and `labels`.

    Raises:
        InputError: An option does not fit the model, or the folder exists.
        ModelError: LiteRT.js or the page cannot run the model.
    """
    model, folder = TFLiteModel.load(model), Path(folder)
    own = (folder / "site_worker.js").is_file()
    atomic.check_replaceable(folder, "export-web", own=own, overwrite=overwrite)
    target.check_litert(model, "export-web", kernels="wasm")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"export-web: the model must have one input and one output. Received: {len(model.inputs)} and "
            f"{len(model.outputs)}. Time it by `tfkd benchmark --target browser:wait`, which takes any number."
        )
    shape = model.outputs[0].shape
    if sum(size > 1 for size in shape) > 1:
        raise ModelError(
            f"export-web: the output of the model must be one vector, [1, N]. Received: {list(shape)}. "
            "The page shows no boxes, masks or points; `tfkd serve` measures such models on the device."
        )
    sent = browser_model.prepare(model)
    if keeps_state(model):
        raise ModelError(
            "export-web: the model must not keep a state from one input to the next. Received: one that does. Use "
            "`tfkd serve`."
        )
    size = int(np.prod(shape))
    names = _labels(labels, task, size)
    settings = {
        **_input(model, preparation),
        "task": task,
        "labels": names,
        "activation": _activation(model, task),
        "model": f"model-{model.sha256[:12]}.tflite",
        "accelerator": "wasm",
        "threads": 1,
        "inputs": [_end(sent.inputs[0])],
        "outputs": [_end(sent.outputs[0])],
        "input_names": sent.names and sent.names[0],
        "output_names": sent.names and sent.names[1],
    }
    files = _files(model, sent.content, settings, library, title)
    atomic.write_folder(folder, files)
    return {
        "files": len(files),
        "bytes": sum(len(content) for content in files.values()),
        "input": "picture" if preparation.sample_rate is None else "sound",
        "labels": names,
    }


def _labels(labels: Sequence[str], task: str, size: int) -> list[str]:
    """The names of classes or outputs, checked.

    Raises:
        InputError: They are not as many as the model has, or the page does not show the answers of the task.
    """
    if task not in _TASKS:
        raise InputError(
            f"export-web: task must be one of {', '.join(_TASKS)}. Received: {task!r}.{suggestion(task, _TASKS)} "
            "The page shows no answers of other tasks; `tfkd serve` measures them on the device."
        )
    if task == "binary" and size != 1:
        raise InputError(
            f"export-web: the task binary needs a model with one output. Received: {size}. Choose another."
        )
    if task == "classification" and size < 2:
        raise InputError(
            "export-web: the task classification needs a model with two classes or more. Received: one output. Choose "
            "task='binary' or task='regression'."
        )
    count = 2 if task == "binary" else size
    if labels and len(labels) != count:
        raise InputError(
            f"export-web: labels must be {count} names, as the model has. Received: {len(labels)}. List all of them, "
            "in the order of their numbers."
        )
    return list(labels) or [str(number) for number in range(count)]


def _activation(model: TFLiteModel, task: str) -> str:
    """The function that makes probabilities of the outputs: none where the model ends with it."""
    last = next(
        (op.name for op in reversed(model.graph.ops) if op.name not in ("DEQUANTIZE", "QUANTIZE", "RESHAPE")), ""
    )
    if task == "regression" or last in ("SOFTMAX", "LOGISTIC"):
        return "none"
    return "softmax" if task == "classification" else "sigmoid"


def _end(end: End) -> JsonObject:
    """An input or output as the page sees it; the scale is null where there is none."""
    quantized = len(end.tensor.scales) == 1 and end.tensor.scales[0] > 0
    found: JsonObject = {"dtype": end.dtype, "shape": list(end.tensor.shape), "scale": None}
    if quantized:
        limits = np.iinfo(end.tensor.dtype)
        found |= {
            "scale": end.tensor.scales[0],
            "zero_point": end.tensor.zero_points[0],
            "lowest": int(limits.min),
            "highest": int(limits.max),
        }
    return found


def _input(model: TFLiteModel, how: Preparation) -> JsonObject:
    """The settings of the preparation of a picture or a sound."""
    shape = model.inputs[0].shape
    if how.sample_rate is not None:
        return _sound(shape, how, how.sample_rate)
    settings = _picture(shape, how)
    if (tensor := input_room.quantized_input(model)) is not None:
        input_room.check(how.input_range, tensor.dtype, tensor.scales[0], tensor.zero_points[0], "export-web")
    return settings


def _picture(shape: tuple[int, ...], how: Preparation) -> JsonObject:
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3) or min(shape) < 1:
        raise InputError(
            f"export-web: the input of the model must be a picture [1, height, width, 1 or 3]. Received: "
            f"{list(shape)}. For sounds give sample_rate=16000."
        )
    low, high = how.input_range
    if low == high or not np.isfinite(how.input_range).all():
        raise InputError(
            f"export-web: input_range must be two different numbers. Received: {low:g} and {high:g}. Give what the "
            "model takes for the pixels 0 and 255."
        )
    height, width, channels = shape[1:]
    ReadingOptions(image_size=(height, width), resize=how.resize, crop=how.crop)  # checks both
    return {
        "image": {
            "height": height, "width": width, "channels": channels,
            "resize": how.resize, "crop": how.crop, "low": low, "high": high,
        }
    }  # fmt: skip


def _sound(shape: tuple[int, ...], how: Preparation, rate: int) -> JsonObject:
    if not np.isfinite((how.frame_ms, how.hop_ms)).all():
        raise InputError(
            f"export-web: frame_ms and hop_ms must be numbers > 0. Received: {how.frame_ms} and {how.hop_ms}. Correct "
            "them."
        )
    if not 3000 <= rate <= 192_000:
        raise InputError(f"export-web: sample_rate must be 3000..192000 Hz. Received: {rate}. Correct it.")
    sizes = [size for size in shape[len(shape) > 1 :] if size != 1] or [1]
    if how.features == "none":
        if len(sizes) != 1 or (len(shape) > 1 and shape[0] != 1):
            raise InputError(
                "export-web: the input of the model must be the samples of a sound, [T], [1, T] or [1, T, 1]. "
                f"Received: {list(shape)}. For features of sounds give features='log_mel' or features='mfcc'."
            )
        return {"sound": {"sample_rate": rate, "samples": sizes[0], "features": None}}
    if len(shape) not in (3, 4) or shape[0] != 1 or (len(shape) == 4 and shape[3] != 1):
        raise InputError(
            f"export-web: the input of the model must be features of a sound, [1, frames, bands] or [1, frames, bands, "
            f"1]. Received: {list(shape)}. For the samples themselves give features='none'."
        )
    frames, columns = shape[1:3]
    is_mfcc = how.features == "mfcc"
    options = ReadingOptions(
        sample_rate=rate,
        features=how.features,
        mel_bands=how.mel_bands if is_mfcc else columns,
        frame_ms=how.frame_ms,
        hop_ms=how.hop_ms,
        coefficients=columns if is_mfcc else ReadingOptions().coefficients,
    )
    definition = sound_features.definition(options, rate)
    if definition["hop"] < 1 or definition["frame"] < 1:
        raise InputError(
            f"export-web: frame_ms and hop_ms must be a sample or more. Received: {how.frame_ms:g} and {how.hop_ms:g} "
            f"ms at {rate} Hz. Raise them."
        )
    samples = definition["frame"] + (frames - 1) * definition["hop"]
    return {"sound": {"sample_rate": rate, "samples": samples, "features": definition}}


def _files(
    model: TFLiteModel, content: bytes, settings: JsonObject, library: litert_js.Library, title: str
) -> dict[str, bytes]:
    """Content of each file of the folder, by its path."""
    folder = Path(__file__).with_name("browser_page")
    is_sound = "sound" in settings
    name = model.path.name if model.path else "The model"
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
        folder.joinpath("site.html.jinja").read_text("utf-8")
    )
    files = {
        "index.html": page.render(
            title=title or (model.path.stem if model.path else "A model"),
            name=name,
            size=f"{model.size_bytes / 1000:,.0f} kB",
            digest=model.sha256[:16],
            engine=f"LiteRT.js {library.version}",
            sound=is_sound,
            settings=settings,
        ).encode(),
        settings["model"]: content,
        "litert/NOTICE.txt": _NOTICE.format(version=library.version).encode(),
    }
    names = (*_PAGE, *(("recorder.js",) if is_sound else ()))
    files |= {file: folder.joinpath(file).read_bytes() for file in names}
    wanted = {"index.js", "wasm_utils.js", *(f"{build}{end}" for build in _BUILDS for end in (".js", ".wasm"))}
    return files | {f"litert/{file}": data for file, data in library.files.items() if file in wanted}
