"""The exceptions that tfkd raises on purpose.

Each message says what is wrong, which value was received and what to do. The command line prints the message alone and
exits with 2 (`InputError`, `ModelError`) or 3 (`ToolMissingError`, `DeviceError`). Any other exception is a bug: the
command line prints its traceback and exits with 70.
"""

from __future__ import annotations


class TfkdError(Exception):
    """Base class of the exceptions below; catch it to catch all of them."""


class InputError(TfkdError, ValueError):
    """An argument, an option, a file, a recipe or a data set is wrong."""


class ModelError(InputError):
    """A model is damaged, does not fit the data, or has something that a conversion or an engine does not support."""


class ToolMissingError(TfkdError, RuntimeError):
    """A required program or package is not installed; the message says how to install it."""


class DeviceError(TfkdError, RuntimeError):
    """A device or an engine failed: it is not connected, timed out, crashed, or returned an invalid answer."""
