"""Cortex-M and RISC-V: the C of a model, compiled and run on an emulated core with a board's flash and RAM."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping
from typing import Self

import numpy as np

from tfkd import micro
from tfkd._internal import isolation
from tfkd._internal.types import InputArrays, JsonObject, JsonRecord
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError, ToolMissingError
from tfkd.micro.sensors import sound as sound_code
from tfkd.micro.sensors.sound import SoundCode
from tfkd.targets import chunks, qemu, target
from tfkd.targets.compiler import compile_firmware, section_sizes
from tfkd.targets.emulator import Firmware
from tfkd.targets.measurement import Evidence, Measurement, Memory
from tfkd.targets.microcontrollers import CORES, boards

_PACKAGES = {"ziglang": "ziglang", "unicorn": "unicorn", "elftools": "pyelftools", "capstone": "capstone"}
_SMALLEST_SHARD = 50
_NOTE = "an emulator has no pipeline, wait states or cache: cycles and milliseconds are estimates"


@dataclasses.dataclass(frozen=True)
class CortexM(target.Target):
    """An emulated core of a microcontroller that runs the C that `tfkd.micro` generates from a model.

    Float inputs and outputs are quantized and dequantized on this machine, as the model's QUANTIZE and DEQUANTIZE ops
    do it. Outputs, instructions, stack and sizes are `emulated`; cycles and milliseconds are an `estimated` range.

    Args:
        core: Key of `CORES`.
        board: Key of `boards()`; `generic` has 2 MiB of flash and 1 MiB of RAM.
        cc: Command of a C compiler, such as `arm-none-eabi-gcc`; empty for the clang of the package ziglang.
        optimize: -O2, -O3, or -Os for the smallest code, as in `tfkd export-c --size`.
        stream: Whether groups of layers are computed row by row in a smaller arena, as in `tfkd export-c --stream`.
        keep_dead: Whether channels that cannot change the outputs stay in the program.
        chunks: Whether sequences are fed in chunks of the length of the model's input, see `tfkd.targets.chunks`.
        timeout_s: Time limit of each child process in seconds, > 0.
        features: Definition of the features of sounds that the model takes, see
            `tfkd.data.sound_features.definition`. The C that computes them is then counted and shown beside the model.
        sounds: Samples, int16 [N, samples], from which that C computes the inputs; None for the inputs that `run` gets.

    Raises:
        InputError: Unknown core or board, or a board with another core.
        ToolMissingError: The packages of `tfkd[mcu]` are not installed; for the Cortex-M55, QEMU is not.
    """

    core: str = "cortex-m4"
    board: str = "generic"
    cc: str = ""
    optimize: str = "-O2"
    stream: bool = False
    keep_dead: bool = False
    chunks: bool = False
    timeout_s: float = 600.0
    features: JsonRecord | None = dataclasses.field(default=None, compare=False)
    sounds: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return (*CORES, *(f"{board.core}:{board.name}" for board in boards().values() if board.core))

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
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
        if self.chunks and self.sounds is not None:
            raise InputError(
                f"{self.core}: sounds must be computed to whole inputs of the model. Received: sounds in chunks of a "
                "sequence. Leave out sounds (--from-sounds) or chunks (--stream)."
            )
        if self.optimize not in ("-O2", "-O3", "-Os"):
            raise InputError(f"{self.core}: optimize must be -O2, -O3 or -Os. Received: {self.optimize!r}.")
        in_qemu = CORES[self.core].emulator == "qemu"
        left_out = {"ziglang": bool(self.cc), "unicorn": in_qemu}
        needed = {module for module in _PACKAGES if not left_out.get(module)}
        missing = sorted(_PACKAGES[module] for module in needed if not target.installed(module))
        if missing:
            raise ToolMissingError(
                f"{self.core}: the packages {', '.join(missing)} are not installed. Run `pip install 'tfkd[mcu]'`."
            )
        if in_qemu:
            qemu.find()

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        place = self.core if self.board == "generic" else f"{self.core}:{self.board}"
        return target.described(place, self, "stream", "keep_dead", "chunks")

    def for_any_weights(self) -> Self:
        """See `tfkd.targets.Target.for_any_weights`: which channels are dead depends on the weights."""
        return dataclasses.replace(self, keep_dead=True)

    def in_chunks(self) -> Self:
        """See `tfkd.targets.Target.in_chunks`."""
        return dataclasses.replace(self, chunks=True)

    def with_features(self, how: JsonRecord, sounds: np.ndarray | None = None) -> Self:
        """See `tfkd.targets.Target.with_features`; a firmware takes samples of 16 bits."""
        if sounds is not None:
            sounds = np.clip(np.rint(sounds.reshape(len(sounds), -1) * 32768.0), -32768, 32767).astype(np.int16)
        return dataclasses.replace(self, features=how, sounds=sounds)

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; with `latency`, instructions are counted on the first sample."""
        model = TFLiteModel.load(model)
        inputs, count = chunks.divide(model, inputs, self.spec) if self.chunks else (inputs, 1)
        arrays = target.check_inputs(model, inputs, self.spec)
        program = micro.emit(model, size=self.optimize == "-Os", stream=self.stream, keep_dead=self.keep_dead)
        sound, refusal = self._sound(program)
        sounds = self._sounds(sound, len(arrays[0]))
        elf = compile_firmware(
            program, self.core, boards()[self.board], cc=self.cc, optimize=self.optimize, sound=sound
        )
        firmware = self._firmware(program, elf, sound)
        limits: JsonObject = {
            "timeout_s": self.timeout_s,
            "what": f"running {model.path or 'the model'} on {self.spec}",
            "prepare": "tfkd.targets.emulator:load",
        }
        counted = None
        try:
            arrays = [one.quantize(array) for one, array in zip(program.inputs, arrays, strict=True)]
            if latency:
                counted = isolation.run(
                    "tfkd.targets.emulator:emulate",
                    firmware=firmware,
                    inputs=[array[:1] for array in arrays],
                    count=True,
                    sounds=None if sounds is None else sounds[:1],
                    **limits,
                )
            parts = target.shards(arrays, least=_SMALLEST_SHARD, together=count)
            heard = [None] * len(parts) if sounds is None else np.array_split(sounds, len(parts))
            calls = [
                {"firmware": firmware, "inputs": part, "count": False, "sounds": one, "chunks": count}
                for part, one in zip(parts, heard, strict=True)
            ]
            results = isolation.run_all("tfkd.targets.emulator:emulate", calls, **limits)
        except ModelError as error:
            raise ModelError(f"{self.spec}: {error}") from None
        except InputError as error:  # samples that cannot be quantized
            raise InputError(f"{self.spec}: {error}") from None
        run = self._measurement(model, program, elf, results, counted, sound, refusal)
        return self._of_sequences(run, model, count) if self.chunks else run

    def _of_sequences(self, run: Measurement, model: TFLiteModel, count: int) -> Measurement:
        """A run over chunks, `count` for each sequence, as one over the sequences."""
        outputs = chunks.join(model, run.outputs, count)
        return dataclasses.replace(run, outputs=outputs, setting={**run.setting, "chunks": count})

    @property
    def runs_in_parts(self) -> bool:
        """See `tfkd.targets.Target.runs_in_parts`; sounds belong to one run."""
        return self.sounds is None

    def _sound(self, program: micro.Program) -> tuple[SoundCode | None, str | None]:
        """The C of the features, or why a firmware cannot compute them, which is an error if the run needs them."""
        if self.features is None:
            return None, None
        try:
            return sound_code.write(program, self.features), None
        except InputError as error:
            if self.sounds is not None:
                raise
            return None, str(error)

    def _sounds(self, sound: SoundCode | None, count: int) -> np.ndarray | None:
        """The sounds of a run, cut to the samples of an input.

        Raises:
            InputError: They are not as many as the samples of the run, or shorter than an input.
        """
        if self.sounds is None:
            return None
        assert sound is not None
        if len(self.sounds) != count or self.sounds.shape[1] < sound.samples:
            raise InputError(
                f"{self.spec}: sounds must be {count} of {sound.samples} samples, as the inputs. Received: shape "
                f"{self.sounds.shape}. Pass the sounds that the features were computed from."
            )
        return self.sounds[:, : sound.samples]

    def _firmware(self, program: micro.Program, elf: bytes, sound: SoundCode | None = None) -> Firmware:
        return Firmware(
            elf=elf,
            core=self.core,
            board=self.board,
            input_offsets=tuple(one.offset for one in program.inputs),
            output_offsets=tuple(one.offset for one in program.outputs),
            output_shapes=tuple(one.tensor.sample_shape for one in program.outputs),
            output_dtypes=tuple(one.tensor.dtype for one in program.outputs),
            sound=sound,
        )

    def _measurement(
        self,
        model: TFLiteModel,
        program: micro.Program,
        elf: bytes,
        results: list[JsonObject],
        counted: JsonObject | None,
        sound: SoundCode | None,
        refusal: str | None,
    ) -> Measurement:
        board, sizes = boards()[self.board], section_sizes(elf)
        stack_bytes = max(part["stack_bytes"] for part in results)
        outputs = tuple(
            one.dequantize(raw) if tensor.dtype == "float32" else raw
            for one, raw, tensor in zip(program.outputs, target.joined(results), model.outputs, strict=True)
        )
        evidence: dict[str, Evidence] = {"outputs": "emulated", "memory": "emulated"}
        environment = {**self._environment(program, sizes), "features_refusal": refusal}
        estimated_ms = None
        if counted:
            low, high = self._cycle_range(counted["classes"])
            evidence |= {"instructions": "emulated"}
            environment |= {name: counted[name] for name in ("classes", "layers", "layer_classes")}
            for part in ("decoder", "features"):
                environment[part] = counted[part] and {**counted[part], "flash_bytes": sizes[part]}
            if sound:
                environment["features"] |= {
                    "kind": sound.how["kind"],
                    "rows": sound.rows,
                    "ram_bytes": sound.ram_bytes + sound.input_bytes,
                }
            environment |= {"estimated_cycles": [low, high], "cycles_source": CORES[self.core].source}
            if board.clock_hz:
                evidence |= {"estimated_ms": "estimated"}
                estimated_ms = (1e3 * low / board.clock_hz, 1e3 * high / board.clock_hz)
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=outputs,
            evidence=evidence,
            instructions=sum(counted["classes"].values()) if counted else None,
            estimated_ms=estimated_ms,
            memory=Memory(
                arena_bytes=program.arena_bytes,
                arena_head_bytes=program.arena_bytes,
                stack_bytes=stack_bytes,
                ram_bytes=program.arena_bytes + stack_bytes,
                flash_bytes=sizes["code"] + sizes["constants"],
            ),
            setting={"core": self.core, "board": self.board, "optimize": self.optimize, "stream": self.stream}
            | ({} if self.sounds is None else {"input": "sounds"}),
            environment=environment,
        )

    def _environment(self, program: micro.Program, sizes: Mapping[str, int]) -> JsonObject:
        plan, in_qemu = program.plan, CORES[self.core].emulator == "qemu"
        return {
            "compiler": self.cc or f"ziglang {importlib.metadata.version('ziglang')}",
            "emulator": qemu.version() if in_qemu else f"unicorn {importlib.metadata.version('unicorn')}",
            "machine": platform.machine(),
            "board": dataclasses.asdict(boards()[self.board]),
            "code_bytes": sizes["code"],
            "constant_bytes": sizes["constants"],
            "removed": str(program.elimination) if program.elimination.layers else None,
            "weight_bytes": program.weight_bytes,
            "state_bytes": program.state_bytes,
            "least_live_bytes": program.least_bytes,
            "steps": program.steps,
            "arena": [
                [buffer.name, offset, buffer.bytes, buffer.first, buffer.last]
                for buffer, offset in zip(plan.buffers, plan.offsets, strict=True)
            ],
            "note": _NOTE,
        }

    def _cycle_range(self, classes: Mapping[str, int]) -> tuple[int, int]:
        """Fewest and most cycles of the counted instructions."""
        cycles = CORES[self.core].cycles
        low, high = (sum(count * cycles[name][i] for name, count in classes.items()) for i in (0, 1))
        return round(low), round(high)
