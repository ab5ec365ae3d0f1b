"""Comparison of trainings over seeds."""

import numpy as np
import pytest

from tests.report.records import SEEDS
from tfkd.report import seeds


def test_seeds_comparison_is_the_paired_t_interval():
    (found,) = seeds.compare(seeds.series(SEEDS))
    differences = np.array([1.3, 1.5, 1.0])
    reach = 4.302652729696142 * differences.std(ddof=1) / np.sqrt(3)
    assert found.mean == pytest.approx(differences.mean())
    assert found.interval == (pytest.approx(found.mean - reach), pytest.approx(found.mean + reach))
    assert found.sentence.startswith(
        "Distillation improved accuracy: student distilled +1.27 points against student alone"
    )


@pytest.mark.parametrize(
    ("gains", "start"),
    [
        ((-0.02, -0.021, -0.019), "Distillation reduced accuracy"),
        ((0.02, -0.02, 0.01), "No significant effect of distillation"),
        ((0.02,), "One seed does not show"),
    ],
)
def test_seeds_sentence(gains, start):
    runs = {
        "student alone": [{"seed": seed, "accuracy": 0.9} for seed in range(len(gains))],
        "student distilled": [{"seed": seed, "accuracy": 0.9 + gain} for seed, gain in enumerate(gains)],
    }
    (found,) = seeds.compare(seeds.series(runs))
    assert found.sentence.startswith(start)


def test_seeds_only_pairs_are_compared():
    runs = {"a": [{"seed": 1, "accuracy": 0.5}], "b": [{"seed": 2, "accuracy": 0.9}], "c": []}
    assert seeds.compare(seeds.series(runs)) == []
