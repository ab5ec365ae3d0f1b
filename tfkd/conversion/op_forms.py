"""Equivalent forms of ops that no quantizer or engine takes, and of exponentials that 8 bits cannot hold."""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel

# Ops that a quantizer leaves between casts, with the types of integers that engines compute them in.
_CAST = {
    "ELU": {schema.TensorType.INT8},
    "EXP": {schema.TensorType.INT16},  # of `replace_elus`; TensorFlow Lite Micro has an EXP of floats only
    "LEAKY_RELU": {schema.TensorType.INT8, schema.TensorType.INT16},
    "REDUCE_MAX": {schema.TensorType.INT8, schema.TensorType.INT16},
}
# Among them, the ops whose result must have the scale of the operand.
_KEEPING_SCALE = ("REDUCE_MAX",)
# Positions of the two values of ONE_HOT among its inputs.
_ONE_HOT_VALUES = (2, 3)


def replace(content: bytes) -> bytes:
    """Replaces the ops of this module that a quantizer of activations cannot take.

    Args:
        content: A float .tflite.

    Returns:
        The changed file, or `content` where it has none.
    """
    changed = _limit_unused_exponentials(replace_softplus(content))
    return _scale_elus(_replace_squares(_replace_negations(_replace_casts_of_conditions(changed))))


def _replace_casts_of_conditions(content: bytes) -> bytes:
    """Replaces the cast of a condition to 0 and 1, such as that of a mask, by a selection, which integers have."""
    if "CAST" not in TFLiteModel(content).ops:
        return content
    editor, changed = ModelEditor(content), False
    for op in list(editor.graph.operators):
        types = [editor.tensors[int(index)].type for index in (op.inputs[0], op.outputs[0])]
        if editor.name(op) != "CAST" or types != [schema.TensorType.BOOL, schema.TensorType.FLOAT32]:
            continue
        numbers = (
            editor.new_constant(np.full(1, value, np.float32), f"number{len(editor.tensors)}") for value in (1, 0)
        )
        selection = editor.new_op("SELECT_V2", [int(op.inputs[0]), *numbers], [int(op.outputs[0])])
        editor.insert(selection, before=op)
        editor.remove(op)
        changed = True
    return editor.pack() if changed else content


def replace_softplus(content: bytes) -> bytes:
    """Replaces log(1 + exp(x)) by relu(x) - log(sigmoid(|x|)), for softplus, mish and log_sigmoid.

    exp(x) overflows beyond 88, and where its values reach 100, those below 1 share 3 of 256 steps.

    Args:
        content: A .tflite whose activations are floats.
    """
    if "LOG" not in TFLiteModel(content).ops:
        return content  # without the time to read a large model
    editor, changed = ModelEditor(content), False
    producers = {int(i): op for op in editor.graph.operators for i in op.outputs}
    for op in list(editor.graph.operators):
        chain = _exponential_sum(editor, producers, op)
        if chain is None:
            continue
        source, output = int(chain[0].inputs[0]), int(op.outputs[0])
        steps = {name: editor.copy_tensor(output, f"/{name}") for name in ("abs", "sigmoid", "log", "relu")}
        for name, operands, result, options in (
            ("ABS", [source], steps["abs"], schema.AbsOptionsT()),
            ("LOGISTIC", [steps["abs"]], steps["sigmoid"], None),
            ("LOG", [steps["sigmoid"]], steps["log"], None),
            ("RELU", [source], steps["relu"], None),
            ("SUB", [steps["relu"], steps["log"]], output, schema.SubOptionsT()),
        ):
            editor.insert(editor.new_op(name, operands, [result], options), before=op)
        for one in (*chain, op):
            editor.remove(one)
        readers = editor.readers()
        for index in (int(i) for i in chain[1].inputs if not readers.get(int(i)) and int(i) in producers):
            editor.remove(producers[index])  # the DEQUANTIZE of the number 1
        changed = True
    return editor.pack() if changed else content


