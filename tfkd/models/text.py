"""A model of texts: each sample is a row of token ids."""

from __future__ import annotations

import keras
from keras import layers

from tfkd.errors import InputError
from tfkd.models.builder_arguments import check, check_positive


def text_encoder(
    input_shape: tuple[int, ...],
    num_classes: int,
    vocabulary: int = 1000,
    width: int = 32,
    heads: int = 2,
    depth: int = 1,
    activation: str = "gelu",
) -> keras.Model:
    """A small Transformer encoder with a classifier.

    Input: [tokens] ids, int32, 0..vocabulary-1. Output: [num_classes] logits. A convolution over three tokens gives the
    order of the words, in place of position embeddings; padding is a token like the others, and the mean over all
    positions is classified. With V the vocabulary and W the width: V·W + W·(3·W + 1) + depth·(8·W² + 11·W) +
    (W + 1)·num_classes parameters (counted by Keras).

    Args:
        input_shape: (tokens,); the number of tokens is fixed.
        num_classes: Number of classes or of other outputs, >= 1.
        vocabulary: Number of different tokens, with padding, > 0.
        width: Features of each token, a multiple of heads, > 0.
        heads: Attention heads, > 0.
        depth: Number of encoder blocks, > 0.
        activation: Activation between the two layers of a block, of Keras. TensorFlow Lite Micro has no `gelu`; a model
            with `relu` runs there.

    Raises:
        InputError: An argument is out of range.

    >>> text_encoder((6,), 3, vocabulary=50, width=8, heads=2, depth=1).count_params()
    1227

    Reference:
        Vaswani et al.: Attention Is All You Need (arXiv:1706.03762), section 3.1; convolutions in place of position
        embeddings: Hassani et al.: Escaping the Big Data Paradigm with Compact Transformers (arXiv:2104.05704).
    """
    check("text_encoder", input_shape, num_classes, ("tokens",))
    check_positive("text_encoder", vocabulary=vocabulary, width=width, heads=heads, depth=depth)
    if width % heads:
        raise InputError(
            f"text_encoder: width must be a multiple of heads. Received: width={width}, heads={heads}. Use 32 and 2."
        )
    tokens = keras.Input(input_shape, dtype="int32", name="tokens")
    x = layers.Embedding(vocabulary, width, name="embedding")(tokens)
    x = layers.Conv1D(width, 3, padding="same", name="order")(x)
    for number in range(1, depth + 1):
        name = f"block{number}"
        attended = layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(x, x)
        x = layers.LayerNormalization(name=f"{name}_norm1")(layers.Add(name=f"{name}_add1")([x, attended]))
        hidden = layers.Dense(2 * width, activation=activation, name=f"{name}_hidden")(x)
        hidden = layers.Dense(width, name=f"{name}_out")(hidden)
        x = layers.LayerNormalization(name=f"{name}_norm2")(layers.Add(name=f"{name}_add2")([x, hidden]))
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(tokens, layers.Dense(num_classes, name="logits")(x), name="text_encoder")
