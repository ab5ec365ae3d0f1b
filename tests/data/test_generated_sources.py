"""Data sets that are generated from a seed: the signals are what their labels say."""

import numpy as np
import pytest

from tfkd.data.frame_labels import IGNORED
from tfkd.data.sources import commands, gaits, gestures

SMALL = {gestures: (60,), gaits: (6, 10), commands: (200,)}


@pytest.mark.parametrize("source", SMALL, ids=lambda source: source.__name__.split(".")[-1])
def test_data_repeat_by_seed(source):
    (x, y), (again, labels), (other, _) = (source.generate(*SMALL[source], seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(y, labels)
    assert len(x) == len(y)
    assert np.abs(x.astype(float) - other).max() > 0


def runs(labels):
    """Start, end and class of each run of equal labels."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    return [(a, b, labels[a]) for a, b in zip([0, *edges], [*edges, len(labels)], strict=True)]


def test_gestures_have_the_movements_of_their_classes():
    x, y = gestures.generate(120)
    assert set(np.unique(y)) == {IGNORED, *range(len(gestures.CLASS_NAMES))}
    shakes, largest = [], []
    for signal, labels in zip(x, y, strict=True):
        for start, end, number in runs(labels):
            if not 0 < number < len(gestures.CLASS_NAMES):
                continue
            assert labels[start - 1] == labels[end] == IGNORED
            part = signal[start:end] - signal[start:end].mean(axis=0)
            largest.append((number, np.argmax(np.std(part, axis=0))))
            if gestures.CLASS_NAMES[number] == "shake":
                power = np.abs(np.fft.rfft(part[:, 0], 256))
                shakes.append(np.argmax(power) / 256 / gestures.FRAME_SECONDS)
    assert 3 < np.median(shakes) < 6  # Hz
    for name, axes in (("shake", [0]), ("circle", [0, 1]), ("lift", [2])):
        found = [axis for number, axis in largest if gestures.CLASS_NAMES[number] == name]
        assert np.mean(np.isin(found, axes)) > 0.9
    padded = [signal for signal, labels in zip(x, y, strict=True) if (labels[-5:] == IGNORED).all()]
    assert padded
    assert all((one[-5:] == 0).all() for one in padded)


def test_people_are_known_again_by_their_steps():
    x, y = gaits.generate(people=8, samples=12)
    spectrum = np.abs(np.fft.rfft(x, axis=1)).reshape(len(x), -1)
    distances = np.linalg.norm(spectrum[:, None] - spectrum[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.mean(y[distances.argmin(axis=1)] == y) > 0.8  # by chance 0.12
    steps = np.argmax(np.abs(np.fft.rfft(x, 512, axis=1)).sum(axis=(0, 2))[1:]) + 1
    assert 1.5 < steps * 25 / 512 < 2.2  # Hz


def test_commands_are_sentences_of_their_class():
    x, y = commands.generate(300)
    assert len(np.unique(x, axis=0)) == len(x)
    assert 0.02 < np.mean(x[x != commands.PADDING] == commands.UNKNOWN) < 0.1
    sentences = [[commands.WORDS[one - 2] for one in row if one > 1] for row in x]
    assert all((np.diff((row == commands.PADDING).astype(int)) >= 0).all() for row in x)  # padding ends the sentence
    for sentence, label in zip(sentences, y, strict=True):
        if {"do", "not"} <= set(sentence) or "never" in sentence:
            assert commands.CLASS_NAMES[label] == "cancel"
        if sentence[:3] in (["is", "the", "lamp"], ["what", "is", "on"]):
            assert commands.CLASS_NAMES[label] == "question"
    assert set(y) == set(range(len(commands.CLASS_NAMES)))
