"""The C of a model on emulated cores: real compiler, real emulator, TensorFlow Lite Micro as the oracle."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import system_packages
from ai_edge_litert import schema_py_generated as schema
from elftools.elf.elffile import ELFFile

import tfkd
from tests import random_graph
from tests.micro.trained_nets import Builder
from tests.random_graph import Net, net
from tfkd import micro, targets
from tfkd._internal import isolation
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro.graph import read
from tfkd.micro.lowering import lower
from tfkd.micro.lowering.layer import SIGNED
from tfkd.targets import compiler, cortex_m, emulator
from tfkd.targets.microcontrollers import CORES, boards

pytestmark = pytest.mark.slow

MISSING_GCC = system_packages.skip_reason("arm-none-eabi-gcc")
needs_gcc = pytest.mark.skipif(MISSING_GCC is not None, reason=str(MISSING_GCC))
MISSING_QEMU = system_packages.skip_reason("qemu-system-arm")
needs_qemu = pytest.mark.skipif(MISSING_QEMU is not None, reason=str(MISSING_QEMU))
# Their kernels are those of Cortex-M4, or the portable C of Cortex-M0+.
_LIKE_M4 = ("cortex-m3", "cortex-m7", "cortex-m33")
ALL_CORES = [pytest.param(name, marks=needs_qemu if core.emulator == "qemu" else ()) for name, core in CORES.items()]


def samples(model: TFLiteModel, count: int = 3) -> np.ndarray:
    return random_graph.samples(model.content, count)


def dense(depth: int, channels: int) -> TFLiteModel:
    """A model of one matrix product."""
    made = Net(random.Random(0))
    x = made.input((1, depth))
    weights, scales = made.weights((channels, depth), channels, 0, per_channel=False)
    out = made.tensor((1, channels))
    made.op("FULLY_CONNECTED", [x, weights, made.bias(x, scales, channels)], [out])
    return TFLiteModel.load(made.bytes(out))


@pytest.fixture(scope="module")
def digits(digits_int8: TFLiteModel) -> TFLiteModel:
    return digits_int8


@pytest.mark.parametrize("core", ALL_CORES)
def test_core_equals_tflite_micro_bit_for_bit(core: str, digits: TFLiteModel) -> None:
    x = samples(digits)
    run = targets.get(core).run(digits, x)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(digits, x).outputs[0])
    assert run.instructions == sum(run.environment["classes"].values()) > digits.macs / 2
    assert run.instructions == sum(run.environment["layers"].values())
    by_layer = run.environment["layer_classes"]
    assert {name: sum(classes.values()) for name, classes in by_layer.items()} == run.environment["layers"]
    products = "vector" if core == "cortex-m55" else "multiply"
    assert max(classes[products] / sum(classes.values()) for classes in by_layer.values()) > 0.05
    assert run.memory.stack_bytes > 0
    assert run.memory.flash_bytes > digits.parameter_bytes / 2
    assert run.memory.ram_bytes == run.memory.arena_bytes + run.memory.stack_bytes
    assert set(run.evidence.values()) == {"emulated"}
    assert run.latencies_ns is None
    assert run.estimated_ms is None  # no board, no clock


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.campaign)])
@pytest.mark.parametrize(
    "core",
    [
        pytest.param(*one.values, marks=[*one.marks, *([pytest.mark.campaign] if one.values[0] in _LIKE_M4 else [])])
        for one in ALL_CORES
    ],
)
def test_core_equals_tflite_micro_bit_for_bit_on_random_graphs(core: str, count: int) -> None:
    for seed in range(count):
        model = TFLiteModel.load(net(10_000 + 100 * list(CORES).index(core) + seed))
        try:
            expected = targets.get("tflm").run(model, samples(model)).outputs[0]
        except ValueError:
            continue
        run = targets.get(core).run(model, samples(model), latency=False)
        assert np.array_equal(run.outputs[0], expected), seed
        assert run.instructions is None


def test_each_form_of_addition_and_dense_layer_gives_the_bits_of_tflite_micro() -> None:
    """Sums with one factor of 1/2 or two, clamped at the zero point or not, and blocks of eight dense outputs."""
    made = Builder(random.Random(26))
    x = made.input((1, 5, 3, 4))
    step = made.steps(x)[0]

    def add(a: int, b: int, factor: float, zero: int) -> int:
        out = made.tensor(made.shape(a), scales=[factor * step], zero_points=[zero])
        return made.op("ADD", [a, b], [out], schema.AddOptionsT())

    other = made.tensor(made.shape(x), scales=[0.6 * step], zero_points=[3])
    other = made.op("QUANTIZE", [x], [other], schema.QuantizeOptionsT())
    sums = add(add(x, other, 1.7, -128), add(other, x, 0.9, 5), 1.1, 5)
    sums = add(add(sums, sums, 2.1, -7), add(sums, sums, 1.9, -128), 2.0, -20)
    flat = made.op("RESHAPE", [sums, made.ints((1, 60))], [made.same(sums, (1, 60))], schema.ReshapeOptionsT())
    for _ in range(3):
        flat = made.product(flat, "FULLY_CONNECTED", channels=20)
    model = TFLiteModel.load(made.bytes(flat))
    layers = lower(read(model))[0]
    assert {x.flags for x in layers if x.kernel == "addition"} == {1, 2, 3, 5, 7}
    assert {x.flags & SIGNED for x in layers if x.kernel == "fully_connected"} == {0, SIGNED}
    expected = targets.get("tflm").run(model, samples(model), latency=False).outputs[0]
    assert len(np.unique(expected)) > 20
    for level in ("-O2", "-Os"):
        run = targets.get("cortex-m4", optimize=level).run(model, samples(model), latency=False)
        assert np.array_equal(run.outputs[0], expected), level


@pytest.mark.parametrize("zero_point", [-9, -128])
def test_convolutions_at_edges_give_the_bits_of_tflite_micro(zero_point: int) -> None:
    """Kernels as large as the image, strides above the kernel, and rows that do not fill the steps of three fields."""
    made = Net(random.Random(4), kernel=5)
    x = made.input((1, 23, 17, 1))
    for channels in (8, 3, 8, 5, 12):
        _, h, w, depth = made.shape(x)
        weights, scales = made.weights((channels, min(5, h), min(4, w), depth), channels, 0, per_channel=True)
        window = {"padding": 0, "strideH": 1, "strideW": 1 + channels % 2, "dilationHFactor": 1, "dilationWFactor": 1}
        shape = (1, h, -(-w // window["strideW"]), channels)
        out = made.tensor(shape, scales=[made.steps(x)[0]], zero_points=[zero_point])
        options = schema.Conv2DOptionsT(**window)
        x = made.op("CONV_2D", [x, weights, made.bias(x, scales, channels)], [out], options)
    model = TFLiteModel.load(made.bytes(x))
    expected = targets.get("tflm").run(model, samples(model), latency=False).outputs[0]
    assert len(np.unique(expected)) > 100
    run = targets.get("cortex-m4").run(model, samples(model), latency=False)
    assert np.array_equal(run.outputs[0], expected)


@pytest.mark.parametrize("zero_point", [-9, -128])
def test_depthwise_convolutions_of_high_and_odd_images_give_the_bits_of_tflite_micro(zero_point: int) -> None:
    """Images that are computed by columns, single last rows and columns, and strides of two."""
    made = Net(random.Random(6))
    x = made.input((1, 25, 5, 21))
    for stride, padding in ((1, 0), (1, 1), (2, 0), (1, 0)):
        _, h, w, depth = made.shape(x)
        shape = (1, made.window(h, 3, stride, 1, padding), made.window(w, 3, stride, 1, padding), depth)
        weights, scales = made.weights((1, 3, 3, depth), depth, 3, per_channel=True)
        window = {"padding": padding, "strideH": stride, "strideW": stride, "dilationHFactor": 1, "dilationWFactor": 1}
        out = made.tensor(shape, scales=[made.steps(x)[0]], zero_points=[zero_point])
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **window)
        x = made.op("DEPTHWISE_CONV_2D", [x, weights, made.bias(x, scales, depth)], [out], options)
    model = TFLiteModel.load(made.bytes(x))
    layers = lower(read(model))[0]
    high = [layer for layer in layers if layer.number("out_height") > 2 * layer.number("out_width")]
    # two pairs of columns fit the scratch buffer
    assert sum(32 * (layer.number("plane_height") + 1) <= layer.scratch_bytes for layer in high) == 2
    expected = targets.get("tflm").run(model, samples(model), latency=False).outputs[0]
    assert len(np.unique(expected)) > 50
    run = targets.get("cortex-m4").run(model, samples(model), latency=False)
    assert np.array_equal(run.outputs[0], expected)


def misaligned(core: str, contents: list[bytes]) -> tuple[list[str], int]:  # runs in a child
    """What faults on a core as its address is no multiple of the access, and how many accesses there were.

    The emulator lets them pass. On Cortex-M0+ and many RISC-V cores all fault, on the others those that access several
    words.
    """
    import capstone
    import unicorn

    reader = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    make, seen = unicorn.Uc, 0
    found = []

    def watch(machine: Any, _: int, address: int, size: int, *__: Any) -> None:
        nonlocal seen
        seen += 1
        if address % min(size, 4) and core == "riscv32":
            found.append(f"{size} bytes at {address:#x}")
        elif address % min(size, 4):
            at = machine.reg_read(unicorn.arm_const.UC_ARM_REG_PC)
            *_, mnemonic, operands = next(reader.disasm_lite(bytes(machine.mem_read(at, 4)), at))
            if core == "cortex-m0plus" or mnemonic.startswith(("ldm", "stm", "ldrd", "strd", "push", "pop")):
                found.append(f"{mnemonic} {operands} for {address:#x}")

    def watched(*arguments: Any) -> Any:
        machine = make(*arguments)
        start = machine.emu_start

        def first(*places: Any, **options: Any) -> None:  # a hook before the model of the core is set forbids that
            machine.emu_start = start
            machine.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, watch)
            start(*places, **options)

        machine.emu_start = first
        return machine

    unicorn.Uc = watched
    target = cortex_m.CortexM(core)
    for content in contents:
        model, program = TFLiteModel.load(content), micro.emit(content)
        elf = compiler.compile_firmware(program, core, boards()[target.board])
        emulator.emulate(target._firmware(program, elf), [samples(model, 1)], count=False)
    return found, seen


@pytest.mark.parametrize(
    "core", ["cortex-m0plus", *(pytest.param(one, marks=pytest.mark.campaign) for one in ("cortex-m4", "riscv32"))]
)
def test_core_accesses_whole_words_at_their_places(core: str, digits: TFLiteModel) -> None:
    contents = [digits.content]
    for seed in range(4):
        made = Net(random.Random(seed))
        x = made.input((1, 9, 7, 4 + seed))
        for _ in range(3):
            x = made.convolution(x)
        contents.append(made.bytes(x))
    work = {"core": core, "contents": contents, "timeout_s": 300, "what": "watching"}
    found, seen = isolation.run("tests.targets.test_cortex_m:misaligned", **work)
    assert found == []
    assert seen > 10_000


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m33"])
def test_transposed_convolution_and_matrix_product_of_16_bits_give_the_bits_of_tflite_micro(core: str) -> None:
    made = Net(random.Random(9), "int16")
    model = TFLiteModel.load(made.bytes(made.batch_matmul(made.transpose_convolution(made.input((1, 4, 5, 3))))))
    assert model.ops == {"BATCH_MATMUL": 1, "TRANSPOSE_CONV": 1}
    expected = targets.get("tflm").run(model, samples(model), latency=False).outputs[0]
    assert len(np.unique(expected)) > 50
    assert np.array_equal(targets.get(core).run(model, samples(model), latency=False).outputs[0], expected)


def test_generated_c_needs_no_library_but_memcpy_and_memset(tmp_path: Path) -> None:
    """On the core with the fewest instructions: clang makes calls of what it has not, a division above all."""
    names = []
    for seed in range(20_000, 20_050):
        with contextlib.suppress(ValueError):
            program = micro.emit(net(seed), name=f"n{seed}")
            names.append(program.name)
            for name, text in program.files.items():
                (tmp_path / name).write_text(text)
    assert sum("AVERAGE_POOL_2D" in (tmp_path / f"{name}.c").read_text() for name in names) >= 5
    (tmp_path / "all.c").write_text("".join(f'#include "{name}.c"\n' for name in names))
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "thumb-freestanding-eabi",
        "-mcpu=cortex_m0plus",
        "-std=c99",
        "-ffreestanding",
        "-fno-sanitize=undefined",
        "-fno-unwind-tables",
        "-O2",
        "-c",
        str(tmp_path / "all.c"),
        "-o",
        str(tmp_path / "all.o"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "all.o").open("rb") as file:
        symbols = list(ELFFile(file).get_section_by_name(".symtab").iter_symbols())
    missing = {one.name for one in symbols if one["st_shndx"] == "SHN_UNDEF"}
    assert not [name for name in missing if name and not re.search(r"memcpy|memset|memclr|_unwind_", name)]


@pytest.mark.campaign
def test_counts_are_the_same_each_time_and_grow_with_the_work() -> None:
    small, large = dense(64, 16), dense(128, 16)
    counted = [targets.get("cortex-m4").run(model, samples(model)).instructions for model in (small, small, large)]
    assert counted[0] == counted[1]
    assert 1.5 * counted[0] < counted[2] < 2.2 * counted[0]


@needs_qemu
def test_qemu_counts_each_instruction_that_unicorn_counts(digits: TFLiteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code of a Cortex-M33, which both emulators know, at other addresses."""
    target, program = cortex_m.CortexM("cortex-m33"), micro.emit(digits)
    helium = CORES["cortex-m55"]
    found = []
    for change in ({}, {name: getattr(helium, name) for name in ("emulator", "emulated", "flash", "ram")}):
        monkeypatch.setitem(CORES, "cortex-m33", dataclasses.replace(CORES["cortex-m33"], **change))
        elf = compiler.compile_firmware(program, "cortex-m33", boards()["generic"])
        found.append(emulator.emulate(target._firmware(program, elf), [samples(digits, 2)], count=True))
    outputs = [run.pop("outputs")[0] for run in found]
    assert np.array_equal(*outputs)
    assert sum(found[0]["classes"].values()) > digits.macs / 2
    assert found[0] == found[1]


