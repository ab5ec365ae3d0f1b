"""Compares the labels of a .tflite with those of the trained Keras model, and finds the layer at which they diverge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from tfkd import targets
from tfkd._internal import isolation
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.layer_names import known_layers
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError

# The smallest share of samples with equal labels, and the number of samples that are compared.
LEAST = 0.99
SAMPLES = 512
_BATCH = 256
_ROUNDING = 2.0  # steps: two correct ways of rounding differ by less, a fault by more


def check(
    model: TFLiteModel,
    x: np.ndarray,
    logits: Callable[[np.ndarray], np.ndarray],
    layers: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    where: str,
) -> float:
    """Raises when a .tflite and the model that it came from predict different labels.

    Args:
        model: The .tflite.
        x: Samples [N, ...] as the data set stores them.
        logits: Returns the trained model's logits [B, ..., C] for a batch of x.
        layers: Returns the outputs [B, ...] of the model's layers by name, in the order of computation, each rounded
            as in training; the tensor names of the .tflite contain the layer names.
        where: Beginning of the error message.

    Returns:
        The share of samples with equal labels, 0..1.

    Raises:
        ModelError: The share is below `LEAST`; the message names the layer at which both diverge.
    """
    expected = np.concatenate([logits(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])
    outputs = targets.get("host:plain").run(model, model.quantize_input(x), latency=False).outputs[0]
    agreement = float(np.mean(_labels(expected) == _labels(outputs)))
    if agreement >= LEAST:
        return agreement
    layer, steps = _first_divergence(differences(model, x[:32], layers))
    remedy = (
        "Replace that layer, or convert the student without this training (tfkd.convert)."
        if steps > _ROUNDING
        else "Such differences come from rounding alone; they change labels with nearly equal logits. Train longer."
    )
    raise ModelError(
        f"{where}: the .tflite and the trained model must predict equal labels on {LEAST:.0%} of {len(x)} samples. "
        f"Received: {agreement:.1%}. They diverge at layer {layer!r}, by {steps:.1f} of 256 steps on average. {remedy}"
    )


def _labels(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1, outputs.shape[-1]).argmax(axis=-1)[:, -1]


def _first_divergence(found: Mapping[str, float]) -> tuple[str, float]:
    """The layer whose difference grows the most over those before it, since later layers inherit it; and that value."""
    layer, largest, growth = "(no single layer)", _ROUNDING / 4, 0.0
    for name, difference in found.items():
        if difference / largest > growth:
            layer, growth = name, difference / largest
        largest = max(largest, difference)
    return layer, found.get(layer, 0.0)


def differences(
    model: TFLiteModel, x: np.ndarray, layers: Callable[[np.ndarray], Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The mean absolute difference of each layer's output between model and .tflite, in quantization steps.

    Args:
        model: The .tflite.
        x: Samples, see `check`.
        layers: Layer outputs of the Keras model, see `check`.

    Returns:
        Differences by layer name, in the order of computation.
    """
    expected = layers(x)
    order = {name: place for place, name in enumerate(expected)}
    outputs = isolation.run(
        "tfkd.optimization.agreement:_activations",
        prepare="tfkd.conversion.litert:load",
        timeout_s=600.0,
        what="running the .tflite layer by layer",
        content=model.content,
        inputs=model.quantize_input(x),
    )
    found: dict[str, float] = {}
    for number in (op.outputs[0] for op in model.graph.ops):
        tensor = model.graph.tensors[number]
        # Several layers may be fused into one operator; its output is that of the last one.
        names = known_layers(re.sub(r"(?<![^/;:])quant_", "", tensor.name), order)
        if number in model.graph.outputs:  # whose name is that of the signature
            names = [*expected][-1:]
        last = max(names, key=order.__getitem__, default="")
        if last and len(tensor.scales) == 1 and outputs[tensor.name].size == expected[last].size:
            values = (outputs[tensor.name].astype("float64") - tensor.zero_points[0]) * tensor.scales[0]
            found[last] = float(np.abs(values.ravel() - expected[last].ravel()).mean() / tensor.scales[0])
    return {name: found[name] for name in expected if name in found}


def _activations(content: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """All activations of a .tflite by tensor name; runs in a child process."""
    recorder, graph = TensorRecorder(content), TFLiteModel.load(content).graph
    indices = {graph.tensors[op.outputs[0]].name: op.outputs[0] for op in graph.ops}
    found: dict[str, list[np.ndarray]] = {name: [] for name in indices}
    for sample in inputs:
        read = recorder.run([sample[None]])
        for name, index in indices.items():
            found[name].append(read(index))
    return {name: np.concatenate(values) for name, values in found.items()}
