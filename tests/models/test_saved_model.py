"""SavedModels as teachers: the same outputs, logits instead of probabilities, and no training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.distillation.labels.identity import teacher_hash
from tfkd.errors import ModelError
from tfkd.models import saved_model
from tfkd.recipes.model_input import ModelInput
from tfkd.recipes.step_cache import input_hash
from tfkd.recipes.student import load

pytestmark = pytest.mark.filterwarnings("ignore:models.load.*returns probabilities")


@pytest.fixture
def model():
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs))


def exported(model, folder):
    model.export(folder, verbose=False)
    return folder


def test_saved_model_has_the_logits_of_its_probabilities(model, tmp_path):
    folder = exported(model, tmp_path / "one")
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    np.testing.assert_allclose(models.read(folder)(x), model(x), rtol=1e-6)
    loaded = models.load(folder)
    np.testing.assert_allclose(keras.ops.softmax(loaded(x)), model(x), rtol=1e-5)
    assert not loaded.trainable_weights


def test_hash_of_a_saved_model_depends_on_its_files_only(model, tmp_path):
    one, copy = exported(model, tmp_path / "one"), tmp_path / "copy"
    (tmp_path / "one").rename(copy)
    before = input_hash(copy), teacher_hash(models.load(copy))
    copy.rename(one)
    assert (input_hash(one), teacher_hash(models.load(one))) == before
    model.set_weights([2 * weight for weight in model.get_weights()])
    other = exported(model, tmp_path / "other")
    assert input_hash(other) != before[0]
    assert teacher_hash(models.load(other)) != before[1]


def test_saved_model_is_no_student(model, tmp_path):
    with pytest.raises(ModelError, match="is a SavedModel, which shows no layers to train"):
        load(ModelInput(), exported(model, tmp_path / "one"), None)


def test_saved_model_of_another_form_is_refused(tmp_path):
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2)), tf.TensorSpec((None, 2))])
        def __call__(self, a, b):
            return {"sum": a + b, "difference": a - b}

    tf.saved_model.save(Two(), tmp_path / "two")
    with pytest.raises(ModelError, match="2 inputs and 2 outputs"):
        models.load(tmp_path / "two")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\0nothing")
    assert saved_model.is_saved_model(tmp_path / "broken")
    with pytest.raises(ModelError, match="could not load the SavedModel"):
        models.load(tmp_path / "broken")
