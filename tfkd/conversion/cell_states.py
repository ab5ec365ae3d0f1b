"""Ranges of the cell states of LSTMs over all steps of a sequence, and calibration from a state of 0.

TensorFlow's calibration reads a cell state after the last step only. The states before follow from the tensors that
LiteRT shows: the op's input x and its output, the hidden states h. With the weights W and R and the biases b of a gate,

    gate[t] = W x[t] + R h[t - 1] + b
    cell[t] = sigmoid(forget[t]) cell[t - 1] + sigmoid(input[t]) tanh(candidate[t])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples

# Positions among the inputs of UNIDIRECTIONAL_SEQUENCE_LSTM: the weights and biases of the gates input, forget and
# candidate; and inputs that an LSTM of Keras does not have.
_WEIGHTS, _RECURRENT, _BIASES = (1, 2, 3), (5, 6, 7), (12, 13, 14)
_OMITTED = (9, 10, 11, 16, 17, 20, 21, 22, 23)
_CELL = 19


class _Lstm(NamedTuple):
    """An op: tensor indices of input, output and cell state, and arrays by gate."""

    source: int
    output: int
    cell: int
    weights: list[np.ndarray]
    recurrent: list[np.ndarray]
    biases: list[np.ndarray]

    def cells(self, x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """The cell states [steps, units] of one sequence, from x [steps, features] and hidden states [steps, units]."""
        before = np.concatenate([np.zeros_like(hidden[:1]), hidden[:-1]])
        arrays = zip(self.weights, self.recurrent, self.biases, strict=True)
        enter, forget, candidate = (x @ w.T + before @ r.T + b for w, r, b in arrays)
        cells, kept = _sigmoid(enter) * np.tanh(candidate), _sigmoid(forget)
        for step in range(1, len(cells)):
            cells[step] += kept[step] * cells[step - 1]
        return cells


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # without overflow


def extremes(content: bytes, samples: Samples) -> dict[int, tuple[float, float]]:
    """The range (low <= 0, high >= 0) of each cell state, by the index of its tensor.

    It runs the model in this process: call it in a child process.

    Args:
        content: A float .tflite.
        samples: Calibration samples.
    """
    editor = ModelEditor(content)
    lstms = [lstm for op in editor.graph.operators if (lstm := _lstm(editor, op)) is not None]
    if not lstms:
        return {}
    ranges, recorder = {lstm.cell: (0.0, 0.0) for lstm in lstms}, TensorRecorder(content)
    for sample in samples:
        read = recorder.run(sample)
        for lstm in lstms:
            x, hidden = (read(index) for index in (lstm.source, lstm.output))
            cells = lstm.cells(x.reshape(-1, x.shape[-1]), hidden.reshape(-1, hidden.shape[-1]))
            low, high = ranges[lstm.cell]
            ranges[lstm.cell] = min(low, float(cells.min())), max(high, float(cells.max()))
    return ranges


def feed(calibrator: Any, samples: Callable[[], Iterable[list[np.ndarray]]], resize_input: bool) -> None:
    """Feeds samples to a calibrator of TensorFlow, each from a state of 0: by itself it resets the states only once.

    Args:
        calibrator: A `tensorflow.lite.python.optimize.calibrator.Calibrator`, whose method this is to be.
        samples: Returns the samples, each an array [1, ...] for each input.
        resize_input: Not used: inputs always take the shape of the sample.
    """
    for sample in samples():
        calibrator._calibrator.Prepare([list(array.shape) for array in sample])
        calibrator._calibrator.FeedTensor(sample)


def _lstm(editor: ModelEditor, op: schema.OperatorT) -> _Lstm | None:
    """The arrays of an op of one sequence, with the parts of an LSTM of Keras; None for other ops."""
    inputs = op.inputs.tolist()
    if editor.name(op) != "UNIDIRECTIONAL_SEQUENCE_LSTM" or any(inputs[i] >= 0 for i in _OMITTED if i < len(inputs)):
        return None
    constants = [inputs[place] for place in (*_WEIGHTS, *_RECURRENT, *_BIASES)]
    floats = all(editor.tensors[index].type == schema.TensorType.FLOAT32 for index in constants)
    if not floats or any(editor.is_activation(index) for index in constants):
        return None
    arrays = [editor.constant(index).reshape(editor.tensors[index].shape) for index in constants]
    return _Lstm(inputs[0], int(op.outputs[0]), inputs[_CELL], arrays[:3], arrays[3:6], arrays[6:])
