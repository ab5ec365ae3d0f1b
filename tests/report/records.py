"""Records of validations for the tests of reports, with hostile names and every kind of row."""

import copy
import dataclasses

import numpy as np

from tfkd import data
from tfkd.conversion.tflite import CalibrationAudit
from tfkd.report import write_report
from tfkd.targets.measurement import Measurement, Memory
from tfkd.validation.contract import Contract, judge
from tfkd.validation.results import Row
from tfkd.validation.scores import measure_difference, measure_divergence, score
from tfkd.validation.validator import Validation

ROLES = {"teacher": "teacher", "reference": "student"}
HOSTILE = "<script>alert('x')</script>"
HOT = "thermal status 3: let it cool"
TRAINING = {
    "teacher": {"accuracy": [0.5, 0.9], "val_accuracy": [0.4, 0.8], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]},
    "student alone": {"accuracy": [0.3, 0.7], "loss": [2.5, np.float32("nan")]},
}
SEEDS = {
    "student alone": [{"seed": seed, "accuracy": value} for seed, value in enumerate((0.961, 0.957, 0.966))],
    "student distilled": [{"seed": seed, "accuracy": value} for seed, value in enumerate((0.974, 0.972, 0.976))],
}
COMMAND = "tfkd run recipes/digits.toml --overwrite"
MODELS = {
    "full_int8": {
        "sha256": "ab" * 32,
        "size_bytes": 20_000,
        "audit": dataclasses.asdict(
            CalibrationAudit(256, 0.0, 255.0, 77.75, 10, 10, "cd" * 32, 0, 0.012, findings=("Class 3 has 2 samples.",))
        ),
    },
    "float32": {"sha256": "ef" * 32, "size_bytes": 70_000, "audit": None},
}


def record_of(contract=None, *, class_names=None, timed=True):
    """The JSON of a validation on digits, whose outputs are the labels and noise."""
    test = data.load("digits").test
    names = class_names or test.class_names
    random = np.random.default_rng(0)
    logits = np.eye(10)[test.y] * 4 + random.normal(size=(len(test), 10))
    raw = np.clip(np.rint(logits * 12), -128, 127).astype(np.int8)
    rows, right, first = [], {}, None
    for name, noise in (("teacher", 0.1), ("student", 0.0)):
        outputs = logits + noise * random.normal(size=logits.shape)
        row = Row(name, None, 800_000, 200_000, len(test))
        right[name] = outputs.argmax(axis=1) == test.y
        rows.append(row.with_scores(score(outputs, test, None)))
    labels = logits.argmax(axis=1)
    for target, fields in (
        ("host", {"latencies_ns": tuple(random.integers(50_000, 90_000, 300).tolist()) if timed else None}),
        ("tflm", {"memory": Memory(arena_bytes=15_000)}),
    ):
        outputs = raw + (random.random(raw.shape) < 0.1 * (target == "tflm"))
        evidence = {"outputs": "measured", "latencies_ns": "measured", "memory": "emulated"}
        measured = Measurement(target, "ab" * 32, 20_000, (outputs,), evidence, **fields)
        divergence = measure_divergence(measured, first)
        row = Row("full_int8", target, 20_000, None, len(test), output_divergence=divergence, measurement=measured)
        differences = {
            role: measure_difference(outputs.argmax(axis=1) == test.y, right[name], paired=True, against=name)
            for role, name in ROLES.items()
        }
        rows.append(dataclasses.replace(row, differences=differences).with_scores(score(outputs, test, labels)))
        first = first or measured
    verdict = judge(contract, rows[2:])
    rows.append(Row("float32", "tflm", 70_000, None, len(test), invalid_reason=f"No {HOSTILE} kernel.", broken=True))
    facts = {
        "name": "digits",
        "samples": len(test),
        "class_names": list(names),
        "input_shape": [8, 8, 1],
        "content_hash": test.content_hash,
    }
    validation = Validation(tuple(rows), verdict, contract, "full_int8", ROLES, {}, facts, {"python": "3.11"})
    return {**validation.to_json(), "models": MODELS}


SHIP = Contract(
    min_accuracy=20, max_accuracy_drop=5, max_bytes=50_000, max_arena_bytes=16_000, max_p90_ms=1, max_divergence_steps=2
)
NO = Contract(max_bytes=15_000, min_accuracy=50)
UNKNOWN = Contract(min_accuracy=50, max_bytes=50_000, max_p90_ms=1)
FULL = {"training": TRAINING, "seeds": SEEDS, "command": COMMAND}


def written(record, path, **options):
    return write_report(record, path, **options).read_text(encoding="utf-8")


def with_microcontroller(record):
    """The record with a row of an emulated microcontroller with a long instruction mix."""
    record = copy.deepcopy(record)
    row = copy.deepcopy(record["rows"][2])
    row["target"] = row["measurement"]["target"] = "cortex-m4:nrf52840"
    row["measurement"] |= {
        "instructions": 6_206_004,
        "estimated_ms": [96.5, 193.2],
        "latency": None,
        "latencies_ns": None,
        "memory": {**row["measurement"]["memory"], "arena_bytes": 15_000, "ram_bytes": 17_412, "stack_bytes": 512,
                   "flash_bytes": 45_132},
        "evidence": {"outputs": "emulated", "memory": "emulated", "instructions": "emulated",
                     "estimated_ms": "estimated"},
        "environment": {
            "board": {"name": "nrf52840", "ram_bytes": 262_144, "flash_bytes": 1_048_576, "clock_hz": 64_000_000},
            "code_bytes": 21_204,
            "classes": {"multiply": 1_600_000, "multiply two": 900_000, "load": 2_000_000, "store": 400_000,
                        "branch": 300_000, "divide": 4, "other": 1_006_000},
            "layers": {"0": 3_000_000, "1": 3_200_000, "around": 6_004},
            "steps": ["CONV_2D 3x3 to 8 x 8 x 16, by rows", "FULLY_CONNECTED 64 to 10"],
            "arena": [["input", 0, 64, 0, 0], ["conv", 64, 1024, 0, 1], ["scratch 0", 1088, 256, 0, 0]],
            "least_live_bytes": 1088,
        },
    }  # fmt: skip
    record["rows"].append(row)
    return record
