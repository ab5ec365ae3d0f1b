"""Results as text for a terminal."""

from pathlib import Path

from tfkd.report import console
from tfkd.targets.measurement import LatencySummary, Measurement, Memory

CHECK = {"name": "max_p90_ms", "value": None, "target": "tflm", "status": "unknown", "detail": "tflm measures no time."}
VERDICT = {"status": "UNKNOWN", "binding": "max_p90_ms", "checks": [CHECK]}
ROW = {"name": "full_int8", "target": "host", "bytes": 12_345, "accuracy": 0.9712, "valid": True, "measurement": None}
RECORD = {
    "path": "m.tflite",
    "size_bytes": 10_000,
    "compressed_bytes": 5_000,
    "zstd_bytes": 4_000,
    "weight_zeros": None,
    "changes": ["Average pooling of the whole image is MEAN."],
    "findings": ["2 of 10 classes have no sample.", "Chosen of 2 models tried: int8 with int4 weights."],
    "trials": [{}, {}],
    "golden": ["m.golden.npz"],
    "seconds": 1.25,
    "peak_bytes": None,
}


def measured(**values):
    return Measurement("cortex-m4", "0" * 64, 10, (), {}, **values)


def test_summary_has_a_line_for_each_row_and_the_verdict():
    reason = "tflite-micro is not installed"
    failed = {**ROW, "target": "tflm", "valid": False, "broken": False, "unavailable": True, "invalid_reason": reason}
    lines = console.summary({"rows": [ROW, failed], "verdict": VERDICT, "ship": "full_int8"}).splitlines()
    assert lines[1].split() == ["full_int8", "host", "12,345", "97.12%", "-", "-"]
    assert lines[2].split()[:2] == ["full_int8", "tflm"]
    assert lines[3].strip() == "unavailable: tflite-micro is not installed"
    assert lines[4] == "Verdict: UNKNOWN (decided by max_p90_ms)"
    assert lines[5].startswith("No limit is broken, but one could not be checked")
    assert "measures no time" in lines[5]


def test_summary_without_a_contract_has_no_verdict():
    text = console.summary({"rows": [ROW], "verdict": {"status": None, "binding": None}})
    assert "Verdict" not in text


def test_latencies_show_percentiles_or_instructions():
    timed = measured(latency_summary=LatencySummary.of((1_000_000, 2_000_000)), setting={"timed_batch": 4})
    counted = measured(instructions=5_000, estimated_ms=(0.5, 1.0), memory=Memory(ram_bytes=2_048, flash_bytes=9_000))
    lines = console.latencies([(Path("a.tflite"), one) for one in (timed, counted, measured())]).splitlines()
    assert lines[1].split()[-1] == "4,000"
    assert "5,000 instructions, estimated 0.50 to 1.00 ms, RAM 2,048, flash 9,000 bytes" in lines[2]
    assert "latency is not measured" in lines[3]


def test_conversion_shows_sizes_findings_and_files():
    text = console.converted(RECORD)
    assert "m.tflite: 10,000 bytes, 5,000 compressed by gzip, 4,000 by zstd" in text
    assert "2 of 10 classes" in text
    assert "2 models tried" in text
    assert "Average pooling of the whole image is MEAN." in text
    assert "m.golden.npz: golden vectors" in text


def test_zero_weights_are_mentioned_for_a_pruned_model():
    assert "zero" not in console.converted({**RECORD, "weight_zeros": 0.1})
    assert "60% of the weights are zero" in console.converted({**RECORD, "weight_zeros": 0.6})


def test_training_shows_sizes_of_a_tflite_only():
    assert console.trained({"path": "m.keras", "val_accuracy": 0.5}) == "m.keras: validation accuracy 0.5000"
    assert "10,000 bytes" in console.trained({**RECORD, "val_accuracy": 0.5})


def test_export_shows_the_arena_and_what_was_removed():
    assert console.exported(Path("out"), {"arena_bytes": 1_024}) == "out: arena 1,024 bytes"
    sizes = {
        "arena_bytes": 1_024,
        "removed": {"summary": "2 ops removed"},
        "golden_vectors": 4,
        "golden_source": "tflm",
        "golden_refusals": {},
        "float_layers": [],
    }
    assert console.exported(Path("out"), sizes).endswith("; 2 ops removed; self-test of 4 vectors from tflm")
    assert "no self-test" in console.exported(Path("out"), {**sizes, "golden_source": None})
    refused = {
        **sizes,
        "golden_source": "cortex-m4",
        "golden_refusals": {"tflm": "tflm: It lacks TILE.\nIt printed: x"},
    }
    assert console.exported(Path("out"), refused).endswith("from cortex-m4\nno vectors from tflm: It lacks TILE.")
    assert "size unknown" in console.exported(Path("out"), {"arena_bytes": None})
    floats = {**sizes, "float_layers": ["SQRT float 4", "MUL float 4"]}
    assert "\nwarning: 2 layers compute in floats" in console.exported(Path("out"), floats)
