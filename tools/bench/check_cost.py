"""Times conversions with and without the comparison that precedes the file (`check`), in turns: medians of one run.

Goal: the comparison adds at most 2 s or 20 % of the conversion's time, whichever is larger.

    python tools/bench/check_cost.py --repeats 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import tfkd

GOAL_S, GOAL_SHARE = 2.0, 0.2
MODELS: dict[str, tuple[int, ...]] = {
    "digits_student": (8, 8, 1),
    "ds_cnn": (49, 10, 1),
    "resnet8": (32, 32, 3),
    "mobilenet_v1": (96, 96, 3),
    "lstm": (28, 28),
    "mobilenet_v2": (224, 224, 3),
    "resnet50": (224, 224, 3),
}
CONVERSIONS = (("float32", "tensorflow"), ("full_int8", "tensorflow"), ("full_int8", "litert"))


def main() -> None:
    """Converts the models in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", action="append", choices=MODELS, help="only this model; may be repeated")
    options = parser.parse_args()
    print("| Model | Mode | Without, s | With, s | Added, s | Added, % | Goal |\n|---|---|---:|---:|---:|---:|---|")
    for name in options.model or MODELS:
        shape = MODELS[name]
        keras.utils.set_random_seed(0)
        model = tfkd.models.build(name, shape, 10)
        samples = _smooth(100, shape)
        for mode, quantizer in CONVERSIONS:
            print(_row(name, model, mode, quantizer, samples, max(1, options.repeats)), flush=True)


def _smooth(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Samples in 0..255 whose neighbours correlate, as those of images and sounds do: noise is no calibration."""
    walks = np.random.default_rng(0).normal(size=(count, *shape)).cumsum(axis=1).cumsum(axis=2)
    low, high = walks.min(axis=(1, 2), keepdims=True), walks.max(axis=(1, 2), keepdims=True)
    return ((walks - low) / (high - low) * 255).astype("float32")


def _row(name: str, model: keras.Model, mode: str, quantizer: str, samples: np.ndarray, repeats: int) -> str:
    calibration = (samples, np.arange(len(samples)) % 10) if mode == "full_int8" else None
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            for check, times in seconds.items():
                start = time.perf_counter()
                tfkd.convert(
                    model,
                    Path(folder) / f"{repeat}-{check}.tflite",
                    mode=mode,
                    quantizer=quantizer,
                    calibration=calibration,
                    check=check,
                    allow_mismatch=True,  # random weights: a mismatch changes the time, so it is in the row
                )
                if repeat:  # the first fills caches
                    times.append(time.perf_counter() - start)
    without, with_check = (statistics.median(seconds[check]) for check in (False, True))
    added = with_check - without
    verdict = "holds" if added <= max(GOAL_S, GOAL_SHARE * without) else "missed"
    shown = f"{without:.2f} | {with_check:.2f} | {added:+.2f} | {added / without:+.0%}"
    return f"| {name} | {mode} {quantizer} | {shown} | {verdict} |"


if __name__ == "__main__":
    main()
