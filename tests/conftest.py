import signal
import sys

import pytest

# A shell without job control starts its background jobs deaf to Ctrl-C, and their children inherit that; the tests of
# Ctrl-C need children that hear it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """Gives each test that builds models the same weights at each run."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


def pytest_addoption(parser):
    parser.addoption("--kills", default="21", help="how often test_kills.py kills a process, in all")
