"""An Android phone: the benchmark app of `android_demo/`, controlled over adb."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tfkd._internal.types import InputArrays, JsonObject, JsonRecord
from tfkd.conversion import litert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets import adb, target
from tfkd.targets.measurement import Measurement

PACKAGE = "dev.tfkd.bench.app"
VERSION = 2
ACCELERATORS = ("cpu", "gpu", "nnapi")

_MIN_RUNS, _MIN_SECONDS, _MAX_SECONDS = 50, 1.0, 150.0


@dataclasses.dataclass(frozen=True)
class Android(target.Target):
    """LiteRT on a phone, in the app of `android_demo/`: raw outputs and latency.

    Latency is measured before the outputs. Files are stored by their SHA-256, so that a second run copies nothing. The
    answer must have the nonce, hashes and counts of this run. A run above thermal status LIGHT is not valid.

    Args:
        serial: Serial number of the device, as `adb devices` shows it; empty if only one is connected.
        threads: Threads per inference, 1..64.
        accelerator: `cpu` (XNNPACK), `gpu` or `nnapi`.
        apk: Path of the app, made by tools/build_apk.py. It is installed if the phone's is missing or older.
        sustained_s: Duration of back-to-back inferences in seconds, 0..7200; 0 for one second.
        restart: Number of the repetition, >= 0; each repetition is a new process on the phone.
        progress: Called with the name of each phase and its progress in percent.
        timeout_s: Time limit in seconds besides `sustained_s`, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: `adb` is not installed.
    """

    serial: str = ""
    threads: int = 1
    accelerator: str = "cpu"
    apk: str | os.PathLike[str] | None = None
    sustained_s: float = 0.0
    restart: int = 0
    progress: target.OnProgress | None = None
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        return {"serial": detail} if detail else {}

    def __post_init__(self) -> None:
        target.check_timeout("android", self.timeout_s)
        if not 1 <= self.threads <= 64:
            raise InputError(f"android: threads must be 1..64. Received: threads={self.threads}. Use 1.")
        if self.accelerator not in ACCELERATORS:
            raise InputError(
                f"android: accelerator must be one of {', '.join(ACCELERATORS)}. Received: {self.accelerator!r}."
            )
        if self.restart < 0:
            raise InputError(f"android: restart must be >= 0. Received: restart={self.restart}. Use 0.")
        if not 0 <= self.sustained_s <= 7200:
            raise InputError(f"android: sustained_s must be 0..7200. Received: {self.sustained_s}. Use 600.")
        adb.check("android", self.serial)

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        place = f"android:{self.serial}" if self.serial else "android"
        return target.described(place, self, "threads", "accelerator", "sustained_s", "restart")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; the files of the run are deleted from the phone afterwards.

        Raises:
            ToolMissingError: The app is not on the phone and `apk` is None.
            DeviceError: The phone cannot be used, the app crashed or timed out, or its answer is not of this run.
        """
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        target.check_litert(model, self.spec)
        _check_batch_axes(model, self.spec)
        device = self.phone()
        run_id, nonce = f"run-{secrets.token_hex(8)}", secrets.token_hex(16)
        files = {"model.tflite": model.content, **{f"input_{i}.npy": litert.packed(x) for i, x in enumerate(arrays)}}
        spec = {"format": 1, "id": run_id, "nonce": nonce, **self._settings(files, latency)}
        with adb.awake(device), _folder(device, run_id):
            device.push({**files, "spec.json": json.dumps(spec).encode()}, run_id)
            device.instrument(run_id, self.timeout_s + self.sustained_s, self.progress)
            record = _record(device.fetch(run_id, "result.json"), self.spec, run_id, nonce, model, len(arrays[0]))
            outputs = tuple(_output(device, run_id, one, len(arrays[0]), self.spec) for one in record["outputs"])
        if len(outputs) != len(model.outputs):
            raise DeviceError(
                f"{self.spec}: the phone returned {len(outputs)} outputs, the model has {len(model.outputs)}."
            )
        return self._measurement(model, outputs, record, latency)

    def _settings(self, files: Mapping[str, bytes], latency: bool) -> JsonObject:
        """What the app runs: the model, which is the first file, and the inputs, and how."""
        model, *inputs = (
            {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        )
        return {
            "model": model,
            "inputs": inputs,
            "threads": self.threads,
            "accelerator": self.accelerator,
            "min_runs": _MIN_RUNS if latency else 0,
            "min_seconds": _MIN_SECONDS if latency else 0,
            "max_seconds": _MAX_SECONDS if latency else 0,
            "sustained_seconds": self.sustained_s if latency else 0,
            "accuracy": True,
        }

    def _measurement(
        self, model: TFLiteModel, outputs: tuple[np.ndarray, ...], record: JsonRecord, latency: bool
    ) -> Measurement:
        timed = tuple(record["latencies_ns"]) if latency else None
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=outputs,
            evidence={"outputs": "measured", **({"latencies_ns": "measured"} if timed else {})},
            latencies_ns=timed,
            setting={
                "threads": self.threads,
                "accelerator": self.accelerator,
                "restart": self.restart,
                "timed_batch": 1,
            },
            environment={
                **record["device"],
                **record["engine"],
                **{key: record[key] for key in ("warm_up_runs", "warm_up_stable", "runs", "kept_every")},
                "thermal": record["thermal"],
                "per_minute": record["per_minute"],
            },
            valid=record["valid"],
            invalid_reason="; ".join(record["reasons"]) or None,
        )

    def check(self) -> None:
        """See `tfkd.targets.Target.check`."""
        self.phone()

    def with_progress(self, on_progress: target.OnProgress) -> Android:
        """See `tfkd.targets.Target.with_progress`."""
        return dataclasses.replace(self, progress=on_progress)

    def phone(self) -> Phone:
        """The connected phone, with the app installed if it was missing and `apk` is given.

        Raises:
            DeviceError: No phone, several phones, or one that does not respond or refuses the app.
            ToolMissingError: The app is not on the phone and `apk` is None.
        """
        device = Phone(self.spec, adb.connected(self.spec, self.serial))
        self._install(device)
        return device

    def _install(self, device: Phone) -> None:
        """Installs the app where it is missing or older."""
        found = device.app_version()
        if found >= VERSION:
            return
        if self.apk is None:
            installed = f"version {found}" if found else "no version"
            raise ToolMissingError(
                f"{self.spec}: the phone has {installed} of the app; version {VERSION} is needed. Build it, "
                "`python tools/build_apk.py --model student.tflite --out bench.apk`, then `adb install -r bench.apk`."
            )
        # The path is absolute, so that a file name that begins with a dash is no option.
        printed = device.adb("install", "-r", str(Path(self.apk).resolve()))
        if "Success" not in printed:
            raise DeviceError(
                f"{self.spec}: the phone did not install the app: {printed.strip()[-500:]}. Look at its screen."
            )
        found = device.app_version()
        if found < VERSION:
            raise DeviceError(
                f"{self.spec}: {self.apk} is not version {VERSION} of the app, but {found or 'another app'}. Build it "
                "again with tools/build_apk.py."
            )


