"""The search for the student: what is trained, what is not, kills, several machines, the results."""

import json
import math
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tfkd import models
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ToolMissingError
from tfkd.recipes import recipe as recipes
from tfkd.recipes.search import runner
from tfkd.recipes.search.candidate import candidate
from tfkd.recipes.search.cost import Cost, measure
from tfkd.recipes.search.results import best_of
from tfkd.recipes.search.study import Found, Study, check_packages
from tfkd.report import search_page, search_plots
from tfkd.targets import get

pytest.importorskip("optuna", reason="pip install 'tfkd[search]'")

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "search.md"
RECIPE = """
output = "{output}"
[data]
name = "digits"
[teacher]
path = "{teacher}"
[student]
model = "digits_student"
[distillation]
epochs = 2
seeds = 1
[conversion]
calibration_samples = 50
[targets]
names = ["host:plain"]
[contract]
min_accuracy = 5.0
max_bytes = {max_bytes}
[search]
trials = 2
[search.student.options]
width = [4, 40]
[search.distillation]
learning_rate = [0.005, 0.02]
"""
SPACE = RECIPE[RECIPE.index("[search]") :]


def write(folder, name, teacher, max_bytes=20_000):
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(output=folder / name, teacher=teacher, max_bytes=max_bytes))
    return path


# Whole searches.


@pytest.fixture(scope="module")
def searched(digits_teacher_file, tmp_path_factory):
    """A whole search, with its final training."""
    folder = tmp_path_factory.mktemp("search")
    result = runner.run(recipes.load(write(folder, "whole", digits_teacher_file)))
    return folder / "whole", result


def test_candidates_outside_of_the_contract_are_never_trained(searched):
    folder, result = searched
    candidates = result.record["candidates"]
    assert {one["values"]["student.options.width"] for one in candidates if one["outcome"] == "refused"} == {40}
    for one in candidates:
        is_outside = one["cost"]["bytes"] > 20_000
        assert (one["outcome"] == "refused") == is_outside
        assert (one["epochs"] == 0) == is_outside
        assert ("File size" in (one["reason"] or "")) == is_outside
        assert bool([*(folder / "search" / "candidates").glob(f"{one['key']}-*")]) != is_outside
    assert sum(one["outcome"] != "refused" for one in candidates) == 2


def test_best_recipe_is_run_and_its_cost_was_known_before(searched):
    folder, result = searched
    best = next(one for one in result.record["candidates"] if one["number"] == result.record["best"])
    written = recipes.load(folder / "search" / "best.toml")
    assert written.student.options == {"width": 4}
    assert written.distillation.learning_rate == best["values"]["distillation.learning_rate"]
    assert result.final is not None
    assert result.ok == result.final.ok
    assert TFLiteModel.load(folder / "full_int8.tflite").size_bytes == pytest.approx(best["cost"]["bytes"], rel=0.02)
    # The teacher's logits are those that the search stored.
    assert written.distillation.views == 1
    assert result.final.steps["labels"] == "kept"


def test_page_and_record_are_written(searched):
    _, result = searched
    page = result.page.read_text(encoding="utf-8")
    assert page.count("<svg") >= 2
    assert "src=" not in page
    assert "<script" not in page
    assert "not trained" in page
    assert "at most 20.0 kB allowed" in page
    assert json.loads(result.page.with_name("search.json").read_text(encoding="utf-8")) == result.record


def test_same_command_keeps_what_is_done(searched):
    folder, result = searched
    again = runner.run(recipes.load(folder.with_suffix(".toml")))
    assert again.record["candidates"] == result.record["candidates"]
    assert set(again.final.steps.values()) == {"kept"}


def test_time_that_is_over_between_two_candidates_is_said(searched, capsys):
    folder, result = searched
    again = runner.run(recipes.load(folder.with_suffix(".toml")), trials=3, hours=1e-9, final=False)
    assert again.record["candidates"] == result.record["candidates"]
    assert "The time is over after 2 of 3 candidates" in capsys.readouterr().out


@pytest.mark.campaign
def test_search_killed_in_a_training_resumes_with_an_equal_result(searched, digits_teacher_file, forks):
    folder, result = searched
    path = write(folder.parent, "killed", digits_teacher_file)
    first = next(one for one in result.record["candidates"] if one["outcome"] == "finished")
    killed = forks.tfkd("search", path, "--trials", 1, "--no-final")
    killed.kill_at(f"candidate {first['number']} 1/2")
    resumed = runner.run(recipes.load(path), trials=1, final=False)
    same = next(one for one in resumed.record["candidates"] if one["key"] == first["key"])
    assert (same["value"], same["epochs"]) == (first["value"], 2)
    assert resumed.final is None
    assert not resumed.ok  # nobody judged the contract
    assert "Contract: UNKNOWN" in resumed.page.read_text(encoding="utf-8")


