"""Text of the C kernels, as it is copied into the generated C."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources

from tfkd.micro.c_context import include_guard

_INCLUDE = re.compile(r'^#include "(\w+)\.h"\n', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STRUCT = re.compile(r"typedef struct \{([^}]*)\} (?:TFKD_NAME\()?(\w+)\)?;")
_FIELD = re.compile(r"(\w+)(?:\[\w+\])?\s*[,;]")


def kernel_texts(sources: Iterable[str]) -> list[str]:
    """Texts of kernel headers and of all headers that they include, each once and before its first use.

    Args:
        sources: Names of headers in `kernels/` without `.h`. `pool@int16` is `pool.h` compiled for int16 activations:
            a header that uses the macros TFKD_VALUE and TFKD_NAME follows `values_int16.h`, which defines them, and by
            default `values_int8.h`.
    """
    texts: dict[str, str] = {}
    for source in sources:
        _collect(source, texts)
    return list(texts.values())


@functools.cache
def struct_fields() -> dict[str, tuple[str, ...]]:
    """The fields of each C struct of the kernels, in their order, by its name as for int8 values.

    >>> struct_fields()["tfkd_set_params"]
    ('count', 'value')
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in resources.files(__package__).joinpath("kernels").iterdir():
        for body, name in _STRUCT.findall(_COMMENT.sub("", path.read_text(encoding="utf-8"))):
            found[name if name.startswith("tfkd_") else f"tfkd_{name}"] = tuple(_FIELD.findall(body))
    return found


def _collect(source: str, texts: dict[str, str]) -> None:
    if source in texts:
        return
    header, _, dtype = source.partition("@")
    text = _read(header)
    for included in _INCLUDE.findall(text):
        _collect(included, texts)
    text = _INCLUDE.sub("", text).strip()
    if "TFKD_VALUE" in text:
        text = f"{_read('values_' + (dtype or 'int8'))}\n{text}"
    texts[source] = include_guard(f"KERNEL_{source.replace('@', '_')}", text)


def _read(header: str) -> str:
    return resources.files(__package__).joinpath("kernels", f"{header}.h").read_text(encoding="utf-8")