class Phone(adb.Device):
    """A phone with the benchmark app."""

    def app_version(self) -> int:
        """Version of the installed app; 0 if it is missing."""
        found = re.search(r"versionCode=(\d+)", self.shell("dumpsys", "package", PACKAGE))
        return int(found[1]) if found else 0

    def inside(self, *command: str) -> str:
        """Runs a command as the app, in its private folder."""
        return self.shell("run-as", PACKAGE, *command)

    def push(self, files: dict[str, bytes], run_id: str) -> None:
        """Copies files into the folder of the run.

        Args:
            files: Content by file name. The last is the specification of the run, which is not kept for later runs.
            run_id: Name of the folder.
        """
        paths = self.store(list(files.values()))
        for name, path in zip(files, paths, strict=True):
            self.inside("cp", path, f"files/runs/{run_id}/{name}")
        self.shell("rm", "-f", paths[-1])

    def instrument(self, run_id: str, timeout_s: float, progress: target.OnProgress | None) -> None:
        """Runs the app.

        Args:
            run_id: Name of the run's folder.
            timeout_s: Time limit in seconds.
            progress: Called with the name of each phase and its progress in percent.

        Raises:
            DeviceError: The app crashed, rejected the run or timed out, or the cable was pulled.
        """
        command = ["am", "instrument", "-w", "-r", "-e", "run_id", run_id, f"{PACKAGE}/.BenchInstrumentation"]
        lines: list[str] = []
        phase = ""
        with subprocess.Popen(
            ["adb", "-s", self.serial, "shell", shlex.join(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            timer = threading.Timer(timeout_s, process.kill)
            timer.start()
            try:
                for line in process.stdout or ():
                    lines.append(line)
                    key, _, value = line.strip().removeprefix("INSTRUMENTATION_STATUS: ").partition("=")
                    phase = value if key == "phase" else phase
                    if key == "percent" and value.isdigit() and progress:
                        progress(phase, int(value))
                timed_out = not timer.is_alive()
            finally:
                timer.cancel()
                process.kill()
        text = "".join(lines)
        error = re.search(r"INSTRUMENTATION_RESULT: error=(.*)", text)
        if timed_out:
            raise DeviceError(
                f"{self.where}: timed out after {timeout_s:g} s; last phase: {phase or 'start'}. Unlock the phone, or "
                "raise timeout_s."
            )
        if error:
            raise DeviceError(f"{self.where}: the app rejected the run: {error[1].strip()}")
        if "INSTRUMENTATION_CODE: -1" not in text:
            raise DeviceError(
                f"{self.where}: the app did not finish; last phase: {phase or 'start'}. It printed: "
                f"{text.strip()[-1500:] or 'nothing'}\nIf the cable was pulled, plug it in and run again; otherwise "
                "read `adb logcat`."
            )

    def fetch(self, run_id: str, name: str) -> bytes:
        """Content of a file of the run."""
        command = shlex.join(["run-as", PACKAGE, "cat", f"files/runs/{run_id}/{name}"])
        return adb.read(["-s", self.serial, "exec-out", command], f"{self.where}: fetching {name}")


@contextlib.contextmanager
def _folder(device: Phone, run_id: str) -> Iterator[None]:
    """Makes the folder of the run on the phone, and removes it after the block."""
    try:
        device.inside("mkdir", "-p", f"files/runs/{run_id}")
        yield
    finally:
        with contextlib.suppress(DeviceError):
            device.shell("am", "force-stop", PACKAGE)
            device.inside("rm", "-rf", f"files/runs/{run_id}")


def _record(content: bytes, where: str, run_id: str, nonce: str, model: TFLiteModel, samples: int) -> JsonObject:
    """Parses the result that the app wrote, and checks that it is complete and of this run."""
    try:
        record = json.loads(content)
        found = [record[key] for key in ("id", "nonce", "model_sha256", "samples")]
        complete = all(isinstance(one, int) and one > 0 for one in record["latencies_ns"])
        types = {
            "valid": bool,
            "reasons": list,
            "outputs": list,
            "device": dict,
            "engine": dict,
            "thermal": list,
            "per_minute": list,
            "runs": int,
            "kept_every": int,
            "warm_up_runs": int,
            "warm_up_stable": bool,
        }
        complete = complete and all(isinstance(record[key], kind) for key, kind in types.items())
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"{where}: the result of the app, {len(content)} bytes, is incomplete ({error!r}). Run it again; if that "
            "does not help, reinstall the app."
        ) from None
    expected = [run_id, nonce, model.sha256, samples]
    if not complete or found != expected:
        raise DeviceError(f"{where}: the result is not of this run: {found} instead of {expected}. Run it again.")
    if not record["valid"] and not record["reasons"]:
        raise DeviceError(f"{where}: the result is not valid and has no reason. Reinstall the app.")
    return dict(record)


def _check_batch_axes(model: TFLiteModel, where: str) -> None:
    """Refuses a model whose samples have no batch axis, which the app takes away."""
    for tensor in (*model.inputs, *(one for one in model.outputs if one.shape)):
        if not tensor.has_batch_axis:
            raise ModelError(
                f"{where}: {tensor.name!r} must have a batch axis of size 1. Received: shape {tensor.shape}, which the "
                "app does not support. Use the target host or ssh."
            )


def _output(device: Phone, run_id: str, one: JsonRecord, samples: int, where: str) -> np.ndarray:
    """Fetches an output, after checking its name, hash and number of samples."""
    name = str(one.get("file")) if isinstance(one, dict) else ""
    if not re.fullmatch(r"output_\d{1,3}\.npy", name):
        raise DeviceError(f"{where}: invalid name of an output: {name!r}; it must be output_0.npy and so on.")
    content = device.fetch(run_id, name)
    if hashlib.sha256(content).hexdigest() != one.get("sha256"):
        raise DeviceError(f"{where}: {name} was damaged in transfer: {len(content)} bytes with another hash.")
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DeviceError(f"{where}: {name} is not a .npy file: {error}") from None
    if len(array) != samples:
        raise DeviceError(f"{where}: {name} has {len(array)} samples instead of {samples}.")
    return np.asarray(array)
