"""What int8 and int4 weights cost, and what quantization-aware training, pruning and clustering bring, at equal budget.

Starts from one trained student. Each contestant that trains goes on for `--epochs` under the same teacher with the
same schedule; so does the float student, which is then quantized after training (PTQ): what a contestant gains over
that is what its method brings. Accuracy is that of the .tflite on the whole test split; bytes are those of the file,
and of the file compressed by gzip: zeros and shared values are only smaller there. A finished run is kept in `--out`
and not repeated, so an interrupted bench goes on; `--minutes` stops before a run that would not end in time.

    python tools/bench/optimization.py --data cifar10 --teacher resnet56_cifar10.keras --student resnet8.keras \\
        --views 8 --epochs 3 --out runs/optimization
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

import tfkd
from tfkd import recipe, targets, training
from tfkd.augmentation import crop_flip
from tfkd.optimization import METHODS, optimize

# What is done with the student, step by step, the epochs shared between the steps, then the precision of the file.
# A step is a method of tfkd.optimization with its options, or plain float training.
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
    """Reads the options, runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="what tfkd.data.load takes")
    parser.add_argument("--teacher", required=True, help="a .keras file that gives logits")
    parser.add_argument("--student", required=True, help="a trained .keras file to start from")
    parser.add_argument("--labels", help="a store of the teacher's labels; made where it is missing")
    parser.add_argument("--views", type=int, default=1, help="of the store; more than one are cropped and flipped")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--loss", default="standardized", help="of the outputs, a name of tfkd.losses")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=CONTESTANTS, choices=CONTESTANTS, help="contestants")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run that would end later")
    parser.add_argument("--out", type=Path, default=Path("runs/optimization"))
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    for seed in range(options.seeds):
        for name in options.only:
            if unknown := [method for method, _ in CONTESTANTS[name][0] if method not in (*METHODS, "float")]:
                print(f"{name}: not run, there is no method {unknown[0]!r}")
            elif options.epochs < len(CONTESTANTS[name][0]):
                print(f"{name}: not run, its {len(CONTESTANTS[name][0])} steps need as many epochs")
            elif time.monotonic() + max([0.0, *(one["seconds"] for one in bench.results())]) > deadline:
                print(f"{name}, seed {seed}: not run, it would end after the {options.minutes:g} minutes given")
            else:
                bench.run(name, seed)
    print(bench.table())


