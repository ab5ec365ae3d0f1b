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
from tfkd.micro.sensors.sound import SoundCode
from tfkd.targets import qemu
from tfkd.targets.microcontrollers import CORES, Board

DECODER = "tfkd_decode"  # the function that finds the largest output; firmware of several outputs has none
LISTENER = "tfkd_listen"  # the function that computes the features of sounds; only firmware for sounds has one
SOUND = "tfkd_model_sound_"  # what the names of its parts begin with

# The second limit is for models with floats, for which zig first compiles its runtime.
_COMPILE_S = (120.0, 900.0)
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
# The runtime that computes with floats where the core does not: of zig's clang, and of gcc.
_FLOATS = ("-lcompiler_rt", "-lgcc")
_LINKER_SCRIPT = """ENTRY(tfkd_start)
MEMORY {{
  FLASH (rx) : ORIGIN = {flash:#x}, LENGTH = {flash_bytes}
  RAM (rwx) : ORIGIN = {ram:#x}, LENGTH = {ram_bytes}
{regions}}}
SECTIONS {{
{sections}  .text : {{ KEEP({kept}(.text*)) *(.text*) }} > FLASH
  .rodata : {{ *(.rodata*) *(.srodata*) }} > FLASH
  .data : {{ *(.data*) *(.sdata*) }} > RAM AT > FLASH
  .bss (NOLOAD) : {{ *(.sbss*) *(.bss*) *(COMMON) }} > RAM
  tfkd_end = .;
{checks}  /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) *(.ARM.attributes) *(.riscv.attributes) *(.comment*) *(.note*) }}
}}
"""


def compile_firmware(
    program: Program,
    core: str,
    board: Board,
    *,
    cc: str = "",
    optimize: str = "-O2",
    sound: SoundCode | None = None,
) -> bytes:
    """Compiles a model's C together with the start code `cortex_m.c`.

    Args:
        program: C sources of the model.
        core: Key of `CORES`.
        board: The board, whose flash and RAM the linker checks.
        cc: Command of a gcc or clang for the core; empty for the clang of the package ziglang.
        optimize: -O2, -O3 or -Os.
        sound: C of the features of sounds, which the model takes, or None.

    Returns:
        The firmware as an ELF file.

    Raises:
        ModelError: The firmware does not fit the flash or the RAM.
        ToolMissingError: The compiler is not installed.
        DeviceError: The compiler failed or timed out.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-") as name:
        folder = Path(name)
        files = {**program.files, **(sound.files if sound else {}), "start.c": _start_code(program, core, sound)}
        in_qemu = CORES[core].emulator == "qemu"
        if in_qemu:
            files["qemu.c"] = qemu.boot_code()
        for file, text in files.items():
            (folder / file).write_text(text)
        script = _LINKER_SCRIPT.format(
            flash=CORES[core].flash,
            flash_bytes=board.flash_bytes,
            ram=CORES[core].ram,
            ram_bytes=board.ram_bytes,
            kept="*start.o" if program.float_layers else "*",  # not the runtime for floats
            regions=qemu.REGIONS if in_qemu else "",
            sections=qemu.SECTIONS if in_qemu else "",
            checks=qemu.CHECKS if in_qemu else "",
        )
        (folder / "link.ld").write_text(script)
        command = [
            *_compiler(core, cc),
            *([] if cc or program.float_layers else ["-Wl,--no-gc-sections"]),
            *_FLAGS,
            optimize,
            f"-I{folder}",
            f"-Wl,-T,{folder / 'link.ld'}",
            "-Wl,-e,tfkd_start",
            *(str(folder / file) for file in files if file.endswith(".c")),
            *([_FLOATS[bool(cc)]] if program.float_layers else []),
            "-o",
            str(folder / "firmware.elf"),
        ]
        what = "the model and the features of sounds" if sound else "the model"
        _run(command, core, board, what, _COMPILE_S[bool(program.float_layers)])
        return (folder / "firmware.elf").read_bytes()


def section_sizes(elf: bytes) -> dict[str, int]:
    """Bytes in the flash: `code` and `constants` of the model, `decoder` and `features`, which are in neither."""
    from elftools.elf.elffile import ELFFile

    file = ELFFile(io.BytesIO(elf))
    sizes = {section.name: section["sh_size"] for section in file.iter_sections()}
    parts = {"decoder": 0, "features": 0, "tables": 0}
    for symbol in file.get_section_by_name(".symtab").iter_symbols():
        kind = symbol["st_info"]["type"]
        if symbol.name == DECODER:
            parts["decoder"] += symbol["st_size"]
        elif symbol.name == LISTENER or (symbol.name.startswith(SOUND) and kind in ("STT_FUNC", "STT_OBJECT")):
            parts["features" if kind == "STT_FUNC" else "tables"] += symbol["st_size"]
    return {
        "code": sizes.get(".text", 0) - parts["decoder"] - parts["features"],
        "constants": sizes.get(".rodata", 0) + sizes.get(".data", 0) - parts["tables"],
        "decoder": parts["decoder"],
        "features": parts["features"] + parts["tables"],
    }


def _start_code(program: Program, core: str, sound: SoundCode | None) -> str:
    defines: dict[str, object] = {
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
    if CORES[core].emulator == "qemu":
        defines["QEMU"] = 1
    if sound:
        defines |= {
            "SOUND": f"tfkd_{program.name}_sound",
            "SOUND_ADD": f"tfkd_{program.name}_sound_add",
            "IN_SIZE": program.inputs[0].tensor.elements,
            "PART": sound.how["hop"],
        }
    header = f'#include "{program.name}_sound.h"\n' if sound else ""
    source = header + resources.files(__package__).joinpath("cortex_m.c").read_text(encoding="utf-8")
    return "".join(f"#define TFKD_{name} {value}\n" for name, value in defines.items()) + source


def _compiler(core: str, cc: str) -> list[str]:
    """The command of the compiler with the options that select the core."""
    if cc:
        return [*shlex.split(cc), *CORES[core].gcc]
    zig = [sys.executable, "-m", "ziglang", "cc", *CORES[core].zig]
    return [*zig, "-fno-sanitize=undefined"]


def _run(command: list[str], core: str, board: Board, what: str, limit_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except FileNotFoundError:
        raise ToolMissingError(
            f"{core}: compiler {command[0]!r} not found. Install it, or leave out cc to use the compiler of "
            "`pip install 'tfkd[mcu]'`."
        ) from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{core}: the compiler timed out after {limit_s:g} s.") from None
    if done.returncode == 0:
        return
    errors = [line for line in done.stderr.splitlines() if "overflowed" in line or "will not fit" in line]
    if errors:
        raise ModelError(
            f"{core}: {what} must fit the {board.flash_bytes:,} bytes of flash and {board.ram_bytes:,} of RAM of "
            f"{board.name}. Received: {errors[0].split('error: ')[-1]}. Use a smaller student or a larger board."
        )
    raise DeviceError(f"{core}: the compiler failed with exit status {done.returncode}:\n{done.stderr[-3000:]}")
