import keras
import numpy as np
import pytest

import tfkd
from tfkd.distillation import training
from tfkd.distillation.training_config import TrainingConfig

SPLITS = tfkd.data.load("digits")
CONFIG = TrainingConfig(epochs=3, batch_size=256, augment="crop_flip", padding=1, flip=False)


def student():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


class Interrupt(keras.callbacks.Callback):
    """Raises KeyboardInterrupt in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.last_epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.last_epoch and batch == 1:
            raise KeyboardInterrupt


def test_interrupted_fit_resumes_with_equal_weights_and_history(tmp_path):
    whole = student()
    expected = training.fit(whole, SPLITS, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        training.fit(student(), SPLITS, CONFIG, checkpoint=tmp_path, callbacks=[Interrupt(2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000002.json", "epoch-000002.weights.h5"]
    finished = []
    resumed = student()
    history = training.fit(
        resumed, SPLITS, CONFIG, checkpoint=tmp_path, on_epoch=lambda done, total, logs: finished.append((done, total))
    )
    assert finished == [(3, 3)]
    assert history == expected
    for first, second in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(second, first)


def test_accuracy_is_the_share_of_correct_samples():
    model = student()
    logits = model.predict(SPLITS.val.x.astype("float32"), verbose=0)
    expected = float((logits.argmax(-1) == SPLITS.val.y).mean())
    assert training.accuracy(model, SPLITS.val) == pytest.approx(expected)
