"""Names of the types of values that cross the border of a library without types, or come from JSON.

They are for the reader: a type checker knows neither TensorFlow nor Keras. This module imports neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

# A tensor of TensorFlow, or a symbolic one while a model is built. Functions that compute in NumPy take np.ndarray.
Tensor: TypeAlias = "tf.Tensor | keras.KerasTensor"
# A tensor or an array, or a list, tuple or dict of such: what a model takes and gives. TensorFlow calls it a nest.
Nest: TypeAlias = Any
# The inputs of a .tflite: one array [N, ...], or one for each input.
InputArrays: TypeAlias = "np.ndarray | Sequence[np.ndarray]"
# A call of an operation in a model of Keras, which has no public class for it.
Node: TypeAlias = Any
# Samples in one of the forms that `tfkd.data.as_split` takes: a split, arrays, a dataset, a generator function.
SampleData: TypeAlias = Any
# A JSON object that is made, and one that is read. Its values are numbers, strings, lists and objects.
JsonObject: TypeAlias = dict[str, Any]
JsonRecord: TypeAlias = Mapping[str, Any]
