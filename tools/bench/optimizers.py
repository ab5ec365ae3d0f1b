"""Learning rates of Adam for students with recurrent layers or attention, on validation samples.

Each student starts from random weights and is trained alone, and distilled (KD, T = 2, alpha = 0.7) from a larger model
of the same family that was trained on the same samples. A seed is also that of the division: a fifth of the training
part is the validation part. The test part is not read.

    python tools/bench/optimizers.py digits --student gru --seeds 3
    python tools/bench/optimizers.py commands --student text_encoder --epochs 6
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
from equal_budget import Row, Rows, chosen, spread

import tfkd
from tfkd.data import Splits
from tfkd.data.sources import commands
from tfkd.distillation.training import accuracy, fit
from tfkd.distillation.training_config import TrainingConfig

ALPHA, TEMPERATURE = 0.7, 2.0
CONTESTANTS = {"Adam 0.001": 0.001, "Adam 0.003": 0.003, "Adam 0.01": 0.01}
_VOCABULARY = {"vocabulary": len(commands.WORDS) + 2}  # padding and the unknown word
# Options of student and teacher.
STUDENTS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "gru": ({"units": 24}, {"units": 96}),
    "text_encoder": (
        {"width": 16, "heads": 2, "depth": 1, "activation": "relu", **_VOCABULARY},
        {"width": 32, "heads": 4, "depth": 2, **_VOCABULARY},
    ),
}
TEACHER = TrainingConfig(epochs=20, optimizer="adam", learning_rate=0.003, warmup=0.05)


def main() -> None:
    """Reads the options, computes the missing rows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data set of tfkd.data.load; the rows of an image are the steps of a sequence")
    parser.add_argument("--student", choices=[*STUDENTS], default="gru")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument("--out", type=Path, default=Path("runs/optimizers"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    bench.rows.fill(chosen(options), bench.run)
    print(bench.table())


class Bench:
    """The rows of the table, and the teacher's logits by seed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        budget = ("data", "student", "epochs")
        self.rows = Rows(options.out, {name: getattr(options, name) for name in budget})
        self.logits: dict[int, np.ndarray] = {}

    def run(self, name: str, seed: int, title: str) -> Row:
        """Trains a student with and without the teacher; the accuracies on validation samples after the last epoch."""
        splits = divided(self.options.data, seed)
        if seed not in self.logits:
            teacher = self.model(1, splits, seed)
            fit(teacher, splits, TEACHER, seed=seed)
            print(f"teacher of seed {seed}: {accuracy(teacher, splits.val):.2%} on validation", flush=True)
            self.logits[seed] = teacher.predict(splits.train.x, batch_size=256, verbose=0)
        config = TrainingConfig(epochs=self.options.epochs, optimizer="adam", learning_rate=CONTESTANTS[name])
        student = self.model(0, splits, seed)
        fit(student, splits, config, seed=seed)
        distilled = self.model(0, splits, seed)
        store = tfkd.SoftLabels.create(f"memory://{id(distilled)}", splits.train.ids, splits.train.num_classes)
        store.write(splits.train.ids, self.logits[seed])
        distiller = tfkd.Distiller(distilled, store, alpha=ALPHA, temperature=TEMPERATURE)
        fit(distiller, splits, config, seed=seed, soft_labels=store)
        return {"alone": accuracy(student, splits.val), "KD": accuracy(distilled, splits.val)}

    def model(self, place: int, splits: Splits, seed: int) -> keras.Model:
        """A new student (place 0) or teacher (1)."""
        keras.utils.set_random_seed(seed)
        name = self.options.student
        return tfkd.models.build(name, splits.train.input_shape, splits.train.num_classes, **STUDENTS[name][place])

    def table(self) -> str:
        """Mean and standard deviation over the seeds."""
        lines = ["| optimizer, rate | alone | KD | seeds |", "|---|---:|---:|---:|"]
        for name in CONTESTANTS:
            found = [row for row in self.rows.finished() if row["name"] == name]
            if found:
                cells = [spread([100 * row[kind] for row in found]) for kind in ("alone", "KD")]
                lines.append(f"| {name} | {' | '.join(cells)} | {len(found)} |")
        return "\n".join(lines)


def divided(data: str, seed: int) -> Splits:
    """Training and validation samples; images [H, W, 1] as sequences of rows, normalized by the training samples."""
    splits = tfkd.data.load(data, validation=0.2, seed=seed)
    if len(splits.train.input_shape) < 3:
        return splits
    parts = [np.asarray(part.x, "float32")[..., 0] for part in (splits.train, splits.val)]
    mean, deviation = parts[0].mean(), parts[0].std()
    train, val = ((x - mean) / deviation for x in parts)
    made = tfkd.data.from_arrays((train, splits.train.y), (val, splits.val.y), validation=0.0)
    return Splits(made.train, made.test, made.test)


if __name__ == "__main__":
    main()
