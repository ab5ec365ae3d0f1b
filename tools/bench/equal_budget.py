"""What benches of contestants at equal budget share: options, the teacher's labels, and rows kept as they finish."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tfkd
from tfkd.data.augmentation import crop_flip
from tfkd.distillation.training import write_atomically

Row = dict[str, Any]


def parser(description: str, contestants: Iterable[str], **defaults: Any) -> argparse.ArgumentParser:
    """The options of such a bench; `defaults` are of `epochs`, `learning_rate`, `views` and `out`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="cifar10", help="what tfkd.data.load takes")
    made.add_argument("--teacher", required=True, help="a .keras file that gives logits")
    made.add_argument("--labels", help="a store of the teacher's labels; made where it is missing")
    made.add_argument("--views", type=int, help="of the store; more than one are cropped and flipped")
    made.add_argument("--no-flip", dest="flip", action="store_false", help="crop alone: digits, spectrograms")
    made.add_argument("--epochs", type=int)
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--learning-rate", type=float)
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--only", nargs="*", default=[*contestants], choices=[*contestants], help="contestants")
    made.add_argument("--minutes", type=float, default=float("inf"), help="start no run that would end later")
    made.add_argument("--out", type=Path)
    made.set_defaults(**defaults)
    return made


def label(options: argparse.Namespace, teacher: Any, train: Any) -> tfkd.SoftLabels:
    """The store of the teacher's labels, filled where it is not."""
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
    """The rows of a table, each in a file of its own.

    Args:
        folder: where they lie; other budgets may lie there too.
        budget: what must be equal for rows to be compared.
    """

    folder: Path
    budget: Row

    def finished(self) -> list[Row]:
        """The rows of this budget that are there."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("run-*.json"))]
        return [row for row in found if row["budget"] == self.budget]

    def fill(self, wanted: Sequence[tuple[str, int]], work: Callable[[str, int, str], Row], minutes: float) -> None:
        """Makes the rows that are missing, one after the other.

        Args:
            wanted: contestants and seeds.
            work: (contestant, seed, title for progress) -> the row; where it raises ValueError, that is printed.
            minutes: no row is begun that would end later, judged by the longest so far.
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
            print(f"{title}: begins", flush=True)
            started = time.monotonic()
            try:
                row = work(name, seed, title)
            except ValueError as error:  # what one contestant cannot do is no reason to lose the others
                print(f"{title}: failed: {error}", flush=True)
                continue
            row |= {"budget": self.budget, "name": name, "seed": seed, "seconds": time.monotonic() - started}
            budget = hashlib.sha256(json.dumps(self.budget).encode()).hexdigest()[:8]
            write_atomically(self.folder / f"run-{file_name(name, seed)}-{budget}.json", json.dumps(row))
            figures = [f"{key} {row[key]:.5g}" for key in row if isinstance(row[key], float)]
            print(f"{title}: {', '.join(figures)}", flush=True)


def file_name(name: str, seed: int) -> str:
    """What a contestant's files are called."""
    return re.sub(r"\W+", "_", f"{name} {seed}")
