"""The cores of microcontrollers that can be emulated, and boards with their flash and RAM."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources

from tfkd._internal.suggestion import suggestion
from tfkd.errors import InputError


@dataclasses.dataclass(frozen=True)
class Core:
    """A processor core.

    Args:
        zig: Options that select the core for the clang of the package ziglang.
        gcc: Options that select the core for a gcc.
        emulated: Name of the emulator's model of the core.
        cycles: Fewest and most cycles of one instruction, by class of instructions.
        source: Where the cycles come from.
        architecture: `arm` or `riscv`.
        emulator: `unicorn` or `qemu`.
        flash: Address of the flash in the emulator.
        ram: Address of the RAM in the emulator.
    """

    zig: tuple[str, ...]
    gcc: tuple[str, ...]
    emulated: str
    cycles: Mapping[str, tuple[float, float]]
    source: str
    architecture: str = "arm"
    emulator: str = "unicorn"
    flash: int = 0x0800_0000
    ram: int = 0x2000_0000


def _arm(mcpu: str, extensions: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options of both compilers for a Cortex-M."""
    zig = ("-target", "thumb-freestanding-eabi", f"-mcpu={mcpu.replace('-', '_')}{extensions}")
    return zig, (f"-mcpu={mcpu}", "-mthumb", "-mfloat-abi=soft")


_Range = tuple[float, float]


def _cycles(
    load: _Range,
    store: _Range,
    multiply: _Range,
    divide: _Range,
    branch: _Range,
    other: _Range,
    vector: _Range | None = None,
) -> dict[str, _Range]:
    """Fewest and most cycles by class, see `CORES`; only cores with vector instructions have the last class."""
    scalar = {"load": load, "store": store, "multiply": multiply, "divide": divide, "branch": branch, "other": other}
    return scalar if vector is None else {**scalar, "vector": vector}


# Fewest cycles: no wait states, pipelined accesses, branches not taken. Most cycles: the manual's numbers for a single
# access and for a taken branch with pipeline refill, times 1.1 for wait states of the flash. A division ends early
# where the quotient is small; the M0+ has none. The M4's range of a division is assumed for the M7 and M33.
CORES = {
    "cortex-m0plus": Core(
        *_arm("cortex-m0plus"),
        "CORTEX_M0",
        _cycles((2, 2.2), (2, 2.2), (1, 1.1), (0, 0), (1, 2.2), (1, 1.1)),
        "Arm DDI 0484C, table 3-1 (single-cycle multiplier)",
    ),
    "cortex-m3": Core(
        *_arm("cortex-m3"),
        "CORTEX_M3",
        _cycles((1, 2.2), (1, 2.2), (1, 2.2), (2, 13.2), (1, 4.4), (1, 1.1)),
        "Arm DDI 0337I, table 3-1",
    ),
    "cortex-m4": Core(
        *_arm("cortex-m4"),
        "CORTEX_M4",
        _cycles((1, 2.2), (1, 2.2), (1, 1.1), (2, 13.2), (1, 4.4), (1, 1.1)),
        "Arm DDI 0439B, table 3-1",
    ),
    "cortex-m7": Core(
        *_arm("cortex-m7"),
        "CORTEX_M7",
        _cycles((0.5, 1.2), (0.5, 1.2), (0.5, 1.2), (2, 13.2), (0.5, 2.4), (0.5, 1.2)),
        "Arm DDI 0489F: two instructions at a time, caches; published boards take 0.9 an instruction",
    ),
    # Zig's cortex_m33 is without the DSP extension, which the boards of `boards.json` have.
    "cortex-m33": Core(
        *_arm("cortex-m33", "+dsp"),
        "CORTEX_M33",
        _cycles((1, 2.2), (1, 1.1), (1, 1.1), (2, 13.2), (1, 3.3), (1, 1.1)),
        "Arm 100230, chapter 3; published boards take 1.24 to 1.38 an instruction",
    ),
    # Helium (MVE): unicorn has none of it, QEMU's board MPS3 AN547 does. Its DDR stands for flash and RAM.
    "cortex-m55": Core(
        ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve_fp"),
        ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
        "mps3-an547",
        _cycles((1, 2.2), (1, 1.1), (1, 1.1), (2, 13.2), (1, 3.3), (1, 1.1), (1, 4.4)),
        "assumed: those of the Cortex-M33, and for a vector instruction, of which the core computes half in a cycle, 1 "
        "(overlapped with the next) to 4.4 (gathers)",
        emulator="qemu",
        flash=0x6000_0000,
        ram=0x6800_0000,
    ),
    "riscv32": Core(
        ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c"),
        ("-march=rv32imc", "-mabi=ilp32"),
        "",
        _cycles((1, 3.3), (1, 2.2), (1, 5.5), (18, 39.6), (1, 4.4), (1, 1.1)),
        "Hazard3 (RP2350), its manual, section Instruction Cycle Counts, as the fewest (a division 18); a slower "
        "multiplier and refill, and a division by one bit a cycle (36), as of other cores, as the most",
        architecture="riscv",
    ),
}


