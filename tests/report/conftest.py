"""Records of validations that the tests of reports share."""

import copy

import pytest

from tests.report.records import HOSTILE, HOT, NO, SHIP, UNKNOWN, record_of


@pytest.fixture(scope="session")
def ship():
    return record_of(SHIP)


@pytest.fixture(scope="session")
def no():
    return record_of(NO, class_names=[f"{HOSTILE}{place} $x$ | `b`" for place in range(10)])


@pytest.fixture(scope="session")
def unknown():
    return record_of(UNKNOWN, timed=False)


@pytest.fixture(scope="session")
def phones(ship):
    """The host, a phone with two settings, one of them throttled, and a setting that the phone does not support."""
    record = copy.deepcopy(ship)
    host = record["rows"][2]
    phone = {"manufacturer": "Google", "model": "Pixel 8", "soc": "Tensor G3", "cores": 9, "android": "15"}
    for target, setting, heat in (
        ("android,threads=2", {"threads": 2, "accelerator": "cpu", "restart": 0}, [[0, 0], [1, 1]]),
        ("android,restart=1", {"threads": 1, "accelerator": "cpu", "restart": 1}, [[0, 1], [60, 3]]),
    ):
        row = copy.deepcopy(host)
        row["target"] = row["measurement"]["target"] = target
        row["measurement"] |= {"setting": setting, "environment": {**phone, "thermal": heat, "runs": 500}}
        record["rows"].append(row)
    row["measurement"]["environment"]["per_minute"] = [
        {"minute": 0, "p50_ns": 70_000, "p90_ns": 80_000},
        {"minute": 1, "p50_ns": 90_000, "p90_ns": 99_000},
    ]
    row |= {"valid": False, "invalid_reason": HOT}
    failed = {**host, "target": "android,accelerator=gpu", "measurement": None, "accuracy": None, "confusion": None}
    record["rows"].append({**failed, "valid": False, "invalid_reason": f"no {HOSTILE}", "broken": False})
    return record
