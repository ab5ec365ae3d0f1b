"""The phone target over the real adb client, with an emulated phone that works or fails in many ways."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import benchmark_android
import build_apk
import numpy as np
import push_model
import pytest
import system_packages

import tfkd
from tests.adb_device import Phone, adb
from tfkd import targets
from tfkd.targets import adb as bridge
from tfkd.targets import android

MISSING = system_packages.skip_reason("adb")
pytestmark = [pytest.mark.android, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


@pytest.fixture(scope="module")
def model(digits_int8):
    return digits_int8


@pytest.fixture(scope="module")
def x(model, splits):
    return model.quantize_input(splits.test.x)


def left_behind(phone):
    runs = phone.root / f"data/data/{android.PACKAGE}/files/runs"
    return list(runs.iterdir()) if runs.exists() else []


def test_outputs_equal_those_of_the_engine(phone, model, x):
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


def test_second_run_copies_no_file(phone, model, x):
    target = targets.get("android")
    target.run(model, x, latency=False)
    store = phone.root / "data/local/tmp/tfkd"
    first = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    assert len(first) == 2  # model and inputs
    target.run(model, x, latency=False)
    assert {path.name for path in store.iterdir()} == set(first)
    assert sum("mv" in command for command in phone.commands) == 4  # these two, and each run's specification


def test_validation_on_the_phone(phone, model, splits):
    validation = tfkd.validate(
        model, splits.test, targets=["android"], contract=tfkd.Contract(min_accuracy=50, max_bytes=20_000)
    )
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
        ("crash", "the app did not finish.*Process crashed"),
        ("nonce", "the result is not of this run"),
        ("truncated", "the result of the app, .* is incomplete"),
        ("empty", "fetching result.json: failed|the result of the app, .* is incomplete"),
        ("short", "has 4 samples instead of 5"),
        ("cut", "damaged in transfer"),
        ("hostile", "invalid name of an output"),
    ],
)
def test_fault_is_an_error_and_leaves_no_file(phone, model, x, fault, message):
    phone.fault(fault)
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        targets.get("android").run(model, x[:5], latency=False)
    assert left_behind(phone) == []
    assert (phone.root / "stay_on").read_text() == "0\n"


def test_file_damaged_on_the_phone_is_rejected_by_the_app(phone, model, x):
    targets.get("android").run(model, x[:5], latency=False)
    (phone.root / "data/local/tmp/tfkd" / model.sha256).write_bytes(b"changed")
    with pytest.raises(RuntimeError, match="the app rejected the run: model.tflite: .*SHA-256"):
        targets.get("android").run(model, x[:5], latency=False)


def test_app_that_hangs_times_out(phone, model, x):
    phone.fault("hang")
    with pytest.raises(RuntimeError, match="timed out after 5 s"):
        targets.get("android", timeout_s=5).run(model, x[:5])


def test_cable_pulled_in_the_run_is_an_error(phone, model, x):
    phone.fault("cable")

    def pull():
        while not (phone.root / "hanging").exists():
            time.sleep(0.05)
        phone.pull_the_cable()

    threading.Thread(target=pull, daemon=True).start()
    with pytest.raises(RuntimeError, match="If the cable was pulled"):
        targets.get("android").run(model, x[:5])


@pytest.mark.parametrize("phase", ["dumpsys", "settings", "svc", "mkdir", "find", "push", "mv", "cp", "cat"])
def test_cable_pulled_in_any_phase_is_an_error(phone, model, x, phase):
    whole, there = phone.shell, phone.local

    def shell(command):
        if phase in command.replace("'", " ").split():
            phone.pull_the_cable()
        return whole(command)

    def local(path):
        if phase == "push" and path.endswith(".part"):  # which a command never ends with
            phone.pull_the_cable()
        return there(path)

    phone.shell, phone.local = shell, local
    with pytest.raises(RuntimeError, match="android"):
        targets.get("android").run(model, x[:5], latency=False)
    assert not phone.plugged_in  # the phase was reached
    assert len(phone.connections) == 1  # it was not plugged in again


def test_cable_pulled_while_the_app_is_installed_is_an_error(phone, model, x, tmp_path, monkeypatch):
    (phone.root / "installed").unlink()
    whole = phone.shell

    def shell(command):
        if "dumpsys" in command:  # the installation is next; without a phone adb waits for it to be plugged in again
            monkeypatch.setattr(bridge, "STEP_S", 5.0)
        if "install" in command:
            phone.pull_the_cable()
        return whole(command)

    phone.shell = shell
    app = tmp_path / "bench.apk"
    app.write_bytes(b"PK")
    with pytest.raises(RuntimeError, match="adb install: (failed|timed out after 5 s)"):
        targets.get("android", apk=app).run(model, x[:5], latency=False)
    assert not phone.plugged_in


def test_command_that_hangs_times_out_and_settings_are_restored(phone, model, x, monkeypatch):
    (phone.root / "stay_on").write_text("3\n")
    whole = phone.shell

    def shell(command):
        hangs = "cp" in command.split()
        # Short for the command that hangs alone: `touch` comes before it.
        monkeypatch.setattr(bridge, "STEP_S", 3.0 if "touch" in command.split() else 60.0)
        return whole("sleep 60" if hangs else command)

    phone.shell = shell
    with pytest.raises(RuntimeError, match="adb shell: timed out after 3 s"):
        targets.get("android").run(model, x[:5], latency=False)
    assert (phone.root / "stay_on").read_text() == "3\n"
    assert left_behind(phone) == []


def test_interrupted_run_restores_the_phone(phone, model, x):
    (phone.root / "stay_on").write_text("null\n")  # what Android prints for a setting without a value

    def progress(phase, percent):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        targets.get("android", progress=progress).run(model, x[:5], latency=False)
    assert (phone.root / "stay_on").read_text() == "null\n"
    assert left_behind(phone) == []
    assert sorted(path.suffix for path in (phone.root / "data/local/tmp/tfkd").iterdir()) == ["", ""]  # model, inputs


def test_hostile_names_reach_no_shell(phone, model, x, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a'b $(touch owned);touch owned\n.tflite"
    Path(name).write_bytes(model.content)
    (phone.root / "installed").unlink()
    Path("-g;touch owned.apk").write_bytes(b"PK")
    run = targets.get("android", apk="-g;touch owned.apk").run(name, x[:5], latency=False)
    assert run.valid
    assert not Path("/owned").exists()  # where the phone's commands run
    assert not list(tmp_path.rglob("owned"))


def test_files_unused_for_a_week_are_deleted(phone, model, x):
    store = phone.root / "data/local/tmp/tfkd"
    store.mkdir()
    for name, age in (("0" * 64, 9 * 86400), ("1" * 64, 3600)):
        (store / name).write_bytes(b"old")
        os.utime(store / name, (time.time() - age,) * 2)
    targets.get("android").run(model, x[:5], latency=False)
    assert not (store / ("0" * 64)).exists()
    assert (store / ("1" * 64)).exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("unauthorized", "is not ready: unauthorized. To fix it, unlock it and allow USB debugging"),
        (
            "offline",
            "is not ready: offline. To fix it, unplug and plug it in again, or run `adb reconnect`",
        ),
    ],
)
def test_phone_that_cannot_be_used_is_named_with_the_remedy(adb_server, model, x, tmp_path, state, message):
    other = Phone(tmp_path / "other", state)
    # It waits for the phone to answer, which this one never does.
    with subprocess.Popen(["adb", "connect", other.serial], stdout=subprocess.DEVNULL) as connecting:
        until = time.monotonic() + 60
        while state not in adb("devices").stdout and time.monotonic() < until:
            time.sleep(0.1)
        with pytest.raises(RuntimeError, match=f"android: {other.serial} {message}"):
            targets.get("android").run(model, x[:5])
        connecting.kill()
    adb("disconnect", other.serial)
    other.pull_the_cable()


def test_phone_that_does_not_answer_times_out(phone, model, x, monkeypatch):
    monkeypatch.setattr(bridge, "STEP_S", 2.0)
    phone.asleep = True
    with pytest.raises(RuntimeError, match="timed out after 2 s"):
        targets.get("android").run(model, x[:5])


def test_no_phone_and_several_phones_are_different_errors(adb_server, model, x, phone, tmp_path):
    other = Phone(tmp_path / "other")
    adb("connect", other.serial)
    with pytest.raises(RuntimeError, match="several phones are connected: 127.*android:SERIAL"):
        targets.get("android").run(model, x[:5])
    run = targets.get(f"android:{other.serial}").run(model, x[:5], latency=False)
    assert run.target == f"android:{other.serial}"
    adb("disconnect")
    with pytest.raises(RuntimeError, match="no connected phone"):
        targets.get("android").run(model, x[:5])
    other.pull_the_cable()


def test_missing_app_is_an_error_or_installed(phone, model, x, tmp_path):
    (phone.root / "installed").unlink()
    with pytest.raises(RuntimeError, match="no version of the app; version 2 is needed. Build it"):
        targets.get("android").run(model, x[:5])
    app = tmp_path / "bench.apk"
    app.write_bytes(b"PK")
    targets.get("android", apk=app).run(model, x[:5], latency=False)
    assert (phone.root / "installed").read_text() == "2\n"


def test_older_app_is_an_error_or_updated(phone, model, x, tmp_path):
    (phone.root / "installed").write_text("1")
    with pytest.raises(RuntimeError, match="version 1 of the app; version 2 is needed"):
        targets.get("android").run(model, x[:5])
    app = tmp_path / "bench.apk"
    app.write_bytes(b"PK")
    phone.fault("old")
    with pytest.raises(RuntimeError, match="bench.apk is not version 2 of the app"):
        targets.get("android", apk=app).run(model, x[:5])
    phone.fault("")
    targets.get("android", apk=app).run(model, x[:5], latency=False)
    assert (phone.root / "installed").read_text() == "2\n"


def test_missing_adb_exits_with_3_and_the_install_command(model):
    done = subprocess.run(
        [sys.executable, "-m", "tfkd.cli", "benchmark", model.path, "--target", "android"],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "sudo apt-get install adb" in done.stderr


def test_refused_installation_is_an_error(phone, model, x, tmp_path):
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


def test_validate_exits_with_3_without_a_phone(adb_server, model):
    done = subprocess.run(
        [sys.executable, "-m", "tfkd.cli", "validate", model.path, "--target", "host", "--target", "android"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "android: no connected phone. Plug it in by USB" in done.stderr
    assert "on host" not in done.stdout


def test_validate_prints_the_phases_of_the_phone(phone, model):
    done = subprocess.run(
        [sys.executable, "-m", "tfkd.cli", "validate", model.path, "--target", "android", "--min-accuracy", "0"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    phases = [line.removeprefix("validate: ") for line in done.stdout.splitlines() if line.startswith("validate: ")]
    assert phases == ["warm-up ...", "latency ..."]


def test_script_exits_with_3_if_the_phone_is_unplugged_meanwhile(phone, model, capsys, monkeypatch):
    whole = phone.shell

    def shell(command):
        if "cp" in command.split():
            phone.pull_the_cable()
        return whole(command)

    phone.shell = shell
    monkeypatch.setattr(sys, "argv", ["benchmark_android.py", str(model.path), "--threads", "1", "2"])
    assert benchmark_android.main() == 3
    printed = capsys.readouterr()
    assert printed.out.count("  failed: ") == 2
    assert "benchmark_android: android" in printed.err


def test_script_exits_with_3_without_a_phone(adb_server, model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark_android.py", str(model.path)])
    assert benchmark_android.main() == 3
    assert "no connected phone" in capsys.readouterr().err


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


def test_pushed_model_lies_whole_where_the_app_looks_and_can_be_removed(phone, model, monkeypatch, capsys):
    there = phone.root / f"data/data/{android.PACKAGE}/files/models/my-model"
    arguments = ["push_model", str(model.path), "--id", "my-model"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert push_model.main() == 0
    description = json.loads((there / "model.json").read_text())
    files = [description["model"], *description["inputs"], *description["golden"], description["labels"]]
    assert {path.name for path in there.iterdir()} == {"model.json"} | {one["file"] for one in files}
    for one in files:
        assert hashlib.sha256((there / one["file"]).read_bytes()).hexdigest() == one["sha256"]
    assert np.load(there / "labels.npy").shape == (build_apk.GOLDEN,)
    monkeypatch.setattr(sys, "argv", [*arguments, "--remove"])
    assert push_model.main() == 0
    assert not there.exists()
    assert capsys.readouterr().out.endswith("my-model: removed\n")


def test_pushed_model_of_several_ends_has_a_file_for_each(phone, several_ends, tmp_path, monkeypatch):
    several_ends[0].save(tmp_path / "ends.tflite")
    monkeypatch.setattr(sys, "argv", ["push_model", str(tmp_path / "ends.tflite")])
    assert push_model.main() == 0
    there = phone.root / f"data/data/{android.PACKAGE}/files/models/ends"
    description = json.loads((there / "model.json").read_text())
    assert description["labels"] is None
    inputs = [np.load(there / one["file"]) for one in description["inputs"]]
    golden = [np.load(there / one["file"]) for one in description["golden"]]
    assert [x.dtype.name for x in inputs] == [one.dtype for one in several_ends[0].inputs]
    expected = targets.get("host:reference").run(several_ends[0], inputs, latency=False).outputs
    assert all(np.array_equal(one, other) for one, other in zip(golden, expected, strict=True))


@pytest.mark.parametrize("name", ["bundled", "../x", "Upper"])
def test_pushed_model_of_a_bad_name_is_refused(name, model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["push_model", str(model.path), f"--id={name}"])
    assert push_model.main() == 2
    assert "--id must be 1 to 64" in capsys.readouterr().err