def every_form_of_vectors() -> TFLiteModel:
    """Whole and partial vectors of channels and values, runs of values that are no fours, groups, 3x3 and 5x5 taps."""
    made = Net(random.Random(12))
    plain = {"padding": 0, "dilationHFactor": 1, "dilationWFactor": 1}

    def products(kind: str, x: int, weights: tuple[int, ...], axis: int, shape: tuple[int, ...], options: Any) -> int:
        values, scales = made.weights(weights, weights[axis], axis, per_channel=True)
        spread = 50 * np.sqrt(np.prod(weights) / weights[axis]) * made.steps(x)[0] * np.mean(scales)
        out = made.tensor(shape, scales=[float(np.float32(spread))], zero_points=[made.random.randint(-40, 40)])
        return made.op(kind, [x, values, made.bias(x, scales, weights[axis])], [out], options)

    def convolved(x: int, channels: int, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> int:
        _, h, w, depth = made.shape(x)
        options = schema.Conv2DOptionsT(strideH=stride, strideW=stride, **plain)
        shape = (1, -(-h // stride), -(-w // stride), channels)
        return products("CONV_2D", x, (channels, *kernel, depth // groups), 0, shape, options)

    def by_channel(x: int, kernel: int, stride: int = 1) -> int:
        _, h, w, depth = made.shape(x)
        options = schema.DepthwiseConv2DOptionsT(strideH=stride, strideW=stride, depthMultiplier=1, **plain)
        shape = (1, -(-h // stride), -(-w // stride), depth)
        return products("DEPTHWISE_CONV_2D", x, (1, kernel, kernel, depth), 3, shape, options)

    x = by_channel(convolved(made.input((1, 13, 11, 3)), 37, (3, 3)), 3)
    other = convolved(x, 20, (1, 1), stride=2)
    x = convolved(by_channel(x, 5, stride=2), 20, (1, 1))
    scale = made.steps(x)[0] + made.steps(other)[0]
    out = made.tensor(made.shape(x), scales=[float(np.float32(scale))], zero_points=[-7])
    x = made.op("ADD", [x, other], [out], schema.AddOptionsT())
    x = convolved(x, 22, (2, 3), groups=2)
    for kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        _, h, w, depth = made.shape(x)
        options = schema.Pool2DOptionsT(padding=1, strideH=1, strideW=1, filterHeight=2, filterWidth=2)
        x = made.op(kind, [x], [made.same(x, (1, h - 1, w - 1, depth))], options)
    size = int(np.prod(made.shape(x)))
    x = made.op("RESHAPE", [x, made.ints((1, size))], [made.same(x, (1, size))], schema.ReshapeOptionsT())
    return TFLiteModel.load(made.bytes(products("FULLY_CONNECTED", x, (29, size), 0, (1, 29), None)))


@needs_qemu
@pytest.mark.parametrize(
    "cc", ["", pytest.param("arm-none-eabi-gcc", marks=[needs_gcc, pytest.mark.campaign])], ids=["zig", "gcc"]
)
def test_each_form_of_vectors_gives_the_bits_of_tflite_micro(cc: str) -> None:
    model = every_form_of_vectors()
    expected = targets.get("tflm").run(model, samples(model, 4), latency=False).outputs[0]
    assert len(np.unique(expected)) > 50
    for settings in ({}, {"optimize": "-Os", "stream": True}):
        run = targets.get("cortex-m55", cc=cc, **settings).run(model, samples(model, 4), latency=False)
        assert np.array_equal(run.outputs[0], expected), settings


_COMPARISON = """
    uint32_t state = 1;
    int32_t wrong = 0, seen = 0;
    for (int32_t i = 0; i < 5000; i++) {
        int32_t x[4], multiplier[4], shift[4], found[4];
        for (int32_t j = 0; j < 4; j++) {
            for (int32_t k = 0; k < 3; k++) {
                state ^= state << 13, state ^= state >> 17, state ^= state << 5;
                if (k == 0) x[j] = (int32_t)state >> (i % 24);
                else if (k == 1) multiplier[j] = (int32_t)(0x40000000u | (state >> 2));
                else shift[j] = (int32_t)(state % 32) - 31;
            }
            if (i % 8 == 0) x[j] = (int32_t)((uint32_t)x[j] & 0xffff0000u); /* halves to round */
            if (i % 8 == 0) multiplier[j] = 0x40000000;
        }
        for (int any = 0; any < 2; any++) {
            const int32x4_t s = vldrwq_s32(shift);
            vstrwq_s32(found, tfkd_multiply_4(vldrwq_s32(x), vldrwq_s32(multiplier), any ? vaddq_n_s32(s, 8) : s,
                                              any ? TFKD_ANY_SHIFT : TFKD_SIGNED));
            for (int32_t j = 0; j < 4; j++, seen++)
                wrong += found[j] != tfkd_multiply(x[j], multiplier[j], any ? shift[j] + 8 : shift[j]);
        }
    }
    *out = (int8_t)(seen == 40000 ? wrong > 0 : 2);
    return 0;
"""


@needs_qemu
def test_requantization_of_vectors_gives_the_bits_of_the_portable_one() -> None:
    model = dense(4, 4)
    program = micro.emit(model)
    start = "    int8_t *arena = (int8_t *)(void *)ctx->arena;\n"
    (source,) = (text for name, text in program.files.items() if name.endswith(".c"))
    assert source.count(start) == 1
    # Only the test's code runs; shifts of all lanes are <= 0, and with any shift of either sign.
    program = dataclasses.replace(
        program, files={**program.files, "model.c": source.replace(start, _COMPARISON + start)}
    )
    elf = compiler.compile_firmware(program, "cortex-m55", boards()["generic"])
    with contextlib.closing(
        emulator._Machine(cortex_m.CortexM("cortex-m55")._firmware(program, elf), False)
    ) as machine:
        assert machine.run([samples(model, 1)[0]])[0].reshape(-1)[0] == 0


@needs_qemu
def test_program_that_leaves_its_memory_in_qemu_is_refused(digits: TFLiteModel) -> None:
    program, board = micro.emit(digits), boards()["generic"]
    elf = compiler.compile_firmware(program, "cortex-m55", board)
    firmware = cortex_m.CortexM("cortex-m55")._firmware(program, elf)
    beside = CORES["cortex-m55"].flash + board.flash_bytes + 4096  # no instructions there
    with contextlib.closing(emulator._Machine(firmware, count=True)) as machine:
        machine._address["start"] = beside
        with pytest.raises(ValueError, match=rf"1,048,576 of RAM. Received: a fault at {beside:#x}, status 0x1\."):
            machine.run([samples(digits, 1)[0]])


def test_missing_qemu_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="no qemu-system-arm on PATH.*apt-get install.* qemu-system-arm"):
        targets.get("cortex-m55")


def test_estimate_is_a_range_with_evidence_estimated(digits: TFLiteModel) -> None:
    run = targets.get("cortex-m4:stm32f407vg").run(digits, samples(digits))
    low, high = run.estimated_ms
    assert 0 < low < high
    assert low == pytest.approx(1e3 * run.environment["estimated_cycles"][0] / 168e6)
    assert run.evidence["estimated_ms"] == "estimated"
    assert run.target == "cortex-m4:stm32f407vg"


def test_model_too_large_for_the_flash_is_refused() -> None:
    model = dense(2000, 40)
    with pytest.raises(ValueError, match=r"65,536 bytes of flash.*overflowed by"):
        targets.get("cortex-m3:stm32f103c8").run(model, samples(model))


def test_model_too_large_for_the_ram_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 30_000))
    out = made.op("QUANTIZE", [x], [made.output((1, 30_000))])
    model = TFLiteModel.load(made.bytes(out))
    with pytest.raises(ValueError, match=r"20,480 of RAM.*overflowed by"):
        targets.get("cortex-m3:stm32f103c8").run(model, samples(model))


def test_stack_that_runs_into_the_arena_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 20_464))  # of 20,480 bytes of RAM, so that nothing is left for a stack
    model = TFLiteModel.load(made.bytes(made.op("RELU", [x], [made.output((1, 20_464))])))
    with pytest.raises(ValueError, match=r"20,480 of RAM|stack overflow: only 12 bytes"):
        targets.get("cortex-m3:stm32f103c8").run(model, samples(model, 1))


def test_several_inputs_and_outputs_are_kept_apart() -> None:
    made = Net(random.Random(3))
    a, b = made.input((1, 5)), made.input((1, 5))
    total = made.op("ADD", [a, b], [made.output((1, 5))], None)
    both = made.op("QUANTIZE", [b], [made.output((1, 5))])
    model = TFLiteModel.load(made.bytes(total, both))
    x = [np.random.default_rng(i).integers(-128, 128, (4, 5)).astype("int8") for i in range(2)]
    expected = targets.get("tflm").run(model, x).outputs
    for got, right in zip(targets.get("cortex-m0plus").run(model, x).outputs, expected, strict=True):
        assert np.array_equal(got, right)


def test_many_samples_go_through_several_processes_in_order(digits: TFLiteModel) -> None:
    x = samples(digits, 120)
    run = targets.get("cortex-m4").run(digits, x, latency=False)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(digits, x).outputs[0])


def test_compiler_of_the_user_is_called() -> None:
    assert shutil.which("no-such-gcc") is None
    with pytest.raises(RuntimeError, match="'no-such-gcc' not found"):
        targets.get("cortex-m4", cc="no-such-gcc").run(dense(4, 4), np.zeros((1, 4), "int8"))


@needs_gcc
@pytest.mark.parametrize("core", [pytest.param("cortex-m0plus", marks=pytest.mark.campaign), "cortex-m4"])
def test_gcc_equals_tflite_micro_bit_for_bit(core: str, digits: TFLiteModel) -> None:
    x = samples(digits)
    run = targets.get(core, cc="arm-none-eabi-gcc").run(digits, x)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(digits, x).outputs[0])
    assert run.environment["compiler"] == "arm-none-eabi-gcc"


