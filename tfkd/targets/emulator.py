"""Runs a firmware on an emulated core of a microcontroller: outputs, stack depth and executed instructions."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.errors import ModelError
from tfkd.micro.sensors.sound import SoundCode
from tfkd.targets.compiler import DECODER, LISTENER
from tfkd.targets.instruction_counter import InstructionCounter
from tfkd.targets.microcontrollers import CORES, Board, boards, top_of_ram
from tfkd.targets.qemu import QEMU, Fault

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

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
        sound: The features of sounds that it computes, or None.
    """

    elf: bytes
    core: str
    board: str
    input_offsets: tuple[int, ...]
    output_offsets: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[str, ...]
    sound: SoundCode | None = None


def load() -> None:
    """Imports Unicorn, which cores that QEMU runs do without."""
    with contextlib.suppress(ImportError):
        importlib.import_module("unicorn")


def emulate(
    firmware: Firmware,
    inputs: Sequence[np.ndarray],
    count: bool,
    sounds: np.ndarray | None = None,
    chunks: int = 1,
) -> JsonObject:
    """Runs a firmware over samples; called in a child process, since an emulator runs untrusted models in native code.

    Args:
        firmware: The firmware.
        inputs: One array [N, ...] of the data type of each input.
        count: Whether to count instructions.
        sounds: Samples from which the firmware computes the only input itself, int16 [N, samples]; the values of
            `inputs` are then not used. None for the inputs as they are.
        chunks: Number of inputs that follow each other: only the first of them starts from the initial state.

    Returns:
        `outputs` (one array [N, ...] each), `stack_bytes` of the model, and with `count` those of
        `InstructionCounter.counts`, `decoder` (None for several outputs) and `features` (None without a sound), each
        with `instructions` and `stack_bytes`.

    Raises:
        ModelError: The firmware accessed an invalid address, did not finish, or its stack overflowed.
    """
    with contextlib.closing(_Machine(firmware, count)) as machine:
        return _emulate(machine, firmware, inputs, sounds, chunks)


def _emulate(
    machine: _Machine, firmware: Firmware, inputs: Sequence[np.ndarray], sounds: np.ndarray | None, chunks: int
) -> JsonObject:
    counter = machine.counter
    parts: JsonObject = {}
    if counter and firmware.sound:
        noise = np.random.default_rng(0).integers(-3000, 3000, (1, firmware.sound.samples)).astype(np.int16)
        parts["features"] = machine.measure(counter, lambda: machine.listen(noise[0] if sounds is None else sounds[0]))
    if sounds is not None:
        inputs = [np.stack([machine.listen(sound) for sound in sounds])]
        machine.paint()
        if counter:
            counter.clear()
    samples = [machine.run(sample, is_continued=i % chunks > 0) for i, sample in enumerate(zip(*inputs, strict=True))]
    outputs = [np.stack(one) for one in zip(*samples, strict=True)]
    result = {"outputs": outputs, "stack_bytes": machine.stack_bytes()}
    if not counter:
        return result
    counts: JsonObject = counter.counts()
    parts.setdefault("features", None)
    parts["decoder"] = machine.measure(counter, machine.decode) if machine.has_decoder else None
    return result | counts | parts


