"""Calls in a functional model of Keras 2 whose form Keras 3 does not read: TensorFlow functions such as `x / 255`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from tfkd._internal.types import JsonObject
from tfkd.errors import ModelError

CLASSES = ("TFOpLambda", "SlicingOpLambda")
# In place of the name of a layer, where the first argument is a constant.
_CONSTANT = "_CONSTANT_VALUE"
_PAIR, _AXIS, _REDUCTION = ("x", "y"), {"axis": "axis"}, {"axis": "axis", "keepdims": "keepdims"}
_RECURRENT = ("Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN")
# By TensorFlow's function: the operation of Keras 3, the arguments that it is called with, and the names in Keras 3 of
# its settings. The first argument has no name in the file.
_OPERATIONS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "__operators__.add": ("numpy.Add", _PAIR, {}),
    "__operators__.getitem": ("numpy.GetItem", ("tensor", "slice_spec"), {}),
    "cast": ("core.Cast", ("x",), {"dtype": "dtype"}),
    "clip_by_value": ("numpy.Clip", ("x",), {"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "compat.v1.gather": ("numpy.Take", ("x", "indices"), _AXIS),
    "compat.v1.squeeze": ("numpy.Squeeze", ("x",), _AXIS),
    "compat.v1.transpose": ("numpy.Transpose", ("x",), {"perm": "axes"}),
    "concat": ("numpy.Concatenate", ("values",), _AXIS),
    "expand_dims": ("numpy.ExpandDims", ("x",), _AXIS),
    "linalg.matmul": ("numpy.Matmul", ("a", "b"), {}),
    "math.abs": ("numpy.Absolute", ("x",), {}),
    "math.exp": ("numpy.Exp", ("x",), {}),
    "math.log": ("numpy.Log", ("x",), {}),
    "math.maximum": ("numpy.Maximum", _PAIR, {}),
    "math.minimum": ("numpy.Minimum", _PAIR, {}),
    "math.multiply": ("numpy.Multiply", _PAIR, {}),
    "math.negative": ("numpy.Negative", ("x",), {}),
    "math.pow": ("numpy.Power", _PAIR, {}),
    "math.reduce_max": ("numpy.Max", ("x",), _REDUCTION),
    "math.reduce_mean": ("numpy.Mean", ("x",), _REDUCTION),
    "math.reduce_sum": ("numpy.Sum", ("x",), _REDUCTION),
    "math.sigmoid": ("nn.Sigmoid", ("x",), {}),
    "math.sqrt": ("numpy.Sqrt", ("x",), {}),
    "math.square": ("numpy.Square", ("x",), {}),
    "math.subtract": ("numpy.Subtract", _PAIR, {}),
    "math.tanh": ("numpy.Tanh", ("x",), {}),
    "math.truediv": ("numpy.TrueDivide", _PAIR, {}),
    "nn.relu": ("nn.Relu", ("x",), {}),
    "nn.relu6": ("nn.Relu6", ("x",), {}),
    "nn.silu": ("nn.Silu", ("x",), {}),
    "nn.softmax": ("nn.Softmax", ("x",), _AXIS),
    "reshape": ("numpy.Reshape", ("x",), {"shape": "newshape"}),
    "stack": ("numpy.Stack", ("values",), _AXIS),
}


def for_keras_3(layer: JsonObject) -> JsonObject:
    """The configuration of an operation of Keras 3.

    Args:
        layer: Configuration in Keras 2 of a layer whose class is one of `CLASSES`.

    Raises:
        ModelError: The function, or one of its arguments, has no counterpart here.
    """
    function, name = layer["config"]["function"], layer["name"]
    if function not in _OPERATIONS:
        raise ModelError(f"layer {name!r} calls tf.{function}, which tfkd does not translate")
    operation, arguments, settings = _OPERATIONS[function]
    (node,) = layer["inbound_nodes"]  # each call is a layer of its own
    first, named = _first(node)
    unset = [
        key for key, value in named.items() if value is None or value is False or (key, value) == ("batch_dims", 0)
    ]
    named = {key: value for key, value in named.items() if key not in (*unset, "name")}
    if unknown := sorted(named.keys() - {*arguments[1:], *settings}):
        raise ModelError(f"layer {name!r} calls tf.{function} with {', '.join(unknown)}, which tfkd does not translate")
    module, _, class_name = operation.rpartition(".")
    return {
        "module": f"keras.src.ops.{module}",
        "class_name": class_name,
        "config": {"name": name, **{settings[key]: named[key] for key in settings if key in named}},
        "registered_name": class_name,
        "name": name,
        "inbound_nodes": [{"args": [first, *(_value(named[key]) for key in arguments[1:])], "kwargs": {}}],
    }


def call(layer: str, node: Any) -> Any:
    """A call with tensors as named arguments, such as `attention(x, value=x)`, in the form of Keras 3.

    Args:
        layer: Class of the layer. Recurrent ones have their initial state behind the sequence, in one list.
        node: An inbound node of Keras 2. A node without such arguments is returned as it is, since Keras 3 reads it.
    """
    if not isinstance(node, list) or not node:
        return node
    tensors = [node] if isinstance(node[0], str) else node
    named = tensors[0][3] if len(tensors[0]) > 3 else {}
    kwargs = {key: _value(value) for key, value in named.items()}
    first, *others = [_positional(each) for each in tensors]
    if others and layer in _RECURRENT:
        return {"args": [first], "kwargs": {**kwargs, "initial_state": others}}
    if tensors is node and kwargs == named:
        return node
    return {"args": [[first, *others] if others else first], "kwargs": kwargs}


def count_from_zero(network: JsonObject) -> JsonObject:
    """The configuration of a functional model, in which the calls of models inside it count from 0 as in Keras 3.

    In Keras 2 call 0 of a functional or Sequential model is the one that made it. Keras 3 subtracts 1 by itself only
    in the list of outputs, and only for functional models.

    Args:
        network: Configuration with `layers` and `output_layers`.
    """
    models = {
        layer["name"]: layer["class_name"] == "Sequential"
        for layer in network["layers"]
        if layer["class_name"] in ("Functional", "Model", "Sequential") and "name" in layer
    }
    calls = [layer["inbound_nodes"] for layer in network["layers"]]
    references = [*_references(calls, models), *_references(network["output_layers"], models)]
    first = {name: min((call for other, call, *_ in references if other == name), default=0) for name in models}
    for reference in _references(calls, models):
        reference[1] -= first[reference[0]]
    for reference in _references(network["output_layers"], models):
        if models[reference[0]]:
            reference[1] -= first[reference[0]]
    return network


def _references(value: Any, names: Collection[str]) -> Iterator[list[Any]]:
    """The lists [name, call, output, ...] in a configuration that refer to layers of some names."""
    if isinstance(value, list) and len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int):
        if value[0] in names:
            yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _references(each, names)


def _first(node: list[Any]) -> tuple[Any, JsonObject]:
    """The first argument of a call, and the named ones."""
    if isinstance(node[0], list):  # a list of tensors; each repeats the named arguments
        return [_positional(each) for each in node], node[0][3]
    return _positional(node), node[3]


def _positional(node: list[Any]) -> Any:
    return node[2] if node[0] == _CONSTANT else _value(node[:3])


def _value(value: Any) -> Any:
    """An argument in the form of Keras 3: [layer, node, output] becomes a tensor."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [], "dtype": "float32", "keras_history": value},  # only the last one is read
        }
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, dict) and value.keys() == {"start", "stop", "step"}:
        return {"class_name": "__slice__", "config": value}
    if isinstance(value, dict):  # Keras cannot read '...' from a HDF5 file
        raise ModelError(f"a call of a TensorFlow function has the argument {value}, which tfkd does not translate")
    return value
