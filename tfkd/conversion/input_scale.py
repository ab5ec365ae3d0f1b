"""Whether samples have the scale that a Keras model was trained on: by its first layers, and by labelled samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfkd.conversion import keras_runs
from tfkd.conversion.keras_runs import Score
from tfkd.data.constant_answer import least_right
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

# Multiply-accumulates of all samples that a model is run on, and the fewest samples of a model that takes more: the
# first of them decide whether its accuracy is that of chance, which more samples need not show.
_BUDGET, _FEWEST, _FIRST_OF_LARGE = 8e9, 64, 32
# Other scales are tried on so many samples, of large models on fewer, and only if the accuracy is lower or the loss
# higher than this.
_TRIED, _FEWEST_TRIED = 64, 32
# A scale is given up after its first samples, or twice as many, if a model of the least accuracy that would count fits
# no more of them, or gives all of them one label, with less than this probability.
_FIRST, _HOPELESS = 8, 0.02
_GOOD_ACCURACY, _GOOD_LOSS = 0.95, 0.5
# So many values of samples, and so many samples, tell whether two scales are the same.
_COMPARED, _FEWEST_COMPARED = 4096, 4
# Another scale is the right one if it raises the accuracy by this, and by so many standard errors.
_LEAST_GAIN = 0.05
_STANDARD_ERRORS = 4.0
# Or if it lowers the cross-entropy by so many nats while the accuracy is about equal, and not that of chance.
_LEAST_LOSS_GAIN, _EQUAL_ACCURACY, _LEAST_ACCURACY = 1.0, 0.02, 0.8
# Scales whose accuracy is lower than the best by less than this are named, too.
_EQUAL_SCALES = 0.05
# Limits of the first layers' own statistics, chosen so that data of the right kind passes with a wide margin.
_MIN_SCALED_SPAN = 1 / 32  # of the input after Rescaling
_MAX_DEVIATION_RATIO = 8.0  # between the standard deviations of samples and Normalization, in either direction


class Scale(NamedTuple):
    """A scale of a model's input.

    Args:
        name: What would have to be done to the samples, such as `divided by 255`.
        of: Gives samples [N, ...] in this scale.
        fault: Why the first layers of the model expect this scale rather than that of the samples; None where they
            do not tell.
    """

    name: str
    of: Callable[[np.ndarray], np.ndarray]
    fault: str | None = None


class Audited(NamedTuple):
    """What a run of a Keras model on labelled samples shows.

    Args:
        accuracy: Accuracy, 0..1; None where the outputs are not one value for each class, or where the model keeps a
            state.
        findings: Sentences on what is suspicious about it.
        samples: Number of samples that it was measured on; a large model is run on a part of them.
    """

    accuracy: float | None
    findings: tuple[str, ...]
    samples: int


def audit(model: keras.Model, chosen: Split, where: str) -> Audited:
    """Runs a Keras model on labelled samples, and refuses samples in another scale than the model expects.

    Args:
        model: A model with one input.
        chosen: Samples with their labels; a large model is run on some of them.
        where: Beginning of the error message.

    Raises:
        InputError: The first layers of the model expect another scale and the labels do not show the contrary, or
            the model fits the labels much better in another scale.
    """
    chosen, outputs, layers = _run(model, chosen)
    x = chosen.x.astype("float32", copy=False)
    own = list(own_scales(layers, x)) if x.std() > 0 else []
    score = keras_runs.score(outputs, chosen)
    fault = next((scale.fault for scale in own if scale.fault), None)
    if fault and (score is None or score.accuracy < (1 + 1 / chosen.num_classes) / 2):
        raise InputError(
            f"{where} {fault}. Use samples in the range that the model takes, or pass check=False if they are."
        )
    if score is None:
        return Audited(None, (), 0)
    findings = [*_suspicions(model, chosen, score.accuracy)]
    if score.accuracy < _GOOD_ACCURACY or score.loss > _GOOD_LOSS:
        better = find_better(model, chosen, [*common_scales(x), *own], outputs)
        if better is not None:
            words = f"Received: {x.min():g}..{x.max():g}, where the Keras model {better.words}"
            if not better.less_confident:
                raise InputError(
                    f"{where} must have the scale that the model was trained on. {words}. Prepare the samples as for "
                    "the training of the model, or pass check=False if they are."
                )
            findings.append(f"The samples may have another scale than those of the training. {words}.")
    return Audited(score.accuracy, tuple(findings), len(chosen))


def _run(model: keras.Model, chosen: Split) -> tuple[Split, np.ndarray | None, list[keras.Layer]]:
    """Runs a model on as many of the samples as its size allows, and returns these with `keras_runs.run`."""
    affordable = int(_BUDGET // keras_runs.multiplications(model))
    if affordable < len(chosen):
        chosen = chosen.take(np.random.default_rng(0).permutation(len(chosen))[: max(_FEWEST, affordable)])
    x = chosen.x.astype("float32", copy=False)
    if affordable >= len(chosen) or len(chosen) <= _FIRST_OF_LARGE:
        return chosen, *keras_runs.run(model, x)
    first = chosen.take(np.arange(_FIRST_OF_LARGE))
    outputs, layers = keras_runs.run(model, x[:_FIRST_OF_LARGE])
    score = keras_runs.score(outputs, first)
    if outputs is None or score is None or _is_of_chance(score.accuracy, first):
        return first, outputs, layers
    rest = keras_runs.run(model, x[_FIRST_OF_LARGE:])[0]
    return chosen, np.concatenate([outputs, rest]), layers


def _is_of_chance(accuracy: float, labelled: Split) -> bool:
    """Whether an accuracy is no better than that of a constant answer."""
    most_frequent, number = float(np.bincount(labelled.y).max()) / len(labelled), len(labelled)
    return round(accuracy * number) < min(least_right(number, most_frequent), number)


def _suspicions(model: keras.Model, chosen: Split, accuracy: float) -> Iterator[str]:
    """What is suspicious about an accuracy on calibration samples."""
    share = f"The Keras model classifies {accuracy:.1%} of the samples right"
    reported, held_out = _reported_accuracy(model), chosen.held_out
    if finding := below_reported(accuracy, reported, len(chosen)):
        yield finding
    elif _is_of_chance(accuracy, chosen):
        most = float(np.bincount(chosen.y).max()) / len(chosen)
        yield (
            f"{share}, no better than chance: the most frequent label reaches {most:.1%}. It is untrained, or they "
            "were prepared in another way than for its training, or have other labels."
        )
    elif held_out is not None and accuracy < _GOOD_ACCURACY:
        rows = np.flatnonzero(np.isin(held_out.y, chosen.y))[: len(chosen)]
        other = held_out.take(rows)
        score = keras_runs.score(keras_runs.run(model, other.x.astype("float32"))[0], other) if len(rows) else None
        if score is not None and is_far_below(accuracy, score.accuracy, len(rows)):
            yield f"{share}, and {score.accuracy:.1%} of the test split: they were prepared in another way."


def below_reported(accuracy: float | None, reported: float | None, samples: int) -> str | None:
    """A sentence on an accuracy far below the one that training reported; None where it is not, or one is unknown.

    Args:
        accuracy: Accuracy on calibration samples, 0..1.
        reported: Accuracy that training reported.
        samples: Number of calibration samples that it was measured on; 0 where that is not known.
    """
    if not samples or accuracy is None or reported is None or not is_far_below(accuracy, reported, samples):
        return None
    return (
        f"The Keras model classifies {accuracy:.1%} of the samples right, after {reported:.1%} in its training: they "
        "were prepared in another way, or have other labels."
    )


def is_far_below(accuracy: float, expected: float, samples: int, *, least: float = 0.1) -> bool:
    """Whether an accuracy on some samples is lower than expected, by more than `least` and than chance explains."""
    error = math.sqrt(max(expected * (1 - expected), 1 / samples) / samples)
    return expected - accuracy > max(least, _STANDARD_ERRORS * error)


class Better(NamedTuple):
    """A scale in which a model fits labels much better.

    Args:
        name: Name of the scale.
        before: Score on the samples as they are.
        after: Score in that scale.
        less_confident: Whether only the confidence tells: the accuracies are about equal, which a loss that does not
            determine the scale of logits, or overfitting, has as an effect, too.
        others: Names and scores of other scales that fit about as well: so few samples do not tell them apart.
    """

    name: str
    before: Score
    after: Score
    less_confident: bool
    others: tuple[tuple[str, Score], ...] = ()

    @property
    def words(self) -> str:
        """Both scores, as the end of a sentence."""
        (before, loss), (after, other) = self.before, self.after
        more = "".join(f", or {name}, {score.accuracy:.1%} with {score.loss:.2g}" for name, score in self.others)
        return (
            f"classifies {before:.1%} right with a cross-entropy of {loss:.2g}; of the same samples {self.name}, "
            f"{after:.1%} with {other:.2g}{more}"
        )


def find_better(
    model: keras.Model, labelled: Split, scales: Sequence[Scale], outputs: np.ndarray | None = None
) -> Better | None:
    """The scale in which a model fits labels much better than it does on the samples as they are.

    Args:
        model: A model with one float input and one output for each class.
        labelled: The samples.
        scales: Scales of these samples to try.
        outputs: The outputs of the model on the samples, where they are known.
    """
    inputs = getattr(model, "inputs", None)
    if inputs and not str(inputs[0].dtype).startswith("float"):
        return None
    affordable = int(_BUDGET // (len(scales) * keras_runs.multiplications(model)))
    number = min(_TRIED, max(_FEWEST_TRIED, affordable))
    rows = np.sort(np.random.default_rng(0).permutation(len(labelled))[:number])
    some = labelled.take(rows)
    x = some.x.astype("float32")
    before = keras_runs.score(keras_runs.run(model, x)[0] if outputs is None else outputs[rows], some)
    if before is None:
        return None
    found = []
    most_frequent = float(np.bincount(some.y).max()) / len(some)
    for scale in _distinct(scales, x):
        after = _score_unless_hopeless(model, scale, some, most_frequent)
        if after is None or not math.isfinite(after.loss):
            continue
        if not is_far_below(most_frequent, after.accuracy, len(rows)):
            continue  # a constant answer, such as that of inputs near 0, is no evidence
        if is_far_below(before.accuracy, after.accuracy, len(rows), least=_LEAST_GAIN):
            found.append(Better(scale.name, before, after, False))
        elif (
            after.accuracy > max(before.accuracy - _EQUAL_ACCURACY, _LEAST_ACCURACY)
            and before.loss - after.loss > _LEAST_LOSS_GAIN
        ):
            found.append(Better(scale.name, before, after, before.loss < math.log(labelled.num_classes)))
        elif (
            after.accuracy > before.accuracy - _EQUAL_ACCURACY
            and after.loss < math.log(labelled.num_classes) < before.loss - _LEAST_LOSS_GAIN
        ):
            # Worse than equal probabilities for all classes. An overfitted model is that too: this alone is no proof.
            found.append(Better(scale.name, before, after, True))
    if not found:
        return None
    best = max(found, key=lambda one: (one.after.accuracy, -one.after.loss))
    others: dict[Score, str] = {}  # two scales may be the same for these samples
    for one in found:
        if one.after != best.after and best.after.accuracy - one.after.accuracy < _EQUAL_SCALES:
            others.setdefault(one.after, one.name)
    return best._replace(others=tuple((name, score) for score, name in others.items()))


def _distinct(scales: Iterable[Scale], x: np.ndarray) -> list[Scale]:
    """The first of the scales whose samples are equal, without those equal to `x`, the samples as they are."""
    number = min(len(x), max(_FEWEST_COMPARED, _COMPARED // x[0].size))
    compared = x[np.linspace(0, len(x) - 1, number).astype(int)]
    known, found = [compared], []
    for scale in scales:
        values = scale.of(compared)
        if not any(np.allclose(values, one, rtol=1e-5, atol=1e-5 * float(np.ptp(values))) for one in known):
            known.append(values)
            found.append(scale)
    return found


def _score_unless_hopeless(model: keras.Model, scale: Scale, some: Split, most_frequent: float) -> Score | None:
    """The score of a model on samples in another scale; None where the first of them rule that scale out.

    Args:
        model: The model.
        scale: That scale.
        some: The samples with their labels.
        most_frequent: Share of the most frequent label, which the accuracy must exceed, see `is_far_below`.
    """
    x, number, done, outputs = some.x.astype("float32"), len(some), 0, []
    order = np.random.default_rng(0).permutation(number)
    counts = range(number + 1)
    least = next((one / number for one in counts if is_far_below(most_frequent, one / number, number)), 1.0)
    while True:
        part = order[done : done + max(_FIRST, done)]  # twice as many each time
        part_outputs = keras_runs.run(model, scale.of(x[part]))[0]
        if part_outputs is None:
            return None
        outputs.append(part_outputs)
        done += len(part)
        together = np.concatenate(outputs)
        score = keras_runs.score(together, some.take(order[:done]))
        if score is None or done == number:
            return score
        labels = together.reshape(done, -1).argmax(axis=1)
        constant = most_frequent**done if (labels == labels[0]).all() else 1.0
        if min(constant, _at_most(round(score.accuracy * done), done, least)) < _HOPELESS:
            return None


def _at_most(successes: int, trials: int, probability: float) -> float:
    """The probability of at most so many successes in independent trials."""
    failure = 1 - probability
    return sum(math.comb(trials, i) * probability**i * failure ** (trials - i) for i in range(successes + 1))


def common_scales(x: np.ndarray) -> list[Scale]:
    """The scales that data commonly have, for samples of another one."""
    low, high, mean, deviation = float(x.min()), float(x.max()), float(x.mean()), float(x.std())
    scales = [
        Scale("divided by 255", _affine(divisor=255.0)),
        Scale("multiplied by 255", _affine(factor=255.0)),
        Scale("scaled from 0..255 to -1..1", _affine(divisor=127.5, offset=-1.0)),
    ]
    if high > low and deviation > 0:
        unit = functools.partial(_affine, low, high - low)
        scales += [
            Scale("scaled to 0..1", unit()),
            Scale("scaled to -1..1", unit(2.0, -1.0)),
            Scale("scaled to 0..255", unit(255.0)),
            Scale("with mean 0 and standard deviation 1", _affine(mean, deviation)),
        ]
    return scales


def _affine(
    subtrahend: float | np.ndarray = 0.0,
    divisor: float | np.ndarray = 1.0,
    factor: float | np.ndarray = 1.0,
    offset: float | np.ndarray = 0.0,
) -> Callable[[np.ndarray], np.ndarray]:
    """The function `(x - subtrahend) / divisor * factor + offset`."""
    return lambda x: (x - subtrahend) / divisor * factor + offset


def own_scales(layers: list[keras.Layer], x: np.ndarray) -> Iterator[Scale]:
    """The scales that layers on the model's input expect."""
    import keras

    for layer in layers:
        name = f"{type(layer).__name__} {layer.name!r}"
        if isinstance(layer, keras.layers.Rescaling):
            factor, offset = np.asarray(layer.scale, "float32"), np.asarray(layer.offset, "float32")
            if not np.all(factor):
                continue
            span = float(x.max() - x.min()) * float(np.abs(factor).max())
            yield Scale(
                f"multiplied by {1 / float(np.ravel(factor)[0]):g}",
                _affine(offset, factor),
                f"must be unscaled, since {name} of the model multiplies its input by {float(np.ravel(factor)[0]):g} "
                f"itself. Received: values in {x.min():g}..{x.max():g}, which are scaled already"
                if span < _MIN_SCALED_SPAN
                else None,
            )
            continue
        mean, deviation = _statistics(layer, x.ndim)
        axes = tuple(axis for axis, size in enumerate(mean.shape) if size == 1)
        own_mean, own_deviation = x.mean(axis=axes, keepdims=True), x.std(axis=axes, keepdims=True)
        vary = (own_deviation > 0) & (deviation > 0)
        if not vary.any():
            continue
        ratio = float(np.median((own_deviation / np.where(vary, deviation, 1))[vary]))
        wrong = isinstance(layer, keras.layers.Normalization) and abs(math.log(ratio)) > math.log(_MAX_DEVIATION_RATIO)
        yield Scale(
            f"with the mean and standard deviation of {name}",
            _affine(own_mean, np.where(vary, own_deviation, 1), deviation, mean),
            f"must have the scale that {name} of the model was adapted to. Received: values in {x.min():g}.."
            f"{x.max():g}, with {ratio:.3g} times its standard deviation"
            if wrong
            else None,
        )


def _statistics(layer: keras.Layer, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation that a Normalization or BatchNormalization expects, of shape [1, ..., channels]."""
    import keras

    if isinstance(layer, keras.layers.Normalization):
        mean, variance = np.asarray(layer.mean, "float32"), np.asarray(layer.variance, "float32")
        shape = (1,) * (rank - mean.ndim) + mean.shape
    else:
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        axis = layer.axis % rank if isinstance(layer.axis, int) else rank - 1
        shape = tuple(-1 if i == axis else 1 for i in range(rank))
    return mean.reshape(shape), np.sqrt(variance.reshape(shape))


def _reported_accuracy(model: keras.Model) -> float | None:
    """The last accuracy that `fit` reported in this process, on validation samples where it had some."""
    logs = getattr(getattr(model, "history", None), "history", None) or {}
    names = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy")
    values = [logs[key] for name in names for key in (f"val_{name}", name) if logs.get(key)]
    return float(values[0][-1]) if values else None
