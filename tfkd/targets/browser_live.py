"""A page with one row for each device that has visited, and with the code for the next one."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import jinja2
import segno

from tfkd._internal.types import JsonObject
from tfkd.targets import browser_answer, browser_summary
from tfkd.targets.browser_answer import Answer
from tfkd.targets.browser_server import Reply, Site
from tfkd.targets.browser_summary import Expected


class LivePage:
    """The page and its rows.

    Args:
        name: Name of the model.
        expected: What the answers are compared with.
    """

    def __init__(self, name: str, expected: Expected) -> None:
        self.url = ""
        self._name, self._expected = name, expected
        self._rows: list[JsonObject] = []
        self._lock = threading.Lock()

    @property
    def site(self) -> Site:
        """What the server answers."""
        folder = Path(__file__).with_name("browser_page")
        template = folder.joinpath("live.html.jinja").read_text("utf-8")
        environment = jinja2.Environment(autoescape=True)
        return Site(
            {
                "": lambda: environment.from_string(template).render(name=self._name, url=self.url).encode(),
                "page.css": (folder / "page.css").read_bytes(),
                "guard.js": (folder / "guard.js").read_bytes(),
                "live.js": (folder / "live.js").read_bytes(),
                "code.svg": self._code,
                "rows.json": self._json,
            },
            prefix=lambda path: None,
            receive=lambda body: Reply(404, {}),
            limit_bytes=0,
        )

    def add(self, answer: Answer) -> JsonObject:
        """Adds the row of an answer, and returns it."""
        row = self._row(answer)
        with self._lock:
            self._rows.append(row)
        return row

    def _code(self) -> bytes:
        image = io.BytesIO()
        segno.make(self.url, error="l", micro=False).save(image, kind="svg", scale=8, light="white")
        return image.getvalue()

    def _json(self) -> bytes:
        with self._lock:
            return json.dumps(self._rows).encode()

    def _row(self, answer: Answer) -> JsonObject:
        facts = browser_answer.device(answer.device)
        cores = f"{facts['cores']:g} cores" if facts["cores"] else None
        memory = f"{facts['memory_gib']:g} GiB" if facts["memory_gib"] else None
        device = ", ".join(
            filter(None, (facts["model"], facts["browser"], facts["system"], cores, memory, facts["gpu"]))
        )
        row = dict.fromkeys(("accuracy", "median", "p90", "accelerator"), "–")
        row |= {"number": str(len(self._rows) + 1), "device": device, "state": "bad"}
        if answer.measurement is None:
            return {**row, "verdict": "The test failed", "note": answer.error}
        measured = answer.measurement
        shown = browser_summary.summary(measured, self._expected)
        facts = dict(shown["facts"])
        return {
            **row,
            "state": shown["state"],
            "verdict": shown["verdict"],
            "accuracy": facts.get("Accuracy", "–"),
            "median": facts.get("Median", "–"),
            "p90": facts.get("90 % below", "–"),
            "accelerator": facts["Accelerator"],
            "note": "" if measured.valid else f"Times do not count: {measured.invalid_reason}",
        }
