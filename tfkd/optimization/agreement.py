"""Whether a .tflite answers as the model that was trained to become it, and if not, at which layer they part."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from tfkd import targets
from tfkd._internal import isolation
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.layer_names import known_layers
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

# The least share of samples on which both must give the same label, and how many are asked.
LEAST = 0.99
SAMPLES = 512
_BATCH = 256
_ROUNDING = 2.0  # steps between two ways to round; a fault makes more


def hold(
    made: TFLiteModel,
    x: np.ndarray,
    answers: Callable[[np.ndarray], np.ndarray],
    layers: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    where: str,
) -> float:
    """Holds a .tflite against the model that it came from.

    Args:
        made: the .tflite.
        x: [N, ...], samples as the data has them.
        answers: gives the trained model's logits [B, ..., C] for a batch of x.
        layers: gives the outputs of the model's layers, [B, ...] by name in the order in which they run, each rounded
            as the model trains it; the tensors of the .tflite must hold the names.
        where: what the message begins with.

    Returns:
        The share of samples on which both give the same label, 0..1.

    Raises:
        ValueError: that is less than `LEAST`; the message names the layer.
    """
    expected = np.concatenate([answers(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])
    given = targets.get("host:plain").run(made, made.quantize_input(x), latency=False).outputs[0]
    agreement = float(np.mean(_labels(expected) == _labels(given)))
    if agreement >= LEAST:
        return agreement
    layer, steps = _parting(gaps(made, x[:32], layers))
    remedy = (
        "Replace that layer, or convert the student without this training (tfkd.convert)."
        if steps > _ROUNDING
        else "That is rounding alone, on labels that the model hardly prefers to others: train it longer."
    )
    raise InputError(
        f"{where}: the .tflite must give the labels of the trained model on {LEAST:.0%} of {len(x)} samples. Received: "
        f"{agreement:.1%}. They part at the layer {layer!r}, by {steps:.1f} of 256 steps on average. {remedy}"
    )


def _labels(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1, outputs.shape[-1]).argmax(axis=-1)[:, -1]


def _parting(found: Mapping[str, float]) -> tuple[str, float]:
    """The layer whose gap exceeds those before it the most, since later layers inherit it, and that gap."""
    layer, largest, growth = "none alone", _ROUNDING / 4, 0.0
    for name, gap in found.items():
        if gap / largest > growth:
            layer, growth = name, gap / largest
        largest = max(largest, gap)
    return layer, found.get(layer, 0.0)


def gaps(
    made: TFLiteModel, x: np.ndarray, layers: Callable[[np.ndarray], Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The mean difference of each layer between a model and its .tflite, in steps of its range, in their order.

    Args:
        made: see `hold`.
        x: see `hold`.
        layers: see `hold`.
    """
    expected = layers(x)
    order = {name: place for place, name in enumerate(expected)}
    got = isolation.run(
        "tfkd.optimization.agreement:_activations",
        timeout_s=600.0,
        what="running it layer by layer",
        content=made.content,
        inputs=made.quantize_input(x),
    )
    found: dict[str, float] = {}
    for number in (op.outputs[0] for op in made.graph.ops):
        tensor = made.graph.tensors[number]
        # One op may hold several layers; its output is that of the last.
        fits = known_layers(re.sub(r"(?<![^/;:])quant_", "", tensor.name), order)
        if number in made.graph.outputs:  # it has a name of its own
            fits = [*expected][-1:]
        last = max(fits, key=order.__getitem__, default="")
        if last and len(tensor.scales) == 1 and got[tensor.name].size == expected[last].size:
            values = (got[tensor.name].astype("float64") - tensor.zero_points[0]) * tensor.scales[0]
            found[last] = float(np.abs(values.ravel() - expected[last].ravel()).mean() / tensor.scales[0])
    return {name: found[name] for name in expected if name in found}


def _activations(content: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:  # runs in a child
    recorder, graph = TensorRecorder(content), TFLiteModel.load(content).graph
    indices = {graph.tensors[op.outputs[0]].name: op.outputs[0] for op in graph.ops}
    found: dict[str, list[np.ndarray]] = {name: [] for name in indices}
    for sample in inputs:
        read = recorder.run([sample[None]])
        for name, index in indices.items():
            found[name].append(read(index))
    return {name: np.concatenate(values) for name, values in found.items()}
