"""An image student that learns the embedding of a text teacher, as in CLIP, and classes that it never had labels of.

The teacher reads the captions of `shapes` ("small red circle left top") and is trained to say which words they have;
its embedding is the layer before. The student sees the images only and learns the embedding of their captions, without
any label. An image with one object is then classified by the text that is nearest: the mean embedding of all captions
with the word. Beside it a student of the same form and as many steps learns from labels of the training images with one
object.

    python tools/bench/zero_shot.py --epochs 12 --seeds 3
"""

from __future__ import annotations

import argparse
import itertools

import keras
import numpy as np
from equal_budget import spread

import tfkd
from tfkd.data.sources import shapes
from tfkd.distillation.compilation import jit_by_device

DIMENSIONS = 32
# The questions: the words of which one is true of an object. Captions have them in this order.
QUESTIONS = {"size": ("small", "large"), "colour": tuple(shapes.COLORS), "shape": shapes.SHAPES}
PLACES = (("left", "centre", "right"), ("top", "middle", "bottom"))


def main() -> None:
    """Trains the models of each seed and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="passes of each student over the training images")
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings")
    parser.add_argument("--samples", type=int, default=2000, help="number of images, 30 %% of them for the test")
    options = parser.parse_args()
    found = [run(options, seed) for seed in range(options.seeds)]
    print(f"| question | chance | zero-shot | text of the caption itself | labels | test images |\n|{'---|' * 6}")
    for question, words in QUESTIONS.items():
        cells = [spread([100 * one[question][place] for one in found]) for place in range(3)]
        print(f"| {question} | {100 / len(words):.1f} | {' | '.join(cells)} | {found[0][question][3]} |")


def run(options: argparse.Namespace, seed: int) -> dict[str, tuple[float, float, float, int]]:
    """Accuracies of one seed: zero-shot, of the text teacher on the captions, with labels; and the test images."""
    keras.utils.set_random_seed(seed)
    given = {"image_size": (32, 32), "sample_count": options.samples, "validation": 0.0, "labels": "multi_hot"}
    images, captions = (tfkd.data.load("shapes", content=content, **given) for content in ("image", "caption"))
    teacher = text_teacher(np.asarray(captions.train.x), seed)
    student = image_encoder(DIMENSIONS)
    distiller = tfkd.Distiller(student, teacher, alpha=1.0, soft_loss=tfkd.losses.MeanSquared(), task="regression")
    compile_for(distiller, len(images.train), options.epochs)
    partner = tfkd.data.Partner(captions.train)
    batches = images.train.batches(64, shuffle=True, seed=seed, partner=partner)
    distiller.fit(batches, epochs=options.epochs, shuffle=False, verbose=0)
    single = {part: captions_of_one(getattr(captions, part).x) for part in ("train", "test")}
    vectors = student.predict(images.test.x[single["test"]].astype("float32"), verbose=0)
    text_vectors = teacher.predict(captions.test.x[single["test"]], verbose=0)
    centre = teacher.predict(captions.train.x, verbose=0).mean(axis=0)
    found = {}
    for place, (question, words) in enumerate(QUESTIONS.items()):
        prompts = np.stack([prompt_vector(teacher, place, word) for word in words])
        labels = {part: words_of(getattr(captions, part).x[single[part]], place, words) for part in single}
        right = [
            float((nearest(one - centre, prompts - centre) == labels["test"]).mean()) for one in (vectors, text_vectors)
        ]
        supervised = image_encoder(len(words))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # As many steps as the student without labels, whose training images are more.
        compile_for(supervised, len(images.train), options.epochs, loss=loss)
        x = images.train.x[single["train"]].astype("float32")
        epochs = round(options.epochs * len(images.train) / len(x))
        supervised.fit(x, labels["train"], batch_size=64, epochs=epochs, verbose=0)
        answers = supervised.predict(images.test.x[single["test"]].astype("float32"), verbose=0).argmax(-1)
        found[question] = (right[0], right[1], float((answers == labels["test"]).mean()), len(vectors))
    return found


def image_encoder(outputs: int) -> keras.Model:
    """The student: a ResNet of 8 layers."""
    return tfkd.models.build("resnet8", (32, 32, 3), outputs)


def text_teacher(tokens: np.ndarray, seed: int) -> keras.Model:
    """The embedding of captions: the layer before the words that they have, [B, 20] ids -> [B, 32]."""
    keras.utils.set_random_seed(seed)
    vocabulary = len(shapes.VOCABULARY)
    encoder = tfkd.models.build("text_encoder", tokens.shape[1:], DIMENSIONS, vocabulary=vocabulary, heads=4)
    logits = keras.layers.Dense(vocabulary)(encoder.output)
    model = keras.Model(encoder.input, logits)
    words = np.stack([(tokens == number).any(axis=1) for number in range(vocabulary)], axis=1)
    model.compile(keras.optimizers.Adam(3e-3), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(tokens, words.astype("float32"), batch_size=64, epochs=20, verbose=0)
    return encoder


def compile_for(model: keras.Model, samples: int, epochs: int, **settings: object) -> None:
    """Compiles with Adam and a cosine schedule over all steps of batches of 64."""
    schedule = keras.optimizers.schedules.CosineDecay(5e-3, epochs * -(-samples // 64))
    model.compile(keras.optimizers.Adam(schedule), jit_compile=jit_by_device(), **settings)


def captions_of_one(tokens: np.ndarray) -> np.ndarray:
    """The rows of captions of one object."""
    return np.flatnonzero((tokens > 0).sum(axis=1) == len(QUESTIONS) + len(PLACES))


def words_of(tokens: np.ndarray, place: int, words: tuple[str, ...]) -> np.ndarray:
    """The number of the word at a place of each caption."""
    return tokens[:, place].astype(int) - shapes.VOCABULARY.index(words[0])


def prompt_vector(teacher: keras.Model, place: int, word: str) -> np.ndarray:
    """The mean embedding of all captions of one object with a word at a place."""
    choices = [(word,) if number == place else words for number, words in enumerate(QUESTIONS.values())]
    tokens = np.zeros((0, 20), np.uint8)
    for words in itertools.product(*choices, *PLACES):
        row = [shapes.VOCABULARY.index(one) for one in words]
        tokens = np.concatenate([tokens, np.array([row + [0] * (20 - len(row))], np.uint8)])
    return teacher.predict(tokens, verbose=0).mean(axis=0)


def nearest(vectors: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """The prompt with the largest cosine for each vector."""
    return (vectors @ (prompts / np.linalg.norm(prompts, axis=1, keepdims=True)).T).argmax(axis=1)


if __name__ == "__main__":
    main()
