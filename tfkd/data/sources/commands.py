"""Spoken commands for a house as token ids, generated from a seed: nothing is downloaded.

Each sample is a sentence of at most 12 words, uint8 [12], padded with 0; 1 is an unknown word. The class is the
intent of the sentence: "do not turn on the lamp" is a cancellation, "is the lamp on" a question.
"""

from __future__ import annotations

import numpy as np

from tfkd.data.sources.source import Arrays, Request, Source

SAMPLES, LENGTH = 3000, 12
PADDING, UNKNOWN = 0, 1
_SEED = 13
# Share of words that are replaced by the unknown word.
_UNKNOWN_SHARE = 0.05

_DEVICES = ("light", "lamp", "heater", "fan", "radio", "screen", "oven", "pump")
_PLACES = ("kitchen", "bedroom", "office", "hall", "garden", "cellar")
_OPENINGS = ("", "", "please", "could you", "hey house", "i want you to", "now")
_OPENINGS_OF_QUESTIONS = ("", "", "hey house", "now")
_ENDINGS = ("", "", "", "please", "now", "again", "for me")
# By class; D is a device, P a place, and | separates choices within a template.
_TEMPLATES = {
    "on": ("turn on the D", "turn the D on", "start the D in the P", "switch on the D in the P", "turn it on in the P"),
    "off": ("turn off the D", "turn the D off", "stop the D in the P", "switch off the D in the P", "turn it off"),
    "up": ("turn the D up", "turn up the D in the P", "make the P warmer|brighter|louder", "more D in the P"),
    "down": ("turn the D down", "turn down the D in the P", "make the P colder|darker|quieter", "less D in the P"),
    "question": ("is the D on|off", "is the D in the P on|off", "did you turn on|off the D", "what is on in the P"),
    "cancel": ("do not turn on|off the D", "do not turn the D up|down", "leave the D on|off", "never mind the D"),
}
CLASS_NAMES = tuple(_TEMPLATES)
_TEXTS = (*_DEVICES, *_PLACES, *_OPENINGS, *_ENDINGS, *(one for texts in _TEMPLATES.values() for one in texts))
WORDS = tuple(sorted({word for text in _TEXTS for part in text.split() for word in part.split("|")} - {"D", "P"}))
"""The words; the id of a word is its place plus 2."""


def generate(samples: int = SAMPLES, seed: int = _SEED) -> tuple[np.ndarray, np.ndarray]:
    """Token ids uint8 [N, 12], no two rows equal, and classes int64 [N].

    Args:
        samples: Number N of samples.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    ids = {word: place for place, word in enumerate(WORDS, UNKNOWN + 1)}
    y = rng.integers(0, len(CLASS_NAMES), 2 * samples)  # twice as many, since some sentences occur again
    x = np.full((len(y), LENGTH), PADDING, np.uint8)
    for row, label in zip(x, y, strict=True):
        words = _sentence(CLASS_NAMES[label], rng)[:LENGTH]
        row[: len(words)] = [UNKNOWN if rng.random() < _UNKNOWN_SHARE else ids[word] for word in words]
    first = np.sort(np.unique(x, axis=0, return_index=True)[1])[:samples]
    return x[first], y[first]


def _sentence(name: str, rng: np.random.Generator) -> list[str]:
    """The words of a sentence of a class."""
    template = str(rng.choice(_TEMPLATES[name]))
    words = []
    openings = _OPENINGS_OF_QUESTIONS if name == "question" else _OPENINGS
    for part in f"{rng.choice(openings)} {template} {rng.choice(_ENDINGS)}".split():
        choices = {"D": _DEVICES, "P": _PLACES}.get(part) or part.split("|")
        words.append(str(rng.choice(choices)))
    return words


def text_of(ids: np.ndarray) -> str:
    """The words of a sample.

    Args:
        ids: Token ids [12].
    """
    return " ".join("?" if one == UNKNOWN else WORDS[one - UNKNOWN - 1] for one in ids if one != PADDING)


def read(request: Request) -> Arrays:
    """Reads 3,000 sentences; there is no test part."""
    x, y = generate()
    return Arrays(x, y, class_names=CLASS_NAMES, name="commands", location="commands")


SOURCE = Source(accepts=lambda request: request.reference == "commands", read=read, names=("commands",))
