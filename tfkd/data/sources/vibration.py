"""Vibration of a rotating machine, generated from a seed: nothing is downloaded.

Each sample is the spectrum of half a second of an accelerometer, in 64 bands of 8 Hz, as logarithm of the mean power,
shifted and scaled to about -2..2. The signal is a sum of harmonics of the rotation and noise; a fault adds what it adds
in a real machine:

| fault | signal |
|---|---|
| imbalance | more amplitude at the rotation frequency |
| misalignment | more amplitude at twice the rotation frequency |
| looseness | harmonics of half the rotation frequency |
| bearing | pulses at 3.57 times the rotation frequency that excite a resonance at 330 Hz |

The kind of the labels decides what they are: without a declaration and for `multi_hot` the faults that are present,
for `classes` and `abnormal` whether there is one, for `values` the rotation frequency in Hz.

Reference:
    Randall: Vibration-based Condition Monitoring, 2nd edition, 2021, chapters 2 and 5.
"""

from __future__ import annotations

import numpy as np

from tfkd.data.sources.source import Arrays, Request, Source

FAULTS = ("imbalance", "misalignment", "looseness", "bearing")
SAMPLES = 3000
_SEED = 7
_RATE_HZ, _STEPS, _BANDS = 1024, 512, 64
# Half of the samples have no fault; each fault of the others is present with this probability.
_HEALTHY, _PRESENT = 0.5, 0.4
_RESONANCE_HZ, _PULSES_PER_ROTATION = 330.0, 3.57
_CHUNK = 500


def generate(samples: int = SAMPLES, seed: int = _SEED) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra float32 [N, 64], faults int64 [N, 4] and rotation frequencies in Hz float32 [N, 1].

    Args:
        samples: Number N of samples.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    faults = rng.random((samples, len(FAULTS))) < _PRESENT
    healthy = rng.random(samples) < _HEALTHY
    without = ~faults.any(axis=1)
    faults[without, rng.integers(0, len(FAULTS), without.sum())] = True
    faults[healthy] = False
    speed = rng.uniform(20.0, 50.0, samples)
    parts = [
        _spectra(speed[start : start + _CHUNK], faults[start : start + _CHUNK], rng)
        for start in range(0, samples, _CHUNK)
    ]
    return np.concatenate(parts), faults.astype(np.int64), speed.astype(np.float32)[:, None]


def _spectra(speed: np.ndarray, faults: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spectra [N, 64] of machines with rotation frequencies [N] and faults [N, 4]."""
    time, count = np.arange(_STEPS) / _RATE_HZ, len(speed)

    def harmonic(order: float, amplitude: np.ndarray) -> np.ndarray:
        phase = rng.uniform(0, 2 * np.pi, count)
        return amplitude[:, None] * np.sin(2 * np.pi * order * speed[:, None] * time + phase[:, None])

    def strength(low: float, high: float, present: np.ndarray) -> np.ndarray:
        return rng.uniform(low, high, count) * present

    imbalance, misalignment, looseness, bearing = faults.T
    signal = rng.normal(0, 1, (count, _STEPS)) * rng.uniform(0.15, 0.35, (count, 1))
    for order, level in ((1.0, 0.5), (2.0, 0.25), (3.0, 0.15)):
        signal += harmonic(order, rng.uniform(0.5, 1.5, count) * level)
    signal += harmonic(1, strength(0.5, 1.5, imbalance)) + harmonic(2, strength(0.3, 0.9, misalignment))
    for order in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5):
        signal += harmonic(order, strength(0.08, 0.3, looseness))
    rate = _PULSES_PER_ROTATION * speed[:, None]
    since = np.mod(time + rng.uniform(0, 1, (count, 1)) / rate, 1 / rate)  # seconds since the last pulse
    pulses = np.exp(-since / 0.004) * np.sin(2 * np.pi * _RESONANCE_HZ * since)
    signal += strength(0.5, 1.5, bearing)[:, None] * pulses
    power = np.abs(np.fft.rfft(signal * np.hanning(_STEPS)))[:, : 4 * _BANDS] ** 2
    bands = power.reshape(count, _BANDS, 4).mean(axis=2)
    return np.round((np.log10(bands + 1e-6) - 1.5) / 1.0, 4).astype(np.float32)


def read(request: Request) -> Arrays:
    """Reads spectra [3000, 64]; there is no test part."""
    x, faults, speed = generate()
    any_fault: tuple[np.ndarray, tuple[str, ...]] = (
        np.asarray(faults.any(axis=1), np.int64),
        ("healthy", "faulty"),
    )
    labels: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
        "values": (speed, ("rotation_hz",)),
        "classes": any_fault,
        "abnormal": any_fault,
    }
    y, names = labels.get(request.labels or "", (faults, FAULTS))
    return Arrays(x, y, class_names=names, name="vibration", location="vibration")


SOURCE = Source(accepts=lambda request: request.reference == "vibration", read=read, names=("vibration",))