@dataclasses.dataclass(frozen=True)
class Board:
    """A microcontroller.

    Args:
        name: Name of the microcontroller.
        core: Key of `CORES`, or None for any core.
        flash_bytes: Size of the flash.
        ram_bytes: Size of the RAM.
        clock_hz: Highest clock frequency, or None.
        source: Data sheet that the sizes come from.
    """

    name: str
    core: str | None
    flash_bytes: int
    ram_bytes: int
    clock_hz: int | None
    source: str


@functools.cache
def boards() -> dict[str, Board]:
    """The known boards by name."""
    table = json.loads(resources.files(__package__).joinpath("boards.json").read_text(encoding="utf-8"))
    return {name: Board(name, **fields) for name, fields in table.items()}


def top_of_ram(core: str, board: Board) -> int:
    """Address behind the RAM of a board, a multiple of 8: the first one of the stack."""
    return CORES[core].ram + board.ram_bytes // 8 * 8


def is_emulated(spec: str) -> bool:
    """Whether a specification is an emulated core.

    >>> is_emulated("cortex-m4:nrf52840"), is_emulated("host")
    (True, False)
    """
    return re.split("[:,]", spec)[0] in CORES


def with_board(specs: Sequence[str], board: str | None) -> list[str]:
    """Puts the emulated cores of some specifications on a board.

    Cores that have a board keep it. If no specification is on the board, the board's core is added.

    Args:
        specs: Specifications of targets.
        board: Key of `boards()`; None leaves the specifications as they are.

    Raises:
        InputError: Unknown board, or a core that the board does not have.

    >>> with_board(["tflm", "cortex-m4,stream=1"], "nrf52840")
    ['tflm', 'cortex-m4:nrf52840,stream=1']
    """
    if board is None:
        return list(specs)
    if board not in boards() or boards()[board].core is None:
        known = sorted(name for name, one in boards().items() if one.core)
        raise InputError(
            f"targets: board must be one of {', '.join(known)}. Received: {board!r}.{suggestion(board, known)}"
        )
    core = str(boards()[board].core)
    bare = {spec: spec.partition(",")[::2] for spec in specs if spec.partition(",")[0] in CORES}
    if other := [spec for spec, (place, _) in bare.items() if place != core]:
        raise InputError(f"targets: {board} has a {core}. Received: {other[0]}. Leave that target out.")
    placed = {spec: ",".join(filter(None, (f"{core}:{board}", settings))) for spec, (_, settings) in bare.items()}
    result = [placed.get(spec, spec) for spec in specs]
    present = any(spec.partition(",")[0] == f"{core}:{board}" for spec in result)
    return result if present else [*result, f"{core}:{board}"]


def with_compiler(specs: Sequence[str], cc: str | None) -> list[str]:
    """Adds a C compiler to the specifications of emulated cores.

    Args:
        specs: Specifications of targets.
        cc: Command of the compiler; None leaves the specifications as they are.

    Raises:
        InputError: No specification is an emulated core.

    >>> with_compiler(["tflm", "cortex-m4"], "arm-none-eabi-gcc")
    ['tflm', 'cortex-m4,cc=arm-none-eabi-gcc']
    """
    if cc is None:
        return list(specs)
    emulated = [spec for spec in specs if is_emulated(spec)]
    if not emulated:
        raise InputError(
            f"targets: cc is used by emulated cores only. Received: {', '.join(specs)}. Add the target cortex-m4."
        )
    return [f"{spec},cc={cc}" if spec in emulated else spec for spec in specs]
