"""Data sets of `keras.datasets`: from `$TFKD_DATA/NAME.npz`, else from the cache of Keras, else by download."""

from __future__ import annotations

from tfkd.data.sources import npz
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import ToolMissingError

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "fashion_mnist": ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
}


def read(request: Request) -> Arrays:
    """Reads a data set of `keras.datasets`.

    Raises:
        ToolMissingError: The data set is on this machine neither way and could not be downloaded.
        InputError: The file in `$TFKD_DATA` is damaged.
    """
    name = request.reference
    arrays = npz.NAMED.read(request) if npz.NAMED.accepts(request) else _load(name)
    return arrays._replace(class_names=CLASS_NAMES.get(name, ()))


def _load(name: str) -> Arrays:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise ToolMissingError(
            f"load: {name} is neither in $TFKD_DATA nor in the cache of Keras, and could not be downloaded: {error}. "
            f"Put {name}.npz, with {', '.join(npz.KEYS)}, into a folder and set TFKD_DATA to it."
        ) from error
    return Arrays(x_train, y_train, x_test, y_test, name=name, location=name)


SOURCE = Source(accepts=lambda request: request.reference in NAMES, read=read, names=NAMES)
