"""A core that QEMU emulates: its memory is a file shared with this process, its instructions come from a log."""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import IO

from tfkd.errors import DeviceError, ToolMissingError
from tfkd.targets.instruction_counter import InstructionCounter
from tfkd.targets.microcontrollers import CORES, Board

PROGRAM = "qemu-system-arm"
# Where `qemu_boot.c` lies, for the linker script.
REGIONS = "  BOOT (rx) : ORIGIN = 0x10000000, LENGTH = 0x10000\n"
SECTIONS = "  .boot : { KEEP(*(.boot_vectors)) KEEP(*(.boot*)) } > BOOT\n"
# Nothing copies initial values from the flash to the RAM; the host writes that of `tfkd_status`.
CHECKS = '  ASSERT(SIZEOF(.data) <= 4, "a variable has an initial value, which no code copies to the RAM in QEMU")\n'

# The DDR of the board. QEMU takes no other size; a file of it takes no more disk than what is written.
_DDR, _DDR_BYTES = 0x6000_0000, 2 << 30
_MAILBOX = 0x6FF0_0000
_REQUEST, _FUNCTION, _ANSWER, _FAULT, _PC = (_MAILBOX + 4 * i for i in (4, 5, 6, 7, 8))
_LONGEST_WAIT_S = 0.001

_BLOCK = re.compile(rb"Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/")
_CODE = re.compile(rb"0x([0-9a-f]+):  ((?:[0-9a-f]+ )+)")


class Fault(Exception):
    """The program did what the core or the board does not allow; the message says what."""


def find() -> str:
    """The path of QEMU.

    Raises:
        ToolMissingError: It is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise ToolMissingError(
            f"cortex-m55: QEMU is not installed: no {PROGRAM} on PATH. "
            "Install it: sudo apt-get install --no-install-recommends qemu-system-arm"
        )
    return found


def version() -> str:
    """QEMU's name and version."""
    printed = subprocess.run([find(), "--version"], capture_output=True, text=True, timeout=60).stdout
    return printed.splitlines()[0] if printed else ""


def boot_code() -> str:
    """C that starts the functions of a firmware in QEMU."""
    return resources.files(__package__).joinpath("qemu_boot.c").read_text(encoding="utf-8")


class QEMU:
    """A core with a firmware; ends with `close`.

    Args:
        elf: The firmware, linked with `boot_code`.
        core: Key of `CORES`, emulated by QEMU.
        board: The board, whose flash and RAM the program may use.
        stop: Address at which functions stop.
        counter: What counts the instructions, or None.
    """

    def __init__(self, elf: bytes, core: str, board: Board, stop: int, counter: InstructionCounter | None) -> None:
        self._log = _Log(counter, stop) if counter else None
        self._folder = tempfile.TemporaryDirectory(prefix="tfkd-")
        path = Path(self._folder.name)
        (path / "firmware.elf").write_bytes(elf)
        with (path / "ddr").open("w+b") as file:
            file.truncate(_DDR_BYTES)
            self._memory = mmap.mmap(file.fileno(), _DDR_BYTES)
        self._requests = 0
        of = CORES[core]
        ends = (of.flash, of.flash + -(-board.flash_bytes // 32) * 32, of.ram, of.ram + board.ram_bytes // 32 * 32)
        for i, address in enumerate(ends):
            self._put(_MAILBOX + 4 * i, address)
        command = [
            find(), "-machine", f"{of.emulated},memory-backend=ddr", "-object",
            f"memory-backend-file,id=ddr,mem-path={path / 'ddr'},share=on,size={_DDR_BYTES}", "-nodefaults",
            "-display", "none", "-serial", "none", "-monitor", "none", "-no-reboot", "-kernel",
            str(path / "firmware.elf"),
        ]  # fmt: skip
        if counter:
            command += ["-d", "exec,nochain,in_asm", "-dfilter", f"{of.flash:#x}+{board.flash_bytes:#x}"]
        self._errors = (path / "errors").open("w+b")
        sink = subprocess.PIPE if counter else self._errors
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=sink)

    def write(self, address: int, content: bytes) -> None:
        """Writes to the RAM."""
        self._memory[address - _DDR : address - _DDR + len(content)] = content

    def read(self, address: int, size: int) -> bytes:
        """Reads from the RAM."""
        return self._memory[address - _DDR : address - _DDR + size]

    def call(self, function: int) -> None:
        """Calls a function, with an empty stack, until it stops.

        Args:
            function: Its address.

        Raises:
            Fault: The program did something that is not allowed.
            DeviceError: QEMU ended.
        """
        self._requests += 1
        self._put(_FUNCTION, function | 1)
        self._put(_REQUEST, self._requests)
        if self._log:
            assert self._process.stderr is not None
            self._log.read(self._process.stderr)
        wait = 0.00002
        while self._get(_ANSWER) != self._requests and not self._get(_FAULT):
            if self._process.poll() is not None:
                raise DeviceError(f"{PROGRAM} ended with exit status {self._process.returncode}.{self._printed()}")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)
        if self._get(_FAULT):
            raise Fault(f"a fault at {self._get(_PC):#x}, status {self._get(_FAULT) & 0x7FFF_FFFF:#x}")

    def close(self) -> None:
        """Ends QEMU."""
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._errors.close()
        self._memory.close()
        self._folder.cleanup()

    def _put(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))

    def _get(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def _printed(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f"\nLast output:\n{text[-2000:]}" if text else ""


class _Log:
    """Reads QEMU's log of translated and executed blocks.

    A block is printed when it is translated, with its code, and each time before it runs, always with the same line:

        IN: tfkd_start
        0x60000004:  b570       push     {r4, r5, r6, lr}
        0x60000006:  ed94 7e00  ldc      p14, c7, [r4]

        Trace 0: 0x7fcfa0000840 [00800442/60000004/00000050/ff000200] tfkd_start
    """

    def __init__(self, counter: InstructionCounter, stop: int) -> None:
        self._counter, self._stop = counter, stop
        self._blocks: dict[bytes, tuple[int, int]] = {}  # address and size by line

    def read(self, log: IO[bytes]) -> None:
        """Counts the blocks up to the end of the function that runs.

        Args:
            log: QEMU's standard error, where other lines stand too.
        """
        blocks, end, block = self._blocks, None, (0, 0)
        for line in log:
            if line.startswith(b"Trace "):
                if end is not None or line not in blocks:  # it was just translated
                    address = int(_read(_BLOCK, line)[1], 16)
                    if end is None:
                        raise _unreadable(line)
                    blocks[line] = address, end - address
                    end = None
                block = blocks[line]
                if block[0] == self._stop:
                    return
                self._counter.enter(None, *block, None)
            elif line.startswith(b"Stopped execution"):  # before the block
                self._counter.leave(*block)
            elif line.startswith(b"0x"):
                code = _read(_CODE, line)
                end = int(code[1], 16) + len(code[2].replace(b" ", b"")) // 2


def _read(form: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
    """A line of the log, which must have a form.

    Raises:
        DeviceError: It has another one.
    """
    found = form.match(line)
    if found is None:
        raise _unreadable(line)
    return found


def _unreadable(line: bytes) -> DeviceError:
    return DeviceError(
        f"cortex-m55: the log of {PROGRAM} must show the code of each block before it runs. Received: {line!r}. Use "
        "Debian's or Ubuntu's package of QEMU, 7.2 or later, which has a disassembler."
    )
