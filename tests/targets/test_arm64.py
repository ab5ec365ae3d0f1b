"""LiteRT for ARM under QEMU, in a root folder that is prepared once from Debian and PyPI."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import platformdirs
import pytest
import system_packages

import tfkd
from tfkd import targets
from tfkd._internal import isolation
from tfkd.errors import ModelError
from tfkd.targets import foreign_root

MISSING = system_packages.skip_reason("qemu") or system_packages.skip_reason("debian keys")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


# The downloads of earlier test runs. Each file is used only if its SHA-256 is right.
DOWNLOADS = platformdirs.user_cache_path("tfkd") / "test-downloads"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The cache folder of these tests; the first test that needs the root prepares it."""
    folder = tmp_path_factory.mktemp("cache") / "arm64"
    if DOWNLOADS.exists():
        shutil.copytree(DOWNLOADS, folder / "downloads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFKD_CACHE", str(folder.parent))
        yield folder
    shutil.copytree(folder / "downloads", DOWNLOADS, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def int8(digits_int8):
    return digits_int8


@pytest.fixture
def failing_apt(tmp_path, monkeypatch):
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho no route to the archive >&2\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.campaign  # unpacks all of its packages twice
@pytest.mark.network
def test_prepare_resumes_after_a_kill(cache):
    (cache / "downloads/sha256.json").unlink(missing_ok=True)  # the files of earlier runs are then compared with apt's
    code = "from tfkd.targets import foreign_root; foreign_root.prepare(lambda line: print(line, flush=True))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        lines = [next(process.stdout), next(process.stdout)]
        process.send_signal(signal.SIGKILL)
    assert "downloading" in lines[0]
    assert "unpacking" in lines[1]
    assert not (cache / "root").exists()

    # As a kill in the middle of downloading leaves it: no record, one file not there yet, one cut, one damaged.
    (cache / "downloads/sha256.json").unlink()
    next((cache / "downloads").glob("numpy*")).unlink()
    os.truncate(next((cache / "downloads").glob("libc6*")), 1000)
    with next((cache / "downloads").glob("zlib1g*")).open("r+b") as file:
        file.write(b"?")
    whole = next((cache / "downloads").glob("libssl3*"))
    before, lines = whole.stat().st_mtime_ns, []
    root = foreign_root.prepare(lines.append)
    assert [line.split()[1] for line in lines] == ["downloading", "unpacking"]
    assert whole.stat().st_mtime_ns == before
    assert foreign_root.prepare(lines.append) == root
    assert len(lines) == 2


@pytest.mark.network
@pytest.mark.parametrize("cpu", ["cortex-a53", pytest.param("cortex-a76", marks=pytest.mark.campaign)])
def test_int8_model_agrees_with_the_host(cache, int8, splits, cpu):
    x = int8.quantize_input(splits.test.x)
    here = targets.get("host").run(int8, x, latency=False).outputs[0].astype(int)
    run = targets.get("arm64", cpu=cpu).run(int8, x)
    there = run.outputs[0].astype(int)
    assert np.ptp(here) > 50
    assert np.abs(there - here).max() <= 4
    assert (there.argmax(-1) == here.argmax(-1)).mean() > 0.98
    assert run.evidence == {"outputs": "emulated"}
    assert run.latencies_ns is None
    assert run.memory.peak_rss_bytes is None
    assert run.environment["machine"] == "aarch64"
    assert run.environment["processor"] == f"{cpu}, emulated"


@pytest.mark.campaign
@pytest.mark.network
def test_float_model_agrees_with_the_host(cache, student, splits, tmp_path):
    model = tfkd.convert(student, tmp_path / "float.tflite", mode="float32")
    here = targets.get("host").run(model, splits.test.x.astype(np.float32), latency=False)
    there = targets.get("arm64").run(model, splits.test.x.astype(np.float32))
    np.testing.assert_allclose(there.outputs[0], here.outputs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.network
def test_damaged_root_is_detected_before_a_run(cache, failing_apt):
    root, lines = foreign_root.prepare(print), []
    damaged = (
        root / foreign_root.PYTHON,
        next((cache / "downloads").glob("zlib1g*")),
    )  # and the download that would replace it
    contents = [path.read_bytes() for path in damaged]
    for path in damaged:
        with path.open("r+b") as file:
            file.write(b"?")
    with pytest.raises(RuntimeError, match=r"(?s)arm64: apt-get .*update: failed: no route.*resumes"):
        foreign_root.prepare(lines.append)
    assert "is damaged" in lines[0]
    for path, content in zip(damaged, contents, strict=True):
        path.write_bytes(content)
    (root / "more.py").touch()
    with pytest.raises(RuntimeError, match="apt-get"):
        foreign_root.prepare(lines.append)
    (root / "more.py").unlink()
    assert foreign_root.prepare(lines.append) == root


def test_missing_emulator_exits_with_3_and_the_install_command(int8):
    done = subprocess.run(
        [sys.executable, "-m", "tfkd.cli", "benchmark", int8.path, "--target", "arm64"],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "sudo apt-get install --no-install-recommends qemu-user-static" in done.stderr


@pytest.mark.network
def test_model_that_the_engine_refuses_is_a_model_error(cache, int8, splits):
    broken = tfkd.TFLiteModel.load(int8.content)
    object.__setattr__(broken, "content", int8.content[: len(int8.content) // 3])
    with pytest.raises(ModelError, match="arm64: LiteRT does not accept the model"):
        targets.get("arm64").run(broken, int8.quantize_input(splits.test.x[:2]))


@pytest.mark.campaign
def test_each_sample_starts_from_the_initial_state(cache, resource_states):
    model, x, expected = resource_states
    outputs = targets.get("arm64").run(model, x, latency=False).outputs[0]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_model_that_kills_the_emulator_is_a_crash():
    with pytest.raises(isolation.ChildCrashed, match="SIGSEGV"):
        isolation.run(
            "tfkd.targets.arm64:_emulate", command=["sh", "-c", "kill -SEGV $$"], job={}, timeout_s=60, what="running"
        )


def test_emulator_that_hangs_times_out():
    with pytest.raises(isolation.ChildTimedOut, match="timed out after 2 s"):
        isolation.run("tfkd.targets.arm64:_emulate", command=["sleep", "60"], job={}, timeout_s=2, what="running")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpu": "cortex-m4"}, "cpu must be one of cortex-a76, cortex-a53"),
        ({"kernels": "fast"}, "kernels must be xnnpack"),
        ({"timeout_s": 0}, "timeout_s must be > 0"),
        ({"threads": 2}, "arm64 has no setting 'threads'"),
    ],
)
def test_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        targets.get("arm64", **options)


def test_names_of_cores_are_specifications():
    names = [name for name in targets.names() if name.startswith("arm64")]
    assert [targets.get(name).spec for name in names] == names
