"""Many devices by their browsers: each one that opens a page and runs the model becomes a row of the validation."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd import tasks
from tfkd._internal.types import InputArrays, JsonRecord
from tfkd.conversion import file_inputs
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError
from tfkd.targets import browser as browsers
from tfkd.targets import browser_server, check_inputs, litert_js
from tfkd.targets.browser import say
from tfkd.targets.browser_answer import Answer
from tfkd.targets.browser_live import LivePage
from tfkd.targets.browser_summary import Expected
from tfkd.targets.browser_trial import Settings, Trial
from tfkd.targets.measurement import Measurement
from tfkd.targets.target import Target
from tfkd.validation.selected_output import of_file
from tfkd.validation.validator import Validation, validate

if TYPE_CHECKING:
    from tfkd.data import Split
    from tfkd.targets.browser import Browser
    from tfkd.validation.contract import Contract

_POLL_S = 0.2

OnVisit = Callable[[JsonRecord], None]


@dataclasses.dataclass(frozen=True)
class Visit(Target):
    """What one device answered, as a target of a validation.

    Args:
        number: Number of the visit, from 1.
        answer: The answer.
    """

    number: int
    answer: Answer

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        return f"browser:visit-{self.number}"

    def run(self, model: object, inputs: object, *, latency: bool = True) -> Measurement:
        """The measurement of the visit, whose model and inputs were the same.

        Raises:
            DeviceError: The browser could not run the model.
        """
        if self.answer.measurement is None:
            raise DeviceError(f"{self.spec}: {self.answer.error}")
        return dataclasses.replace(self.answer.measurement, target=self.spec)


@dataclasses.dataclass
class _Computer(Target):
    """The target host, which keeps the measurement of its run, with all outputs.

    Args:
        host: The target.
        measurement: The measurement; None before the run, and where it failed.
    """

    host: Target
    measurement: Measurement | None = None

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        return self.host.spec

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`. No latency, since no report has the row."""
        self.measurement = self.host.run(model, inputs, latency=False)
        return self.measurement


def serve(
    model: TFLiteModel,
    test: Split,
    browser: Browser,
    *,
    task: str | None = None,
    output: str | None = None,
    most: int | None = None,
    on_start: Callable[[str, str], None] = lambda devices, live: None,
    on_visit: OnVisit = lambda row: None,
) -> list[Visit]:
    """Serves a model to devices until the time limit of `browser`, `most` answers, or Ctrl-C.

    Args:
        model: The model.
        test: Samples in memory, with their labels.
        browser: Target `browser:wait`, whose settings are used.
        task: What the model is for, see `tfkd.validate`. Pages show an accuracy of classes only.
        output: Name of the output that the labels belong to, see `tfkd.validate`.
        most: Number of answers after which to end; None for no end.
        on_start: Called with the URL for devices and that of the live page.
        on_visit: Called with the row of each answer: `number`, `device`, `verdict`, `accuracy`, `median`,
            `p90`, `note`.

    Returns:
        The answers in their order.

    Raises:
        InputError: The samples, their labels or the task do not fit the model.
        ModelError: LiteRT.js does not take an input or output of the model.
        ToolMissingError: LiteRT.js cannot be downloaded.
        DeviceError: This machine has no network address.
    """
    arrays = check_inputs(model, file_inputs.quantized(model, test.x, browser.spec), browser.spec)
    # What does not fit the model shows before anybody is asked to open a page.
    first, *others = browsers.comparable(model)
    computer = _Computer(first)
    on_host = validate(model, test, targets=[computer], task=task, output=output)
    outputs = {first.spec: computer.measurement.outputs} if computer.measurement else {}
    if not outputs:
        say(f"serve: the pages show no agreement with {first.spec}, which fails: {on_host.rows[0].invalid_reason}")
    expected = _expected(on_host, test, model, outputs | browsers.outputs_here(others, model, arrays))
    settings = Settings(browser.accelerator, browser.threads, automatic=False, once=False)
    trial = Trial(browser.spec, model, arrays, litert_js.load(say, browser.litert_js), settings, expected)
    live = LivePage(model.path.name if model.path else "the model", expected)
    visits: list[Visit] = []
    sites = {browser_server.new_token(): trial.site, browser_server.new_token(): live.site}
    with browser.serving(sites) as (devices, page), contextlib.suppress(KeyboardInterrupt):
        live.url = devices
        on_start(devices, page)
        end = time.monotonic() + browser.timeout_s
        while time.monotonic() < end and (most is None or len(visits) < most):
            with contextlib.suppress(queue.Empty):
                visits.append(Visit(len(visits) + 1, trial.answers.get(timeout=_POLL_S)))
                on_visit(live.add(visits[-1].answer))
    return visits


def _expected(
    on_host: Validation, test: Split, model: TFLiteModel, outputs: dict[str, tuple[np.ndarray, ...]]
) -> Expected:
    """What the pages compare answers with."""
    labels = np.asarray(test.y) if tasks.get(on_host.task).is_classification else None
    labelled = 0 if on_host.output is None else of_file(model, on_host.output, None).position
    return Expected(outputs, labels, labelled)


def validate_visits(
    model: TFLiteModel,
    test: Split,
    visits: Sequence[Visit],
    contract: Contract | None = None,
    *,
    task: str | None = None,
    output: str | None = None,
    validation: Split | None = None,
) -> Validation:
    """The validation with a row for the target host and one for each visit.

    Args:
        model: The model that was served.
        test: The samples that were served.
        visits: Result of `serve`.
        contract: Limits, or None.
        task: The task that was passed to `serve`.
        output: The output that was passed to `serve`.
        validation: Validation split on which a task with a threshold chooses it, see `tfkd.validate`.

    Raises:
        DeviceError: There is no visit.
    """
    if not visits:
        raise DeviceError("serve: no device gave an answer. Open the page on one, and wait for its verdict.")
    return validate(
        model,
        test,
        targets=["host", *visits],
        contract=contract,
        task=task,
        output=output,
        validation=validation,
    )
