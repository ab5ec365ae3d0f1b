"""A browser on this machine or on a phone in the same network: LiteRT.js, by WebAssembly, WebGPU or WebNN."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import queue
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from tfkd._internal.types import InputArrays, Tensor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets import browser_process, browser_server, litert_js, target
from tfkd.targets.browser_answer import Answer, browser_name
from tfkd.targets.browser_summary import Expected
from tfkd.targets.browser_trial import Settings, Trial
from tfkd.targets.host import Host
from tfkd.targets.measurement import Measurement

ACCELERATORS = ("wasm", "webgpu", "webnn")
WAIT = "wait"

_POLL_S = 0.2


@dataclasses.dataclass(frozen=True)
class Browser(target.Target):
    """LiteRT.js in a browser: raw outputs and latency.

    The first run downloads LiteRT.js (12 MB) from the npm registry into the user's cache; see
    `tfkd.targets.litert_js`. Latency is measured before the outputs. A run is not valid if the page was in the
    background or stood still.

    Args:
        place: `chromium`, `firefox`, the path of a browser, or empty for the first that is installed, which runs
            without a window; `wait` for a phone, which opens the page by a QR code.
        accelerator: `wasm` (XNNPACK), `webgpu` or `webnn`.
        threads: Threads per inference, 1..64; more than 1 only with `wasm`.
        address: Address of this machine on which `wait` listens; empty for that of its network.
        port: Port, 0..65535; 0 for a free one.
        certificate: PEM file with certificate and key for https, without which a phone has neither threads nor WebGPU.
        litert_js: Folder node_modules/@litertjs to take LiteRT.js from; empty for the cache.
        labels: [N] class of each sample, for the accuracy on the page.
        labelled_output: Number of the output that has the scores of the classes.
        progress: Called with the name of each phase and its progress in percent.
        timeout_s: Time limit in seconds, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: The browser is not installed.
    """

    place: str = ""
    accelerator: str = "wasm"
    threads: int = 1
    address: str = ""
    port: int = 0
    certificate: str = ""
    litert_js: str = ""
    labels: Tensor = None
    labelled_output: int = 0
    progress: target.OnProgress | None = None
    timeout_s: float = 600.0

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """See `tfkd.targets.Target.parse`."""
        return {"place": detail} if detail else {}

    def __post_init__(self) -> None:
        target.check_timeout("browser", self.timeout_s)
        if self.accelerator not in ACCELERATORS:
            raise InputError(
                f"browser: accelerator must be one of {', '.join(ACCELERATORS)}. Received: {self.accelerator!r}."
            )
        if not 1 <= self.threads <= 64 or (self.threads > 1 and self.accelerator != "wasm"):
            raise InputError(
                f"browser: threads must be 1..64, and 1 where the accelerator is not wasm. Received: "
                f"threads={self.threads}, accelerator={self.accelerator}. Use threads=1."
            )
        if not 0 <= self.port <= 65535:
            raise InputError(f"browser: port must be 0..65535. Received: port={self.port}. Use 0.")
        if "/" not in self.place and self.place not in ("", WAIT, *browser_process.COMMANDS):
            raise InputError(
                f"browser: the browser must be {', '.join(browser_process.COMMANDS)}, {WAIT} or a path with a slash. "
                f"Received: {self.place!r}."
            )
        if self.place != WAIT:
            browser_process.find(self.place)
        elif (
            not self.certificate
            and not self.address.startswith("127.")
            and (self.threads > 1 or self.accelerator != "wasm")
        ):
            raise InputError(
                f"browser: threads and {'webgpu' if self.accelerator == 'wasm' else self.accelerator} need a page over "
                f"https on a phone. Received: threads={self.threads}, accelerator={self.accelerator}. Give "
                "certificate=FILE, or use accelerator=wasm and threads=1."
            )

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        place = f"browser:{self.place}" if self.place else "browser"
        return target.described(place, self, "accelerator", "threads")

    @property
    def runs_in_parts(self) -> bool:
        """See `tfkd.targets.Target.runs_in_parts`."""
        return self.place != WAIT

    def with_progress(self, on_progress: target.OnProgress) -> Browser:
        """See `tfkd.targets.Target.with_progress`."""
        return dataclasses.replace(self, progress=on_progress)

    def with_labels(self, labels: np.ndarray, output: int = 0) -> Browser:
        """See `tfkd.targets.Target.with_labels`."""
        return dataclasses.replace(self, labels=labels, labelled_output=output)

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`.

        Raises:
            ToolMissingError: LiteRT.js cannot be downloaded.
            DeviceError: The browser ended, failed or gave no answer in time.
        """
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        target.check_litert(model, self.spec, kernels="wasm")
        waits = self.place == WAIT
        settings = Settings(self.accelerator, self.threads, latency, automatic=not waits)
        expected = Expected()
        if waits:
            expected = Expected(outputs_here(comparable(model), model, arrays), self.labels, self.labelled_output)
        library = litert_js.load(say, self.litert_js)
        progress = self.progress or (lambda phase, percent: None)
        trial = Trial(self.spec, model, arrays, library, settings, expected, progress)
        with self.serving({browser_server.new_token(): trial.site}) as urls:
            if waits:
                return self._wait(trial, urls[0])
            path = browser_process.find(self.place)
            with browser_process.running(path, urls[0], self.accelerator) as browser:
                return self._result(trial, browser)

    @contextlib.contextmanager
    def serving(self, sites: dict[str, browser_server.Site]) -> Iterator[list[str]]:
        """Serves sites, to this machine or to its network; yields the URL of each.

        Args:
            sites: A site by its token.
        """
        address = self.address or (browser_server.network_address() if self.place == WAIT else "127.0.0.1")
        with browser_server.serving(sites, address=address, port=self.port, certificate=self.certificate) as url:
            yield [f"{url}{token}/" for token in sites]

    def _wait(self, trial: Trial, url: str) -> Measurement:
        say(invitation(url, f"Waiting for an answer for up to {self.timeout_s:g} s; Ctrl-C ends."))
        end = time.monotonic() + self.timeout_s
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                answer = trial.answers.get(timeout=min(left, _POLL_S))
                if answer.measurement:
                    return answer.measurement
                say(f"{_device_of(answer)} failed: {answer.error} It may try again.")
        raise DeviceError(
            f"{self.spec}: no device gave an answer within {self.timeout_s:g} s. Open {url} on a phone in the same "
            "network, or raise timeout_s; a firewall of this machine may block the port."
        )

    def _result(self, trial: Trial, running: browser_process.Running) -> Measurement:
        """The answer of a browser on this machine."""
        end = time.monotonic() + self.timeout_s
        while time.monotonic() < end:
            ended = running.ended
            try:
                answer = trial.answers.get(timeout=_POLL_S)
            except queue.Empty:
                if ended is None:
                    continue
                raise DeviceError(
                    f"{self.spec}: the browser ended with status {ended} before it answered. It printed: "
                    f"{running.printed or 'nothing'}"
                ) from None
            if answer.measurement:
                return answer.measurement
            kind = ModelError if answer.is_model else DeviceError
            raise kind(f"{self.spec}: {answer.error}")
        raise DeviceError(
            f"{self.spec}: timed out after {self.timeout_s:g} s. Raise timeout_s. The browser printed: "
            f"{running.printed or 'nothing'}"
        )