def _exponential_sum(
    editor: ModelEditor, producers: dict[int, schema.OperatorT], op: schema.OperatorT
) -> list[schema.OperatorT] | None:
    """EXP and ADD in front of a LOG, where nothing else reads them and 1 is added; else None."""
    if editor.name(op) != "LOG" or (total := producers.get(int(op.inputs[0]))) is None or editor.name(total) != "ADD":
        return None
    exponentials = [each for i in total.inputs if (each := producers.get(int(i))) and editor.name(each) == "EXP"]
    others = [int(i) for i in total.inputs if producers.get(int(i)) not in exponentials]
    if len(exponentials) != 1 or len(others) != 1:
        return None
    one, cast = others[0], producers.get(others[0])
    if cast is not None and editor.name(cast) == "DEQUANTIZE":  # in a file with weights of float16
        one = int(cast.inputs[0])
    is_float = editor.tensors[one].type in (schema.TensorType.FLOAT16, schema.TensorType.FLOAT32)
    if not is_float or editor.is_activation(one) or (editor.constant(one) != 1).any():
        return None
    chain, readers = [exponentials[0], total], editor.readers()
    source, result = (editor.tensors[int(i)].shape for i in (chain[0].inputs[0], op.outputs[0]))
    alone = all(readers[int(each.outputs[0])] == 1 for each in chain)
    return chain if alone and np.array_equal(source, result) else None


def _limit_unused_exponentials(content: bytes) -> bytes:
    """Replaces exp(x) by exp(min(x, 0)) where only its values for x <= 0 are selected, as in selu.

    where(x > 0, x, exp(x) - 1) does not read the exponentials of positive x, but they widen the range: where they reach
    100, the values that are read, 0..1, share 3 of 256 steps.
    """
    if "EXP" not in TFLiteModel(content).ops:
        return content
    editor, changed = ModelEditor(content), False
    producers, readers = {int(i): op for op in editor.graph.operators for i in op.outputs}, editor.readers()
    for op in list(editor.graph.operators):
        if editor.name(op) not in ("SELECT", "SELECT_V2"):
            continue
        source = _positive_where(editor, producers.get(int(op.inputs[0])))
        exponential = producers.get(int(op.inputs[2]))
        while exponential is not None and editor.name(exponential) in ("ADD", "SUB", "MUL"):
            operands = [int(i) for i in exponential.inputs if editor.is_activation(int(i))]
            alone = len(operands) == 1 and readers[int(exponential.outputs[0])] == 1
            exponential = producers.get(operands[0]) if alone else None
        if exponential is None or editor.name(exponential) != "EXP" or int(exponential.inputs[0]) != source:
            continue
        if readers[int(exponential.outputs[0])] != 1:
            continue
        limited = editor.copy_tensor(source, f"/limited{len(editor.tensors)}")
        zero = editor.new_constant(np.zeros(1, np.float32), f"limit{len(editor.tensors)}")
        options = schema.MaximumMinimumOptionsT()
        editor.insert(editor.new_op("MINIMUM", [source, zero], [limited], options), before=exponential)
        editor.set_input(exponential, 0, limited)
        changed = True
    return editor.pack() if changed else content


def _positive_where(editor: ModelEditor, condition: schema.OperatorT | None) -> int | None:
    """The tensor that a comparison finds to be above a limit of 0 or less; None for another comparison."""
    if condition is None or editor.name(condition) not in ("GREATER", "GREATER_EQUAL"):
        return None
    source, limit = (int(i) for i in condition.inputs)
    if not editor.is_activation(source) or editor.is_activation(limit) or (editor.constant(limit) > 0).any():
        return None
    return source


def replace_squared_differences(content: bytes) -> bytes:
    """Replaces (x - y)² by SUB and a multiplication by itself, since no engine squares differences of 16 bits.

    The variance in a LayerNormalization, GroupNormalization or UnitNormalization is a mean of them.

    Args:
        content: A float .tflite.
    """
    if "SQUARED_DIFFERENCE" not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    for op in list(editor.graph.operators):
        output = int(op.outputs[0])
        if editor.name(op) == "SQUARED_DIFFERENCE" and editor.tensors[output].type == schema.TensorType.FLOAT32:
            difference = editor.copy_tensor(output, "/difference")
            subtraction = editor.new_op("SUB", op.inputs.tolist(), [difference], schema.SubOptionsT())
            editor.insert(subtraction, before=op)
            square = editor.new_op("MUL", [difference, difference], [output], schema.MulOptionsT())
            editor.insert(square, before=op)
            editor.remove(op)
    return editor.pack()


