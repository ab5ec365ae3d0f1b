"""Equivalent forms of ops that a quantizer computes wrongly or refuses."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import (
    activation_ranges,
    biases,
    cell_states,
    channel_slices,
    mask_values,
    op_forms,
    refinement,
    refusals,
    rnn,
)
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.refinement import Ranges
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

if TYPE_CHECKING:
    import tensorflow as tf

# Ops whose operands and result share one scale. TensorFlow's int8 quantizer gives all of them the range of the result.
SHARING_SCALE = ("MINIMUM", "MAXIMUM", "SELECT", "SELECT_V2", "CONCATENATION", "PACK")
_BROADCASTING = ("MINIMUM", "MAXIMUM", "SELECT_V2")
# Ops of one operand that shares its scale with the result, so that the range is passed on to the operand's producer.
_PASSING_ON = (
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "GATHER_ND",
    "MAX_POOL_2D", "MIRROR_PAD", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V",
    "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
)  # fmt: skip
# Ops whose result must keep its own scale: the quantizer gives the result of REVERSE_V2 the shared scale but not its
# operand, and that of an LSTM but not the hidden state, which is the same values.
_KEEPING = ("REVERSE_V2", "UNIDIRECTIONAL_SEQUENCE_LSTM")
# Among those of one operand, the ones whose result depends on values outside of its range.
_AVERAGING = ("AVERAGE_POOL_2D", "RESIZE_BILINEAR")
# A range may exceed the shared one by this part of it, and be narrower by this factor.
_EXCESS = 1 / 255
_COARSENING = 8
# Distance of a logarithm from a whole number below which LiteRT takes a scale for a power of 2, with a margin.
_POWER_TOLERANCE = 2e-3
_LARGEST_INT32 = 2**31 - 1
# The largest limit of fused activations with two, and the one without the limits that are out of reach.
_LIMITED = {
    schema.ActivationFunctionType.RELU6: (6, schema.ActivationFunctionType.RELU),
    schema.ActivationFunctionType.RELU_N1_TO_1: (1, schema.ActivationFunctionType.NONE),
}
# Scales and ranges below the first are those of tensors that are always 0; such scales become the second.
_SMALLEST_SCALE = 1e-30
_ZERO_SCALE = 2.0**-15
# Ops with tensors inside, whose ranges only TensorFlow's calibration finds.
_WITH_INNER_RANGES = ("UNIDIRECTIONAL_SEQUENCE_LSTM",)


def install(
    converter: tf.lite.TFLiteConverter, mode: str, samples: Samples, *, refines: bool, rounding: str
) -> tuple[list[str], list[str]]:
    """Rewrites the model of a converter around its quantizer, which has no public place for it.

    The ranges of activations are computed here. TensorFlow's calibration reads each tensor after the operation behind
    it may have overwritten it in place, so that the input of a sigmoid, sum or product gets the range of the result;
    and in some models it reads memory that nothing wrote.

    Args:
        converter: A TFLiteConverter whose calibration samples are set here.
        mode: `full_int8` or `int16x8`.
        samples: Calibration samples.
        refines: Whether `refinement` may change the model for `full_int8`.
        rounding: See `refinement.refine`.

    Returns:
        Two lists that the conversion fills with sentences: on what was changed, and on the values of layers.
    """
    quantize_float, changes, findings = converter._quantize, list[str](), list[str]()
    converter.representative_dataset = lambda: iter(())  # tells the converter that there are samples
    ranges: dict[int, tuple[float, float]] = {}
    module: Any = sys.modules[type(converter).__module__]
    module._calibrator.Calibrator._feed_tensors = cell_states.feed
    if mode == "full_int8":
        quantize_calibrated = module._mlir_quantize

        def quantize_int8(calibrated: bytes, *args: object, **options: object) -> bytes:
            widened = _widen_zero_ranges(_with_ranges(bytes(calibrated), ranges))
            cut = channel_slices.separate(widened, _ranges(widened))
            prepared = separate_operands(slice_partly_read_splits(cut))
            return op_forms.join_casts(_join_separated(bytes(quantize_calibrated(prepared, *args, **options))))

        module._mlir_quantize = quantize_int8

    def quantize(content: bytes, *args: object, **options: object) -> bytes:
        ordered = samples.of(content)
        stable = mask_values.limit(op_forms.replace(rnn.correct_lstms(content)), ordered, int16=mode == "int16x8")
        if mode == "int16x8":
            stable = op_forms.replace_elus(op_forms.replace_squared_differences(replace_sums(stable)))

        @functools.cache
        def calibrated(floats: bytes) -> dict[int, tuple[float, float]]:
            found, findings[:] = activation_ranges.known_extremes(floats, ordered)
            return {**found, **cell_states.extremes(floats, ordered)} if found else {}

        def quantize_once(floats: bytes, narrowed: Ranges) -> bytes:
            graph = TFLiteModel.load(floats).graph
            ranges.clear()
            ranges.update(calibrated(floats))
            ranges.update({i: narrowed[graph.tensors[i].name] for i in ranges if graph.tensors[i].name in narrowed})
            known = ranges and not any(op.name in _WITH_INNER_RANGES for op in graph.ops)
            converter.representative_dataset = sys.modules["tensorflow"].lite.RepresentativeDataset(
                lambda: iter(() if known else ordered)
            )
            quantized = bytes(quantize_float(_with_ranges(floats, ranges), *args, **options))
            if mode != "full_int8":
                return quantized
            return biases.correct(op_forms.share_scale_of_one_hots(quantized), floats, (biases.LSTM,))

        if mode == "full_int8":
            stable, pooled = refinement.pool_by_mean(stable)
            changes.extend(pooled)
        if mode == "full_int8" and refines:
            refined = refinement.refine(quantize_once, stable, ordered, rounding=rounding)
            changes.extend(refined.changes)
            return refined.content
        try:
            quantized = quantize_once(stable, {})
        except RuntimeError as error:
            if mode == "int16x8":
                refusals.add_layers(error, stable)
            raise
        return quantized if mode == "full_int8" else biases.correct(_replace_zero_scales(quantized), stable)

    converter._quantize = quantize
    return changes, findings


def _with_ranges(content: bytes, ranges: Mapping[int, tuple[float, float]]) -> bytes:
    """A float .tflite with the range of tensors, by index, as a calibration writes it."""
    editor = ModelEditor(content)
    for index, (low, high) in ranges.items():
        quantization = schema.QuantizationParametersT()
        quantization.min, quantization.max = np.array([low], np.float32), np.array([high], np.float32)
        editor.tensors[index].quantization = quantization
    return editor.pack()


def separate_operands(content: bytes) -> bytes:
    """Separates tensors from ops that would spoil their range.

        x ──┬── ADD                      x ──┬── ADD
            └── MINIMUM        =>            └── LEAKY_RELU(1.0) ── MINIMUM

    MINIMUM(x, 0) has no values above 0, and its operand takes its range; ADD needs the range of x. LEAKY_RELU with a
    slope of 1 is the identity, is not folded, and has a range of its own on both sides.

    Args:
        content: A float .tflite with the range of each tensor.

    Returns:
        The file with the separations, or `content` where no range is spoilt.
    """
    editor = ModelEditor(content)
    producers = {int(i): op for op in editor.graph.operators for i in op.outputs}
    readers, changed = editor.readers(), False

    def spoilt(index: int, shared: tuple[float, float], needed: bool) -> Iterator[bool]:
        """Whether `shared` spoils a tensor or the ones that it is computed from by ops that pass their range on."""
        own = _range(editor.tensors[index])
        if own is None or not editor.is_activation(index):
            return
        producer = producers.get(index)
        name = None if producer is None else editor.name(producer)
        width = shared[1] - shared[0]
        exceeds = own[0] < shared[0] - width * _EXCESS or own[1] > shared[1] + width * _EXCESS
        yield (needed or readers.get(index, 1) > 1) and (exceeds or (own[1] - own[0]) * _COARSENING < width)
        yield name in _KEEPING
        if producer is not None and name in (*SHARING_SCALE, *_PASSING_ON):
            for operand in producer.inputs.tolist():
                if operand >= 0:
                    yield from spoilt(operand, shared, name in _AVERAGING)

    for op in list(editor.graph.operators):
        if editor.name(op) not in SHARING_SCALE:
            continue
        if (shared := _range(editor.tensors[int(op.outputs[0])])) is None:
            continue
        for position, index in enumerate(op.inputs.tolist()):
            if any(spoilt(index, shared, needed=False)):
                options = schema.LeakyReluOptionsT()
                options.alpha = 1.0
                separate = editor.copy_tensor(index, f"/separate{len(editor.tensors)}")
                editor.insert(editor.new_op("LEAKY_RELU", [index], [separate], options), before=op)
                editor.set_input(op, position, separate)
                changed = True
    return editor.pack() if changed else content


def slice_partly_read_splits(content: bytes) -> bytes:
    """Replaces SPLIT by STRIDED_SLICE where nothing reads one of its results.

    Both quantizers leave such a SPLIT in float. The first step of an unrolled LSTM or GRU has one, since a gate
    that multiplies the state 0 is not read.

    Args:
        content: A float .tflite with the range of each tensor.
    """
    editor, changed = ModelEditor(content), False
    readers = editor.readers()
    for op in list(editor.graph.operators):
        if editor.name(op) != "SPLIT" or all(readers.get(index) for index in op.outputs.tolist()):
            continue
        source = int(op.inputs[1])
        end = np.array(editor.tensors[source].shape, np.int32)
        axis, begin = int(editor.constant(int(op.inputs[0]))[0]) % len(end), np.zeros_like(end)
        for output in op.outputs.tolist():
            end[axis] = begin[axis] + editor.tensors[output].shape[axis]
            if readers.get(output):
                bounds = zip((begin, end, np.ones_like(end)), ("begin", "end", "strides"), strict=True)
                constants = [editor.new_constant(values, f"{name}{len(editor.tensors)}") for values, name in bounds]
                options = schema.StridedSliceOptionsT()
                editor.insert(editor.new_op("STRIDED_SLICE", [source, *constants], [output], options), before=op)
            begin[axis] = end[axis]
        editor.remove(op)
        changed = True
    return editor.pack() if changed else content


def _ranges(content: bytes) -> dict[str, tuple[float, float]]:
    """The calibrated ranges by the name of the tensor."""
    tensors = ModelEditor(content).tensors
    return {tensor.name.decode(): limits for tensor in tensors if (limits := _range(tensor)) is not None}


def _range(tensor: schema.TensorT) -> tuple[float, float] | None:
    """The calibrated range of a tensor, which includes 0."""
    quantization = tensor.quantization
    if quantization is None or quantization.min is None or not len(quantization.min):
        return None
    return min(float(quantization.min[0]), 0.0), max(float(quantization.max[0]), 0.0)


def _widen_zero_ranges(content: bytes) -> bytes:
    """Gives tensors that are always 0 a range: with a scale of nearly 0, XNNPACK refuses the layer before them."""
    editor, changed = ModelEditor(content), False
    for tensor in editor.tensors:
        limits = _range(tensor)
        if limits is not None and limits[1] - limits[0] < _SMALLEST_SCALE:
            tensor.quantization.max = np.ones_like(tensor.quantization.max)
            changed = True
    return editor.pack() if changed else content


def _join_separated(content: bytes) -> bytes:
    """Replaces the separations by QUANTIZE, which all engines have."""
    editor, changed = ModelEditor(content), False
    for index, op in enumerate(editor.graph.operators):
        integers = all(editor.tensors[i].type == schema.TensorType.INT8 for i in (*op.inputs, *op.outputs))
        if editor.name(op) == "LEAKY_RELU" and op.builtinOptions.alpha == 1 and integers:
            inputs, outputs = op.inputs.tolist(), op.outputs.tolist()
            editor.graph.operators[index] = editor.new_op("QUANTIZE", inputs, outputs, schema.QuantizeOptionsT())
            changed = True
    return editor.pack() if changed else content


def replace_sums(content: bytes) -> bytes:
    """Replaces SUM by MEAN and a multiplication by the number of terms.

    TensorFlow's quantizer for 16-bit activations gives the sum the scale of a term, so that it saturates.
    """
    editor, changed = ModelEditor(content), False
    for op in list(editor.graph.operators):
        if editor.name(op) != "SUM" or editor.tensors[int(op.inputs[0])].type != schema.TensorType.FLOAT32:
            continue
        source, axes, output = int(op.inputs[0]), int(op.inputs[1]), int(op.outputs[0])
        terms = np.prod(np.asarray(editor.tensors[source].shape)[editor.constant(axes)])
        mean = editor.copy_tensor(output, "/mean")
        count = editor.new_constant(np.array(terms, np.float32), f"terms{len(editor.tensors)}")
        editor.insert(editor.new_op("MEAN", [source, axes], [mean], op.builtinOptions), before=op)
        editor.insert(editor.new_op("MUL", [mean, count], [output], schema.MulOptionsT()), before=op)
        editor.remove(op)
        changed = True
    return editor.pack() if changed else content


def _replace_zero_scales(content: bytes) -> bytes:
    """Gives tensors that are always 0 a scale, since interpreters divide by it."""
    editor, changed = ModelEditor(content), False
    for tensor in editor.tensors:
        scale = None if tensor.quantization is None else tensor.quantization.scale
        if scale is not None and np.any(np.asarray(scale) < _SMALLEST_SCALE):
            tensor.quantization.scale = np.where(scale < _SMALLEST_SCALE, np.float32(_ZERO_SCALE), scale)
            changed = True
    return editor.pack() if changed else content


def for_litert(content: bytes, *, int16: bool) -> bytes:
    """Rewrites a float .tflite for litert-quantizer.

    Args:
        content: The float .tflite.
        int16: Whether activations of 16 bits are asked for.

    Returns:
        The file with constants on the right of matrix products, and of as many dimensions as the result in MINIMUM,
        MAXIMUM and SELECT_V2, and with slices for partly read SPLIT; or `content` where nothing changes.
    """
    content = slice_partly_read_splits(op_forms.replace(content))
    if int16:
        content = op_forms.replace_elus(op_forms.replace_squared_differences(content))
    editor, changed = ModelEditor(content), False
    for op in list(editor.graph.operators):
        if editor.name(op) == "BATCH_MATMUL" and not editor.is_activation(int(op.inputs[0])):
            _swap_factors(editor, op)
            changed = True
        if editor.name(op) in _BROADCASTING:
            changed |= _expand_constants(editor, op)
    return editor.pack() if changed else content


def use_general_additions(content: bytes) -> bytes:
    """Marks ADD and SUB on 16 bits whose scales happen to be powers of 2 as ordinary ones.

    LiteRT has a special kernel for such scales, which refuses most of them.

    Args:
        content: A .tflite by litert-quantizer.

    Returns:
        The file with the marks, or `content` where there are no such ops.
    """
    editor, changed = ModelEditor(content), False
    for op in editor.graph.operators:
        tensors = [editor.tensors[i] for i in (*op.inputs, *op.outputs)]
        if editor.name(op) not in ("ADD", "SUB") or any(each.type != schema.TensorType.INT16 for each in tensors):
            continue
        exponents = np.log2([each.quantization.scale[0] for each in tensors])
        if np.all(np.abs(exponents - np.round(exponents)) < _POWER_TOLERANCE):
            op.builtinOptions.potScaleInt16 = False
            changed = True
    return editor.pack() if changed else content


def drop_unreachable_limits(content: bytes) -> bytes:
    """Removes limits of fused activations that are no number of steps of the result in 32 bits, such as 6 of a RELU6.

    The quantized result ends far below such a limit; LiteRT refuses the op all the same.

    Args:
        content: A .tflite by litert-quantizer.
    """
    editor, changed = ModelEditor(content), False
    for op in editor.graph.operators:
        fused = getattr(op.builtinOptions, "fusedActivationFunction", None)
        quantization = editor.tensors[int(op.outputs[0])].quantization if fused in _LIMITED else None
        if quantization is None or quantization.scale is None:
            continue
        limit, unlimited = _LIMITED[fused]
        if limit / quantization.scale[0] > _LARGEST_INT32:
            op.builtinOptions.fusedActivationFunction = unlimited
            changed = True
    return editor.pack() if changed else content


def _expand_constants(editor: ModelEditor, op: schema.OperatorT) -> bool:
    rank, changed = len(editor.tensors[int(op.outputs[0])].shape), False
    for position, index in enumerate(op.inputs.tolist()):
        shape = editor.tensors[index].shape
        if not editor.is_activation(index) and 1 < len(shape) < rank:
            values = editor.constant(index).reshape([1] * (rank - len(shape)) + list(shape))
            expanded = editor.new_constant(values, f"{editor.tensors[index].name.decode()}/expanded")
            editor.set_input(op, position, expanded)
            changed = True
    return changed


def _swap_factors(editor: ModelEditor, op: schema.OperatorT) -> None:
    """Computes constant x activation as the transpose of activation^T x constant^T.

    With the constant on the left, kernels have no form for a constant of 8 bits beside an activation of 16 or 32.
    """
    constant, activation = op.inputs.tolist()
    output = int(op.outputs[0])
    transposed = editor.copy_tensor(output, "/transposed")
    shape = list(editor.tensors[output].shape)
    axes = np.array([*range(len(shape) - 2), len(shape) - 1, len(shape) - 2], np.int32)
    editor.tensors[transposed].shape = np.asarray(shape, np.int32)[axes]
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = not op.builtinOptions.adjY, not op.builtinOptions.adjX
    order = editor.new_constant(axes, f"axes{len(editor.tensors)}")
    editor.insert(editor.new_op("BATCH_MATMUL", [activation, constant], [transposed], options), before=op)
    editor.insert(editor.new_op("TRANSPOSE", [transposed, order], [output], schema.TransposeOptionsT()), before=op)
    editor.remove(op)
