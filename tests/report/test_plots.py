"""Plots of models and devices."""

import copy
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.report.records import HOSTILE, SEEDS, TRAINING, written
from tfkd import tasks
from tfkd.report import device_plots, plots
from tfkd.report.device_plots import LatencyAxis


def test_are_reproducible_and_have_no_fixed_colour(ship):
    palette = plots.colours(ship)
    first = plots.pareto(ship, palette)
    assert plots.pareto(ship, palette) == first
    assert not re.search(r"#[0-9a-f]{6}\b", first.svg)
    assert "var(--series-0)" in first.svg
    root = ElementTree.fromstring(first.svg)
    assert root.get("role") == "img"
    assert root.find("{http://www.w3.org/2000/svg}title").text == "Accuracy against size"


def test_ids_are_unique_in_the_page(ship, tmp_path):
    page = written(ship, tmp_path / "report.html", training=TRAINING, seeds=SEEDS)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)


def test_pareto_draws_the_front(ship):
    assert plots.front([(10, 90), (5, 80), (20, 85), (30, 95), (5, 70)]) == [(5, 80), (10, 90), (30, 95)]


@pytest.mark.parametrize("low", [300.0, 8e3, 9.7e4])
@pytest.mark.parametrize("ratio", [1.03, 2.0, 12.0, 300.0, 1e4, 1e6, 1e8])
def test_labels_of_sizes_are_a_few_distinct_ones_far_enough_apart(low, ratio):
    ticks = plots.size_ticks(low, low * ratio)
    places = np.log(np.array(list(ticks)) / low) / np.log(ratio)  # share of the width of the axis
    assert 2 <= len(set(ticks.values())) == len(ticks)
    assert places[0] >= -1e-9
    assert places[-1] <= 1 + 1e-9
    assert np.diff(places).min() > 0.12


def test_label_with_markup_is_text():
    (accuracy, _) = plots.training({HOSTILE + "$a$": TRAINING["teacher"]}, {HOSTILE + "$a$": 0})
    assert "<script>" not in accuracy.svg
    assert "$a$" in accuracy.svg


def test_without_numbers_are_left_out():
    assert plots.seeds([], {}) is None
    assert plots.training({}, {}) == []
    assert device_plots.latency({"rows": [], "ship": None, "contract": None}) is None


@pytest.mark.parametrize(
    ("nanoseconds", "limit", "unit", "far"),
    [
        (1_500, 1.0, "microseconds", True),
        (2_000_000, 3.0, "milliseconds", False),
        (2_000_000, None, "milliseconds", False),
    ],
)
def test_latency_scale_follows_the_samples_not_a_far_limit(ship, nanoseconds, limit, unit, far):
    rows = copy.deepcopy([row for row in ship["rows"] if row["target"] == "host"])
    rows[0]["measurement"]["latencies_ns"] = [nanoseconds] * 400 + [1000 * nanoseconds]
    found = device_plots.latency({"rows": rows, "ship": None, "contract": {"max_p90_ms": limit}})
    assert unit in found.svg
    assert ("is outside of the plot" in found.caption) == far
    assert ("p90 limit" in found.svg.split("</desc>")[1]) == (limit is not None and not far)


def test_devices_in_several_batches_have_a_curve_of_throughput(phones):
    assert device_plots.throughput(phones) is None
    record = copy.deepcopy(phones)
    for batch in (8, 1):
        row = copy.deepcopy(record["rows"][2])
        row["target"] = f"host,batch={batch}"
        row["measurement"]["setting"] = {"threads": 2, "timed_batch": batch}
        record["rows"].append(row)
    assert "full_int8 on host, 2 threads" in device_plots.throughput(record).svg


def test_latency_of_far_apart_devices_has_a_scale_for_both(phones):
    slow = copy.deepcopy(phones)
    times = slow["rows"][-2]["measurement"]
    times["latencies_ns"] = [1000 * one for one in times["latencies_ns"]]
    assert "0.1" in device_plots.latency(slow).svg
    few = copy.deepcopy(phones)
    for row in few["rows"]:
        if row["measurement"] and row["measurement"]["latencies_ns"]:
            row["measurement"]["latencies_ns"] = row["measurement"]["latencies_ns"][:19]
    assert device_plots.latency(few) is None


def test_latencies_of_one_decade_have_plain_labels(ship):
    """With fewer than two decades, matplotlib labels the steps between them, as formulas one over the other."""
    rows = [copy.deepcopy(row) for row in ship["rows"] if row["target"] == "host"][:1] * 2
    rows[1] = copy.deepcopy(rows[0]) | {"target": "host:plain"}
    for row, start in zip(rows, (2_000, 20_000), strict=True):
        row["measurement"]["latencies_ns"] = [start + 10 * step for step in range(400)]
    found = device_plots.latency({"rows": rows, "ship": None, "contract": None}).svg
    labels = [text for text in re.findall(r">([^<>]+)</text>", found) if re.fullmatch(r"[\d.]+", text)]
    assert "$" not in found
    assert {"5", "10", "20"} <= set(labels)


def test_latency_axis_leaves_out_rare_slow_inferences(ship):
    usual = list(range(2_000_000, 2_020_000, 100))
    clean, slow = LatencyAxis.of([usual]), LatencyAxis.of([sorted([*usual, *[90_000_000] * 10])])
    assert slow.high_ns < 2_100_000
    assert (
        min(clean.low_ns, slow.low_ns) > 1_990_000
    )  # a narrow distribution fills the width instead of being a vertical line
    rows = copy.deepcopy([row for row in ship["rows"] if row["target"] == "host"])
    rows[0]["measurement"]["latencies_ns"] = [*usual, *[90_000_000] * 10]
    found = device_plots.latency({"rows": rows, "ship": None, "contract": None})
    assert "10 slower are not shown, up to 90.0 ms." in found.caption


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=list(tasks.TASKS))
def test_curves_of_other_tasks_are_no_accuracy_of_classes(task):
    history = {name: [0.5, 0.4] for name in {task.monitor, "loss"}}
    titles = [plot.title for plot in plots.training({"teacher": history}, {"teacher": 0})]
    has_accuracy = task.name in ("classification", "binary")
    assert ("Accuracy in training" in titles) is has_accuracy
    assert len(titles) == len([name for name in history if name != "mae"])