def _replace_negations(content: bytes) -> bytes:
    """Replaces -x by a multiplication by -1."""
    if "NEG" not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    for op in list(editor.graph.operators):
        if editor.name(op) == "NEG" and editor.tensors[int(op.inputs[0])].type == schema.TensorType.FLOAT32:
            factor = editor.new_constant(np.array(-1, np.float32), f"minus{len(editor.tensors)}")
            multiplication = editor.new_op(
                "MUL", [int(op.inputs[0]), factor], op.outputs.tolist(), schema.MulOptionsT()
            )
            editor.insert(multiplication, before=op)
            editor.remove(op)
    return editor.pack()


def _replace_squares(content: bytes) -> bytes:
    """Replaces SQUARE by a multiplication by itself, since no engine has an integer form of it."""
    if "SQUARE" not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    for op in list(editor.graph.operators):
        source, output = int(op.inputs[0]), op.outputs.tolist()
        if editor.name(op) == "SQUARE" and editor.tensors[source].type == schema.TensorType.FLOAT32:
            editor.insert(editor.new_op("MUL", [source, source], output, schema.MulOptionsT()), before=op)
            editor.remove(op)
    return editor.pack()


def _scale_elus(content: bytes) -> bytes:
    """Replaces where(x > 0, y, a y) with y = elu(x) by a y + (1 - a) relu(y): comparisons have no form of 16 bits.

    This is how Keras computes an ELU of another slope.
    """
    if "ELU" not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    producers = {int(i): op for op in editor.graph.operators for i in op.outputs}
    for op in list(editor.graph.operators):
        if editor.name(op) not in ("SELECT", "SELECT_V2"):
            continue
        condition, curve, scaled = (producers.get(int(i)) for i in op.inputs)
        if condition is None or curve is None or scaled is None:
            continue
        if (editor.name(curve), editor.name(scaled)) != ("ELU", "MUL"):
            continue
        slopes = [editor.constant(i) for i in scaled.inputs.tolist() if not editor.is_activation(i)]
        same = int(curve.outputs[0]) in scaled.inputs and _positive_where(editor, condition) == int(curve.inputs[0])
        if not same or len(slopes) != 1 or slopes[0].size != 1 or slopes[0].dtype != np.float32:
            continue
        rest = editor.new_constant(np.float32(1) - slopes[0], f"rest{len(editor.tensors)}")
        output = int(op.outputs[0])
        positive, part = (editor.copy_tensor(output, f"/{name}") for name in ("relu", "part"))
        for name, operands, result, options in (
            ("RELU", curve.outputs.tolist(), positive, None),
            ("MUL", [positive, rest], part, schema.MulOptionsT()),
            ("ADD", [int(scaled.outputs[0]), part], output, schema.AddOptionsT()),
        ):
            editor.insert(editor.new_op(name, operands, [result], options), before=op)
        editor.remove(op)
        if not editor.readers().get(int(condition.outputs[0])):
            editor.remove(condition)
    return editor.pack()


def replace_elus(content: bytes) -> bytes:
    """Replaces ELU by relu(x) + exp(x - relu(x)) - 1, since no engine has an ELU of 16 bits.

    Args:
        content: A float .tflite.
    """
    if "ELU" not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    for op in list(editor.graph.operators):
        if editor.name(op) != "ELU":
            continue
        source, output = int(op.inputs[0]), int(op.outputs[0])
        minus = editor.new_constant(np.array(-1, np.float32), f"minus{len(editor.tensors)}")
        steps = {name: editor.copy_tensor(output, f"/{name}") for name in ("relu", "negative", "exp", "curve")}
        for name, operands, result, options in (
            ("RELU", [source], steps["relu"], None),
            ("SUB", [source, steps["relu"]], steps["negative"], schema.SubOptionsT()),
            ("EXP", [steps["negative"]], steps["exp"], schema.ExpOptionsT()),
            ("ADD", [steps["exp"], minus], steps["curve"], schema.AddOptionsT()),
            ("ADD", [steps["relu"], steps["curve"]], output, schema.AddOptionsT()),
        ):
            editor.insert(editor.new_op(name, operands, [result], options), before=op)
        editor.remove(op)
    return editor.pack()


