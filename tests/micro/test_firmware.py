"""Generated C in a firmware: as C99 and as C++17, two models side by side, weights in a section of the user's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import system_packages
from elftools.elf.elffile import ELFFile

from tests.micro.trained_nets import trained
from tests.random_graph import net
from tests.random_ops import all_ops
from tfkd import micro, targets
from tfkd.micro import export

_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_ZIG = (sys.executable, "-m", "ziglang", "c++", "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4")
_GCC_MISSING = system_packages.skip_reason("arm-none-eabi-gcc")
_CPP = ("-x", "c++", "-std=c++17")


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the C of two models, a net of convolutions and one of all other ops, and a main for both."""
    folder = tmp_path_factory.mktemp("firmware")
    for name, content in (("first", trained(3)), ("second", all_ops(3))):
        (folder / f"{name}.tflite").write_bytes(content)
        export.write(folder / f"{name}.tflite", folder / name, name=name, oracle=targets.get("tflm"))
        for file in (folder / name).glob("*.[ch]"):
            file.rename(folder / file.name)
    (folder / "main.c").write_text(
        '#include "first_selftest.h"\n#include "second_selftest.h"\n'
        "static tfkd_first_ctx first;\nstatic tfkd_second_ctx second;\n"
        "int main(void) { return tfkd_first_selftest(&first) + 10 * tfkd_second_selftest(&second); }\n"
    )
    return folder


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        pytest.param(("cc",), ("-std=c99", "-pedantic", "-O2"), id="c99"),
        pytest.param(("c++",), (*_CPP, "-pedantic", "-Os"), id="cpp17"),
    ],
)
def test_two_models_in_one_firmware_pass_their_selftests_and_weights_are_in_the_chosen_section(
    compiler: tuple[str, ...], flags: tuple[str, ...], firmware: Path, tmp_path: Path
) -> None:
    place = '-DTFKD_SECOND_WEIGHTS=__attribute__((section("external")))'
    sources = [str(path) for path in sorted(firmware.glob("*.c"))]
    command = [*compiler, *flags, *_WARNINGS, place, f"-I{firmware}", *sources, "-o", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    assert subprocess.run([tmp_path / "run"]).returncode == 0
    with (tmp_path / "run").open("rb") as file:
        elf = ELFFile(file)
        sections = {
            symbol.name: elf.get_section(symbol["st_shndx"]).name
            for symbol in elf.get_section_by_name(".symtab").iter_symbols()
            if symbol["st_info"]["type"] == "STT_OBJECT" and isinstance(symbol["st_shndx"], int)
        }
    arrays = {key: place for key, place in sections.items() if not key.startswith("_ZZ")}  # those of C++ functions
    places = {name: {place for key, place in arrays.items() if f"tfkd_{name}_" in key} for name in ("first", "second")}
    assert places == {"first": {".rodata"}, "second": {"external"}}


@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param((*_ZIG, "-O2"), id="clang"),
        pytest.param(
            ("arm-none-eabi-g++", "-mthumb", "-mcpu=cortex-m4", "-Os"),
            id="gcc",
            marks=pytest.mark.skipif(bool(_GCC_MISSING), reason=str(_GCC_MISSING)),
        ),
    ],
)
def test_generated_code_compiles_for_a_core_as_cpp_without_warnings(
    compiler: tuple[str, ...], firmware: Path, tmp_path: Path
) -> None:
    (tmp_path / "all.c").write_text("".join(f'#include "{name}.c"\n' for name in ("first", "second")))
    command = [*compiler, *_CPP, *_WARNINGS, "-ffreestanding", f"-I{firmware}", "-c", str(tmp_path / "all.c")]
    done = subprocess.run([*command, "-o", str(tmp_path / "all.o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


def test_random_graphs_compile_as_cpp_without_warnings(tmp_path: Path) -> None:
    """What has int16 activations and rows, which the two models lack."""
    names = []
    for seed in range(40):
        program = micro.emit(net(seed), name=f"n{seed}", stream=seed % 2 == 0)
        names.append(f'#include "n{seed}.c"\n')
        for name, text in program.files.items():
            (tmp_path / name).write_text(text)
    (tmp_path / "all.c").write_text("".join(names))
    command = ["c++", *_CPP, *_WARNINGS, "-Wno-unused-function", "-fsyntax-only", f"-I{tmp_path}"]
    done = subprocess.run([*command, str(tmp_path / "all.c")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
