"""Compares a training step of `Distiller` with its parts and with keras.distillation: ratios measured in one run.

A CIFAR ResNet teacher and a resnet8 student train on one stream of batches. The methods take turns, `--repeats` times
after a warm-up, so that other load on the machine affects all equally. None is compiled with XLA. Goal: a
step of tfkd.Distiller costs at most 1.05 x (a student step + the teacher's inference), and is never slower than one
of keras.distillation.

`--store` compares training from a store of soft labels (8 views, with the augmentation that made them) with the
student alone under the same augmentation, goal at least 0.95 x its images/s, and with keras.distillation, whose teacher
runs online; and a step with a feature loss with the peer's.

    python tools/bench/train_throughput.py --steps 10 --repeats 9
    python tools/bench/train_throughput.py --store
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

import tfkd
from tfkd.data.augmentation import crop_flip
from tfkd.distillation.labels.identity import keys

GOAL = 1.05
ALPHA, TEMPERATURE = 0.9, 4.0


def main() -> None:
    """Reads the options, runs the measurements and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a data set's name or path, as tfkd.data.load takes it; default: random images")
    parser.add_argument("--depth", type=int, default=56, help="depth of the teacher, 6n + 2; default: 56")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="batches in each measurement")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each method")
    parser.add_argument(
        "--store", action="store_true", help="train from a store of soft labels, and with a feature loss"
    )
    options = parser.parse_args()
    for name in ("batch_size", "steps", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be >= 1. Received: {getattr(options, name)}.")

    x, y, classes = load(options.data, options.batch_size * min(options.steps, 20))
    if options.store:
        measured = measure(with_store(x, y, options.batch_size, options.depth), None, options.steps, options.repeats)
        report_store(measured, options.steps, options.batch_size)
        return
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(options.batch_size).cache().repeat().prefetch(2)
    runs = contestants(x.shape[1:], classes, options.depth)
    seconds = measure(runs, batches, options.steps, options.repeats)
    report(seconds, options.steps, options.batch_size)


def load(name: str | None, samples: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Images, labels and the number of classes; whole batches are cut from the front."""
    if name is None:
        draw = np.random.default_rng(0)
        return draw.integers(0, 256, (samples, 32, 32, 3), dtype="uint8"), draw.integers(0, 10, samples), 10
    train = tfkd.data.load(name).train
    if len(train) < samples:
        raise SystemExit(f"{name}: needs {samples} training samples. Received: {len(train)}. Lower --batch-size.")
    return np.asarray(train.x[:samples]), train.y[:samples], train.num_classes


def contestants(
    shape: tuple[int, ...], classes: int, depth: int
) -> dict[str, Callable[[tf.data.Dataset, int], object]]:
    """The methods by name: functions of batches and a number of steps."""

    def student() -> keras.Model:
        return tfkd.models.resnet8(shape, classes)

    teacher = tfkd.models.resnet_cifar(shape, classes, depth=depth)
    teacher.compile(jit_compile=False)
    ours = tfkd.Distiller(student(), teacher, alpha=ALPHA, temperature=TEMPERATURE)
    # A loss instance: the string in its default becomes a loss without softmax and without T².
    divergence = keras.distillation.LogitsDistillation(TEMPERATURE, loss=keras.losses.KLDivergence())
    peer = keras.distillation.Distiller(teacher, student(), divergence, student_loss_weight=1 - ALPHA)
    alone = student()
    hard_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for model in (alone, ours, peer):
        model.compile(keras.optimizers.SGD(0.01), loss=hard_loss, metrics=["accuracy"], jit_compile=False)

    def fit(model: keras.Model) -> Callable[[tf.data.Dataset, int], object]:
        return lambda batches, steps: model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    return {
        "student alone": fit(alone),
        "teacher inference": lambda batches, steps: teacher.predict(batches, steps=steps, verbose=0),
        "tfkd.Distiller": fit(ours),
        "keras.distillation": fit(peer),
    }


def with_store(
    x: np.ndarray, y: np.ndarray, batch_size: int, depth: int
) -> dict[str, Callable[[tf.data.Dataset | None, int], object]]:
    """The same as `contestants`, each with its own augmented data."""
    train = tfkd.data.from_arrays((x, y), (x[:100], y[:100]), validation=0).train
    augment = crop_flip(4)
    folder = tempfile.mkdtemp()
    # The values of the stored logits do not affect the time: random ones replace the teacher's.
    store = tfkd.SoftLabels.create(
        f"{folder}/labels",
        train.ids,
        train.num_classes,
        views=8,
        keys={
            "data": train.content_hash,
            "augmentation": keys(None, train, augment, 0)["augmentation"],
        },
    )
    for view in range(8):
        store.write(train.ids, np.random.default_rng(view).normal(size=(len(train), train.num_classes)), view)
    shape, classes = train.input_shape, train.num_classes

    def student() -> keras.Model:
        return tfkd.models.resnet8(shape, classes)

    teacher = tfkd.models.resnet_cifar(shape, classes, depth=depth)
    teacher_layer = [layer.name for layer in teacher.layers if len(layer.output.shape) == 4][-1]
    student_layer = [layer.name for layer in student().layers if len(layer.output.shape) == 4][-1]
    hint = tfkd.features.Feature(tfkd.losses.Hint(), student_layer, teacher_layer)
    logits = keras.distillation.LogitsDistillation(TEMPERATURE, loss=keras.losses.KLDivergence())
    inner = keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name=teacher_layer, student_layer_name=student_layer
    )
    models = {
        "student alone": student(),
        "tfkd, store": tfkd.Distiller(student(), store, alpha=ALPHA),
        "tfkd, Hint": tfkd.Distiller(student(), teacher, alpha=ALPHA, features=[hint]),
        "peer": keras.distillation.Distiller(teacher, student(), logits, student_loss_weight=1 - ALPHA),
        "peer, feature": keras.distillation.Distiller(teacher, student(), [logits, inner]),
    }
    hard_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    runs: dict[str, Callable[[tf.data.Dataset | None, int], object]] = {}
    for name, model in models.items():
        model.compile(keras.optimizers.SGD(0.01), loss=hard_loss, metrics=["accuracy"], jit_compile=False)
        data = train.batches(
            batch_size, shuffle=True, **({"soft_labels": store} if name == "tfkd, store" else {"augment": augment})
        ).repeat()

        def fit(_: object, steps: int, model: keras.Model = model, data: tf.data.Dataset = data) -> object:
            return model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)

        runs[name] = fit
    return runs


def report_store(seconds: Mapping[str, list[float]], steps: int, batch_size: int) -> None:
    """Prints the fastest turn of each method, and ratios of images/s."""
    rates = {name: steps * batch_size / min(values) for name, values in seconds.items()}
    for name, rate in rates.items():
        print(
            f"{name:20} {rate:8.0f} images/s   median {1000 * statistics.median(seconds[name]) / steps:.1f} ms a step"
        )
    share = rates["tfkd, store"] / rates["student alone"]
    print(f"from the store / student alone:      {share:.3f}   goal >= 0.95: {'holds' if share >= 0.95 else 'missed'}")
    print(f"from the store / keras.distillation: {rates['tfkd, store'] / rates['peer']:.3f}")
    print(f"Hint, online / the peer's feature:   {rates['tfkd, Hint'] / rates['peer, feature']:.3f}")


def measure(
    runs: Mapping[str, Callable[[tf.data.Dataset, int], object]], batches: tf.data.Dataset, steps: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each run; the methods take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-2, repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run(batches, 2 if repeat < 0 else steps)  # two turns to trace the graphs
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: Mapping[str, list[float]], steps: int, batch_size: int) -> None:
    """Prints the fastest turn and the median of each method, and ratios of the fastest: load only adds time."""
    for name, values in seconds.items():
        least, middle = min(values), statistics.median(values)
        rate, cost = steps * batch_size / least, 1000 * least / steps
        print(f"{name:20} {rate:8.0f} images/s {cost:8.1f} ms a step   median {1000 * middle / steps:.1f} ms")
    alone, teacher, ours, peer = map(min, seconds.values())
    cost, gain = ours / (alone + teacher), peer / ours
    verdict = "holds" if cost <= GOAL else "missed"
    print(f"tfkd.Distiller / (student alone + teacher inference): {cost:.3f}   goal <= {GOAL}: {verdict}")
    verdict = "holds" if gain >= 1 else "missed"
    print(f"keras.distillation / tfkd.Distiller, time of a step:  {gain:.3f}   goal >= 1: {verdict}")


if __name__ == "__main__":
    main()
