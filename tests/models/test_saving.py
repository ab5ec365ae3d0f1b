"""A trained model is saved so that Keras alone loads it."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np

from tfkd import tasks
from tfkd.models import saving


def test_saved_model_needs_no_metric_of_tfkd(tmp_path):
    task = tasks.get("segmentation")
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Dense(3)])
    model.compile("adam", loss=task.hard_loss(), metrics=task.training_metrics(), jit_compile=False)
    saving.save(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), tmp_path / "uncompiled.keras")
    x, y = np.ones((2, 4, 4, 1), np.float32), np.zeros((2, 4, 4), np.int32)
    model.train_on_batch(x, y)
    file = tmp_path / "model.keras"
    saving.save(model, file)
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("config.json"))["compile_config"] == {}
    loaded = keras.saving.load_model(file)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    steps = int(model.optimizer.iterations)
    model.train_on_batch(x, y)  # it stays compiled
    assert (int(model.optimizer.iterations), loaded.compiled) == (steps + 1, False)
