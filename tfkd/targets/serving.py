"""Latency of a .keras file or a SavedModel, run by TensorFlow on this machine as a server runs it."""

from __future__ import annotations

import hashlib
import os
import platform
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import isolation
from tfkd._internal.types import JsonObject
from tfkd.conversion import litert
from tfkd.errors import InputError, ModelError
from tfkd.targets import target
from tfkd.targets.measurement import Measurement, Memory
from tfkd.targets.random_inputs import random_input

if TYPE_CHECKING:
    import tensorflow as tf


def time_model(path: Path, *, threads: int = 1, batch: int = 1, timeout_s: float = 600.0) -> Measurement:
    """Times inferences of a Keras model or SavedModel on random input, as the target `host` times those of a .tflite.

    Args:
        path: A .keras file, or the folder of a SavedModel with the signature `serving_default`.
        threads: Threads per inference, >= 1.
        batch: Samples per inference, >= 1.
        timeout_s: Time limit of the child process in seconds, > 0.

    Raises:
        InputError: The path is none of both.
        ModelError: TensorFlow cannot run the model, or not with that batch size.
        DeviceError: The process crashed or timed out.
    """
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    if not ((path / "saved_model.pb").is_file() or (path.suffix == ".keras" and zipfile.is_zipfile(path))):
        cause = "is neither a .tflite, a .keras file of Keras 3 nor the folder of a SavedModel"
        raise InputError(f"benchmark: {path} {cause if path.exists() else 'does not exist'}.")
    try:
        timed = isolation.run(
            "tfkd.targets.serving:_time",
            path=str(path),
            threads=threads,
            batch=batch,
            timed_s=litert.TIMED_S,
            timeout_s=timeout_s,
            what=f"timing {path}",
        )
    except InputError as error:
        raise ModelError(f"benchmark: TensorFlow cannot run {path} with a batch of {batch}: {error}") from None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        digest.update(file.read_bytes())
    setting = "".join(f",{name}={value}" for name, value in (("threads", threads), ("batch", batch)) if value != 1)
    return Measurement(
        target=f"tensorflow{setting}",
        model_sha256=digest.hexdigest(),
        model_bytes=sum(file.stat().st_size for file in files),
        outputs=(),
        evidence={"latencies_ns": "measured", **({"memory": "measured"} if timed["peak_rss_bytes"] else {})},
        latencies_ns=timed["latencies_ns"],
        memory=Memory(peak_rss_bytes=timed["peak_rss_bytes"]),
        setting={"threads": threads, "timed_batch": batch},
        environment={
            "machine": platform.machine(),
            "processor": litert.processor(),
            "cores": target.cores(),
            "system": platform.platform(),
            "tensorflow": timed["tensorflow"],
            **{key: timed[key] for key in ("warm_up_runs", "warm_up_stable", "runs", "kept_every")},
        },
    )


def _time(path: str, threads: int, batch: int, timed_s: float) -> JsonObject:  # in the child
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    call, specs = _saved_model(path) if os.path.isdir(path) else _keras(path)
    inputs = []
    for i, spec in enumerate(specs):
        shape = [batch, *spec.shape[1:]]
        if spec.shape[0] not in (None, batch) or None in shape:
            raise ModelError(f"input shape {tuple(spec.shape)} does not fit a batch of {batch}")
        array = random_input(shape, np.dtype(spec.dtype.as_numpy_dtype).name, quantized=False, seed=i)
        inputs.append(tf.constant(array))
    return {**litert.timed(lambda: call(inputs), timed_s), "tensorflow": tf.__version__}


def _saved_model(path: str) -> tuple[Callable[[list[tf.Tensor]], None], list[tf.TensorSpec]]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    if "serving_default" not in loaded.signatures:
        raise ModelError(f"no signature serving_default; its signatures: {', '.join(loaded.signatures) or 'none'}")
    run = loaded.signatures["serving_default"]
    named = run.structured_input_signature[1]

    def call(inputs: list[tf.Tensor], keep: object = loaded) -> None:  # the variables are deleted with `loaded`
        for output in run(**dict(zip(named, inputs, strict=True))).values():
            output.numpy()

    return call, list(named.values())


def _keras(path: str) -> tuple[Callable[[list[tf.Tensor]], None], list[tf.TensorSpec]]:
    import tensorflow as tf

    from tfkd import models

    model = models.read(path)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    run = tf.function(lambda inputs: model(inputs if len(inputs) > 1 else inputs[0], training=False))

    def call(inputs: list[tf.Tensor]) -> None:
        for output in tf.nest.flatten(run(inputs)):
            output.numpy()

    return call, specs