class Bench:
    """The data, the store and the finished runs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.splits = tfkd.data.load(options.data)
        self.hashes = [
            hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (options.teacher, options.student)
        ]
        self.store = tfkd.SoftLabels.build(
            options.labels or options.out / "labels", tfkd.models.load(options.teacher), self.splits.train,
            views=options.views, augment=crop_flip(4) if options.views > 1 else None,
        )  # fmt: skip

    def budget(self) -> dict[str, Any]:
        """What must be equal for results to be compared."""
        names = ("data", "views", "epochs", "batch_size", "learning_rate", "loss")
        return {**{name: getattr(self.options, name) for name in names}, "files": self.hashes}

    def results(self) -> list[dict[str, Any]]:
        """The finished runs of this budget."""
        found = [json.loads(path.read_text()) for path in sorted(self.options.out.glob("run-*.json"))]
        return [result for result in found if result["budget"] == self.budget()]

    def run(self, name: str, seed: int) -> None:
        """Trains one contestant unless it was before, and keeps what came out."""
        if any((result["name"], result["seed"]) == (name, seed) for result in self.results()):
            return
        steps, precision = CONTESTANTS[name]
        if not steps and seed:
            return  # nothing random in it
        started, label = time.monotonic(), f"{name.replace(' ', '_').replace(',', '').replace('%', '')}-{seed}"
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        student, write = tfkd.models.load(self.options.student), None
        shares = [self.options.epochs * (i + 1) // len(steps) - self.options.epochs * i // len(steps)
                  for i in range(len(steps))]  # fmt: skip
        done: list[Any] = [self.budget(), seed]
        for step, epochs in zip(steps, shares, strict=True):
            done += [step, epochs]  # contestants that begin alike share what they begin with
            key = hashlib.sha256(json.dumps(done).encode()).hexdigest()[:16]
            student, write = self.train(student, *step, epochs, seed, self.options.out / f"checkpoint-{key}", label)
        path = self.options.out / f"{label}.tflite"
        calibration = {"calibration": self.splits.train, "overwrite": True, "seed": seed}
        model = write(path, **calibration) if write else quantize(student, path, precision, **calibration)
        result = {
            "budget": self.budget(), "name": name, "seed": seed, "seconds": time.monotonic() - started,
            "accuracy": accuracy(model, self.splits.test), "bytes": model.size_bytes,
            "gzip": model.compressed_bytes,
        }  # fmt: skip
        training.write_atomically(self.options.out / f"run-{label}.json", json.dumps(result))
        print(f"{name}, seed {seed}: {100 * result['accuracy']:.2f} %, {result['bytes']:,} bytes, "
              f"{result['seconds']:.0f} s", flush=True)  # fmt: skip

    def train(
        self,
        student: keras.Model,
        method: str,
        settings: Mapping[str, Any],
        epochs: int,
        seed: int,
        checkpoint: Path,
        label: str,
    ) -> tuple[keras.Model, Callable[..., Any] | None]:
        """One step: the student that comes out, and what writes its .tflite, if not the converter alone."""
        optimized = None if method == "float" else optimize(student, method, **settings)
        model = optimized.model if optimized else student
        distiller = tfkd.Distiller(model, self.store, alpha=0.9, soft_loss=tfkd.losses.build(self.options.loss))
        schedule = recipe.schedule(
            epochs=epochs, batch_size=self.options.batch_size, learning_rate=self.options.learning_rate
        )
        training.fit(
            distiller, self.splits, schedule, seed=seed, soft_labels=self.store,
            checkpoint=checkpoint,
            callbacks=optimized.callbacks if optimized else (),
            on_epoch=lambda done, total, logs: print(f"{label}: {done}/{total}, validation {logs['val_accuracy']:.4f}",
                                                     flush=True),
        )  # fmt: skip
        if optimized is None:
            return model, None
        return optimized.student() if optimized.student else model, optimized.export

    def table(self) -> str:
        """Mean and spread over the seeds, and against the student as it was and as long trained in float."""
        lines = [
            f"| {'':22} | accuracy, % | against PTQ | against longer | bytes | gzip | seeds |",
            "|---|" + 6 * "---:|",
        ]
        found = {name: [one for one in self.results() if one["name"] == name] for name in CONTESTANTS}
        for name, runs in found.items():
            if runs:
                four = "w4" in name
                bases = (f"PTQ{', w4' if four else ''}", f"float longer, PTQ{' w4' if four else ''}")
                values = [100 * one["accuracy"] for one in runs]
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                gains = [
                    f"{statistics.mean(values) - statistics.mean(100 * one['accuracy'] for one in found[base]):+.2f}"
                    if found[base] and name != base else "" for base in bases
                ]  # fmt: skip
                lines.append(
                    f"| {name:22} | {statistics.mean(values):.2f}{spread} | {gains[0]} | {gains[1]} | "
                    f"{runs[0]['bytes']:,} | {runs[0]['gzip']:,} | {len(runs)} |"
                )
        return "\n".join(lines)


def quantize(student: keras.Model, path: Path, precision: str, **options: Any) -> tfkd.TFLiteModel:
    """Converts without training; 4 bits for the same layers as `qat` takes."""
    if precision == "int4":
        narrow = [layer.name for layer in student.layers
                  if type(layer) in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)]  # fmt: skip
        return tfkd.convert(student, path, quantizer=tfkd.LiteRT(int4=[f"^{name}$" for name in narrow]), **options)
    return tfkd.convert(student, path, mode="full_int8" if precision == "int8" else precision, **options)


def accuracy(model: tfkd.TFLiteModel, test: Any) -> float:
    """Of the .tflite on the whole test split, by LiteRT's own kernels."""
    run = targets.get("host:plain").run(model, model.quantize_input(test.x), latency=False)
    return float((run.outputs[0].argmax(axis=-1) == test.y).mean())


if __name__ == "__main__":
    main()
