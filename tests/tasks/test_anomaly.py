"""Anomaly detection: metrics are those of scikit-learn, thresholds are quantiles of normal samples."""

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from tests.data.data_sets import folder
from tfkd import data
from tfkd.data import abnormal_labels
from tfkd.errors import InputError
from tfkd.tasks import anomaly, bootstrap

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(300, 6)).astype("float32")
ABNORMAL = (RNG.normal(size=(60, 6)) + 1.5).astype("float32")
TASK = anomaly.TASK


def splits():
    x_test, y_test = np.concatenate([NORMAL[200:], ABNORMAL]), np.repeat([0, 1], [100, 60])
    return data.from_arrays((NORMAL[:200], np.zeros(200, int)), (x_test, y_test), validation=0.25, labels="abnormal")


def test_metrics_are_those_of_scikit_learn():
    test, mean = splits().test, splits().train.x.mean(axis=0)
    outputs = np.broadcast_to(mean, test.x.shape)
    scored = TASK.score(outputs, test, threshold=1.3)
    scores = np.asarray([keras.metrics.mean_squared_error(x, mean).numpy() for x in test.x])
    expected = {
        "roc_auc": 100 * roc_auc_score(test.y, scores),
        "pauc": 100 * roc_auc_score(test.y, scores, max_fpr=0.1),
        "f1": 100 * f1_score(test.y, scores > 1.3),
        "reconstruction_mse": scores[~test.y].mean(),
    }
    assert scored.values == pytest.approx(expected, rel=1e-5)
    assert scored.constant.better is True
    for name, value in expected.items():
        low, high = bootstrap.interval(scored.replicates[name])
        assert low < value < high


@pytest.mark.parametrize("most", [0.05, 0.1, 0.5])
def test_partial_auc_of_resamples_is_that_of_scikit_learn(most):
    scores, positive = RNG.normal(size=80).round(1), RNG.random(80) < 0.4  # with equal scores
    ranking, weights = bootstrap.Ranking(scores, positive), RNG.integers(0, 4, (5, 80)).astype(float)
    expected = [roc_auc_score(positive, scores, sample_weight=row, max_fpr=most) for row in weights]
    np.testing.assert_allclose(ranking.partial_roc_auc(weights, most), expected, rtol=1e-9)


def test_threshold_is_a_quantile_of_the_scores_of_normal_samples():
    val = splits().val
    outputs = np.zeros_like(val.x)
    scores = (val.x.astype("float64") ** 2).mean(axis=1)
    assert TASK.choose_threshold(outputs, val) == pytest.approx(np.quantile(scores, 0.95))
    assert TASK.choose_threshold(outputs[:19], val.take(np.arange(19))) is None
    assert TASK.score(outputs, val).right is None


def test_reconstruction_of_normal_samples_is_compared_with_the_mean_sample():
    val = splits().val
    assert TASK.score(0.5 * np.asarray(val.x), val).constant.better is True
    bad = TASK.score(np.zeros_like(val.x) + 3, val)
    assert (bad.constant.metric, bad.constant.better) == ("reconstruction_mse", False)
    assert np.isnan(bad.values["roc_auc"])
    called = TASK.score(np.zeros_like(val.x), val, threshold=0.1)
    assert np.isnan(called.values["f1"])
    assert np.isnan(called.replicates["f1"]).all()


def test_outputs_of_another_size_are_refused():
    assert TASK.check_outputs((6,), splits().test) is TASK.check_outputs((2, 3), splits().test) is None
    assert TASK.check_outputs((5,), splits().test) == "one output per value of a sample, 6 for arrays"


def test_targets_of_the_training_are_the_inputs():
    for x, target in TASK.with_targets(splits().train.batches(32)):
        np.testing.assert_array_equal(x, target)


def test_folder_of_defects_has_abnormal_samples_in_its_test_part_only(tmp_path):
    folder(tmp_path, sizes=(20, 4, 3), size=(8, 8))
    (tmp_path / "class0").rename(tmp_path / "good")
    train, val, test = data.load(tmp_path, labels="abnormal")
    assert (train.y.any(), val.y.any(), int(test.y.sum())) == (False, False, 7)
    assert (test.class_names, test.label_kind, test.y.dtype) == (abnormal_labels.CLASS_NAMES, "abnormal", bool)


def test_labels_that_are_not_clear_are_refused():
    y = np.isin(np.arange(300), (5, 9)).astype(int)
    with pytest.raises(InputError, match="one class must be normal.*Received: cat, dog"):
        data.from_arrays((NORMAL, y), (NORMAL, y), class_names=("cat", "dog"), labels="abnormal")
    with pytest.raises(InputError, match="trained on normal samples. Received: 2 abnormal ones.*first in row 5"):
        data.from_arrays((NORMAL, y), (NORMAL, y), labels="abnormal")


def test_scores_are_computed_in_parts():
    x = RNG.normal(size=(600, 2, 3)).astype("float32")
    split = data.from_arrays((x, np.zeros(600, int)), (x, np.zeros(600, int)), labels="abnormal").test
    np.testing.assert_allclose(anomaly.scores_of(np.zeros((600, 2, 3)), split), (x.astype("f8") ** 2).mean(axis=(1, 2)))


def test_names_say_which_class_of_bool_labels_is_normal():
    normal = np.ones(40, bool)
    split = data.from_arrays(
        (NORMAL[:40], normal),
        (NORMAL[40:80], normal & (np.arange(40) > 2)),
        class_names=("broken", "ok"),
        labels="abnormal",
    ).test
    assert split.y.sum() == 3


def test_abnormal_row_that_equals_a_normal_one_stays_in_the_test_part(tmp_path):
    rows = [f"{'broken' if row < 10 else 'ok'},{row if row else 50},0.5" for row in range(200)]
    (tmp_path / "list.csv").write_text("\n".join(["label,a,b", *rows]))
    train, val, test = data.load(tmp_path / "list.csv", labels="abnormal")
    assert (train.y.any(), val.y.any(), int(test.y.sum())) == (False, False, 10)
