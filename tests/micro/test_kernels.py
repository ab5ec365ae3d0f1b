"""The C kernels as text: every header compiles without warnings next to all others."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import system_packages

from tfkd.micro.kernel_text import kernel_texts
from tfkd.targets.microcontrollers import CORES

_HOST = ("cc", "-std=c99", "-pedantic", "-Wconversion")
# An empty `static` makes compilers emit the assembly too, which nothing calls here.
_CORE = (sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi", "-ffreestanding", "-Dstatic=")
_HELIUM = (*(x.replace("eabi", "eabihf") for x in _CORE), "-mcpu=cortex_m55+mve_fp")
_GCC = ("arm-none-eabi-gcc", "-ffreestanding", "-Dstatic=")
_GCC_MISSING = system_packages.skip_reason("arm-none-eabi-gcc")


def _headers() -> list[str]:
    """All kernel headers but `values_*.h`, for int16 too where the element type is a macro; sums come first."""
    folder = resources.files("tfkd.micro").joinpath("kernels")
    texts = {path.name.removesuffix(".h"): path.read_text() for path in folder.iterdir() if path.name.endswith(".h")}
    names = sorted((n for n in texts if not n.startswith("values_")), key=lambda n: (not n.startswith("sums_"), n))
    return [*names, *(f"{name}@int16" for name in names if "TFKD_VALUE " in texts[name])]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(_HOST, id="host"),
        pytest.param((*_CORE, "-mcpu=cortex_m0plus"), id="cortex-m0plus"),
        pytest.param((*_CORE, "-mcpu=cortex_m4"), id="cortex-m4"),
        pytest.param((*_CORE, "-mcpu=cortex_m4", "-Os"), id="cortex-m4-size"),
        pytest.param((*_HELIUM, "-O2"), id="cortex-m55"),
        *(
            pytest.param(
                (*_GCC, *CORES[core].gcc),
                id=f"gcc-{core}",
                marks=pytest.mark.skipif(bool(_GCC_MISSING), reason=str(_GCC_MISSING)),
            )
            for core in ("cortex-m0plus", "cortex-m4", "cortex-m55")
        ),
    ],
)
def test_all_kernels_compile_together_without_warnings(command: tuple[str, ...], tmp_path: Path) -> None:
    assert len(_headers()) > 30
    lines = ["#include <stddef.h>", "#include <stdint.h>", *kernel_texts(_headers())]
    (tmp_path / "all.c").write_text("\n".join(lines) + "\n")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-c", str(tmp_path / "all.c"), "-o", str(tmp_path / "all.o")]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernel_texts_put_includes_first_and_each_header_once() -> None:
    texts = "\n".join(kernel_texts(["svdf", "sums_int8", "pool", "pool@int16", "svdf"]))
    assert '#include "' not in texts
    order = [
        texts.index(f"#define TFKD_KERNEL_{name}\n") for name in ("PLATFORM", "ARM_DSP", "ARITHMETIC", "DOT", "SVDF")
    ]
    assert order == sorted(order)
    assert texts.count("#define TFKD_KERNEL_SVDF\n") == 1
    assert texts.count("#define TFKD_VALUE int16_t") == texts.count("#define TFKD_VALUE int8_t") == 1