def comparable(model: TFLiteModel) -> tuple[Host, ...]:
    """The targets of this machine that a browser may compute as.

    LiteRT's kernels of some ops on int16, such as ADD, round otherwise on each kind of CPU, and in WebAssembly as its
    reference kernels do.

    Args:
        model: The model.
    """
    in_int16 = any(tensor.dtype == "int16" for graph in model.subgraphs for tensor in graph.tensors)
    return (Host(), Host("reference")) if in_int16 else (Host(),)


def outputs_here(
    hosts: Sequence[Host], model: TFLiteModel, arrays: list[np.ndarray]
) -> dict[str, tuple[np.ndarray, ...]]:
    """The outputs of targets of this machine, by their specification, as far as they run the model.

    Args:
        hosts: The targets.
        model: The model.
        arrays: One array [N, ...] for each input.
    """
    outputs = {}
    for host in hosts:
        try:
            outputs[host.spec] = host.run(model, arrays, latency=False).outputs
        except (ModelError, DeviceError, ToolMissingError) as error:
            say(f"browser: the page shows no agreement with {host.spec}, which fails: {error}")
    return outputs


def invitation(url: str, note: str) -> str:
    """A QR code of a URL for a terminal, and how to use it.

    Args:
        url: The URL.
        note: A sentence behind it.
    """
    import segno

    code = io.StringIO()
    segno.make(url, error="l", micro=False).terminal(code, compact=True, border=2)
    return f"\n{code.getvalue()}\nScan the code, or open {url} on a device in the same network. {note}"


def say(line: str) -> None:
    """Prints a line for the user, apart from results."""
    print(f"tfkd: {line}" if not line.startswith("\n") else line, file=sys.stderr, flush=True)


def _device_of(answer: Answer) -> str:
    return browser_name(str(answer.device.get("user_agent", "")))
