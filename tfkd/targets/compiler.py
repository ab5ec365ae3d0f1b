"""Compiles and links the C of a model into a firmware for a core of a microcontroller with a board's flash and RAM."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from tfkd.errors import DeviceError, ModelError, ToolMissingError
from tfkd.micro import Program
from tfkd.micro.c_context import value_type
from tfkd.targets.microcontrollers import CORES, Board

FLASH, RAM = 0x0800_0000, 0x2000_0000  # start addresses
DECODER = "tfkd_decode"  # the function that finds the largest output; firmware of several outputs has none

_COMPILE_S = 120.0
# -g: without it Zig strips the symbols at -Os.
_FLAGS = (
    "-std=c99",
    "-ffreestanding",
    "-ffunction-sections",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-g",
    "-nostdlib",
)
_LINKER_SCRIPT = """ENTRY(tfkd_start)
MEMORY {{
  FLASH (rx) : ORIGIN = {flash:#x}, LENGTH = {flash_bytes}
  RAM (rwx) : ORIGIN = {ram:#x}, LENGTH = {ram_bytes}
}}
SECTIONS {{
  .text : {{ KEEP(*(.text*)) }} > FLASH
  .rodata : {{ *(.rodata*) *(.srodata*) }} > FLASH
  .data : {{ *(.data*) *(.sdata*) }} > RAM AT > FLASH
  .bss (NOLOAD) : {{ *(.sbss*) *(.bss*) *(COMMON) }} > RAM
  tfkd_end = .;
  /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) *(.ARM.attributes) *(.riscv.attributes) *(.comment*) *(.note*) }}
}}
"""


def compile_firmware(program: Program, core: str, board: Board, *, cc: str = "", optimize: str = "-O2") -> bytes:
    """Compiles a model's C together with the start code `cortex_m.c`.

    Args:
        program: C sources of the model.
        core: Key of `CORES`.
        board: The board, whose flash and RAM the linker checks.
        cc: Command of a gcc or clang for the core; empty for the clang of the package ziglang.
        optimize: -O2, -O3 or -Os.

    Returns:
        The firmware as an ELF file.

    Raises:
        ModelError: The firmware does not fit the flash or the RAM.
        ToolMissingError: The compiler is not installed.
        DeviceError: The compiler failed or timed out.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-") as name:
        folder = Path(name)
        for file, text in program.files.items():
            (folder / file).write_text(text)
        (folder / "start.c").write_text(_start_code(program))
        script = _LINKER_SCRIPT.format(flash=FLASH, flash_bytes=board.flash_bytes, ram=RAM, ram_bytes=board.ram_bytes)
        (folder / "link.ld").write_text(script)
        command = [
            *_compiler(core, cc),
            *_FLAGS,
            optimize,
            f"-I{folder}",
            f"-Wl,-T,{folder / 'link.ld'}",
            "-Wl,-e,tfkd_start",
            *(str(folder / file) for file in (*program.files, "start.c") if file.endswith(".c")),
            "-o",
            str(folder / "firmware.elf"),
        ]
        _run(command, core, board)
        return (folder / "firmware.elf").read_bytes()


def section_sizes(elf: bytes) -> dict[str, int]:
    """Bytes of `code` and of `constants` in the flash, and of the `decoder`, which are not in `code`."""
    from elftools.elf.elffile import ELFFile

    file = ELFFile(io.BytesIO(elf))
    sizes = {section.name: section["sh_size"] for section in file.iter_sections()}
    decoder = sum(symbol["st_size"] for symbol in file.get_section_by_name(".symtab").get_symbol_by_name(DECODER) or [])
    return {
        "code": sizes.get(".text", 0) - decoder,
        "constants": sizes.get(".rodata", 0) + sizes.get(".data", 0),
        "decoder": decoder,
    }


def _start_code(program: Program) -> str:
    defines = {
        "HEADER": f'"{program.name}.h"',
        "CTX": f"tfkd_{program.name}_ctx",
        "RUN": f"tfkd_{program.name}_run",
        "IN_VALUE": value_type([one.tensor for one in program.inputs]),
        "OUT_VALUE": value_type([one.tensor for one in program.outputs]),
        "STATEFUL": int(program.state_bytes > 0),
        "RESET": f"tfkd_{program.name}_reset",
        "SINGLE": int(len(program.inputs) == len(program.outputs) == 1),
        "OUT_SIZE": program.outputs[0].tensor.elements,
        "IN_AT": ", ".join(str(one.offset) for one in program.inputs),
        "OUT_AT": ", ".join(str(one.offset) for one in program.outputs),
    }
    source = resources.files(__package__).joinpath("cortex_m.c").read_text(encoding="utf-8")
    return "".join(f"#define TFKD_{name} {value}\n" for name, value in defines.items()) + source


def _compiler(core: str, cc: str) -> list[str]:
    """The command of the compiler with the options that select the core."""
    if cc:
        return [*shlex.split(cc), *CORES[core].gcc]
    zig = [sys.executable, "-m", "ziglang", "cc", *CORES[core].zig]
    return [*zig, "-fno-sanitize=undefined", "-Wl,--no-gc-sections"]


def _run(command: list[str], core: str, board: Board) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S)
    except FileNotFoundError:
        raise ToolMissingError(
            f"{core}: compiler {command[0]!r} not found. Install it, or leave out cc to use the compiler of "
            "`pip install 'tfkd[mcu]'`."
        ) from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{core}: the compiler timed out after {_COMPILE_S:g} s.") from None
    if done.returncode == 0:
        return
    errors = [line for line in done.stderr.splitlines() if "overflowed" in line or "will not fit" in line]
    if errors:
        raise ModelError(
            f"{core}: the model must fit the {board.flash_bytes:,} bytes of flash and {board.ram_bytes:,} of RAM of "
            f"{board.name}. Received: {errors[0].split('error: ')[-1]}. Use a smaller student or a larger board."
        )
    raise DeviceError(f"{core}: the compiler failed with exit status {done.returncode}:\n{done.stderr[-3000:]}")
