"""Runs a firmware on an emulated core of a microcontroller: outputs, stack depth and executed instructions."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.errors import ModelError
from tfkd.targets.compiler import DECODER, FLASH, RAM
from tfkd.targets.instruction_counter import InstructionCounter
from tfkd.targets.microcontrollers import CORES, boards

if TYPE_CHECKING:
    import unicorn

_PAGE = 0x1000
# Unused RAM is filled with this byte: what differs after the runs was used by the stack.
_PAINT = 0xA5
# Far more than any supported model needs: it stops a program that does not end.
_MOST_INSTRUCTIONS = 20_000_000_000


@dataclasses.dataclass(frozen=True)
class Firmware:
    """A linked firmware, and where its inputs and outputs are.

    Args:
        elf: The ELF file.
        core: Key of `CORES`.
        board: Key of `boards()`.
        input_offsets: Offset of each input in the context of the model, in bytes.
        output_offsets: Offset of each output in the context of the model, in bytes.
        output_shapes: Shape of each output for one sample, without the batch axis.
        output_dtypes: Data type of each output.
    """

    elf: bytes
    core: str
    board: str
    input_offsets: tuple[int, ...]
    output_offsets: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[str, ...]


def emulate(firmware: Firmware, inputs: Sequence[np.ndarray], count: bool) -> JsonObject:
    """Runs a firmware over samples; called in a child process, since an emulator runs untrusted models in native code.

    Args:
        firmware: The firmware.
        inputs: One array [N, ...] of the data type of each input.
        count: Whether to count instructions.

    Returns:
        `outputs` (one array [N, ...] each), `stack_bytes`, and with `count` those of `InstructionCounter.counts` and
        `decoder_instructions`, None for several outputs.

    Raises:
        ModelError: The firmware accessed an invalid address, did not finish, or its stack overflowed.
    """
    machine = _Machine(firmware)
    counter = machine.count_instructions() if count else None
    limit = _MOST_INSTRUCTIONS if count else 0
    samples = [machine.run(sample, limit) for sample in zip(*inputs, strict=True)]
    counts: JsonObject = counter.counts() if counter else {}
    if counter:
        counts["decoder_instructions"] = machine.count_decoder(counter)
    outputs = [np.stack(one) for one in zip(*samples, strict=True)]
    result = {"outputs": outputs, "stack_bytes": machine.stack_bytes()}
    return result | counts


def _emulated(core: str) -> tuple[unicorn.Uc, dict[str, int], int]:
    """An emulator of a core, its registers by name, and the bits of an address that select its instruction set."""
    import unicorn
    from unicorn import arm_const, riscv_const

    if CORES[core].architecture == "riscv":
        machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        return machine, {"sp": riscv_const.UC_RISCV_REG_SP, "pc": riscv_const.UC_RISCV_REG_PC}, 0
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    machine.ctl_set_cpu_model(getattr(arm_const, f"UC_CPU_ARM_{CORES[core].emulated}"))
    return machine, {"sp": arm_const.UC_ARM_REG_SP, "pc": arm_const.UC_ARM_REG_PC}, 1


class _Machine:
    """An emulated core with a firmware in its memory.

    RAM, from low to high addresses:

        tfkd_context (inputs, outputs, activations) and other variables | unused, painted | stack, grows downwards
        ^ RAM                                                           ^ tfkd_end                              top ^
    """

    def __init__(self, firmware: Firmware) -> None:
        from elftools.elf.elffile import ELFFile

        self._firmware, self._limits = firmware, boards()[firmware.board]
        self._file = ELFFile(io.BytesIO(firmware.elf))
        symbols = {symbol.name: symbol for symbol in self._file.get_section_by_name(".symtab").iter_symbols()}
        self._decoder = symbols[DECODER]["st_value"] & ~1 if DECODER in symbols else None
        names = ("context", "start", "stop", "status", "end")
        # On ARM the lowest bit of a function's address says "Thumb code"; it is not part of the address.
        self._address = {name: symbols[f"tfkd_{name}"]["st_value"] & ~1 for name in names}
        self._top = RAM + self._limits.ram_bytes // 8 * 8
        self._uc, self._registers, self._mode = _emulated(firmware.core)
        self._load()

    def _load(self) -> None:
        """Maps flash and RAM, paints the unused RAM and copies the program."""
        import unicorn

        flash, ram = (-(-size // _PAGE) * _PAGE for size in (self._limits.flash_bytes, self._limits.ram_bytes))
        self._uc.mem_map(FLASH, flash, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._uc.mem_map(RAM, ram, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self._uc.mem_write(self._address["end"], bytes([_PAINT]) * (self._top - self._address["end"]))
        for segment in self._file.iter_segments():
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]:
                self._uc.mem_write(segment["p_vaddr"], segment.data())

    def count_instructions(self) -> InstructionCounter:
        """Starts counting; must come before the first run, after which translated blocks lack the hook."""
        import unicorn

        counter = InstructionCounter(self._file, CORES[self._firmware.core].architecture)
        self._uc.hook_add(unicorn.UC_HOOK_BLOCK, counter.enter)
        return counter

    def run(self, sample: Iterable[np.ndarray], limit: int) -> list[np.ndarray]:
        """Runs one sample; returns the outputs.

        Args:
            sample: One array for each input.
            limit: Number of instructions after which the run is stopped; 0 for none.
        """
        import unicorn

        firmware, context = self._firmware, self._address["context"]
        for array, offset in zip(sample, firmware.input_offsets, strict=True):
            self._uc.mem_write(context + offset, array.tobytes())
        self._uc.mem_write(self._address["status"], b"\xff\xff\xff\xff")
        self._uc.reg_write(self._registers["sp"], self._top)
        try:
            self._uc.emu_start(self._address["start"] | self._mode, self._address["stop"], count=limit)
        except unicorn.UcError as error:
            pc = self._uc.reg_read(self._registers["pc"])
            raise ModelError(
                f"the model must run in {self._limits.flash_bytes:,} bytes of flash and {self._limits.ram_bytes:,} of "
                f"RAM. Received: {error} at {pc:#x}. Use a smaller student or a larger board."
            ) from None
        if self._uc.mem_read(self._address["status"], 4) != b"\0\0\0\0":
            raise ModelError(f"the model did not finish within {limit:,} instructions")
        outputs = []
        ends = zip(firmware.output_shapes, firmware.output_dtypes, firmware.output_offsets, strict=True)
        for shape, dtype, offset in ends:
            content = bytes(self._uc.mem_read(context + offset, math.prod(shape) * np.dtype(dtype).itemsize))
            outputs.append(np.frombuffer(content, dtype).reshape(shape))
        return outputs

    def count_decoder(self, counter: InstructionCounter) -> int | None:
        """Instructions of the decoder for the output that the last run left; None for a firmware without one."""
        if self._decoder is None:
            return None
        counter.clear()
        self._uc.reg_write(self._registers["sp"], self._top)
        self._uc.emu_start(self._decoder | self._mode, self._address["stop"])
        counts: JsonObject = counter.counts()
        return int(sum(counts["classes"].values()))

    def stack_bytes(self) -> int:
        """Deepest stack of all runs.

        Raises:
            ModelError: The stack reached the model's variables.
        """
        free = bytes(self._uc.mem_read(self._address["end"], self._top - self._address["end"]))
        unused = len(free) - len(free.lstrip(bytes([_PAINT])))
        if unused < 8:
            raise ModelError(
                f"stack overflow: only {len(free):,} bytes of RAM are left beside the model's variables. Use a board "
                "with more RAM."
            )
        return len(free) - unused
