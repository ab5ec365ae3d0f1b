"""Models to distil: builders of well-known architectures, loading of any Keras model, inheriting weights."""

from tfkd.models import zoo
from tfkd.models.copying import with_input_shape
from tfkd.models.inheritance import inherit
from tfkd.models.loading import NAMES, build, load, read
from tfkd.models.probabilities import with_softmax
from tfkd.models.zoo import *  # noqa: F403  # its __all__ is the registry of builders

__all__ = ["NAMES", "build", "inherit", "load", "read", "with_input_shape", "with_softmax"]
__all__ += zoo.__all__