def test_compiler_without_a_core_to_compile_for_is_refused() -> None:
    assert targets.with_compiler(["host"], None) == ["host"]
    host, spec = targets.with_compiler(["host", "cortex-m4:nrf52840"], "my-gcc -Wl,--gc-sections")
    assert host == "host"
    assert targets.get(spec) == cortex_m.CortexM(board="nrf52840", cc="my-gcc -Wl,--gc-sections")
    with pytest.raises(ValueError, match="cc is used by emulated cores only"):
        targets.with_compiler(["host", "tflm"], "my-gcc")


@pytest.mark.parametrize("core", [pytest.param("cortex-m0plus", marks=pytest.mark.campaign), "cortex-m4"])
def test_size_gives_the_same_bits_in_less_code(core: str, digits: TFLiteModel) -> None:
    x = samples(digits)
    fast, small = (targets.get(core, optimize=level).run(digits, x, latency=False) for level in ("-O2", "-Os"))
    assert np.array_equal(small.outputs[0], fast.outputs[0])
    assert small.memory.flash_bytes < 0.8 * fast.memory.flash_bytes


@pytest.mark.parametrize("spec", ["cortex-m4:rp2040", "cortex-m5", "cortex-m4:nothing"])
def test_core_or_board_that_does_not_exist_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="unknown target"):
        targets.get(spec)


