"""A phone over the real adb client: a device side that speaks its protocol, sound and spoilt."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from adb_device import Phone

import tfkd
from tfkd import targets
from tfkd.targets import android

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import benchmark_android
import system_packages

MISSING = system_packages.skip_reason("adb")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def adb(*words):
    return subprocess.run(["adb", *words], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An adb server of our own, apart from a user's."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    kept = dict(os.environ)
    os.environ |= {"ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(tmp_path_factory.mktemp("home"))}
    adb("start-server")
    yield port
    adb("kill-server")
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture
def phone(server, tmp_path):
    one = Phone(tmp_path / "phone", server)
    assert "connected" in adb("connect", one.serial).stdout
    yield one
    adb("disconnect", one.serial)
    one.asleep = False
    one.pull_the_cable()


@pytest.fixture(scope="module")
def splits():
    return tfkd.data.load("digits")


@pytest.fixture(scope="module")
def model(splits, tmp_path_factory):
    student = tfkd.models.digits_student((8, 8, 1), 10)
    return tfkd.convert(student, tmp_path_factory.mktemp("models") / "int8.tflite", calibration=splits.train)


@pytest.fixture(scope="module")
def x(model, splits):
    return model.quantize_input(splits.test.x)


def left_behind(phone):
    runs = phone.root / f"data/data/{android.PACKAGE}/files/runs"
    return list(runs.iterdir()) if runs.exists() else []


def test_phone_gives_what_its_engine_gave(phone, model, x):
    heard = []
    run = targets.get("android", progress=lambda *seen: heard.append(seen)).run(model, x)
    here = targets.get("host").run(model, x, latency=False)
    np.testing.assert_array_equal(run.outputs[0], here.outputs[0])
    assert run.evidence == {"outputs": "measured", "latencies_ns": "measured"}
    assert len(run.latencies_ns) >= 50
    assert run.valid
    assert run.environment["model"] == "desk"
    assert heard == [("warm-up", 0), ("latency", 100)]
    assert left_behind(phone) == []
    assert (phone.root / "stay_on").read_text() == "0\n"


def test_phone_is_sent_nothing_twice(phone, model, x):
    target = targets.get("android")
    target.run(model, x, latency=False)
    store = phone.root / "data/local/tmp/tfkd"
    first = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    assert len(first) == 2  # model and inputs
    target.run(model, x, latency=False)
    assert {path.name: path.stat().st_mtime_ns for path in store.iterdir()} == first


def test_validation_judges_on_the_phone(phone, model, splits):
    validation = tfkd.validate(model, splits.test, targets=["android"], contract=tfkd.Contract(max_bytes=20_000))
    row = validation.rows[-1]
    assert row.target == "android"
    assert validation.verdict.status == "SHIP"
    assert row.measurement.latency.p90_ms > 0


def test_hot_phone_is_not_valid(phone, model, x):
    phone.fault("hot")
    run = targets.get("android").run(model, x[:5])
    assert not run.valid
    assert "thermal status 3" in run.invalid_reason


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("crash", "the app must finish.*Process crashed"),
        ("nonce", "the result must be of this run"),
        ("truncated", "the app must write a whole result"),
        ("empty", "fetching result.json: must succeed|the app must write a whole result"),
        ("short", "must hold 5 samples. Received: 4"),
        ("cut", "must arrive whole"),
        ("hostile", "outputs must be named output_0.npy"),
    ],
)
def test_fault_is_no_success_and_leaves_nothing(phone, model, x, fault, message):
    phone.fault(fault)
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        targets.get("android").run(model, x[:5], latency=False)
    assert left_behind(phone) == []
    assert (phone.root / "stay_on").read_text() == "0\n"


def test_damaged_file_on_the_phone_is_refused_by_the_app(phone, model, x):
    targets.get("android").run(model, x[:5], latency=False)
    (phone.root / "data/local/tmp/tfkd" / model.sha256).write_bytes(b"changed")
    with pytest.raises(RuntimeError, match="the app refused the run. Received: model.tflite: must be of SHA-256"):
        targets.get("android").run(model, x[:5], latency=False)


def test_hanging_app_is_left(phone, model, x):
    phone.fault("hang")
    with pytest.raises(RuntimeError, match="must finish within 5 s. Received: nothing after"):
        targets.get("android", timeout_s=5).run(model, x[:5])


def test_cable_pulled_in_the_run_is_said(phone, model, x):
    phone.fault("cable")

    def pull():
        while not (phone.root / "hanging").exists():
            time.sleep(0.05)
        phone.pull_the_cable()

    threading.Thread(target=pull, daemon=True).start()
    with pytest.raises(RuntimeError, match="If the cable was pulled"):
        targets.get("android").run(model, x[:5])


@pytest.mark.parametrize("phase", ["dumpsys", "settings", "mkdir", "cp", "cat"])
def test_cable_pulled_in_any_phase_is_no_success(phone, model, x, phase):
    whole = phone.shell

    def shell(command):
        if phase in command.split(" "):
            phone.pull_the_cable()
        return whole(command)

    phone.shell = shell
    with pytest.raises(RuntimeError, match="android"):
        targets.get("android").run(model, x[:5], latency=False)


def test_phone_that_does_not_answer_is_left(phone, model, x, monkeypatch):
    monkeypatch.setattr(android, "_STEP_S", 2.0)
    phone.asleep = True
    with pytest.raises(RuntimeError, match="must answer within 2 s"):
        targets.get("android").run(model, x[:5])


def test_no_phone_and_several_phones_are_told_apart(server, model, x, phone, tmp_path):
    other = Phone(tmp_path / "other", server)
    adb("connect", other.serial)
    with pytest.raises(RuntimeError, match="needs one phone. Received: 127.*Write android:SERIAL"):
        targets.get("android").run(model, x[:5])
    run = targets.get(f"android:{other.serial}").run(model, x[:5], latency=False)
    assert run.target == f"android:{other.serial}"
    adb("disconnect")
    with pytest.raises(RuntimeError, match="needs a connected phone. Received: none"):
        targets.get("android").run(model, x[:5])
    other.pull_the_cable()


def test_missing_app_is_said_or_installed(phone, model, x, tmp_path):
    (phone.root / "installed").unlink()
    with pytest.raises(RuntimeError, match=r"needs the app, version 1. Received: none. Build it"):
        targets.get("android").run(model, x[:5])
    app = tmp_path / "bench.apk"
    app.write_bytes(b"PK")
    targets.get("android", apk=app).run(model, x[:5], latency=False)
    assert (phone.root / "installed").read_text() == "1\n"


def test_refused_install_is_said(phone, model, x, tmp_path):
    (phone.root / "installed").write_text("0")
    phone.fault("refused")
    app = tmp_path / "bench.apk"
    app.write_bytes(b"PK")
    with pytest.raises(RuntimeError, match="INSTALL_FAILED_INSUFFICIENT_STORAGE"):
        targets.get("android", apk=app).run(model, x[:5])


def test_script_prints_a_line_for_each_setting(phone, model, capsys, monkeypatch, tmp_path):
    words = ["--threads", "1", "2", "--repeats", "2", "--json", str(tmp_path / "runs.json")]
    words += ["--report", str(tmp_path / "phone.md")]
    monkeypatch.setattr(sys, "argv", ["benchmark_android.py", str(model.path), *words])
    assert benchmark_android.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["cpu", "1"], ["cpu", "2"]]
    assert all(line.endswith("yes") for line in lines[1:])
    assert len(json.loads((tmp_path / "runs.json").read_text())) == 4
    report = (tmp_path / "phone.md").read_text()
    for setting in ("cpu, 1 thread", "cpu, 1 thread, restart 1", "cpu, 2 threads", "cpu, 2 threads, restart 1"):
        assert f"| {setting} |" in report


def test_script_ends_with_3_without_a_phone(server, model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark_android.py", str(model.path)])
    assert benchmark_android.main() == 3
    assert "needs a connected phone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be 1..64"),
        ({"accelerator": "tpu"}, "accelerator must be one of cpu, gpu, nnapi"),
        ({"sustained_s": -1}, "sustained_s must be"),
        ({"restart": -1}, "restart must be"),
        ({"timeout_s": 0}, "timeout_s must be > 0"),
    ],
)
def test_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        targets.get("android", **options)


def test_serial_that_a_shell_would_run_is_refused():
    with pytest.raises(ValueError, match="serial must be one"):
        targets.get("android:x;reboot")