def share_scale_of_one_hots(content: bytes) -> bytes:
    """Gives the two values of ONE_HOT the scale of its result, whose kernel copies them.

    TensorFlow's quantizer gives each a scale of its own, so that off = 0 becomes the middle of the result's range.

    Args:
        content: A .tflite whose activations are quantized.
    """
    if "ONE_HOT" not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    for op in (one for one in editor.graph.operators if editor.name(one) == "ONE_HOT"):
        result = editor.tensors[int(op.outputs[0])]
        if result.type not in (schema.TensorType.INT8, schema.TensorType.INT16):
            continue
        for position in _ONE_HOT_VALUES:
            index = int(op.inputs[position])
            if editor.is_activation(index):
                continue
            own, shared = editor.tensors[index].quantization, result.quantization
            real = (editor.constant(index).astype("float64") - own.zeroPoint[0]) * own.scale[0]
            limits = np.iinfo(editor.constant(index).dtype)
            stored = np.clip(np.round(real / shared.scale[0]) + shared.zeroPoint[0], limits.min, limits.max)
            editor.replace_constant(op, position, stored.astype(limits.dtype))
            editor.tensors[int(op.inputs[position])].quantization = copy.deepcopy(shared)
    return editor.pack()


def join_casts(content: bytes, kept_float: Collection[str] = ()) -> bytes:
    """Replaces casts around an op by the op's form of integers, which all engines have.

        DEQUANTIZE ── ELU ── QUANTIZE             =>      ELU
        DEQUANTIZE ── REDUCE_MAX ── QUANTIZE      =>      REDUCE_MAX ── QUANTIZE

    Neither quantizer writes an ELU of integers; litert-quantizer writes none of the others either.

    Args:
        content: A .tflite whose activations are quantized.
        kept_float: Names of results that are to stay in float.
    """
    if not TFLiteModel(content).ops.keys() & _CAST:
        return content
    editor = ModelEditor(content)
    producers = {int(i): op for op in editor.graph.operators for i in op.outputs}
    for op in [one for one in editor.graph.operators if editor.name(one) in _CAST]:
        before, output = producers.get(int(op.inputs[0])), int(op.outputs[0])
        after = [one for one in editor.graph.operators if output in one.inputs.tolist()]
        if before is None or editor.name(before) != "DEQUANTIZE" or len(after) != editor.readers().get(output):
            continue  # the last part: the output of the model is read by its caller
        if any(editor.name(one) != "QUANTIZE" for one in after):
            continue
        tensors = [int(before.inputs[0]), *(int(one.outputs[0]) for one in after)]
        types = {editor.tensors[i].type for i in tensors}
        known = len(types) == 1 and types <= _CAST[editor.name(op)]
        if not known or editor.tensors[output].name.decode() in kept_float:
            continue
        name, inputs = editor.name(op), [tensors[0], *op.inputs.tolist()[1:]]
        for one in after:
            if name in _KEEPING_SCALE:
                result = editor.copy_tensor(tensors[0], f"/{name}{len(editor.tensors)}")
                editor.tensors[result].shape = editor.tensors[output].shape
                editor.tensors[result].shapeSignature = editor.tensors[output].shapeSignature
                editor.set_input(one, 0, result)
            else:
                result = int(one.outputs[0])
            editor.insert(editor.new_op(name, inputs, [result], op.builtinOptions), before=one)
            if name not in _KEEPING_SCALE:
                editor.remove(one)
        editor.remove(op)
        if not editor.readers().get(int(op.inputs[0])):
            editor.remove(before)
    return editor.pack()
