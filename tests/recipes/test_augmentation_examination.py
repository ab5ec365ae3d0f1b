"""Augmentations after which labels would be wrong are findings before any training."""

from __future__ import annotations

import numpy as np
import pytest

from tfkd import data
from tfkd.recipes import augmentation_examination, recipe


def examine(tmp_path, class_names, settings):
    file = tmp_path / "recipe.toml"
    file.write_text(
        'output = "out"\n[data]\nname = "digits"\n[teacher]\npath = "teacher.keras"\n[student]\nmodel = "mlp"\n'
        f'[distillation]\n{settings}\n[targets]\nnames = ["host"]\n'
    )
    x, y = np.zeros((9, 4, 4, 3)), np.arange(9) % 3
    train = data.from_arrays((x, y), (x, y), class_names=class_names, validation=0).train
    return [*augmentation_examination.examine(recipe.load(file), train, train)]


@pytest.mark.parametrize(
    "settings", ['augment = "crop_flip"', 'augment = ["color_jitter", "flip"]'], ids=["one", "two"]
)
def test_mirrored_classes_that_keep_their_sides_are_an_error(tmp_path, settings):
    (finding,) = examine(tmp_path, ("stop", "left turn", "right turn"), settings)
    assert (finding.severity, finding.remedy) == ("error", "Correct augment in [distillation].")
    assert "'left turn' and 'right turn'" in finding.evidence


def test_class_with_a_side_and_no_counterpart_is_a_warning(tmp_path):
    (finding,) = examine(tmp_path, ("stop", "left turn", "u-turn"), 'augment = "flip"')
    assert (finding.severity, finding.evidence) == ("warning", "left turn")


def test_augmentation_that_mirrors_nothing_has_no_finding(tmp_path):
    assert examine(tmp_path, ("stop", "left turn", "right turn"), 'augment = "crop_flip"\nflip = false') == []
