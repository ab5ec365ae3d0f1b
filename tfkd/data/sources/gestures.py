"""Gestures in the signal of an accelerometer, generated from a seed: nothing is downloaded.

Each sample is 4 seconds of three axes, [100, 3] at 25 Hz, in units of 4 m/s² without gravity: slow motion and noise,
and in it none to three gestures of 0.7 to 1.6 seconds.

| class | signal |
|---|---|
| background | none of the others; it has swings along y too, which are no gesture |
| shake | 3.5 to 5.5 Hz along x |
| circle | 1 to 1.6 Hz along x and, a quarter of a period later, along y |
| lift | up and down along z, once |

The label of the frame at each edge of a gesture is -1, and so are those of up to 20 frames at the end of some samples,
which are padding.
"""

from __future__ import annotations

import numpy as np

from tfkd.data.frame_labels import IGNORED, KIND
from tfkd.data.sources.source import Arrays, Request, Source

CLASS_NAMES = ("background", "shake", "circle", "lift")
SAMPLES, FRAMES, FRAME_SECONDS = 2000, 100, 0.04
_SEED = 11


def generate(samples: int = SAMPLES, seed: int = _SEED) -> tuple[np.ndarray, np.ndarray]:
    """Signals float32 [N, 100, 3] and classes of frames int32 [N, 100].

    Args:
        samples: Number N of samples.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, 0.05, (samples, FRAMES, 3)), axis=1)
    x = drift - drift.mean(axis=1, keepdims=True) + rng.normal(0, 0.2, (samples, FRAMES, 3))
    y = np.zeros((samples, FRAMES), np.int32)
    for signal, labels in zip(x, y, strict=True):
        _add_gestures(signal, labels, rng)
        if rng.random() < 0.2:
            end = FRAMES - int(rng.integers(5, 21))
            signal[end:], labels[end:] = 0, IGNORED
    return np.round(x / 4, 4).astype(np.float32), y


def _add_gestures(signal: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    """Adds gestures to one sample in place: signal [100, 3], labels [100]."""
    start = int(rng.integers(2, 30))
    while True:
        length = int(rng.integers(18, 41))
        if start + length > FRAMES - 2:
            return
        kind = int(rng.choice(5, p=[0.25, 0.22, 0.22, 0.22, 0.09]))
        if kind:
            signal[start : start + length] += _gesture(kind, length, rng)
        if 0 < kind < len(CLASS_NAMES):  # the last kind is a swing, which is background
            labels[start : start + length] = kind
            labels[[start, start + length - 1]] = IGNORED
        start += length + int(rng.integers(6, 30))


def _gesture(kind: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """The acceleration of a gesture or of a swing, [length, 3]."""
    time = np.arange(length) * FRAME_SECONDS
    envelope = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 0.5 * rng.uniform(0.7, 1.8)
    phase, slow, fast = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.6), rng.uniform(3.5, 5.5)
    axes = np.zeros((length, 3))
    if kind == 1:
        axes[:, 0] = np.sin(2 * np.pi * fast * time + phase)
    elif kind == 2:
        axes[:, 0], axes[:, 1] = np.sin(2 * np.pi * slow * time + phase), np.cos(2 * np.pi * slow * time + phase)
    elif kind == 3:
        axes[:, 2] = np.sin(2 * np.pi * np.arange(length) / length)
    else:
        axes[:, 1] = np.sin(2 * np.pi * slow * time + phase)
    return envelope[:, None] * axes


def read(request: Request) -> Arrays:
    """Reads 2,000 samples; there is no test part."""
    x, y = generate()
    return Arrays(
        x, y, class_names=CLASS_NAMES, name="gestures", location="gestures", labels=KIND, frame_seconds=FRAME_SECONDS
    )


SOURCE = Source(accepts=lambda request: request.reference == "gestures", read=read, names=("gestures",))
