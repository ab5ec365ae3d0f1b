"""Which layer an op comes from, of names as the converter gives them."""

import pytest

from tfkd import models
from tfkd.conversion import layer_names


@pytest.mark.parametrize(
    ("tensor", "weights", "layer"),
    [
        ("m/act_1/Relu;m/bn_1/add;m/conv_2_1/convolution", "", "conv_2"),  # the layer is called conv_2
        ("m/act_1/Relu", "", "act"),
        ("StatefulPartitionedCall:0", "m/conv_2_1/MatMul", "conv_2"),
        ("StatefulPartitionedCall:0", "", "StatefulPartitionedCall:0"),
        ("m/conv_2/convolution", "", "conv_2"),
    ],
)
def test_layer_with_a_kernel_comes_first(tensor, weights, layer):
    assert layer_names.layer_of(tensor, weights, {"act": False, "bn": False, "conv_2": True}) == layer


def test_layers_of_a_model_are_all_known():
    known = layer_names.layers(models.digits_student((8, 8, 1), 10))
    assert known["conv1_conv"]
    assert known["logits"]
    assert known["conv1_bn"] is False
