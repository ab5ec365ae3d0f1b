"""Compares distillation losses at equal budgets: one student, one teacher, one schedule, one store of teacher logits.

Every method gets the same epochs, batches, learning rates, initial weights and augmentation. The teacher logits of
`--views` augmented views are read from a store, so no teacher runs during training. keras.distillation runs as in its
documentation, with the teacher in every step. Nothing is selected on the test split: the table shows the accuracy of
the last epoch and of the epoch with the best validation accuracy. Finished rows are kept in `--out`, so the same
command resumes; `--minutes` stops before a row that would not end in time.

    python tools/bench/losses.py --teacher resnet56_cifar10.keras --epochs 12 --seeds 1 --out runs/losses
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import equal_budget
import keras
import numpy as np
from equal_budget import Row, Rows, spread

import tfkd
from tfkd.data.augmentation import crop_flip
from tfkd.distillation.compilation import jit_by_device
from tfkd.distillation.epoch_sync import EpochSync
from tfkd.distillation.training import accuracy

ALPHA = 0.9
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SOFT = {
    "KD": lambda: tfkd.losses.SoftTarget(4.0),
    "logit standardization": lambda: tfkd.losses.StandardizedSoftTarget(),
    "DKD": lambda: tfkd.losses.DKD(),
    "DIST": lambda: tfkd.losses.DIST(),
}
CONTESTANTS = ("student alone", "label smoothing", *SOFT, "keras.distillation")


def main() -> None:
    """Reads the options, computes the missing rows and prints the table."""
    defaults = {"epochs": 12, "learning_rate": 4e-3, "views": 8, "out": Path("runs/losses")}
    parser = equal_budget.parser(__doc__, CONTESTANTS, **defaults)
    parser.add_argument("--student", default="resnet8", help="name of a model of tfkd.models")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    bench.rows.fill(equal_budget.chosen(options), bench.run, options.minutes)
    print(bench.table())


class Bench:
    """Data, store of teacher logits and table rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.splits = tfkd.data.load(options.data)
        self.teacher = tfkd.models.load(options.teacher)
        names = ("data", "teacher", "student", "epochs", "batch_size", "learning_rate", "views", "flip")
        self.rows = Rows(options.out, {name: getattr(options, name) for name in names})
        self.store = equal_budget.label(options, self.teacher, self.splits.train)
        self.augment = crop_flip(4, flip=options.flip)

    def run(self, name: str, seed: int, title: str) -> Row:
        """Trains one method and measures the student of the last epoch and of the best one on validation."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        train, val, test = self.splits
        student = tfkd.models.build(self.options.student, train.input_shape, train.num_classes)
        model, loss, stored = self.contestant(name, student)
        batches = train.batches(
            self.options.batch_size,
            shuffle=True,
            seed=seed,
            **({"soft_labels": self.store} if stored else {"augment": self.augment}),
        )
        steps = self.options.epochs * -(-len(train) // self.options.batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(self.options.learning_rate, steps)
        model.compile(
            keras.optimizers.Adam(schedule),
            loss=loss,
            metrics=["accuracy"],
            jit_compile=jit_by_device(),
            steps_per_execution=16,
        )
        best = Best(student, val, title)
        model.fit(batches, epochs=self.options.epochs, shuffle=False, verbose=0, callbacks=[EpochSync(batches), best])
        row = {
            "last": accuracy(student, test),
            "val_last": best.values[-1],
            "val_best": max(best.values),
            "best_epoch": 1 + int(np.argmax(best.values)),
        }
        student.save(self.options.out / f"{equal_budget.file_name(name, seed)}.keras")
        student.set_weights(best.weights)
        return {**row, "selected": accuracy(student, test)}

    def contestant(self, name: str, student: keras.Model) -> tuple[keras.Model, Any, bool]:
        """The model to fit, its compiled loss, and whether it reads the store."""
        if name in SOFT:
            return tfkd.Distiller(student, self.store, alpha=ALPHA, soft_loss=SOFT[name]()), HARD, True
        if name == "keras.distillation":
            distiller = keras.distillation.Distiller(
                teacher=self.teacher, student=student, distillation_losses=keras.distillation.LogitsDistillation()
            )
            return distiller, HARD, False
        if name == "label smoothing":
            return student, smoothed, False
        return student, HARD, False

    def table(self) -> str:
        """Mean and standard deviation over the seeds, and the difference to the student alone."""
        lines = [f"{'':24}{'last epoch':>16}{'selected on val':>18}{'against alone':>16}{'seeds':>7}"]
        rows = self.rows.finished()
        base = [row["last"] for row in rows if row["name"] == "student alone"]
        for name in CONTESTANTS:
            found = [row for row in rows if row["name"] == name]
            if found:
                last, selected = ([100 * row[key] for row in found] for key in ("last", "selected"))
                gain = f"{statistics.mean(last) - 100 * statistics.mean(base):+.2f}" if base else "-"
                lines.append(f"{name:24}{spread(last, 2):>16}{spread(selected, 2):>18}{gain:>16}{len(found):>7}")
        return "\n".join(lines)


class Best(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation accuracy."""

    def __init__(self, student: keras.Model, val: Any, title: str) -> None:
        super().__init__()
        self.student, self.val, self.title = student, val, title
        self.values: list[float] = []
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.values.append(accuracy(self.student, self.val))
        if self.values[-1] == max(self.values):
            self.weights = self.student.get_weights()
        print(f"{self.title}: epoch {epoch + 1}, validation {100 * self.values[-1]:.2f} %", flush=True)


@keras.saving.register_keras_serializable(package="bench")
def smoothed(y: Any, logits: Any) -> Any:
    """Cross-entropy with label smoothing of 0.1."""
    target = keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(y, (-1,)), "int32"), logits.shape[-1])
    return keras.losses.categorical_crossentropy(target, logits, from_logits=True, label_smoothing=0.1)


if __name__ == "__main__":
    main()
