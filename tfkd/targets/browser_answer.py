"""The answer of a browser: its check and its measurement."""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pydantic

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError
from tfkd.targets.browser_model import End, SentModel
from tfkd.targets.measurement import Measurement

# A batch of inferences takes 20 steps of the browser's clock or more; a single one may be faster.
_FEWEST_STEPS = 10
_LONGEST_DRIFT_MS = 2000
_BROWSERS = (
    (r"FxiOS/(\d+)", "Firefox for iOS (WebKit)"), (r"CriOS/(\d+)", "Chrome for iOS (WebKit)"),
    (r"Firefox/(\d+)", "Firefox"), (r"SamsungBrowser/(\d+)", "Samsung Internet"), (r"Edg\w*/(\d+)", "Edge"),
    (r"Chrome/(\d+)", "Chromium"), (r"Version/(\d+)\S* (?:Mobile/\S+ )?Safari", "Safari"),
)  # fmt: skip

_Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
_Time = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, pydantic.Field(ge=0)]
_Text = Annotated[str, pydantic.Field(max_length=2000)]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one browser answered.

    Args:
        measurement: The measurement, or None.
        error: Why there is none, in the browser's words.
        is_model: Whether LiteRT.js refused the model.
        device: Facts about the device that the browser reported.
    """

    measurement: Measurement | None
    error: str = ""
    is_model: bool = False
    device: JsonRecord = dataclasses.field(default_factory=dict)


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True)


class _Timed(_Model):
    latencies_ms: Annotated[list[_Positive], pydantic.Field(min_length=1, max_length=50_000)]
    clock_step_ms: _Positive
    batch: Annotated[int, pydantic.Field(ge=1)]
    runs: Annotated[int, pydantic.Field(ge=1)]
    kept_every: Annotated[int, pydantic.Field(ge=1)]
    warm_up_runs: _Count
    warm_up_stable: bool
    longest_pause_ms: _Time
    shortest_in_steps: _Time


class _Output(_Model):
    dtype: Literal["float32", "int32", "uint8"]
    shape: Annotated[list[_Count], pydantic.Field(max_length=8)]
    crc32: _Count


class Record(_Model):
    """The numbers of an answer, as measure.js and page.js send them."""

    model_bytes: _Count
    model_crc32: _Count
    samples: _Count
    inputs_crc32: list[_Count]
    load_ms: _Time
    compile_ms: _Time
    first_run_ms: _Time
    build: _Text
    jspi: bool
    threads: Annotated[int, pydantic.Field(ge=1)]
    used_accelerator: Literal["wasm", "webgpu", "webnn"]
    fully_accelerated: bool
    timed: _Timed | None
    outputs: list[_Output]
    clock_drift_ms: Annotated[float, pydantic.Field(allow_inf_nan=False)]
    printed: Annotated[list[_Text], pydantic.Field(max_length=20)]
    device: JsonObject
    hidden: bool
    page_pause_ms: _Time


class Checked(NamedTuple):
    """An answer that is complete and of this run.

    Args:
        record: Its numbers.
        outputs: One array [N, ...] for each output, as LiteRT.js returned it.
    """

    record: Record
    outputs: tuple[np.ndarray, ...]


def check(record: JsonRecord, content: memoryview, where: str, expected: JsonRecord, ends: Sequence[End]) -> Checked:
    """Checks an answer.

    Args:
        record: Its JSON header.
        content: The outputs behind it.
        where: Name of the target, for the message.
        expected: Values that fields of the header must have.
        ends: The outputs of the model.

    Raises:
        DeviceError: It is incomplete or of another run.
    """
    try:
        checked = Record.model_validate(record)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DeviceError(f"{where}: the answer is incomplete: {place}: {first['msg']}. Run it again.") from None
    wrong = [name for name, value in expected.items() if getattr(checked, name) != value]
    if wrong:
        raise DeviceError(f"{where}: the answer is not of this run: {', '.join(wrong)} differ. Run it again.")
    if len(checked.outputs) != len(ends):
        raise DeviceError(f"{where}: {len(checked.outputs)} outputs came back, the model has {len(ends)}.")
    arrays, start = [], 0
    for one, end in zip(checked.outputs, ends, strict=True):
        size = math.prod(one.shape) * checked.samples * np.dtype(one.dtype).itemsize
        part = content[start : start + size]
        if len(part) != size or zlib.crc32(part) != one.crc32 or one.dtype != end.dtype:
            raise DeviceError(f"{where}: output {end.tensor.name!r} is incomplete or damaged. Run it again.")
        shape = one.shape[1:] if one.shape[:1] == [1] else one.shape
        arrays.append(np.frombuffer(part, one.dtype).reshape(checked.samples, *shape))
        start += size
    if start != len(content):
        raise DeviceError(f"{where}: {len(content) - start} bytes too many came back. Run it again.")
    return Checked(checked, tuple(arrays))


def measurement(
    checked: Checked, where: str, model: TFLiteModel, sent: SentModel, accelerator: str, version: str
) -> Measurement:
    """The measurement of an answer.

    Args:
        checked: The answer.
        where: Specification of the target.
        model: The model of the user.
        sent: The model that was sent.
        accelerator: The accelerator that was asked for.
        version: Version of LiteRT.js.
    """
    record, timed = checked.record, checked.record.timed
    exact = record.used_accelerator == "wasm"
    outputs = tuple(end.decode(array, exact=exact) for end, array in zip(sent.outputs, checked.outputs, strict=True))
    reasons = _reasons(record, accelerator)
    used = accelerator if record.fully_accelerated or exact else f"{accelerator}, partly wasm"
    times = ("clock_step_ms", "runs", "kept_every", "warm_up_runs", "warm_up_stable")
    return Measurement(
        target=where,
        model_sha256=model.sha256,
        model_bytes=model.size_bytes,
        outputs=outputs,
        evidence={"outputs": "measured", **({"latencies_ns": "measured"} if timed else {})},
        latencies_ns=tuple(max(1, round(ms * 1e6)) for ms in timed.latencies_ms) if timed else None,
        setting={
            "accelerator": used,
            "threads": record.threads,
            "timed_batch": 1,
            **({"inferences_per_time": timed.batch} if timed else {}),
        },
        environment={
            **device(record.device),
            "engine": f"LiteRT.js {version}, {record.build}",
            "model_changes": list(sent.changes),
            **{name: round(getattr(record, name), 3) for name in ("load_ms", "compile_ms", "first_run_ms")},
            **{name: getattr(timed, name) for name in times if timed},
            "messages": list(record.printed),
        },
        valid=not reasons,
        invalid_reason="; ".join(reasons) or None,
    )


def _reasons(record: Record, accelerator: str) -> list[str]:
    """Why the numbers cannot be trusted."""
    timed, reasons = record.timed, []
    if record.used_accelerator != accelerator:
        reasons.append(f"{accelerator} did not take the whole model, and LiteRT.js ran it by {record.used_accelerator}")
    if timed is None:
        return reasons
    if record.hidden:
        reasons.append("the page was in the background, where browsers slow it down")
    if record.page_pause_ms:
        reasons.append(f"the page stood still for {record.page_pause_ms / 1000:.1f} s")
    if timed.longest_pause_ms:
        reasons.append(f"an inference was held up for {timed.longest_pause_ms / 1000:.1f} s")
    if abs(record.clock_drift_ms) > _LONGEST_DRIFT_MS:
        reasons.append(
            f"the clock of the page stood still for {abs(record.clock_drift_ms) / 1000:.1f} s: the device slept"
        )
    if timed.shortest_in_steps < _FEWEST_STEPS:
        reasons.append(
            f"the clock of the browser has steps of {timed.clock_step_ms:g} ms, and a time took only "
            f"{timed.shortest_in_steps:.0f} of them"
        )
    return reasons


def browser_name(user_agent: str) -> str:
    """Name and major version of a browser.

    >>> browser_name("Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0")
    'Firefox 153'
    """
    for pattern, name in _BROWSERS:
        if found := re.search(pattern, user_agent):
            return f"{name} {found[1]}"
    return "unknown browser"


def device(reported: JsonRecord) -> JsonObject:
    """Facts about a device that its browser reported, as short texts and numbers; anything else is dropped."""

    def text(value: object) -> str | None:
        return value[:300] if isinstance(value, str) and value else None

    def number(value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if math.isfinite(value) else None

    hints = reported.get("hints")
    hints = hints if isinstance(hints, dict) else {}
    user_agent = text(reported.get("user_agent")) or ""
    platform = " ".join(filter(None, (text(hints.get("platform")), text(hints.get("platformVersion")))))
    found = re.search(r"\(([^)]*)\)", user_agent)
    return {
        "browser": browser_name(user_agent),
        "user_agent": user_agent,
        "model": text(hints.get("model")),
        "system": platform or (found[1] if found else None),
        "machine": text(hints.get("architecture")),
        "cores": number(reported.get("cores")),
        "memory_gib": number(reported.get("memory_gib")),
        "screen": text(reported.get("screen")),
        "gpu": text(reported.get("gpu")),
        "isolated": reported.get("isolated") is True,
    }


def failure(record: JsonRecord) -> Answer:
    """An answer that says why there is no measurement.

    Args:
        record: What the page sent: `error`, `printed`, `is_model` and `device`.
    """
    printed = record.get("printed")
    reported = record.get("device")
    lines = [str(line)[:500] for line in printed[-3:]] if isinstance(printed, list) else []
    return Answer(
        None,
        error=" ".join([str(record["error"])[:1000], *lines]).strip(),
        is_model=record.get("is_model") is True,
        device=reported if isinstance(reported, dict) else {},
    )
