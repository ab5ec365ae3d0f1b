"""Computes two views of recordings of spoken digits: a log-mel spectrogram, and a few bands at a tenth of its size.

Reads a .npz in the layout of keras.datasets, x_train and x_test [N, samples] at 8 kHz, such as the Free Spoken Digit
Dataset (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0) cut or padded to one second each. Writes
spoken_log_mel.npz, [N, 49, 40, 1], for the teacher and spoken_bands.npz, [N, 25, 8, 1], for the student; the recipes
spoken_digits.toml and mnist_to_spoken_digits.toml run on them.

    python tools/spoken_digits.py spoken_digits.npz --out "$TFKD_DATA"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

RATE = 8000


def mel_filters(bands: int, bins: int) -> np.ndarray:
    """Triangular filters of equal width on the mel scale from 20 Hz to half the sampling rate, [bins, bands]."""

    def mel(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700)

    edges = 700 * (10 ** (np.linspace(mel(20), mel(RATE / 2), bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, RATE / 2, bins)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def spectrogram(x: np.ndarray, *, window: int, hop: int, bands: int) -> np.ndarray:
    """Logarithm of the energy in mel bands of recordings [N, samples], as [N, frames, bands, 1] float32."""
    starts = np.arange(0, x.shape[1] - window + 1, hop)
    frames = x[:, starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(power @ mel_filters(bands, power.shape[-1]) + 1e-4)[..., None].astype("float32")


def main() -> None:
    """Reads the recordings, computes both views and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with np.load(options.recordings, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    views = {
        "spoken_log_mel": {"window": 200, "hop": 160, "bands": 40},  # 25 ms every 20 ms
        "spoken_bands": {"window": 320, "hop": 320, "bands": 8},  # 40 ms without overlap
    }
    for name, setting in views.items():
        train, test = (spectrogram(arrays[key].astype("float32"), **setting) for key in ("x_train", "x_test"))
        mean, deviation = train.mean(), train.std()
        path = options.out / f"{name}.npz"
        np.savez(
            path,
            x_train=(train - mean) / deviation,
            y_train=arrays["y_train"],
            x_test=(test - mean) / deviation,
            y_test=arrays["y_test"],
        )
        print(f"{path}: {train.shape[1:]} for each of {len(train)} + {len(test)} recordings")


if __name__ == "__main__":
    main()
