"""A model and samples that a browser runs: what the page is sent, the check of its answer, and what it then shows."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import queue
import re
import secrets
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import jinja2
import numpy as np

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.conversion import litert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError
from tfkd.targets import browser_answer, browser_model, browser_summary
from tfkd.targets.browser_answer import Answer
from tfkd.targets.browser_server import Reply, Site
from tfkd.targets.browser_summary import Expected
from tfkd.targets.litert_js import Library

_PART_BYTES = 4_000_000
_HEADER_BYTES = 2_000_000
_MOST_OPEN = 1000
_NOTHING = Expected()


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is run.

    Args:
        accelerator: `wasm`, `webgpu` or `webnn`.
        threads: Threads per inference, >= 1.
        latency: Whether latency is measured.
        automatic: Whether the page starts by itself.
        once: Whether only the first answer is taken.
    """

    accelerator: str = "wasm"
    threads: int = 1
    latency: bool = True
    automatic: bool = True
    once: bool = True


class Trial:
    """A model and its samples for one or more browsers.

    Args:
        spec: Specification of the target, for measurements and messages.
        model: The model.
        inputs: One array [N, ...] for each input of the model.
        library: LiteRT.js.
        settings: How it is run.
        expected: What the answers are compared with.
        progress: Called with the name of a phase and its progress in percent.

    Raises:
        ModelError: LiteRT.js does not take the data type of an input or output.
        InputError: It does not take a value.
    """

    def __init__(
        self,
        spec: str,
        model: TFLiteModel,
        inputs: list[np.ndarray],
        library: Library,
        settings: Settings,
        expected: Expected = _NOTHING,
        progress: Callable[[str, int], None] = lambda phase, percent: None,
    ) -> None:
        self.spec, self.model, self.settings, self.library = spec, model, settings, library
        self.sent = browser_model.prepare(model)
        self.answers: queue.Queue[Answer] = queue.Queue()
        self._expected, self._progress = expected, progress
        self._inputs = [end.encode(array) for end, array in zip(self.sent.inputs, inputs, strict=True)]
        self._crcs = [zlib.crc32(np.ascontiguousarray(array).data) for array in self._inputs]
        self._samples = len(inputs[0])
        largest = max(array[:1].nbytes for array in self._inputs)
        self._part = max(1, _PART_BYTES // largest)
        self._open: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._answered, self._lock = False, threading.Lock()

    @property
    def site(self) -> Site:
        """What the server answers."""
        folder = Path(__file__).with_name("browser_page")
        files: dict[str, bytes | Callable[[], bytes]] = {
            name: (folder / name).read_bytes()
            for name in ("page.css", "guard.js", "page.js", "measure.js", "engine.js")
        }
        files[""] = self._page(folder.joinpath("page.html.jinja").read_text("utf-8")).encode()
        files["job.json"] = lambda: json.dumps(self._job()).encode()
        files["model.tflite"] = self.sent.content
        files |= {f"litert/{name}": content for name, content in self.library.files.items()}
        outputs = sum(max(1, math.prod(map(abs, end.tensor.shape))) for end in self.sent.outputs)
        return Site(files, self._input, self._receive, 4 * outputs * self._samples + _HEADER_BYTES)

    def _page(self, template: str) -> str:
        threads = "1 thread" if self.settings.threads == 1 else f"{self.settings.threads} threads"
        page = jinja2.Environment(autoescape=True).from_string(template)
        return page.render(
            name=self.model.path.name if self.model.path else "The model",
            size=f"{self.model.size_bytes / 1000:,.0f} kB",
            samples=f"{self._samples:,}",
            engine=f"LiteRT.js {self.library.version}",
            setting=f"{self.settings.accelerator}, {threads}",
            auto=self.settings.automatic,
        )

    def _job(self) -> JsonObject:
        nonce = secrets.token_hex(16)
        with self._lock:
            self._open[nonce] = None
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        self._progress("the page is open", 0)
        return {
            "nonce": nonce,
            "accelerator": self.settings.accelerator,
            "threads": self.settings.threads,
            "latency": self.settings.latency,
            "samples": self._samples,
            "part_samples": self._part,
            "restart": keeps_state(self.model),
            "inputs": [{"dtype": end.dtype, "shape": list(end.tensor.shape)} for end in self.sent.inputs],
            "input_names": self.sent.names and self.sent.names[0],
            "output_names": self.sent.names and self.sent.names[1],
        }

    def _input(self, path: str) -> bytes | None:
        """Samples: `input/1/2` is the third part of the second input."""
        found = re.fullmatch(r"input/(\d{1,3})/(\d{1,9})", path, re.ASCII)
        index, part = (int(one) for one in found.groups()) if found else (-1, 0)
        if not 0 <= index < len(self._inputs) or part * self._part >= self._samples:
            return None
        self._progress("samples", 100 * part * self._part // self._samples)
        return self._inputs[index][part * self._part : (part + 1) * self._part].tobytes()

    def _receive(self, body: bytes) -> Reply:
        """Takes an answer if it is of this run, and returns what the page shows."""
        try:
            length = struct.unpack_from("<I", body)[0]
            record = json.loads(body[4 : 4 + length])
            nonce = record["nonce"]
            known = isinstance(nonce, str)
        except (struct.error, ValueError, KeyError, TypeError, RecursionError):
            return Reply(400, {"error": "The answer is incomplete. Load the page again."})
        with self._lock:
            if self.settings.once and self._answered:
                return Reply(409, {"error": "Another device has answered already."})
            if not known or nonce not in self._open:
                return Reply(409, {"error": "This answer has been taken, or is of an older page. Load the page again."})
            del self._open[nonce]
            failed = isinstance(record.get("error"), str)
            if not failed:
                try:
                    answer = self._check(record, memoryview(body)[4 + length :])
                except DeviceError as error:
                    return Reply(400, {"error": str(error)})
                self._answered = True
        if failed:
            self.answers.put(browser_answer.failure(record))
            return Reply(200, {})
        self.answers.put(answer)
        assert answer.measurement is not None
        shown = browser_summary.summary(answer.measurement, self._expected)
        return Reply(200, {**shown, "again": not self.settings.once})

    def _check(self, record: JsonRecord, content: memoryview) -> Answer:
        checked = browser_answer.check(
            record,
            content,
            self.spec,
            {
                "model_bytes": len(self.sent.content),
                "model_crc32": zlib.crc32(self.sent.content),
                "samples": self._samples,
                "inputs_crc32": self._crcs,
            },
            self.sent.outputs,
        )
        measurement = browser_answer.measurement(
            checked, self.spec, self.model, self.sent, self.settings.accelerator, self.library.version
        )
        return Answer(measurement, device=checked.record.device)


def keeps_state(model: TFLiteModel) -> bool:
    """Whether outputs depend on earlier samples, so that only a new model of LiteRT.js has the initial state.

    Args:
        model: The model.
    """
    return litert.needs_restart(set(model.ops))
