"""Walking people, each with a gait of their own, generated from a seed: nothing is downloaded.

Each sample is 2.56 seconds of an accelerometer at the hip, [64, 3] at 25 Hz, without gravity, in units of 2 m/s². The
gait of a person is the amplitude and phase of four harmonics of the step frequency on each axis, which vary a little
from sample to sample, as do the frequency, the moment of the first step, and the noise.
"""

from __future__ import annotations

import numpy as np

from tfkd.data.identity_labels import KIND
from tfkd.data.sources.source import Arrays, Request, Source

PEOPLE, SAMPLES_OF_EACH, STEPS = 80, 30, 64
_SEED, _RATE_HZ, _HARMONICS = 17, 25, 4


def generate(people: int = PEOPLE, samples: int = SAMPLES_OF_EACH, seed: int = _SEED) -> tuple[np.ndarray, np.ndarray]:
    """Signals float32 [people · samples, 64, 3] and the number of each person int64 [people · samples].

    Args:
        people: Number of people.
        samples: Number of samples of each.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(people), samples)
    shape = (people, 3, _HARMONICS)
    level = np.array([1.0, 0.7, 0.4, 0.25])
    gait = level * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    varied = gait[y] + 0.25 * level * (rng.normal(size=gait[y].shape) + 1j * rng.normal(size=gait[y].shape)) / np.sqrt(
        2
    )
    frequency = rng.uniform(1.6, 2.1, people)[y] * rng.normal(1, 0.03, len(y))
    turns = frequency[:, None] * np.arange(STEPS) / _RATE_HZ + rng.uniform(0, 1, (len(y), 1))
    waves = np.exp(2j * np.pi * turns[:, :, None] * np.arange(1, _HARMONICS + 1))
    x = np.einsum("nth,nah->nta", waves, varied).real + rng.normal(0, 0.25, (len(y), STEPS, 3))
    return np.round(x / 2, 4).astype(np.float32), y


def read(request: Request) -> Arrays:
    """Reads 2,400 samples of 80 people; there is no test part."""
    x, y = generate()
    return Arrays(x, y, name="gaits", location="gaits", labels="classes" if request.labels == "classes" else KIND)


SOURCE = Source(accepts=lambda request: request.reference == "gaits", read=read, names=("gaits",))
