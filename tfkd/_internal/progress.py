"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress

# Logs of an epoch that are shown, as far as a task has them.
_SHOWN = ("loss", "accuracy", "mae", "pixel_accuracy", "cell_f1", "near_points")


class Progress:
    """Reports which step runs and its progress.

    Args:
        console: Console to print to; standard output by default.
    """

    def __init__(self, console: rich.console.Console | None = None) -> None:
        self.console = console or rich.console.Console(highlight=False)
        self._bar: rich.progress.Progress | None = None
        self._task: Any = None
        self._step, self._phase, self._started = "", "", 0.0

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            columns = (
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
            )
            self._bar = rich.progress.Progress(*columns, console=self.console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def line(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        # Neither markup nor wrapping, so that paths with brackets print as they are and grep finds whole lines.
        self.console.print(text, markup=False, soft_wrap=True)

    def start(self, step: str) -> None:
        """Begins a step."""
        self._step, self._started = step, time.monotonic()
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(step, total=None)
        else:
            self.line(f"{step} ...")

    def advance(self, done: int, total: int, text: str = "") -> None:
        """Reports the progress of the step.

        Args:
            done: Number of finished parts.
            total: Number of parts.
            text: Text beside the numbers.
        """
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=f"{self._step}  {text}")
        elif done in (1, total) or done % max(1, total // 4) == 0:
            self.line(f"{self._step} {done}/{total} {text}".rstrip())

    def phase(self, name: str, percent: int) -> None:
        """Reports the progress of a device within a part of the step.

        Args:
            name: Name of the phase.
            percent: Progress of the phase, 0..100.
        """
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._step}  {name} {percent} %")
        elif name != self._phase:
            self.line(f"{self._step}: {name} ...")
        self._phase = name

    def epoch(self, done: int, total: int, logs: Mapping[str, float]) -> None:
        """Reports a finished epoch.

        Args:
            done: Number of finished epochs.
            total: Number of epochs.
            logs: Values by name, as Keras passes them to callbacks.
        """
        names = [one for name in _SHOWN for one in (name, f"val_{name}") if one != "val_loss"]
        self.advance(done, total, " ".join(f"{name} {logs[name]:.4f}" for name in names if name in logs))

    def finish(self, text: str = "") -> None:
        """Ends the step.

        Args:
            text: Result, printed beside the duration.
        """
        self.line(f"{self._step} done in {time.monotonic() - self._started:.1f} s {text}".rstrip())
