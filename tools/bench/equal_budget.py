"""Shared by the benchmarks at equal budgets: command-line options, stored teacher logits, resumable table rows."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tfkd
from tfkd._internal import atomic
from tfkd.data.augmentation import crop_flip

Row = dict[str, Any]


def parser(description: str, contestants: Iterable[str], **defaults: Any) -> argparse.ArgumentParser:
    """The options of a benchmark; `defaults` sets `epochs`, `learning_rate`, `views` and `out`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="cifar10", help="data set: a name, an .npz file or a folder")
    made.add_argument("--teacher", required=True, help="a .keras file that ends in logits")
    made.add_argument("--labels", help="store of teacher logits; created if missing")
    made.add_argument(
        "--views", type=int, help="views per sample in the store; views after the first are cropped and flipped"
    )
    made.add_argument(
        "--no-flip", dest="flip", action="store_false", help="do not flip views, for digits and spectrograms"
    )
    made.add_argument("--epochs", type=int)
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--learning-rate", type=float)
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--only", nargs="*", default=[*contestants], choices=[*contestants], help="methods to run")
    made.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no run that would end after so many minutes"
    )
    made.add_argument("--out", type=Path)
    made.set_defaults(**defaults)
    return made


def label(options: argparse.Namespace, teacher: Any, train: Any) -> tfkd.SoftLabels:
    """The store of teacher logits; missing chunks are computed."""
    return tfkd.SoftLabels.build(
        options.labels or options.out / "labels",
        teacher,
        train,
        views=options.views,
        augment=crop_flip(4, flip=options.flip) if options.views > 1 else None,
        progress=lambda done, total: print(f"labels {done}/{total}", flush=True) if done % 40 == 0 else None,
    )


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a table, one file per row.

    Args:
        folder: Folder of the files; it may hold rows of other budgets.
        budget: Settings that must be equal for rows to be comparable.
    """

    folder: Path
    budget: Row

    def finished(self) -> list[Row]:
        """The finished rows of this budget."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("run-*.json"))]
        return [row for row in found if row["budget"] == self.budget]

    def fill(
        self, wanted: Sequence[tuple[str, int]], work: Callable[[str, int, str], Row], minutes: float = float("inf")
    ) -> None:
        """Computes the missing rows, one after the other.

        Args:
            wanted: Methods and seeds.
            work: Function (method, seed, title for progress) -> row; if it raises ValueError, that is printed.
            minutes: No row is started that would end later, estimated by the longest row so far.
        """
        deadline = time.monotonic() + 60 * minutes
        for number, (name, seed) in enumerate(wanted, 1):
            title, finished = f"row {number}/{len(wanted)}: {name}, seed {seed}", self.finished()
            if any((row["name"], row["seed"]) == (name, seed) for row in finished):
                print(f"{title}: kept", flush=True)
                continue
            if time.monotonic() + max([0.0, *(row["seconds"] for row in finished)]) > deadline:
                print(f"{title}: not run, it would end after the {minutes:g} minutes given", flush=True)
                continue
            print(f"{title}: started", flush=True)
            started = time.monotonic()
            try:
                row = work(name, seed, title)
            except ValueError as error:  # a method that fails must not stop the others
                print(f"{title}: failed: {error}", flush=True)
                continue
            row |= {"budget": self.budget, "name": name, "seed": seed, "seconds": time.monotonic() - started}
            budget = hashlib.sha256(json.dumps(self.budget).encode()).hexdigest()[:8]
            atomic.write(self.folder / f"run-{file_name(name, seed)}-{budget}.json", json.dumps(row))
            figures = [f"{key} {row[key]:.5g}" for key in row if isinstance(row[key], float)]
            print(f"{title}: {', '.join(figures)}", flush=True)


def chosen(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Methods and seeds of the options `only` and `seeds`, all methods of a seed before the next seed."""
    return [(name, seed) for seed in range(options.seeds) for name in options.only]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and standard deviation of several values."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def file_name(name: str, seed: int) -> str:
    """The file name of a method, without suffix."""
    return re.sub(r"\W+", "_", f"{name} {seed}")
