"""Sound files as arrays: decoded, mixed to one channel, resampled, cut or padded, and as features."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.data import images, lazy, sound_features
from tfkd.data.lazy import LazySamples
from tfkd.data.reading import ReadingOptions, Request
from tfkd.errors import InputError, ToolMissingError

if TYPE_CHECKING:
    from tfkd.data.splits import Split

SUFFIXES = (".wav", ".flac", ".ogg")
OPTIONS = ("sample_rate", "seconds", "features", "mel_bands", "coefficients", "frame_ms", "hop_ms", "skip_broken")

# Files of floats may exceed 1, which is the loudest sound, up to this; larger values are another unit.
_LARGEST = 8.0
# Headers of WAV files may be wrong by some bytes, and have no length where a stream was written.
_LEAST_MISSING, _LONGEST = 0.01, 0x7FFF0000
# Share of the power of the channels below which their mean is silence.
_CANCELLED = 1e-4

log = logging.getLogger("tfkd")


def is_sound(name: str) -> bool:
    """Whether a file name has one of `SUFFIXES`."""
    return name.lower().endswith(SUFFIXES)


def decode(file: Path, options: ReadingOptions) -> np.ndarray:
    """One sound: float32 [T, 1] in -1..1, or its features, float32 [frames, bands or coefficients, 1].

    Args:
        file: WAV, FLAC or OGG. Its channels are averaged; a file whose channels cancel each other is a warning. Values
            beyond -1..1 are clipped.
        options: Sample rate, length and features.

    Raises:
        InputError: The file cannot be read, is empty, has values far beyond -1..1, or has another rate than the
            features need.
        ToolMissingError: The library that reads sounds is not installed.
    """
    import scipy.signal

    soundfile = _soundfile()
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        fault = str(error).rstrip(".")
        raise InputError(
            f"load: {file} must be a readable WAV, FLAC or OGG. Received: {fault}. Repair or remove it, or pass "
            "skip_broken=True."
        ) from error
    missing = _missing_share(file)
    if missing > _LEAST_MISSING:
        raise InputError(
            f"load: {file} must be complete. Received: a file whose last {100 * missing:.0f} % are missing. Copy it "
            "again, or pass skip_broken=True."
        )
    sound = samples.mean(axis=1)
    if not len(sound) or not np.isfinite(sound).all():
        raise InputError(
            f"load: {file} must have samples that are finite. Received: {'NaN or infinity' if len(sound) else 'none'}. "
            "Repair or remove it, or pass skip_broken=True."
        )
    peak = float(np.abs(sound).max())
    if peak > _LARGEST:
        raise InputError(
            f"load: {file} must have samples in -1..1. Received: {peak:g}, as where 16-bit integers were saved as "
            "floats. Divide them, by 32768 for 16 bits, or pass skip_broken=True."
        )
    if (sound**2).mean() < _CANCELLED * (samples**2).mean():
        _warn_of_silence(file)
    wanted = options.sample_rate or rate
    if wanted != rate:
        common = math.gcd(wanted, rate)
        sound = scipy.signal.resample_poly(sound, wanted // common, rate // common).astype(np.float32)
    if options.seconds is not None:
        length = round(options.seconds * wanted)
        sound = np.pad(sound[:length], (0, max(0, length - len(sound))))
    sound = sound.clip(-1, 1)  # as players do; a microphone cannot give more
    if options.features == "none":
        return sound[:, None]
    return sound_features.compute(str(file), sound, wanted, options)[..., None]


def _missing_share(file: Path) -> float:
    """The share of a WAV file that its header promises and that is not there; 0 for other files."""
    with file.open("rb") as stream:
        head = stream.read(8)
    length = int.from_bytes(head[4:], "little") + len(head)
    return max(0.0, 1 - file.stat().st_size / length) if head[:4] == b"RIFF" and length < _LONGEST else 0.0


# Folders with a warning of channels that cancel each other.
_warned: set[Path] = set()


def _warn_of_silence(file: Path) -> None:
    """Warns of a file whose channels cancel each other, the first of its folder."""
    if file.parent not in _warned:
        _warned.add(file.parent)
        log.warning(
            "%s: its channels cancel each other, so that their mean is silence. Save one channel of this file and of "
            "others of %s that have the same fault.",
            file,
            file.parent,
        )


def features_of(request: Request, split: Split) -> JsonObject | None:
    """How the features of a split are computed, see `sound_features.definition`.

    Args:
        request: The data set.
        split: A split of it.

    Returns:
        None for a data set that is not read as features of sound files.
    """
    if request.options.features == "none" or split.paths is None:
        return None
    rate = request.options.sample_rate or rate_of(request.folder / split.paths[0])
    return sound_features.definition(request.options, rate)


def samples_of(request: Request, split: Split) -> np.ndarray:
    """The sounds of a split that was read as features, from the same files.

    Args:
        request: The data set.
        split: A split of it, or a part of one.

    Returns:
        float32 [N, samples, 1].

    Raises:
        InputError: The sounds have different lengths or rates, or the split is none of files.
    """
    if split.paths is None:
        raise InputError(f"load: {request.reference} must be sound files. Received: other data. Leave the sounds out.")
    unused = ("features", "mel_bands", "coefficients", "frame_ms", "hop_ms", "skip_broken")
    plain = dataclasses.replace(request.options, **{name: getattr(ReadingOptions(), name) for name in unused})
    return read(request.reference, request.folder, split.paths, plain)[0][:]


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError where it finds no libsndfile
        raise ToolMissingError(
            f"load: sounds need the package soundfile: {error}. Install it with pip install 'tfkd[audio]'."
        ) from None
    return soundfile


def read(
    location: str, root: Path, paths: np.ndarray, options: ReadingOptions
) -> tuple[np.ndarray | LazySamples, np.ndarray]:
    """Reads sounds of one length, several at a time; those of a large data set when they are used.

    Args:
        location: The data set, for messages.
        root: Folder that the paths are relative to.
        paths: Files to read, at least one, str [N].
        options: Rate, length, features, and whether broken sounds are left out, for which all are read once.

    Returns:
        The sounds, float32 [N, ...], and the positions of their files, int64 [N]: all, unless some are left out.

    Raises:
        InputError: A sound cannot be read, or has another rate or length than the first.
    """
    rows = np.arange(len(paths))
    if options.skip_broken:
        broken = list(images.in_parallel(lambda path: _is_broken(root / path, options), paths))
        rows = np.flatnonzero(~np.array(broken))
        if len(rows) < len(paths):
            left = paths[np.array(broken)].tolist()
            log.warning(
                "%s: sounds that cannot be read are left out (%s): %s.", location, len(left), images.listed(left)
            )
    if not len(rows):
        raise InputError(f"load: {location} must have readable sounds. Received: broken ones only. Repair them.")
    reader = SoundReader(root, paths, options, root / paths[rows[0]])
    samples = LazySamples(reader, rows)
    small = int(np.prod(samples.shape)) * 4 <= lazy.IN_MEMORY_BYTES and len(rows) <= lazy.IN_MEMORY_FILES
    return (samples[:] if small else samples), rows


def _is_broken(file: Path, options: ReadingOptions) -> bool:
    try:
        decode(file, options)
    except InputError:
        return True
    return False


class SoundReader:
    """Decodes sound files when they are used.

    Args:
        root: Folder that the paths are relative to.
        paths: The files, str [N].
        options: Rate, length and features.
        first: File with the rate and the length of all.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, root: Path, paths: np.ndarray, options: ReadingOptions, first: Path) -> None:
        self._root, self._paths, self._options, self._first = root, paths, options, first
        self.sample_shape = decode(first, options).shape
        self._rate = rate_of(first)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The sounds with these numbers, float32 [len(rows), ...].

        Raises:
            InputError: A sound cannot be read, or has another rate or length than the first.
        """

        def one(row: int) -> np.ndarray:
            file = self._root / self._paths[row]
            sound = decode(file, self._options)
            if self._options.sample_rate is None and rate_of(file) != self._rate:
                raise InputError(
                    f"load: {file} must have the sample rate of {self._first}, {self._rate} Hz. Received: "
                    f"{rate_of(file)}. Pass sample_rate={self._rate} to resample all."
                )
            if sound.shape != self.sample_shape:
                raise InputError(
                    f"load: {file} must have the length of {self._first}, {self.sample_shape[0]}. Received: "
                    f"{sound.shape[0]}. Pass seconds=1.0 or another length to cut and pad all."
                )
            return sound

        return np.stack(list(images.pool().map(one, rows)))

    def fingerprint(self, rows: np.ndarray) -> Iterator[bytes]:
        """The options, and a hash of each file."""
        yield repr(self._options).encode()
        for row in rows:
            with (self._root / self._paths[row]).open("rb") as file:
                yield hashlib.file_digest(file, "sha256").digest()


def rate_of(file: Path) -> int:
    """The sample rate of a file, in Hz."""
    return int(_soundfile().info(file).samplerate)
