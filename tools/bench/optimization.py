"""Accuracy and size of int8 and int4 students: PTQ, quantization-aware training, pruning, clustering, equal budgets.

All methods start from one trained student. Each method that trains continues for `--epochs` with the same teacher and
schedule; so does the float student, which is then quantized (PTQ): the difference to it is the gain of a method.
Accuracy is that of the .tflite on the whole test split. Sizes are those of the file and of the file compressed by gzip,
since zeros and shared values only save bytes there. Finished epochs and rows are kept in `--out`, so the same command
resumes; `--minutes` stops before a row that would not end in time, and `--minutes 0` prints the table of finished rows.

    python tools/bench/optimization.py --data cifar10.npz --teacher resnet56_cifar10.keras --student resnet8.keras \\
        --labels labels/ --views 8 --epochs 3 --seeds 3 --out runs/optimization
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equal_budget
import keras
from equal_budget import Row, Rows

import tfkd
from tfkd import targets
from tfkd.distillation import training
from tfkd.distillation.training_config import TrainingConfig
from tfkd.optimization import optimize

# For each method its training steps, which share the epochs, and the precision of the file. A step is a method of
# tfkd.optimization with its options, or plain float training.
FLOAT: tuple[str, dict[str, Any]] = ("float", {})
PRUNE = ("prune", {"sparsity": 0.5})
CONTESTANTS: dict[str, tuple[list[tuple[str, dict[str, Any]]], str]] = {
    "float": ([], "float32"),
    "PTQ": ([], "int8"),
    "PTQ, w4": ([], "int4"),
    "float longer": ([FLOAT], "float32"),
    "float longer, PTQ": ([FLOAT], "int8"),
    "float longer, PTQ w4": ([FLOAT], "int4"),
    "QAT": ([("qat", {})], "int8"),
    "QAT, w4": ([("qat", {"weight_bits": 4})], "int4"),
    "pruned 50 %, PTQ": ([PRUNE], "int8"),
    "pruned 50 %, QAT": ([PRUNE, ("qat", {})], "int8"),
    "clustered 16, PTQ": ([("cluster", {"clusters": 16})], "int8"),
}


def main() -> None:
    """Reads the options, computes the missing rows and prints the table."""
    defaults = {"epochs": 3, "learning_rate": 5e-4, "views": 1, "out": Path("runs/optimization")}
    parser = equal_budget.parser(__doc__, CONTESTANTS, **defaults)
    parser.add_argument("--student", required=True, help="trained student, a .keras file")
    parser.add_argument("--loss", default="standardized", help="soft loss, a name of tfkd.losses.NAMES")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    for name in options.only:
        if options.epochs < len(CONTESTANTS[name][0]):
            print(f"{name}: not run, its {len(CONTESTANTS[name][0])} steps need as many epochs")
    wanted = [
        (name, seed)
        for seed in range(options.seeds)
        for name in options.only
        # Where nothing is trained, nothing is random.
        if len(CONTESTANTS[name][0]) <= options.epochs and (CONTESTANTS[name][0] or not seed)
    ]
    bench.rows.fill(wanted, bench.run, options.minutes)
    print(bench.table())


class Bench:
    """Data, store of teacher logits and table rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.splits = tfkd.data.load(options.data)
        names = ("data", "views", "flip", "epochs", "batch_size", "learning_rate", "loss")
        files = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (options.teacher, options.student)]
        self.rows = Rows(options.out, {**{name: getattr(options, name) for name in names}, "files": files})
        self.store = equal_budget.label(options, tfkd.models.load(options.teacher), self.splits.train)

    def run(self, name: str, seed: int, title: str) -> Row:
        """Trains one method, writes its .tflite and measures it."""
        steps, precision = CONTESTANTS[name]
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        student, write = tfkd.models.load(self.options.student), None
        shares = [
            self.options.epochs * (i + 1) // len(steps) - self.options.epochs * i // len(steps)
            for i in range(len(steps))
        ]
        done: list[Any] = [self.rows.budget, seed]
        for step, epochs in zip(steps, shares, strict=True):
            done += [step, epochs]  # methods with equal first steps share their checkpoints
            key = hashlib.sha256(json.dumps(done).encode()).hexdigest()[:16]
            student, write = self.train(student, *step, epochs, seed, self.options.out / f"checkpoint-{key}", title)
        path = self.options.out / f"{equal_budget.file_name(name, seed)}.tflite"
        calibration = {"calibration": self.splits.train, "overwrite": True, "seed": seed}
        model = write(path, **calibration) if write else quantize(student, path, precision, **calibration)
        sizes = {"bytes": model.size_bytes, "gzip": model.compressed_bytes}
        return {"accuracy": accuracy(model, self.splits.test), **sizes}

    def train(
        self,
        student: keras.Model,
        method: str,
        settings: Mapping[str, Any],
        epochs: int,
        seed: int,
        checkpoint: Path,
        title: str,
    ) -> tuple[keras.Model, Callable[..., Any] | None]:
        """One training step: the trained student, and the function that writes its .tflite (None: tfkd.convert)."""
        optimized = None if method == "float" else optimize(student, method, **settings)
        model = optimized.model if optimized else student
        distiller = tfkd.Distiller(model, self.store, alpha=0.9, soft_loss=tfkd.losses.build(self.options.loss))
        config = TrainingConfig(
            epochs=epochs, batch_size=self.options.batch_size, learning_rate=self.options.learning_rate
        )
        training.fit(
            distiller,
            self.splits,
            config,
            seed=seed,
            soft_labels=self.store,
            checkpoint=checkpoint,
            callbacks=optimized.callbacks if optimized else (),
            on_epoch=lambda done, total, logs: print(
                f"{title}: {method}, epoch {done}/{total}, validation {logs['val_accuracy']:.4f}", flush=True
            ),
        )
        if optimized is None:
            return model, None
        return optimized.student() if optimized.student else model, optimized.export

    def table(self) -> str:
        """Mean and standard deviation over the seeds, and differences to PTQ and to longer float training."""
        lines = [
            f"| {'':22} | accuracy, % | against PTQ | against longer | bytes | gzip | seeds |",
            "|---|" + 6 * "---:|",
        ]
        found = {name: [one for one in self.rows.finished() if one["name"] == name] for name in CONTESTANTS}
        for name, runs in found.items():
            if runs:
                four = "w4" in name
                bases = (f"PTQ{', w4' if four else ''}", f"float longer, PTQ{' w4' if four else ''}")
                values = [100 * one["accuracy"] for one in runs]
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                gains = [
                    f"{statistics.mean(values) - statistics.mean(100 * one['accuracy'] for one in found[base]):+.2f}"
                    if found[base] and name != base
                    else ""
                    for base in bases
                ]
                lines.append(
                    f"| {name:22} | {statistics.mean(values):.2f}{spread} | {gains[0]} | {gains[1]} | "
                    f"{runs[0]['bytes']:,} | {runs[0]['gzip']:,} | {len(runs)} |"
                )
        return "\n".join(lines)


def quantize(student: keras.Model, path: Path, precision: str, **options: Any) -> tfkd.TFLiteModel:
    """Converts without training; int4 weights in the same layers as `qat`."""
    if precision == "int4":
        narrow = [
            layer.name
            for layer in student.layers
            if type(layer) in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)
        ]
        return tfkd.convert(
            student, path, quantizer=tfkd.QuantizerSettings(int4=tuple(f"^{name}$" for name in narrow)), **options
        )
    return tfkd.convert(student, path, mode="full_int8" if precision == "int8" else precision, **options)


def accuracy(model: tfkd.TFLiteModel, test: Any) -> float:
    """Accuracy of a .tflite on the whole test split, with LiteRT's own kernels, 0..1."""
    run = targets.get("host:plain").run(model, model.quantize_input(test.x), latency=False)
    return float((run.outputs[0].argmax(axis=-1) == test.y).mean())


if __name__ == "__main__":
    main()
