"""LiteRT's benchmark_model over the real adb: on the device stands a script that prints what that tool prints."""

import json
import subprocess
import sys

import pytest
import system_packages

import tfkd
from tfkd import targets

MISSING = system_packages.skip_reason("adb")
pytestmark = [pytest.mark.android, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

# As of TensorFlow 2.16 and newer; older ones leave out INFO and the percentiles.
OUTPUT = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [50]
INFO: Num threads: [2]
INFO: Graph: [$graph]
INFO: Signature to run: []
INFO: #threads used for CPU inference: [2]
INFO: Loaded model $graph
INFO: Initialized TensorFlow Lite runtime.
@delegate@
INFO: The input model file size (MB): 16.1527
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=2 first=1357602 curr=309932 min=309932 max=1357602 avg=833767 std=9104 p5=309932 median=328140 p95=328140

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 833767, Inference (avg): 1.24027e+06
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
@peak@
"""  # noqa: E501
CPU = "gpu ran no part of the model"
PEAK = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 121.25"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    student = tfkd.models.digits_student((8, 8, 1), 10)
    return tfkd.convert(student, tmp_path_factory.mktemp("models") / "float.tflite", mode="float32")


@pytest.fixture(scope="module")
def x(model, splits):
    return model.quantize_input(splits.test.x[:3])


def tool(folder, output=OUTPUT, delegate="", more=""):
    """A file that is run on the device in place of the tool."""
    path = folder / "benchmark_model"
    plain, watched = (output.replace("@delegate@", delegate).replace("@peak@", one) for one in ("", PEAK))
    path.write_text(
        f'#!/bin/sh\nfor word; do case "$word" in --graph=*) graph="${{word#--graph=}}";; esac; done\ntest -s "$graph" '
        f'|| exit 1\n{more}\ncase "$*" in *report_peak*) cat <<END\n{watched}\nEND\n;; *) cat <<END\n{plain}\nEND\n'
        ";; esac\n"
    )
    return path


def test_tool_gives_its_summary_and_null_for_the_rest(phone, model, x, tmp_path):
    path = tool(tmp_path)
    run = targets.get(f"adb-binary:{path}@{phone.serial},threads=2").run(model, x)
    assert run.target == f"adb-binary:{path}@{phone.serial},threads=2"
    assert (run.latency.count, run.latency.p50_ms, run.latency.p95_ms) == (50, 1239.807, 1247.415)
    assert (run.latency.mean_ms, run.latency.min_ms, run.latency.max_ms) == (1240.27, 1238.588, 1252.566)
    assert run.latency.stdev_ms == 2.565
    assert (run.latency.p90_ms, run.latency.p99_ms, run.latency.latency_trend, run.latencies_ns) == (
        None,
        None,
        None,
        None,
    )
    assert run.outputs == ()
    assert run.memory.peak_rss_bytes == 121.25 * 2**20
    assert run.evidence == {"latency_summary": "measured", "memory": "measured"}
    assert (run.environment["model"], run.environment["android"], run.environment["init_ms"]) == ("desk", "15", 5.579)
    assert any("--num_threads=2" in command and "--num_runs=50" in command for command in phone.commands)
    assert (phone.root / "stay_on").read_text() == "0\n"
    json.dumps(run.to_json(), allow_nan=False)


def test_output_of_an_older_tool_is_read(phone, model, x, tmp_path):
    older = (
        "STARTING!\nGraph: [$graph]\ncount=1 curr=360262\n\ncount=50 first=249042 curr=250889 min=247067 max=254474 "
        "avg=249684 std=1442\n\nInference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 360262, "
        "Inference (avg): 249684\nPeak memory footprint (MB): init=4.92969 overall=138.809\n"
    )
    path = tool(tmp_path, older, more='case "$*" in *report_peak*) echo unknown flag; exit 1;; esac')
    run = targets.get(f"adb-binary:{path}").run(model, x)
    assert (run.latency.mean_ms, run.latency.p50_ms, run.memory.peak_rss_bytes) == (249.684, None, None)
    assert run.evidence == {"latency_summary": "measured"}


@pytest.mark.parametrize(
    ("delegate", "reason"),
    [
        ("INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate", None),
        ("INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.", CPU),
        ("", CPU),
    ],
)  # fmt: skip
def test_accelerator_that_ran_nothing_is_not_valid(phone, model, x, tmp_path, delegate, reason):
    run = targets.get(f"adb-binary:{tool(tmp_path, delegate=delegate)},accelerator=gpu").run(model, x)
    assert run.valid == (reason is None)
    assert reason is None or reason in run.invalid_reason
    assert any("--use_gpu=true" in command for command in phone.commands)


def test_hot_device_is_not_valid(phone, model, x, tmp_path):
    (phone.root / "heat").write_text("3")
    run = targets.get(f"adb-binary:{tool(tmp_path)}").run(model, x)
    assert not run.valid
    assert "thermal status 3" in run.invalid_reason


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"more": "kill -SEGV $$"}, "benchmark_model: failed"),
        (
            {"output": "INFO: STARTING!\nFailed to load $graph"},
            "printed no statistics of its runs or no 'Inference timings",
        ),
        ({"output": OUTPUT[: OUTPUT.index("INFO: Inference timings")]}, "printed no statistics of its runs"),
        ({"output": OUTPUT.replace("$graph", "/else")}, "did not run /data/local/tmp/tfkd/"),
        ({"more": "sleep 60"}, "benchmark_model: timed out after 3 s"),
    ],
)
def test_tool_that_fails_is_an_error(phone, model, x, tmp_path, fields, message):
    with pytest.raises(RuntimeError, match=message):
        targets.get(f"adb-binary:{tool(tmp_path, **fields)}", timeout_s=3).run(model, x)
    assert (phone.root / "stay_on").read_text() == "0\n"


def test_row_without_outputs_leaves_accuracy_limits_unknown(phone, model, splits, tmp_path):
    spec = f"adb-binary:{tool(tmp_path)}"
    limits = {"min_accuracy": 1.5, "max_p90_ms": 5000.0}
    validation = tfkd.validate(model, splits.test, targets=[spec], contract=tfkd.Contract(**limits))
    assert validation.rows[0].valid
    assert validation.rows[0].accuracy is None
    assert validation.verdict.status == "UNKNOWN"
    assert {check.name: check.status for check in validation.verdict.checks} == {
        "runs": "holds",
        "min_accuracy": "unknown",
        "max_p90_ms": "unknown",
    }
    for form in ("html", "md", "json", "xml"):
        text = tfkd.write_report(validation, tmp_path / f"report.{form}").read_text()
        assert ("no outputs" in text) == (form in ("html", "md"))
    beside = tfkd.validate(model, splits.test, targets=[spec, "host:plain"], contract=tfkd.Contract(min_accuracy=1.5))
    assert {check.name: check.status for check in beside.verdict.checks}["min_accuracy"] == "holds"
    assert beside.rows[1].output_divergence is None


def test_benchmark_shows_it_in_the_table(phone, model, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tfkd.cli", "benchmark", model.path, "--target", f"adb-binary:{tool(tmp_path)}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "1,240 ms         –         –      50          1" in done.stdout


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adb-binary:", "no such file: ''. Write adb-binary:/path"),
        (f"adb-binary:{__file__},threads=0", "threads must be 1..64"),
        (f"adb-binary:{__file__},accelerator=tpu", "accelerator must be one of cpu, gpu, nnapi"),
        (f"adb-binary:{__file__}@x;reboot", "serial must be one"),
        (f"adb-binary:{__file__},timeout_s=0", "timeout_s must be > 0"),
    ],
)
def test_wrong_option_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        targets.get(spec)


def test_outputs_alone_are_refused(phone, model, x, tmp_path):
    with pytest.raises(ValueError, match="returns no outputs"):
        targets.get(f"adb-binary:{tool(tmp_path)}").run(model, x, latency=False)
