"""Counts executed instructions by class and by layer, from the basic blocks that an emulator enters."""

from __future__ import annotations

import bisect
from collections import Counter
from typing import TYPE_CHECKING

from tfkd.errors import DeviceError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

CLASSES = ("load", "store", "multiply", "divide", "branch", "other")

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

    def clear(self) -> None:
        """Starts again at 0."""
        self._blocks.clear()
        self._current = ""

    def counts(self) -> dict[str, dict[str, int] | dict[str, dict[str, int]]]:
        """Executed instructions by class (`classes`), by layer (`layers`) and by both (`layer_classes`)."""
        import capstone

        disassembler = (
            capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
            if self._architecture == "riscv"
            else capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
        )
        layers: dict[str, dict[str, int]] = {}
        for (layer, address, size), times in self._blocks.items():
            classes = layers.setdefault(self._owner(layer, address), dict.fromkeys(CLASSES, 0))
            code = self._code[address - self._base : address - self._base + size]
            for _, length, mnemonic, _operands in disassembler.disasm_lite(code, address):
                classes[instruction_class(mnemonic, self._architecture)] += times
                size -= length
            if size:
                raise DeviceError(f"{size} bytes of code at {address:#x} could not be disassembled")
        return {
            "classes": {name: sum(classes[name] for classes in layers.values()) for name in CLASSES},
            "layers": {name: sum(classes.values()) for name, classes in layers.items()},
            "layer_classes": layers,
        }

    def _owner(self, layer: str, address: int) -> str:
        """The layer that a block belongs to; "around" for the code between layers."""
        function = self._names[max(0, bisect.bisect_right(self._starts, address) - 1)]
        between = not layer or function.endswith(("_run", "_start", "_stop")) or "_chain_" in function
        return "around" if between else layer


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