def test_machine_that_ends_before_others_has_succeeded(searched, digits_teacher_file, capsys):
    """Its trials are done while another machine trains a candidate."""
    folder, _ = searched
    name = next((folder / "search" / "candidates").glob("*-*")).name.split("-")[1]
    other = Study(folder / "search", name, seed=1, epochs=2, reduction=3)
    trial = other.ask()
    other.begin(trial, "elsewhere", {})
    with other.lock("elsewhere"):
        result = runner.run(recipes.load(folder.with_suffix(".toml")))
    other.drop(trial)
    assert result.final is None
    assert result.ok
    assert "others train candidates still" in capsys.readouterr().out


def test_range_over_an_unknown_option_is_refused_before_the_teacher_is_trained(digits_teacher_file, tmp_path):
    path = write(tmp_path, "unknown", digits_teacher_file)
    path.write_text(path.read_text().replace("width = [4, 40]", "units = [4, 40]"))
    with pytest.raises(InputError, match="digits_student takes the options: .*width.* Received: units"):
        runner.run(recipes.load(path))


def test_candidates_that_cannot_be_built_are_called_so(digits_teacher_file, tmp_path, capsys):
    path = write(tmp_path, "unbuildable", digits_teacher_file)
    path.write_text(path.read_text().replace("width = [4, 40]", "kernel = [-1]"))
    assert not runner.run(recipes.load(path)).ok
    assert "No candidate can be built. The first of" in capsys.readouterr().out


def test_no_candidate_within_the_contract_names_the_nearest(digits_teacher_file, tmp_path, capsys):
    path = write(tmp_path, "small", digits_teacher_file, max_bytes=1_000)
    result = runner.run(recipes.load(path))
    assert not result.ok
    assert all(one["outcome"] == "refused" for one in result.record["candidates"])
    assert '"student.options.width": 4' in capsys.readouterr().out
    assert not (tmp_path / "small" / "search" / "best.toml").exists()


def test_trained_model_costs_no_more_than_its_candidate_with_dead_channels(splits, digits_int8):
    recipe = recipes.parse(RECIPE.format(output="unused", teacher="t.keras", max_bytes=20_000), "recipe")
    candidate = models.build("digits_student", splits.train.input_shape, 10)
    shift = candidate.get_layer("block1_pointwise_bn").beta
    half = shift.shape[0] // 2
    shift.assign([-10.0] * half + [0.1] * half)
    cost = measure(candidate, recipe, splits.train, [get("cortex-m4")])
    trained = get("cortex-m4").run(digits_int8, digits_int8.quantize_input(splits.train.x[:1].astype("float32")))
    assert trained.environment["removed"] is None
    assert trained.instructions <= cost.instructions <= 1.02 * trained.instructions
    assert trained.memory.flash_bytes <= cost.flash_bytes <= 1.02 * trained.memory.flash_bytes
    assert trained.memory.arena_bytes <= cost.arena_bytes
    assert digits_int8.size_bytes <= cost.bytes


# The study.


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path, "one", seed=0, epochs=9, reduction=3)


def test_worse_candidates_are_stopped(study):
    stopped = []
    for number, value in enumerate([0.5, 0.6, 0.7, 0.2, 0.8]):
        trial = study.ask()
        study.begin(trial, str(number), {"x": trial.suggest_float("x", 0, 1)})
        trial.report(value, 1)
        if trial.should_prune():
            study.stop(trial)
            stopped.append(value)
        else:
            study.finish(trial, value, value)
    assert stopped == [0.2]
    assert [one.outcome for one in study.found()] == ["finished", "finished", "finished", "stopped", "finished"]


@pytest.mark.parametrize("epochs", [10, 20, 30])
def test_candidates_are_compared_twice_however_many_epochs_there_are(epochs, tmp_path):
    """One that falls behind after the second comparison is trained to its end."""
    study = Study(tmp_path, "one", seed=0, epochs=epochs, reduction=3)
    steady, falling = study.ask(), study.ask()
    second = 3 * math.ceil(epochs / 9)
    for epoch in range(1, epochs):
        steady.report(0.5, epoch)
        assert not steady.should_prune(), epoch
        falling.report(0.9 if epoch <= second else 0.1, epoch)
        assert not falling.should_prune(), epoch


def test_candidate_without_a_number_counts_and_is_never_the_best(study):
    trial = study.ask()
    study.begin(trial, "diverged", {"x": trial.suggest_float("x", 0, 1)})
    trial.report(math.nan, 9)
    study.finish(trial, math.nan, math.nan)
    (found,) = study.found()
    assert (found.outcome, found.value) == ("stopped", None)
    assert study.is_known("diverged", study.ask())
    assert best_of([found]) is None


def test_trial_of_a_dead_process_is_repeated_and_one_of_another_machine_is_not(study, tmp_path):
    dead, alive = study.ask(), study.ask()
    for trial, key in ((dead, "dead"), (alive, "alive")):
        study.begin(trial, key, {"x": trial.suggest_float("x", 0, 1)})
    drawn = study.ask()  # without a key yet
    other = Study(tmp_path, "one", seed=0, epochs=9, reduction=3)
    with study.lock("alive"):
        other.release()
        assert other.others_train()
        assert [one.key for one in other.found()] == ["alive"]
    repeated = other.ask()
    assert repeated.suggest_float("x", 0, 1) == dead.params["x"]
    assert not other.others_train()
    study.begin(drawn, "drawn", {"x": drawn.suggest_float("x", 0, 1)})


