"""Counts executed instructions by class and by layer, from the basic blocks that an emulator enters."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tfkd.errors import DeviceError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

CLASSES = ("load", "store", "multiply", "divide", "branch", "other")
# The class of vector and floating-point instructions, of whatever kind, where a program has any.
VECTOR = "vector"

# Prefixes of mnemonics by class. The first match counts, so that BIC is not a branch.
_ARM = (
    ("load", ("ldr", "ldm", "pop")),
    ("store", ("str", "stm", "push")),
    ("multiply", ("mul", "mla", "mls", "smul", "smla", "smm", "umul", "umla", "smus")),
    ("divide", ("udiv", "sdiv")),
    ("other", ("bic", "bfc", "bfi")),
    ("branch", ("b", "cb", "tb")),
)
# A compressed instruction has the prefix `c.`.
_RISCV = (
    ("load", ("lb", "lh", "lw")),
    ("store", ("sb", "sh", "sw")),
    ("multiply", ("mul",)),
    ("divide", ("div", "rem")),
    ("branch", ("b", "j", "ret")),
)


class InstructionCounter:
    """Counts how often each basic block runs in each layer; `counts` disassembles the blocks.

    Args:
        file: The firmware, an `ELFFile`. The function of a layer has `_layer_` in its name.
        architecture: `arm` or `riscv`.
    """

    def __init__(self, file: ELFFile, architecture: str = "arm") -> None:
        self._architecture = architecture
        text = file.get_section_by_name(".text")
        self._base, self._code = text["sh_addr"], text.data()
        functions = sorted(
            (symbol["st_value"] & ~1, symbol.name)
            for symbol in file.get_section_by_name(".symtab").iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC"
        )
        self._starts, self._names = [start for start, _ in functions], [name for _, name in functions]
        self._layers = {address: name for address, name in functions if "_layer_" in name}
        self._current = ""
        self._blocks: Counter[tuple[str, int, int]] = Counter()  # by layer, address and size

    def enter(self, machine: object, address: int, size: int, _: object) -> None:
        """Counts a block; called by the emulator."""
        self._current = self._layers.get(address, self._current)
        self._blocks[self._current, address, size] += 1

    def leave(self, address: int, size: int) -> None:
        """Takes back the last block, which was entered but did not run."""
        self._blocks[self._current, address, size] -= 1

    def clear(self) -> None:
        """Starts again at 0."""
        self._blocks.clear()
        self._current = ""

    def counts(self) -> dict[str, dict[str, int] | dict[str, dict[str, int]]]:
        """Executed instructions by class (`classes`), by layer (`layers`) and by both (`layer_classes`)."""
        classes_of = _riscv_classes() if self._architecture == "riscv" else _arm_classes()
        layers: dict[str, dict[str, int]] = {}
        for (layer, address, size), times in self._blocks.items():
            classes = layers.setdefault(self._owner(layer, address), dict.fromkeys(CLASSES, 0))
            code = self._code[address - self._base : address - self._base + size]
            for length, name in classes_of(code):
                classes[name] = classes.get(name, 0) + times
                size -= length
            if size:
                raise DeviceError(f"{size} bytes of code at {address:#x} could not be disassembled")
        names = [*CLASSES, *([VECTOR] if any(VECTOR in classes for classes in layers.values()) else [])]
        layers = {layer: {name: classes.get(name, 0) for name in names} for layer, classes in layers.items()}
        return {
            "classes": {name: sum(classes[name] for classes in layers.values()) for name in names},
            "layers": {name: sum(classes.values()) for name, classes in layers.items()},
            "layer_classes": layers,
        }

    def _owner(self, layer: str, address: int) -> str:
        """The layer that a block belongs to; "around" for the code between layers."""
        function = self._names[max(0, bisect.bisect_right(self._starts, address) - 1)]
        between = not layer or function.endswith(("_run", "_start", "_stop")) or "_chain_" in function
        return "around" if between else layer


def _riscv_classes() -> Callable[[bytes], Iterator[tuple[int, str]]]:
    """A function of machine code that gives the length and the class of each instruction, up to an unknown one."""
    import capstone

    disassembler = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)

    def classes(code: bytes) -> Iterator[tuple[int, str]]:
        for _, length, mnemonic, _operands in disassembler.disasm_lite(code, 0):
            yield length, instruction_class(mnemonic, "riscv")

    return classes


def _arm_classes() -> Callable[[bytes], Iterator[tuple[int, str]]]:
    """The same for Thumb code, with the instructions of Armv8.1-M, which capstone does not know."""
    import capstone

    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)

    def classes(code: bytes) -> Iterator[tuple[int, str]]:
        while code:
            first, second = (int.from_bytes(code[i : i + 2], "little") for i in (0, 2))
            length = 4 if first >> 11 in (0b11101, 0b11110, 0b11111) else 2
            name = _added_class(first, second) if length == 4 else None
            if name is None:
                mnemonic = next((one[2] for one in disassembler.disasm_lite(code[:length], 0)), None)
                if mnemonic is None:
                    return
                name = instruction_class(mnemonic)
            yield length, name
            code = code[length:]

    return classes


def _added_class(first: int, second: int) -> str | None:
    """The class of an instruction of 32 bits that is one of vectors, floating point or loops; None for others.

    Args:
        first: Its first half.
        second: Its second half.

    >>> [_added_class(*halves) for halves in ((0xED94, 0x7E00), (0xF002, 0xE801), (0xF00F, 0xC017), (0xF000, 0xF820))]
    ['vector', 'vector', 'branch', None]
    """
    if first & 0xEC00 == 0xEC00:  # the space of coprocessors
        return VECTOR
    if first & 0xFFC0 == 0xF000 and second == 0xE801:  # VCTP
        return VECTOR
    if first & 0xF800 == 0xF000 and second & 0xD001 == 0xC001:  # DLS, WLS, LE and their forms for vectors
        return "branch"
    return None


def instruction_class(mnemonic: str, architecture: str = "arm") -> str:
    """The class of an instruction.

    >>> [instruction_class(one) for one in ("ldr.w", "smlad", "bic", "bne")]
    ['load', 'multiply', 'other', 'branch']
    >>> [instruction_class(one, "riscv") for one in ("c.lwsp", "lui", "mulh", "remu", "c.beqz")]
    ['load', 'other', 'multiply', 'divide', 'branch']
    """
    prefixes_by_class = _RISCV if architecture == "riscv" else _ARM
    mnemonic = mnemonic.removeprefix("c.")
    return next((name for name, prefixes in prefixes_by_class if mnemonic.startswith(prefixes)), "other")
