import os
import signal
import sys

import pytest

from tests.adb_device import Phone, adb

# A shell without job control starts its background jobs deaf to Ctrl-C, and their children inherit that; the tests of
# Ctrl-C need children that hear it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """Gives each test that builds models the same weights at each run."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory):
    """An adb server of our own, apart from a user's."""
    home = tmp_path_factory.mktemp("home")
    kept = dict(os.environ)
    os.environ |= {"ADB_SERVER_SOCKET": f"localfilesystem:{home}/adb", "HOME": str(home)}  # a port may be another's
    adb("start-server")
    yield
    adb("kill-server")
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture
def phone(adb_server, tmp_path):
    """A phone that adb is connected to."""
    one = Phone(tmp_path / "phone")
    assert "connected" in adb("connect", one.serial).stdout
    yield one
    adb("disconnect", one.serial)
    one.asleep = False
    one.pull_the_cable()


# Files of few tests that take minutes. One process does a whole file, so a long one that starts last leaves the other
# process idle.
LONG = (
    "test_kills", "test_micro", "test_arm64", "test_android_app", "test_conversion", "test_damage", "test_elimination",
    "test_micro_streaming", "test_micro_states", "test_cortex_m", "test_qat", "test_optimization", "test_sparsity",
    "test_workers", "test_pipeline",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first; `--no-loadscope-reorder` keeps that order."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_addoption(parser):
    parser.addoption("--kills", default="21", help="how often test_kills.py kills a process, in all")
