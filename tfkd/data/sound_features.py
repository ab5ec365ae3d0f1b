"""Features of sounds, log-mel and MFCC, defined so that a device can compute the same."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError

# Lowest frequency of the mel bands, in Hz, and what is added to the energy of a band before its logarithm.
_LOWEST_HZ = 20.0
_OFFSET = 1e-6


def definition(options: ReadingOptions, rate: int) -> JsonObject:
    """How features are computed.

    Args:
        options: Kind, length, bands, coefficients, frame and hop.
        rate: Sample rate in Hz.

    Returns:
        JSON values. With x the sound and w the window, the energy of frame i at bin k is
        `|Σ_n w[n] · x[i · hop + n] · exp(−2πikn / fft)|²`; band b of log-mel is
        `log(Σ_k mel[k, b] · energy[k] + offset)`; coefficient c of MFCC is
        `sqrt(2 / bands) · Σ_b log_mel[b] · cos(π c (b + 0.5) / bands)`.
    """
    frame = round(options.frame_ms * rate / 1000)
    found = {
        "kind": options.features,
        "sample_rate": rate,
        "seconds": options.seconds,
        "frame": frame,
        "hop": round(options.hop_ms * rate / 1000),
        "window": "hann, periodic: 0.5 - 0.5 cos(2 pi n / frame)",
        "fft": 1 << (frame - 1).bit_length(),
        "mel": "htk: 2595 log10(1 + hz / 700), triangles in mel, peak 1",
        "bands": options.mel_bands,
        "lowest_hz": _LOWEST_HZ,
        "highest_hz": rate / 2,
        "offset": _OFFSET,
        "logarithm": "natural",
    }
    if options.features == "mfcc":
        found |= {
            "coefficients": options.coefficients,
            "dct": "type 2: sqrt(2 / bands) sum_b log_mel[b] cos(pi c (b + 0.5) / bands), c from 0, which is included",
            "liftering": "none",
        }
    return found


def options_of(how: JsonRecord) -> tuple[ReadingOptions, int]:
    """The options and the sample rate of a definition.

    Args:
        how: Result of `definition`, or the content of the `features.json` of a run.

    Returns:
        What `definition` makes `how` of.

    Raises:
        InputError: A value is missing, or is not the one that `definition` gives.

    >>> how = definition(ReadingOptions(features="mfcc", frame_ms=25.0), 16_000)
    >>> definition(*options_of(how)) == how
    True
    """
    try:
        rate, mfcc = int(how["sample_rate"]), {"log_mel": False, "mfcc": True}[how["kind"]]
        options = ReadingOptions(
            features=how["kind"],
            seconds=how["seconds"],
            mel_bands=how["bands"],
            frame_ms=how["frame"] * 1000 / rate,
            hop_ms=how["hop"] * 1000 / rate,
            **({"coefficients": how["coefficients"]} if mfcc else {}),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"features: the definition must be that of a features.json. Received: {error!r}. Take the file that "
            "`tfkd run` wrote."
        ) from error
    expected = definition(options, rate)
    if other := sorted(key for key in {*expected, *how} if expected.get(key) != how.get(key)):
        raise InputError(
            f"features: {other[0]} must be {expected.get(other[0])!r}. Received: {how.get(other[0])!r}. Other features "
            "than those that `tfkd.data` computes are not supported."
        )
    return options, rate


def read(file: Path) -> JsonObject:
    """The definition in the `features.json` of a run, checked.

    Raises:
        InputError: The file cannot be read, or is none of these.
    """
    try:
        how = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"features: {file} must be a readable features.json. Received: {error}. Take that of a run."
        ) from error
    if not isinstance(how, dict):
        raise InputError(f"features: {file} must hold an object. Received: {type(how).__name__}. Take that of a run.")
    options_of(how)
    return how


def compute(file: str, sound: np.ndarray, rate: int, options: ReadingOptions) -> np.ndarray:
    """Features of a sound, see `definition`; only whole frames.

    Args:
        file: Name of the sound, for messages.
        sound: Samples, float32 [T].
        rate: Sample rate in Hz.
        options: Kind, bands, coefficients, frame and hop.

    Returns:
        float32 [frames, bands] of log-mel, [frames, coefficients] of MFCC.

    Raises:
        InputError: The sound is shorter than a frame, or the hop than a sample.
    """
    how = definition(options, rate)
    frame, hop, size = how["frame"], how["hop"], how["fft"]
    if hop < 1 or len(sound) < frame:
        raise InputError(
            f"load: {file} must have one frame of {options.frame_ms:g} ms, and a hop of a sample. Received: "
            f"{len(sound) / rate * 1000:g} ms at {rate} Hz. Pass seconds=1.0, or a shorter frame."
        )
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame)[::hop]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)).astype(np.float32)
    energy = np.abs(np.fft.rfft(frames * window, size)) ** 2
    log_mel = np.log(energy @ _mel_matrix(options.mel_bands, size, rate) + _OFFSET)
    if options.features == "mfcc":
        log_mel = log_mel @ cosines(options.mel_bands, options.coefficients)
    return log_mel.astype(np.float32)


def mel(hertz: float | np.ndarray) -> np.ndarray:
    """Frequencies on the mel scale of the HTK Book, version 3.4, section 5.4.

    >>> round(float(mel(700.0)), 1)
    781.2
    """
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


@functools.cache
def _mel_matrix(bands: int, size: int, rate: int) -> np.ndarray:
    """The weight of each frequency bin in each band, [size / 2 + 1, bands].

    Reference:
        Young et al.: The HTK Book, version 3.4, section 5.4. `tf.signal.linear_to_mel_weight_matrix` has the same.
    """
    edges = np.linspace(mel(_LOWEST_HZ), mel(rate / 2), bands + 2)
    bins = mel(np.linspace(0, rate / 2, size // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


@functools.cache
def cosines(bands: int, coefficients: int) -> np.ndarray:
    """The matrix of the cosine transform, [bands, coefficients].

    Reference:
        Young et al.: The HTK Book, version 3.4, section 5.6. `tf.signal.mfccs_from_log_mel_spectrograms` has the same.
    """
    angles = np.pi * np.outer(np.arange(bands) + 0.5, np.arange(coefficients)) / bands
    return np.sqrt(2 / bands) * np.cos(angles)