def test_board_with_another_core_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("rp2040 has a cortex-m0plus")):
        cortex_m.CortexM("cortex-m4", "rp2040")


def test_boards_have_a_source_and_a_known_core() -> None:
    table = boards()
    assert len(table) >= 12
    for board in table.values():
        assert board.core is None or board.core in CORES
        assert board.source


def test_validate_on_a_core_scores_all_samples(digits: TFLiteModel) -> None:
    test = tfkd.data.load("digits").test
    validation = tfkd.validate(digits, test, targets=["tflm", "cortex-m4:nrf52840"])
    by_target = {row.target: row for row in validation.rows}
    assert by_target["cortex-m4:nrf52840"].accuracy == by_target["tflm"].accuracy
    assert by_target["cortex-m4:nrf52840"].output_divergence.max_steps == 0


def test_report_shows_instructions_estimate_and_arena(
    digits: TFLiteModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, test = tmp_path_factory.mktemp("report"), tfkd.data.load("digits").test
    contract = tfkd.Contract(min_accuracy=50, max_ram_bytes=4_000, max_flash_bytes=20_000, max_instructions=1_000_000)
    validation = tfkd.validate(digits, test, targets=["cortex-m4:nrf52840"], contract=contract)
    assert validation.verdict.status == "SHIP"
    page = tfkd.write_report(validation, folder / "report.html").read_text()
    instructions = validation.rows[-1].measurement.instructions
    assert f"of {instructions:,} instructions" in page
    assert "Arena on cortex-m4:nrf52840" in page
    assert "at 64 MHz" in page
    assert "at most 1,000,000" in page
    assert "estimated" in page
    markdown = tfkd.write_report(validation, folder / "report.md").read_text()
    assert "## Microcontrollers" in markdown
    lines = markdown[markdown.index("### Your firmware") :].split("\n\n")[2].splitlines()
    table = {label: cells for label, *cells in (line.strip("| ").split(" | ") for line in lines)}
    measured = validation.rows[-1].measurement
    flash, decoder = measured.memory.flash_bytes, measured.environment["decoder"]
    assert table["Model"][:2] == [f"{flash:,}", f"{measured.memory.arena_bytes:,}"]
    assert 20 <= decoder["flash_bytes"] <= 300
    assert 3 * 10 <= decoder["instructions"] <= 20 * 10  # ten classes
    assert table["Together"][0] == f"{flash + decoder['flash_bytes']:,}"
    assert 8 <= decoder["stack_bytes"] <= 64
    deepest = max(measured.memory.stack_bytes, decoder["stack_bytes"])
    assert table["Together"][2] == f"{deepest:,}"
    assert table["Together"][3] == f"{instructions + decoder['instructions']:,}"
    assert table["Board nrf52840"][:2] == ["1,048,576", "262,144"]