class _Unicorn:
    """A core that unicorn emulates, with a firmware in its flash.

    Args:
        file: The firmware, an `ELFFile`.
        core: Key of `CORES`.
        board: Flash and RAM.
        stop: Address at which functions stop.
        counter: What counts the instructions, or None.
    """

    def __init__(self, file: ELFFile, core: str, board: Board, stop: int, counter: InstructionCounter | None) -> None:
        import unicorn
        from unicorn import arm_const, riscv_const

        of = CORES[core]
        if of.architecture == "riscv":
            self._uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
            self._sp, self._pc = riscv_const.UC_RISCV_REG_SP, riscv_const.UC_RISCV_REG_PC
        else:
            self._uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
            self._uc.ctl_set_cpu_model(getattr(arm_const, f"UC_CPU_ARM_{of.emulated}"))
            self._sp, self._pc = arm_const.UC_ARM_REG_SP, arm_const.UC_ARM_REG_PC
        # The lowest bit of an address selects the instruction set.
        self._mode = int(of.architecture == "arm")
        self._stop, self._top = stop, top_of_ram(core, board)
        self._limit = _MOST_INSTRUCTIONS if counter else 0
        flash, ram = (-(-size // _PAGE) * _PAGE for size in (board.flash_bytes, board.ram_bytes))
        self._uc.mem_map(of.flash, flash, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._uc.mem_map(of.ram, ram, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        for segment in file.iter_segments():
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]:
                self._uc.mem_write(segment["p_vaddr"], segment.data())
        if counter:  # before the first run, after which translated blocks lack the hook
            self._uc.hook_add(unicorn.UC_HOOK_BLOCK, counter.enter)

    def write(self, address: int, content: bytes) -> None:
        """Writes to the memory."""
        self._uc.mem_write(address, content)

    def read(self, address: int, size: int) -> bytes:
        """Reads from the memory."""
        return bytes(self._uc.mem_read(address, size))

    def call(self, function: int) -> None:
        """Calls a function, with an empty stack, until it stops.

        Raises:
            Fault: It accessed an invalid address.
        """
        import unicorn

        self._uc.reg_write(self._sp, self._top)
        try:
            self._uc.emu_start(function | self._mode, self._stop, count=self._limit)
        except unicorn.UcError as error:
            raise Fault(f"{error} at {self._uc.reg_read(self._pc):#x}") from None

    def close(self) -> None:
        """Nothing is left behind."""


class _Machine:
    """An emulated core with a firmware in its memory.

    RAM, from low to high addresses:

        tfkd_context (inputs, outputs, activations) and other variables | unused, painted | stack, grows downwards
        ^ RAM                                                           ^ tfkd_end                              top ^
    """

    def __init__(self, firmware: Firmware, count: bool) -> None:
        from elftools.elf.elffile import ELFFile

        self._firmware, self._limits = firmware, boards()[firmware.board]
        core, file = firmware.core, ELFFile(io.BytesIO(firmware.elf))
        symbols = {symbol.name: symbol for symbol in file.get_section_by_name(".symtab").iter_symbols()}
        self.has_decoder = DECODER in symbols
        self._keeps_state = "tfkd_is_continued" in symbols
        names = ["context", "start", "stop", "status", "end"]
        names += [DECODER.removeprefix("tfkd_")] * self.has_decoder + ["is_continued"] * self._keeps_state
        names += [LISTENER.removeprefix("tfkd_"), "sound", "features", "samples", "count", "is_last"] * bool(
            firmware.sound
        )
        # On ARM the lowest bit of a function's address says "Thumb code"; it is not part of the address.
        self._address = {name: symbols[f"tfkd_{name}"]["st_value"] & ~1 for name in names}
        self._top = top_of_ram(core, self._limits)
        self.counter = InstructionCounter(file, CORES[core].architecture) if count else None
        self._core: _Unicorn | QEMU
        if CORES[core].emulator == "qemu":
            self._core = QEMU(firmware.elf, core, self._limits, self._address["stop"], self.counter)
        else:
            self._core = _Unicorn(file, core, self._limits, self._address["stop"], self.counter)
        self.paint()

    def close(self) -> None:
        """Ends the emulator."""
        self._core.close()

    def paint(self) -> None:
        """Fills the unused RAM, so that `stack_bytes` tells what was used since."""
        self._core.write(self._address["end"], bytes([_PAINT]) * (self._top - self._address["end"]))

    def run(self, sample: Iterable[np.ndarray], *, is_continued: bool = False) -> list[np.ndarray]:
        """Runs one sample, one array for each input, from the state of the last one or else the initial state."""
        firmware, context = self._firmware, self._address["context"]
        for array, offset in zip(sample, firmware.input_offsets, strict=True):
            self._core.write(context + offset, array.tobytes())
        self._core.write(self._address["status"], b"\xff\xff\xff\xff")
        if self._keeps_state:
            self._core.write(self._address["is_continued"], int(is_continued).to_bytes(4, "little"))
        self._call("start")
        if self._core.read(self._address["status"], 4) != b"\0\0\0\0":
            raise ModelError(f"the model did not finish within {_MOST_INSTRUCTIONS:,} instructions")
        outputs = []
        ends = zip(firmware.output_shapes, firmware.output_dtypes, firmware.output_offsets, strict=True)
        for shape, dtype, offset in ends:
            content = self._core.read(context + offset, math.prod(shape) * np.dtype(dtype).itemsize)
            outputs.append(np.frombuffer(content, dtype).reshape(shape))
        return outputs

    def _call(self, function: str) -> None:
        """Calls a function of `cortex_m.c`, with an empty stack, until it stops."""
        try:
            self._core.call(self._address[function])
        except Fault as error:
            raise ModelError(
                f"the model must run in {self._limits.flash_bytes:,} bytes of flash and {self._limits.ram_bytes:,} of "
                f"RAM. Received: {error}. Use a smaller student or a larger board."
            ) from None

    def decode(self) -> None:
        """Finds the largest value of the output that the last run left."""
        self._call("decode")

    def listen(self, samples: np.ndarray) -> np.ndarray:
        """Computes the input from a sound, in parts of a hop as a microphone gives them.

        Args:
            samples: Samples of a whole input, int16 [samples].

        Returns:
            The input, of its type, flat.
        """
        sound = self._firmware.sound
        assert sound is not None
        self._core.write(self._address["sound"], bytes(sound.ram_bytes))
        for at in range(0, len(samples), sound.how["hop"]):
            part = samples[at : at + sound.how["hop"]]
            self._core.write(self._address["samples"], part.tobytes())
            is_last = at + len(part) == len(samples)
            for name, value in (("count", len(part)), ("is_last", is_last)):
                self._core.write(self._address[name], int(value).to_bytes(4, "little"))
            self._call("listen")
        return np.frombuffer(self._core.read(self._address["features"], sound.input_bytes), sound.dtype)

    def measure(self, counter: InstructionCounter, run: Callable[[], object]) -> JsonObject:
        """Instructions and deepest stack of a function, apart from all others."""
        self.paint()
        counter.clear()
        run()
        counts: JsonObject = counter.counts()
        counter.clear()
        used = self.stack_bytes()
        self.paint()
        return {"instructions": int(sum(counts["classes"].values())), "stack_bytes": used}

    def stack_bytes(self) -> int:
        """Deepest stack of all runs.

        Raises:
            ModelError: The stack reached the model's variables.
        """
        free = self._core.read(self._address["end"], self._top - self._address["end"])
        unused = len(free) - len(free.lstrip(bytes([_PAINT])))
        if unused < 8:
            raise ModelError(
                f"stack overflow: only {len(free):,} bytes of RAM are left beside the model's variables. Use a board "
                "with more RAM."
            )
        return len(free) - unused
