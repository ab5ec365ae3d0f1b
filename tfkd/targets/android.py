"""A phone: the benchmark app, driven by the real adb."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ToolMissingError
from tfkd.targets import adb, litert, target
from tfkd.targets.measurement import Measurement

PACKAGE = "dev.tfkd.bench.app"
VERSION = 1
ACCELERATORS = ("cpu", "gpu", "nnapi")

_MIN_RUNS, _MIN_SECONDS, _MAX_SECONDS = 50, 1.0, 150.0


@dataclasses.dataclass(frozen=True)
class Android(target.Target):
    """LiteRT on a phone, by the app of `android_demo/`: accuracy from its raw outputs, honest latency.

    All latency comes before the outputs; files are pushed by their SHA-256, so the second run pushes nothing; the
    answer must carry this run's nonce, hashes and counts. A run above thermal status LIGHT is not valid.

    Args:
        serial: of the device, as `adb devices` shows it; may be left out where one is connected.
        threads: of one inference.
        accelerator: `cpu` (XNNPACK), `gpu` or `nnapi`.
        apk: the app, from tools/build_apk.py: installed where it is missing or older.
        sustained_s: seconds of back-to-back inferences, 0..7200; 0 for the usual second.
        restart: which of several runs of one setting this is; each is a process of its own on the phone.
        progress: called with each phase and its percent.
        timeout_s: seconds for the run, beyond those that `sustained_s` asks for.

    Raises:
        ValueError: a setting is wrong.
        RuntimeError: `adb` is not installed.
    """

    serial: str = ""
    threads: int = 1
    accelerator: str = "cpu"
    apk: str | os.PathLike[str] | None = None
    sustained_s: float = 0.0
    restart: int = 0
    progress: Callable[[str, int], None] | None = None
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, Any]:
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
        place = f"android:{self.serial}" if self.serial else "android"
        return target.described(place, self, "threads", "accelerator", "sustained_s", "restart")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        Raises:
            RuntimeError: no device, or which; the app is missing, crashed or did not answer in time; or its answer is
                not that of this run. Nothing of the run stays on the device.
        """
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        device = self.phone()
        run_id, nonce = f"run-{secrets.token_hex(8)}", secrets.token_hex(16)
        files = {"model.tflite": model.content, **{f"input_{i}.npy": litert.packed(x) for i, x in enumerate(arrays)}}
        assets = {
            name: {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        }
        spec = {
            "format": 1, "id": run_id, "nonce": nonce, "model": assets["model.tflite"],
            "inputs": [assets[f"input_{i}.npy"] for i in range(len(arrays))], "threads": self.threads,
            "accelerator": self.accelerator, "min_runs": _MIN_RUNS if latency else 0,
            "min_seconds": _MIN_SECONDS if latency else 0, "max_seconds": _MAX_SECONDS if latency else 0,
            "sustained_seconds": self.sustained_s if latency else 0, "accuracy": True,
        }  # fmt: skip
        with adb.awake(device), _folder(device, run_id):
            device.push({**files, "spec.json": json.dumps(spec).encode()}, run_id)
            device.instrument(run_id, self.timeout_s + self.sustained_s, self.progress)
            record = _record(device.fetch(run_id, "result.json"), self.spec, run_id, nonce, model, len(arrays[0]))
            outputs = tuple(_output(device, run_id, one, len(arrays[0]), self.spec) for one in record["outputs"])
        if len(outputs) != len(model.outputs):
            raise DeviceError(
                f"{self.spec}: must give {len(model.outputs)} outputs. Received: {len(outputs)}. Run it again."
            )
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
            raise ToolMissingError(
                f"{self.spec}: needs the app, version {VERSION}. Received: {found or 'none'}. Build it, "
                "`python tools/build_apk.py --model student.tflite --out bench.apk`, then `adb install -r bench.apk`."
            )
        said = device.adb("install", "-r", str(Path(self.apk).resolve()))  # a name with a dash first is no option then
        if "Success" not in said:
            raise DeviceError(f"{self.spec}: the phone must take the app. Received: {said.strip()[-500:]}. Look at it.")
        found = device.app_version()
        if found < VERSION:
            raise DeviceError(
                f"{self.spec}: {self.apk} must be the app, version {VERSION}. Received: {found or 'none'}. Build it "
                "anew with tools/build_apk.py."
            )


class Phone(adb.Device):
    """A phone with the app."""

    def app_version(self) -> int:
        """The version of the app there; 0 where it is missing."""
        found = re.search(r"versionCode=(\d+)", self.shell("dumpsys", "package", PACKAGE))
        return int(found[1]) if found else 0

    def inside(self, *words: str) -> str:
        """Runs a command as the app, in its own folder."""
        return self.shell("run-as", PACKAGE, *words)

    def push(self, files: dict[str, bytes], run_id: str) -> None:
        """Brings the files into the run's folder; the last belongs to this run alone and does not stay outside."""
        there = self.store(list(files.values()))
        for name, path in zip(files, there, strict=True):
            self.inside("cp", path, f"files/runs/{run_id}/{name}")
        self.shell("rm", "-f", there[-1])

    def instrument(self, run_id: str, timeout_s: float, progress: Callable[[str, int], None] | None) -> None:
        """Runs the app, telling of its progress.

        Raises:
            RuntimeError: it crashed, refused the run, hung, or the cable was pulled.
        """
        words = ["am", "instrument", "-w", "-r", "-e", "run_id", run_id, f"{PACKAGE}/.BenchInstrumentation"]
        said: list[str] = []
        phase = ""
        with subprocess.Popen(
            ["adb", "-s", self.serial, "shell", shlex.join(words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            late = threading.Timer(timeout_s, process.kill)
            late.start()
            try:
                for line in process.stdout or ():
                    said.append(line)
                    key, _, value = line.strip().removeprefix("INSTRUMENTATION_STATUS: ").partition("=")
                    phase = value if key == "phase" else phase
                    if key == "percent" and value.isdigit() and progress:
                        progress(phase, int(value))
                hung = not late.is_alive()
            finally:
                late.cancel()
                process.kill()
        text = "".join(said)
        error = re.search(r"INSTRUMENTATION_RESULT: error=(.*)", text)
        if hung:
            raise DeviceError(
                f"{self.where}: must finish within {timeout_s:g} s. Received: nothing after {phase or 'the start'}. "
                "Unlock the phone, or raise timeout_s."
            )
        if error:
            raise DeviceError(f"{self.where}: the app refused the run. Received: {error[1].strip()}")
        if "INSTRUMENTATION_CODE: -1" not in text:
            tail = text.strip()[-1500:] or "nothing"
            raise DeviceError(
                f"{self.where}: the app must finish. Received, after {phase or 'the start'}: {tail}\nIf the cable was "
                "pulled, plug it in and run again; else look at `adb logcat`."
            )

    def fetch(self, run_id: str, name: str) -> bytes:
        """A file of the run, as bytes."""
        words = shlex.join(["run-as", PACKAGE, "cat", f"files/runs/{run_id}/{name}"])
        return adb.read(["-s", self.serial, "exec-out", words], f"{self.where}: fetching {name}")


@contextlib.contextmanager
def _folder(device: Phone, run_id: str) -> Iterator[None]:
    """The run's folder in the app, removed at the end."""
    try:
        device.inside("mkdir", "-p", f"files/runs/{run_id}")
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            device.shell("am", "force-stop", PACKAGE)
            device.inside("rm", "-rf", f"files/runs/{run_id}")


def _record(content: bytes, where: str, run_id: str, nonce: str, model: TFLiteModel, samples: int) -> dict[str, Any]:
    try:
        record = json.loads(content)
        found = [record[key] for key in ("id", "nonce", "model_sha256", "samples")]
        sound = all(isinstance(one, int) and one > 0 for one in record["latencies_ns"])
        kinds = {
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
        sound = sound and all(isinstance(record[key], kind) for key, kind in kinds.items())
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"{where}: the app must write a whole result. Received: {len(content)} bytes that are none ({error!r}). "
            "Run it again; if it stays so, install the app anew."
        ) from None
    expected = [run_id, nonce, model.sha256, samples]
    if not sound or found != expected:
        raise DeviceError(f"{where}: the result must be of this run, {expected}. Received: {found}. Run it again.")
    if not record["valid"] and not record["reasons"]:
        raise DeviceError(f"{where}: an invalid run must say why. Received: no reason. Install the app anew.")
    return dict(record)


def _output(device: Phone, run_id: str, one: Any, samples: int, where: str) -> np.ndarray:
    name = str(one.get("file")) if isinstance(one, dict) else ""
    if not re.fullmatch(r"output_\d{1,3}\.npy", name):
        raise DeviceError(f"{where}: outputs must be named output_0.npy and so on. Received: {name!r}.")
    content = device.fetch(run_id, name)
    if hashlib.sha256(content).hexdigest() != one.get("sha256"):
        raise DeviceError(f"{where}: {name} must arrive whole. Received: {len(content)} bytes of another hash.")
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DeviceError(f"{where}: {name} must be a .npy file. Received: {error}") from None
    if len(array) != samples:
        raise DeviceError(f"{where}: {name} must hold {samples} samples. Received: {len(array)}.")
    return np.asarray(array)
