"""Cortex-M: a model's C, compiled and run on an emulated core with a board's flash and RAM."""

from __future__ import annotations

import bisect
import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tfkd import micro
from tfkd._internal import isolation
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ToolMissingError
from tfkd.targets import target
from tfkd.targets.measurement import Evidence, Measurement, Memory
from tfkd.targets.microcontrollers import CORES, Board, boards

_PACKAGES = {"ziglang": "ziglang", "unicorn": "unicorn", "elftools": "pyelftools", "capstone": "capstone"}
_FLASH, _RAM, _PAGE = 0x0800_0000, 0x2000_0000, 0x1000
_PAINT = 0xA5
_COMPILE_S = 120.0
_SMALLEST_SHARD = 50
# No model here takes so many; one that does not end is stopped.
_MOST_INSTRUCTIONS = 20_000_000_000
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


@dataclasses.dataclass(frozen=True)
class CortexM(target.Target):
    """An emulated Cortex-M that runs the C that `tfkd.micro` makes of a model.

    A float model's ends are quantized here, as its own ops do it and a firmware with the helpers of the C header would.
    Outputs, instructions, stack and sizes are `emulated`; cycles and milliseconds are an `estimated` range.

    Args:
        core: a key of `CORES`.
        board: a key of `boards()`; `generic` has 2 MiB of flash and 1 MiB of RAM.
        cc: a compiler such as `arm-none-eabi-gcc`; where empty the package ziglang's clang.
        optimize: -O2, -O3, or -Os for the smallest code, as of `tfkd export-c --size`.
        stream: layers run by rows in turn for a smaller arena, as of `tfkd export-c --stream`.
        timeout_s: seconds for each child process.

    Raises:
        ValueError: no such core or board, or a board with another core.
        RuntimeError: the packages of `tfkd[mcu]` are not installed.
    """

    core: str = "cortex-m4"
    board: str = "generic"
    cc: str = ""
    optimize: str = "-O2"
    stream: bool = False
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return (*CORES, *(f"{board.core}:{board.name}" for board in boards().values() if board.core))

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, Any]:
        """See `tfkd.targets.Target.parse`."""
        return {"core": name, **({"board": detail} if detail else {})}

    def __post_init__(self) -> None:
        target.check_timeout(self.core, self.timeout_s)
        if self.core not in CORES:
            raise InputError(f"targets: core must be one of {', '.join(CORES)}. Received: {self.core!r}.")
        if self.board not in boards():
            raise InputError(f"{self.core}: board must be one of {', '.join(boards())}. Received: {self.board!r}.")
        core = boards()[self.board].core
        if core not in (None, self.core):
            raise InputError(f"{self.core}: {self.board} has a {core}. Received: {self.spec}. Use {core}:{self.board}.")
        if self.optimize not in ("-O2", "-O3", "-Os"):
            raise InputError(f"{self.core}: optimize must be -O2, -O3 or -Os. Received: {self.optimize!r}.")
        wanted = {module for module in _PACKAGES if not (module == "ziglang" and self.cc)}
        missing = sorted(_PACKAGES[module] for module in wanted if importlib.util.find_spec(module) is None)
        if missing:
            raise ToolMissingError(
                f"{self.core}: needs a compiler and an emulator. Received: {', '.join(missing)} not installed. "
                "Run `pip install 'tfkd[mcu]'`."
            )

    @property
    def spec(self) -> str:
        place = self.core if self.board == "generic" else f"{self.core}:{self.board}"
        return target.described(place, self, "stream")

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; with `latency`, instructions are counted on the first sample."""
        model = TFLiteModel.load(model)
        arrays = target.check_inputs(model, inputs, self.spec)
        program = micro.emit(model, size=self.optimize == "-Os", stream=self.stream)
        dtype = program.inputs[0].tensor.dtype
        elf = self._compile(program, dtype)
        try:
            arrays = [end.quantize(array) for end, array in zip(program.inputs, arrays, strict=True)]
        except ValueError as error:
            raise InputError(f"{self.spec}: {error}") from None
        what = f"running {model.path or 'the model'} on {self.spec}"
        places = [[end.place for end in ends] for ends in (program.inputs, program.outputs)]
        common = {
            "elf": elf,
            "core": self.core,
            "board": self.board,
            "outputs": [t.shape for t in model.outputs],
            "dtype": dtype,
            "places": places,
        }
        parts = target.shards(arrays, least=_SMALLEST_SHARD)
        calls = [{**common, "inputs": part, "count": False} for part in parts]
        counted = None
        try:
            if latency:
                first = [array[:1] for array in arrays]
                counted = isolation.run(
                    "tfkd.targets.cortex_m:_emulate",
                    **common,
                    inputs=first,
                    count=True,
                    timeout_s=self.timeout_s,
                    what=what,
                )
            done = isolation.run_all("tfkd.targets.cortex_m:_emulate", calls, timeout_s=self.timeout_s, what=what)
        except isolation.ChildRefused as error:
            raise InputError(f"{self.spec}: {error}") from None
        return self._measurement(model, program, elf, done, counted)

    def _measurement(
        self,
        model: TFLiteModel,
        program: micro.Program,
        elf: bytes,
        done: list[dict[str, Any]],
        counted: dict[str, Any] | None,
    ) -> Measurement:
        board, sizes = boards()[self.board], _sizes(elf)
        stack = max(part["stack_bytes"] for part in done)
        outputs = tuple(
            end.dequantize(steps) if described.dtype == "float32" else steps
            for end, steps, described in zip(program.outputs, target.joined(done), model.outputs, strict=True)
        )
        evidence: dict[str, Evidence] = {"outputs": "emulated", "memory": "emulated"}
        environment: dict[str, Any] = {
            "compiler": self.cc or f"ziglang {importlib.metadata.version('ziglang')}",
            "emulator": f"unicorn {importlib.metadata.version('unicorn')}", "machine": platform.machine(),
            "board": dataclasses.asdict(board), "code_bytes": sizes["code"], "constant_bytes": sizes["constants"],
            "removed": str(program.elimination) if program.elimination.layers else None,
            "weight_bytes": program.weight_bytes, "state_bytes": program.state_bytes,
            "least_live_bytes": program.least_bytes, "steps": program.steps,
            "arena": [[buffer.name, offset, buffer.bytes, buffer.first, buffer.last]
                      for buffer, offset in zip(program.plan.buffers, program.plan.offsets, strict=True)],
            "note": "an emulator has no pipeline, wait states or cache: cycles and milliseconds are estimates",
        }  # fmt: skip
        if counted:
            evidence |= {"instructions": "emulated", "estimated_ms": "estimated"}
            low, high = self._cycle_range(counted["classes"])
            environment |= {name: counted[name] for name in ("classes", "layers", "layer_classes")}
            environment |= {"estimated_cycles": [low, high], "cycles_source": CORES[self.core].source}
        ranged = None
        if counted and board.clock_hz:
            ranged = (1e3 * low / board.clock_hz, 1e3 * high / board.clock_hz)
        elif counted:
            del evidence["estimated_ms"]
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=outputs,
            evidence=evidence,
            instructions=sum(counted["classes"].values()) if counted else None,
            estimated_ms=ranged,
            memory=Memory(
                arena_bytes=program.arena_bytes,
                arena_head_bytes=program.arena_bytes,
                stack_bytes=stack,
                ram_bytes=program.arena_bytes + stack,
                flash_bytes=sizes["code"] + sizes["constants"],
            ),
            setting={"core": self.core, "board": self.board, "optimize": self.optimize, "stream": self.stream},
            environment=environment,
        )

    def _cycle_range(self, classes: Mapping[str, int]) -> tuple[int, int]:
        cycles = CORES[self.core].cycles
        return (
            round(sum(count * cycles[kind][0] for kind, count in classes.items())),
            round(sum(count * cycles[kind][1] for kind, count in classes.items())),
        )

    def _compile(self, program: micro.Program, dtype: str) -> bytes:
        """The firmware as an ELF file."""
        board, core = boards()[self.board], CORES[self.core]
        defines = {
            "HEADER": f'"{program.name}.h"', "CTX": f"tfkd_{program.name}_ctx", "RUN": f"tfkd_{program.name}_run",
            "VALUE": f"{dtype}_t", "STATEFUL": int(program.state_bytes > 0), "RESET": f"tfkd_{program.name}_reset",
            "SINGLE": int(len(program.inputs) == len(program.outputs) == 1),
            "IN_AT": ", ".join(str(end.place) for end in program.inputs),
            "OUT_AT": ", ".join(str(end.place) for end in program.outputs),
        }  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="tfkd-") as name:
            folder = Path(name)
            for file, text in program.files.items():
                (folder / file).write_text(text)
            start = resources.files("tfkd.targets").joinpath("cortex_m.c").read_text()
            prelude = "".join(f"#define TFKD_{key} {value}\n" for key, value in defines.items())
            (folder / "start.c").write_text(prelude + start)
            (folder / "link.ld").write_text(
                _LINKER.format(flash=_FLASH, flash_bytes=board.flash_bytes, ram=_RAM, ram_bytes=board.ram_bytes)
            )
            if self.cc:
                command = [*shlex.split(self.cc), f"-mcpu={core.mcpu}", "-mthumb", "-mfloat-abi=soft"]
            else:
                # Zig leaves the DSP extension of the M33 out; the boards here have it.
                cpu = core.mcpu.replace("-", "_") + ("+dsp" if self.core == "cortex-m33" else "")
                command = [
                    sys.executable,
                    "-m",
                    "ziglang",
                    "cc",
                    "-target",
                    "thumb-freestanding-eabi",
                    f"-mcpu={cpu}",
                    "-fno-sanitize=undefined",
                    "-Wl,--no-gc-sections",
                ]
            sources = [str(folder / file) for file in (*program.files, "start.c") if file.endswith(".c")]
            command += [
                *_FLAGS,
                self.optimize,
                f"-I{folder}",
                f"-Wl,-T,{folder / 'link.ld'}",
                "-Wl,-e,tfkd_start",
                *sources,
                "-o",
                str(folder / "firmware.elf"),
            ]
            self._run_compiler(command, board)
            return (folder / "firmware.elf").read_bytes()

    def _run_compiler(self, command: list[str], board: Board) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S)
        except FileNotFoundError:
            raise ToolMissingError(
                f"{self.core}: the compiler must be installed. Received: {command[0]!r} not found. "
                "Leave out --cc to use the one of `pip install 'tfkd[mcu]'`."
            ) from None
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self.core}: the compiler must finish within {_COMPILE_S:g} s. Received: none."
            ) from None
        if done.returncode == 0:
            return
        if "overflowed" in done.stderr or "will not fit" in done.stderr:
            said = next(line for line in done.stderr.splitlines() if "overflowed" in line or "will not fit" in line)
            raise InputError(
                f"{self.spec}: the model must fit {board.flash_bytes:,} bytes of flash and {board.ram_bytes:,} of RAM. "
                f"Received: {said.split('error: ')[-1]}. Use a smaller student or a larger board."
            )
        raise DeviceError(f"{self.core}: the compiler failed ({done.returncode}):\n{done.stderr[-3000:]}")


_LINKER = """ENTRY(tfkd_start)
MEMORY {{
  FLASH (rx) : ORIGIN = {flash:#x}, LENGTH = {flash_bytes}
  RAM (rwx) : ORIGIN = {ram:#x}, LENGTH = {ram_bytes}
}}
SECTIONS {{
  .text : {{ KEEP(*(.text*)) }} > FLASH
  .rodata : {{ *(.rodata*) }} > FLASH
  .data : {{ *(.data*) }} > RAM AT > FLASH
  .bss (NOLOAD) : {{ *(.bss*) *(COMMON) }} > RAM
  tfkd_end = .;
  /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) *(.ARM.attributes) *(.comment*) *(.note*) }}
}}
"""


def _sizes(elf: bytes) -> dict[str, int]:
    """Bytes of code and of constants in flash."""
    import io

    from elftools.elf.elffile import ELFFile

    sections = {s.name: s["sh_size"] for s in ELFFile(io.BytesIO(elf)).iter_sections()}
    return {"code": sections.get(".text", 0), "constants": sections.get(".rodata", 0) + sections.get(".data", 0)}


def _emulate(
    elf: bytes,
    core: str,
    board: str,
    inputs: list[np.ndarray],
    outputs: list[tuple[int, ...]],
    dtype: str,
    places: tuple[tuple[int, ...], tuple[int, ...]],
    count: bool,
) -> dict[str, Any]:
    """Runs a firmware over samples; in the child, since an emulator is native code that runs what a user brought."""
    import io

    import unicorn
    from elftools.elf.elffile import ELFFile
    from unicorn import arm_const

    file, limits = ELFFile(io.BytesIO(elf)), boards()[board]
    symbols = {s.name: s for s in file.get_section_by_name(".symtab").iter_symbols() if s.name}
    at = {
        name: symbols[name]["st_value"] & ~1
        for name in ("tfkd_context", "tfkd_start", "tfkd_stop", "tfkd_status", "tfkd_end")
    }
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    machine.ctl_set_cpu_model(getattr(arm_const, f"UC_CPU_ARM_{CORES[core].emulated}"))
    flash, ram = (-(-size // _PAGE) * _PAGE for size in (limits.flash_bytes, limits.ram_bytes))
    machine.mem_map(_FLASH, flash, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    machine.mem_map(_RAM, ram, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
    top = _RAM + limits.ram_bytes // 8 * 8
    machine.mem_write(at["tfkd_end"], bytes([_PAINT]) * (top - at["tfkd_end"]))
    for segment in file.iter_segments():
        if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]:
            machine.mem_write(segment["p_vaddr"], segment.data())
    counter = _Counter(file) if count else None
    if counter:  # before the first run: later the translated blocks are without the hook
        machine.hook_add(unicorn.UC_HOOK_BLOCK, counter.enter)
    rows: list[list[np.ndarray]] = [[] for _ in outputs]
    for sample in zip(*inputs, strict=True):
        for part, place in zip(sample, places[0], strict=True):
            machine.mem_write(at["tfkd_context"] + place, part.tobytes())
        machine.mem_write(at["tfkd_status"], b"\xff\xff\xff\xff")
        machine.reg_write(arm_const.UC_ARM_REG_SP, top)
        try:
            machine.emu_start(at["tfkd_start"] | 1, at["tfkd_stop"], count=_MOST_INSTRUCTIONS if count else 0)
        except unicorn.UcError as error:
            pc = machine.reg_read(arm_const.UC_ARM_REG_PC)
            raise InputError(
                f"the model must run in {limits.flash_bytes:,} bytes of flash and {limits.ram_bytes:,} of RAM. "
                f"Received: {error} at {pc:#x}. Use a smaller student or a larger board."
            ) from None
        if machine.mem_read(at["tfkd_status"], 4) != b"\0\0\0\0":
            raise InputError("the model did not finish")
        for row, shape, place in zip(rows, outputs, places[1], strict=True):
            read = machine.mem_read(at["tfkd_context"] + place, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            row.append(np.frombuffer(bytes(read), dtype).reshape(shape))
    free = bytes(machine.mem_read(at["tfkd_end"], top - at["tfkd_end"]))
    unused = len(free) - len(free.lstrip(bytes([_PAINT])))
    if unused < 8:
        raise InputError(
            f"the stack must fit {len(free):,} bytes beside the model's RAM. Received: an overflow. Use a larger board."
        )
    result = {"outputs": [np.concatenate(row) for row in rows], "stack_bytes": len(free) - unused}
    return result | (counter.counts() if counter else {})


class _Counter:
    """Executed instructions by class and by layer, from basic blocks."""

    def __init__(self, file: Any) -> None:
        text = file.get_section_by_name(".text")
        self.base, self.code = text["sh_addr"], text.data()
        functions = sorted(
            (s["st_value"] & ~1, s.name)
            for s in file.get_section_by_name(".symtab").iter_symbols()
            if s["st_info"]["type"] == "STT_FUNC"
        )
        self.starts, self.names = [f[0] for f in functions], [f[1] for f in functions]
        self.layers = {address: name for address, name in functions if "_layer_" in name}
        self.current, self.blocks = "", {}  # type: str, dict[tuple[str, int, int], int]

    def enter(self, machine: Any, address: int, size: int, _: Any) -> None:
        self.current = self.layers.get(address, self.current)
        key = (self.current, address, size)
        self.blocks[key] = self.blocks.get(key, 0) + 1

    def counts(self) -> dict[str, Any]:
        import capstone

        reader = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
        layers: dict[str, dict[str, int]] = {}
        for (layer, address, size), times in self.blocks.items():
            function = self.names[max(0, bisect.bisect_right(self.starts, address) - 1)]
            outside = not layer or function.endswith(("_run", "_start", "_stop")) or "_chain_" in function
            classes = layers.setdefault("around" if outside else layer, dict.fromkeys(_CLASSES, 0))
            code = self.code[address - self.base : address - self.base + size]
            for _, length, mnemonic, _operands in reader.disasm_lite(code, address):
                classes[_class(mnemonic)] += times
                size -= length
            if size:
                raise InputError(f"{size} bytes of code at {address:#x} could not be read")
        return {
            "classes": {kind: sum(counts[kind] for counts in layers.values()) for kind in _CLASSES},
            "layers": {name: sum(counts.values()) for name, counts in layers.items()},
            "layer_classes": layers,
        }


_CLASSES = ("load", "store", "multiply", "branch", "other")


def _class(mnemonic: str) -> str:
    if mnemonic.startswith(("ldr", "ldm", "pop")):
        return "load"
    if mnemonic.startswith(("str", "stm", "push")):
        return "store"
    if mnemonic.startswith(("mul", "mla", "mls", "smul", "smla", "smm", "umul", "umla", "smus")):
        return "multiply"
    if mnemonic.startswith(("b", "cb", "tb")) and not mnemonic.startswith(("bic", "bfc", "bfi")):
        return "branch"
    return "other"
