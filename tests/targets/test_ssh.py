"""LiteRT on an edge device over ssh: the real client and a real sshd on the loopback interface."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import system_packages

import tfkd
from tfkd import targets
from tfkd.errors import DeviceError

MISSING = system_packages.skip_reason("sshd") or system_packages.skip_reason("ssh")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Box:
    """An emulated edge device: sshd on a port of this machine, with its own home folder and Python command."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.home = folder / "home"
        self.home.mkdir()
        host = key(folder / "host")
        (folder / "authorized").write_text(key(folder / "user"))
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {host}")
        self.python("exec " + sys.executable)
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        )
        self.config = folder / "config"
        self.config.write_text(
            f"Host box\nHostName 127.0.0.1\nPort {self.port}\nUser {pwd.getpwuid(os.getuid()).pw_name}\n"
            f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\n"
            "GlobalKnownHostsFile /dev/null\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # the sshd of root changes its root folder to it
        self.log = (folder / "log").open("wb")
        self.server = subprocess.Popen(
            [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stderr=self.log,
            start_new_session=True,
        )
        while self.server.poll() is None:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError((folder / "log").read_text())

    def python(self, line):
        """Makes `python3` of the device run a shell line, to which the arguments are added."""
        script = self.folder / "python3"
        script.write_text(f'#!/bin/sh\nexport HOME={self.home} PYTHONPATH=\n{line} "$@"\n')
        script.chmod(0o755)

    def target(self, **options):
        return targets.get("ssh:box", config=self.config, python=str(self.folder / "python3"), **options)

    @property
    def cache(self):
        return self.home / ".cache" / "tfkd"

    def close(self):
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        self.log.close()


@pytest.fixture
def box(tmp_path):
    one = Box(tmp_path)
    yield one
    one.close()


@pytest.fixture(scope="module")
def model(digits_int8):
    return digits_int8


def test_outputs_equal_those_of_the_host(box, model, splits):
    x = model.quantize_input(splits.test.x)
    there, here = box.target().run(model, x), targets.get("host").run(model, x, latency=False)
    np.testing.assert_array_equal(there.outputs[0], here.outputs[0])
    assert there.target == "ssh:box"
    assert len(there.latencies_ns) >= 50
    assert there.evidence == {"outputs": "measured", "latencies_ns": "measured", "memory": "measured"}
    assert there.environment["cores"] >= 1


def test_each_sample_starts_from_the_initial_state(box, resource_states):
    model, x, expected = resource_states
    outputs = box.target().run(model, x, latency=False).outputs[0]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_second_run_copies_no_file(box, model, splits):
    x = model.quantize_input(splits.test.x[:20])
    box.target().run(model, x, latency=False)
    first = {path.name: path.stat().st_mtime_ns for path in box.cache.iterdir()}
    assert len(first) == 3  # runner, model, inputs
    box.target().run(model, x, latency=False)
    assert {path.name: path.stat().st_mtime_ns for path in box.cache.iterdir()} == first


def test_files_unused_for_a_week_are_deleted(box, model, splits):
    x = model.quantize_input(splits.test.x[:20])
    box.target().run(model, x, latency=False)
    old = box.cache / ("0" * 64)
    old.write_bytes(b"old")
    os.utime(old, (0, 0))
    box.target().run(model, x, latency=False)
    assert not old.exists()


def test_file_damaged_on_the_device_is_an_error(box, model, splits):
    x = model.quantize_input(splits.test.x[:20])
    box.target().run(model, x, latency=False)
    (box.cache / model.sha256).write_bytes(b"changed")
    with pytest.raises(DeviceError, match=f"the SHA-256 is not {model.sha256}"):
        box.target().run(model, x, latency=False)


def test_unknown_host_key_is_refused(box, model, splits):
    (box.folder / "known").write_text("")
    with pytest.raises(RuntimeError, match=r"Host key verification failed[\s\S]*Connect once by hand"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_missing_key_is_an_error(box, model, splits):
    (box.folder / "authorized").write_text("")
    with pytest.raises(RuntimeError, match="Permission denied"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_refused_connection_is_an_error(model, splits, box):
    box.close()
    with pytest.raises(RuntimeError, match="Connection refused"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_package_missing_on_the_device_is_named(box, model, splits):
    box.python(f"exec {sys.executable} -S -I")
    with pytest.raises(RuntimeError, match=r"missing numpy.*, ai_edge_litert.*pip install numpy ai-edge-litert"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_python_missing_on_the_device_is_named(box, model, splits):
    box.folder.joinpath("python3").unlink()
    with pytest.raises(RuntimeError, match="python3 is not installed there"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_device_that_does_not_answer_times_out(box, model, splits):
    box.python("sleep 60; true")
    with pytest.raises(RuntimeError, match="timed out after 3 s"):
        box.target(timeout_s=3).run(model, model.quantize_input(splits.test.x[:2]))


def test_killed_process_is_an_error(box, model, splits):
    box.python(f'case "$1" in -c) exec {sys.executable} "$@";; esac; kill -9 $$; true')
    with pytest.raises(RuntimeError, match=r"crashed \(exit status"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_answer_of_another_run_is_an_error(box, model, splits):
    kept = box.folder / "kept"
    x = model.quantize_input(splits.test.x[:2])
    box.python(f'case "$1" in -c) exec {sys.executable} "$@";; esac; {sys.executable} "$@" | tee {kept}; true')
    box.target().run(model, x, latency=False)
    box.python(f'case "$1" in -c) exec {sys.executable} "$@";; esac; cat {kept}; true')
    with pytest.raises(RuntimeError, match="of another run"):
        box.target().run(model, x, latency=False)


def test_empty_answer_is_an_error(box, model, splits):
    box.python(f'case "$1" in -c) exec {sys.executable} "$@";; esac; true')
    with pytest.raises(RuntimeError, match="the answer of 0 bytes has no outputs"):
        box.target().run(model, model.quantize_input(splits.test.x[:2]))


def test_model_that_litert_does_not_accept_is_an_error(box, model, splits, tmp_path):
    content = bytearray(model.content)
    broken = tfkd.TFLiteModel.load(model.content)
    object.__setattr__(broken, "content", bytes(content[: len(content) // 3]))
    x = model.quantize_input(splits.test.x[:2])
    with pytest.raises((ValueError, RuntimeError)):
        box.target().run(broken, x)


@pytest.mark.parametrize("destination", ["", "-oProxyCommand=touch /tmp/owned", "a\nb"])
def test_destination_that_ssh_would_read_as_an_option_is_an_error(destination):
    with pytest.raises(ValueError, match="destination must be"):
        targets.get(f"ssh:{destination}")