def test_of_equal_candidates_the_cheapest_is_best():
    costs = [Cost(bytes=2, instructions=9), Cost(bytes=9, instructions=5), Cost(bytes=3, instructions=5)]
    found = [Found(i, str(i), {}, "finished", cost, quality=0.5) for i, cost in enumerate(costs)]
    worse = Found(3, "3", {}, "finished", Cost(bytes=1, instructions=1), quality=0.4)
    assert best_of([*found, worse]).number == 2


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ToolMissingError, match=r"pip install 'tfkd\[search\]'"):
        check_packages()


# The table of the recipe.


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("width = [4, 40]", "", "nothing varies"),
        ("width = [4, 40]", "width = 4", "student.options.width must be a list or a range"),
        ("width = [4, 40]", "width = { low = 8, high = 4 }", "low < high"),
        ("width = [4, 40]", "width = { low = 0, high = 4, log = true }", "log low > 0"),
        ("[search.student.options]", "[search.student.option]", "Did you mean 'options'"),
        ("trials = 2", "trials = 0", "search.trials"),
    ],
    ids=["empty", "scalar", "reversed", "log", "unknown-key", "trials"],
)
def test_wrong_table_is_refused(before, after, message, tmp_path):
    text = RECIPE.format(output=tmp_path, teacher="t.keras", max_bytes=9).replace(before, after)
    if message == "nothing varies":
        text = text.replace("learning_rate = [0.005, 0.02]", "")
    with pytest.raises(InputError, match=message):
        recipes.parse(text, "recipe")


def test_recipe_without_the_table_is_refused(tmp_path):
    text = RECIPE.replace(SPACE, "").format(output=tmp_path, teacher="t.keras", max_bytes=9)
    with pytest.raises(InputError, match=r"no table \[search\]"):
        runner.run(recipes.parse(text, "recipe"))


def test_recipe_of_the_guide_is_valid():
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(recipes.parse(toml, "guide").search.space) == 8


EVERY_VIEW = {"augment": "crop_flip", "views": "all", "label_hours": 1.0}


@pytest.mark.parametrize(
    ("distillation", "varied", "expected"),
    [
        ({}, {}, (1, None)),
        ({"augment": "crop_flip"}, {}, (8, None)),
        (EVERY_VIEW, {}, ("all", 1.0)),
        (EVERY_VIEW, {"augment": "none"}, (1, None)),
        (EVERY_VIEW, {"augment": "rotation"}, (8, None)),
        (EVERY_VIEW, {"augment": "mixup"}, (None, None)),
        (EVERY_VIEW, {"features": [{"student_layer": "logits", "teacher_layer": "logits"}]}, (None, None)),
    ],
    ids=["none", "crops", "all", "all without", "all of another", "mixed", "features"],
)
def test_candidate_has_the_views_that_its_training_can_have(distillation, varied, expected):
    content = tomllib.loads(RECIPE.format(output="unused", teacher="t.keras", max_bytes=1))
    content["distillation"] |= distillation
    values = {f"distillation.{name}": value for name, value in varied.items()}
    found = candidate(recipes.Recipe.model_validate(content), values, stored=True).recipe.distillation
    assert (found.views, found.label_hours) == expected


# The page.


def record_of(candidates, **contract):
    metric = {"name": "accuracy", "label": "Accuracy", "unit": "percent"}
    return {
        "metric": metric, "larger_is_better": True, "epochs": 3, "contract": contract, "candidates": candidates,
        "best": 1, "command": None, "final": None,
    }  # fmt: skip


def candidate_of(number, outcome, value, **cost):
    found = Found(number, "k", {"student.options.width": 4}, outcome, Cost(**cost), "too large" * (value is None))
    return {**found.to_json(), "value": value}


def test_plots_show_each_known_cost_with_its_limit():
    candidates = [
        candidate_of(0, "finished", 0.8, bytes=9_000, arena_bytes=2_000, instructions=10_000, p90_ms=1.0),
        candidate_of(1, "finished", 0.9, bytes=200_000, arena_bytes=3_000, instructions=11_000, p90_ms=2.0),
        candidate_of(2, "refused", None, bytes=900_000, arena_bytes=9_000),
    ]
    record = record_of(candidates, min_accuracy=85.0, max_bytes=500_000, max_instructions=12_000)
    found = search_plots.all_of(record)
    assert [plot.title for plot in found] == [
        f"Accuracy against {cost}" for cost in ("size of the .tflite", "tensor arena", "instructions")
    ]
    assert "limit 500 kB" in found[0].svg
    assert "limit 85%" in found[0].svg
    assert "limit" not in found[1].svg.replace("limit 85%", "")
    page = search_page.html(record)
    assert "90.0%" in page
    assert "too large" in page


def test_page_of_a_search_without_a_result_says_so():
    record = record_of([candidate_of(0, "refused", None, bytes=9)], max_bytes=5) | {"best": None}
    page = search_page.html(record)
    assert "NONE" in page
    assert "<svg" not in page
