"""The Keras layer that an op comes from, by tensor names as the converter writes them."""

import pytest

from tfkd import models
from tfkd.conversion import layer_names
from tfkd.conversion.tflite_reader import OpInfo, TensorInfo, TFLiteGraph
from tfkd.errors import InputError


@pytest.fixture
def graph():
    """A convolution with a fused activation, and a Dense layer whose output has another name."""
    names = ("input", "m/conv_1/weights", "m/relu_1/Relu;m/conv_1/convolution", "m/logits_1/MatMul", "Identity")
    return TFLiteGraph(
        tensors=tuple(TensorInfo(name, (1, 4), "float32") for name in names),
        constants=(0, 16, 0, 16, 0),
        ops=(OpInfo("CONV_2D", (0, 1), (2,)), OpInfo("FULLY_CONNECTED", (2, 3, -1), (4,))),
        inputs=(0,),
        outputs=(4,),
    )


@pytest.mark.parametrize(
    ("tensor", "weights", "layer"),
    [
        ("m/act_1/Relu;m/bn_1/add;m/conv_2_1/convolution", "", "conv_2"),  # the layer's own name ends in a number
        ("m/act_1/Relu", "", "act"),
        ("StatefulPartitionedCall:0", "m/conv_2_1/MatMul", "conv_2"),
        ("StatefulPartitionedCall:0", "", "StatefulPartitionedCall:0"),
        ("m/conv_2/convolution", "", "conv_2"),
        ("m/block/act/Relu;m/block/conv_2/convolution", "", "block/conv_2"),
        ("m_1/block_1/conv_2_1/convolution", "", "block/conv_2"),  # a SavedModel that Keras wrote
        ("m/block/add", "", "block"),
    ],
)
def test_layer_of_fused_op_is_the_one_with_a_kernel(tensor, weights, layer):
    known = {"act": False, "bn": False, "conv_2": True, "block": False, "block/act": False, "block/conv_2": True}
    assert layer_names.layer_of(tensor, weights, known) == layer


def test_layers_of_a_model_tell_which_have_a_kernel():
    known = layer_names.layers(models.digits_student((8, 8, 1), 10))
    assert known["conv1_conv"]
    assert known["logits"]
    assert known["conv1_bn"] is False


def test_op_names_include_fused_layers_and_layers_of_constants(graph):
    exact, plain = layer_names.op_names(graph, 0)
    assert {"conv_1", "m/relu_1", "m/relu_1/Relu;m/conv_1/convolution"} <= set(exact)
    assert {"conv", "relu", "m/conv"} <= set(plain)
    exact, plain = layer_names.op_names(graph, 1)
    assert {"logits_1", "Identity"} <= set(exact)
    assert "conv" not in plain


def test_select_ops_searches_each_expression_in_all_names(graph):
    assert layer_names.select_ops(graph, ["^relu$"], "int16") == {0}
    assert layer_names.select_ops(graph, ["^conv$", "logits"], "int16") == {0, 1}
    assert layer_names.select_ops(graph, [], "int16") == set()
    assert layer_names.select_ops(graph, ["^conv_1$"], "int16") == {0}
    with pytest.raises(InputError, match="int16: no layer matches 'logit_'.*Did you mean 'logits"):
        layer_names.select_ops(graph, ["logit_"], "int16")
