"""Embeddings: metrics are those of scikit-learn and SciPy; parts have different identities."""

import keras
import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from tfkd import data, losses
from tfkd.errors import InputError
from tfkd.recipes import teacher_examination
from tfkd.tasks import bootstrap, embedding
from tfkd.tasks.contrastive import SupervisedContrastive

RNG = np.random.default_rng(0)
TASK = embedding.TASK
Y = np.repeat(np.arange(12), 5)
X = (RNG.normal(size=(12, 6))[Y] + RNG.normal(0, 0.8, (60, 6))).astype("float32")


def splits(x=X, y=Y, **options):
    return data.from_arrays((x, y), (x, y), labels="identities", **options)


def equal_error_rate(positive, scores):
    false_positive, true_positive, _ = roc_curve(positive, scores, drop_intermediate=False)
    return brentq(lambda rate: 1 - rate - interp1d(false_positive, true_positive)(rate), 0.0, 1.0)


def test_metrics_are_those_of_libraries():
    test = splits().test
    scored = TASK.score(X, test)
    cosines = cosine_similarity(X.astype("float64"))
    first, second = np.triu_indices(60, 1)
    same = Y[first] == Y[second]
    nearest = [
        KNeighborsClassifier(1, metric="cosine").fit(np.delete(X, row, 0), np.delete(Y, row)).predict(X[[row]])[0]
        for row in range(60)
    ]
    expected = {
        "recall_at_1": 100 * np.mean(nearest == Y),
        "roc_auc": 100 * roc_auc_score(same, cosines[first, second]),
        "eer": 100 * equal_error_rate(same, cosines[first, second]),
    }
    for name, value in expected.items():
        assert scored.values[name] == pytest.approx(value, rel=1e-6), name
        low, high = bootstrap.interval(scored.replicates[name])
        assert low < value < high
    assert scored.constant.better is True


def test_few_identities_decide_nothing_and_are_named():
    y = np.arange(40) // 20
    x = np.random.default_rng(3).normal(size=(40, 4)) + np.eye(4)[y] * 3
    test = splits(x, y, validation=0).test
    constant = TASK.score(x, test).constant
    assert (constant.better, constant.units) == (None, "2 identities")
    (finding,) = teacher_examination._examine_score(TASK.score(x, test), TASK, len(test))
    assert finding.remedy.startswith("Raise data.validation, or add identities.")


def test_recall_at_5_is_that_of_a_plain_search():
    cosines = cosine_similarity(X.astype("float64"))
    np.fill_diagonal(cosines, -np.inf)
    expected = np.mean([(Y[np.argsort(-row)[:5]] == Y[place]).any() for place, row in enumerate(cosines)])
    assert TASK.score(X, splits().test).values["recall_at_5"] == pytest.approx(100 * expected)


def test_sample_alone_with_its_identity_is_no_query():
    x, y = np.concatenate([X, X[:1] + 9]), np.append(Y, 12)
    alone, without = (TASK.score(one, splits(one, labels).test) for one, labels in ((x, y), (X, Y)))
    assert alone.values["recall_at_1"] == pytest.approx(without.values["recall_at_1"], abs=2.0)


def test_random_vectors_are_no_better_than_a_constant_answer():
    assert TASK.score(RNG.normal(size=(60, 4)), splits().test).constant.better is False
    one = TASK.score(X[:5], splits().test.take(np.arange(5)))
    assert np.isnan(one.values["eer"])
    alone = TASK.score(X[:1], splits().test.take([0]))
    assert all(np.isnan(value) for value in alone.values.values())


def test_equal_error_rate_of_resamples_is_that_of_scipy():
    scores, positive = RNG.normal(size=60), RNG.random(60) < 0.4
    weights = RNG.integers(0, 3, (4, 60)).astype(float)
    ranking = bootstrap.Ranking(scores, positive)
    expected = [
        equal_error_rate(np.repeat(positive, row.astype(int)), np.repeat(scores, row.astype(int))) for row in weights
    ]
    np.testing.assert_allclose(ranking.equal_error_rate(weights), expected, atol=1e-9)


def test_parts_that_tfkd_divides_have_different_identities(tmp_path):
    path = tmp_path / "list.csv"
    rows = "".join(f"{name},{a},{b}\n" for name, (a, b, *_) in zip(Y.astype(str), X, strict=True))
    path.write_text("label,a,b\n" + rows)
    parts = data.load(path, labels="identities", validation=0.3)
    found = [set(split.y) for split in parts]
    assert all(len(one) >= 2 for one in found)
    assert sum(map(len, found)) == 12
    assert all(split.label_kind == "identities" for split in parts)


def test_identities_of_the_training_in_the_test_part_are_a_warning(caplog):
    data.from_arrays((X, Y), (X, Y + 12), labels="identities")
    assert not caplog.text
    data.from_arrays((X, Y), (X, Y + 5), labels="identities")
    assert "7 of the 12 identities of the test part are in the training part, too" in caplog.text


def test_too_few_identities_are_refused():
    with pytest.raises(InputError, match="need four or more. Received: 3"):
        splits(X[:15], Y[:15])
    with pytest.raises(InputError, match="two identities or more with two training samples each. Received: 0"):
        splits(X, np.arange(60))


def test_contrastive_loss_is_that_of_the_paper():
    z, y = RNG.normal(size=(6, 3)), np.array([0, 0, 0, 1, 1, 2])
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    expected = []
    for i in range(6):
        others = [a for a in range(6) if a != i]
        total = sum(np.exp(unit[i] @ unit[a] / 0.1) for a in others)
        logs = [np.log(np.exp(unit[i] @ unit[p] / 0.1) / total) for p in others if y[p] == y[i]]
        expected.append(-np.mean(logs) if logs else 0.0)
    found = SupervisedContrastive().call(keras.ops.array(y), keras.ops.array(z, "float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_cosine_loss_is_that_of_keras():
    teacher, student = RNG.normal(size=(2, 5, 4)).astype("float32")
    expected = 1 + keras.losses.cosine_similarity(teacher, student)
    np.testing.assert_allclose(losses.build("cosine")(teacher, student), expected, atol=1e-6)


def test_many_pairs_are_drawn_evenly():
    y = np.repeat(np.arange(700), 3)[RNG.permutation(2100)]
    first, second = embedding.pairs(y, 0)
    same = y[first] == y[second]
    assert (len(first), int(same.sum()), (first == second).any()) == (10_000, 5_000, False)
    for one in (first[same], second[same], first[~same], second[~same]):
        assert abs(one.mean() - 2099 / 2) < 4 * 2100 / np.sqrt(12 * 5000)
    unequal = np.repeat([0, 1], [300, 100])
    first, second = embedding.pairs(unequal, 0)
    of_large = (unequal[first] == 0) & (unequal[second] == 0)
    pairs_of = np.array([300 * 299, 100 * 99])
    assert of_large.sum() / 5000 == pytest.approx(pairs_of[0] / pairs_of.sum(), abs=0.02)


def test_metrics_of_many_identities_are_near_those_of_all_pairs():
    y = np.repeat(np.arange(300), 2)
    x = RNG.normal(size=(300, 6))[y] + RNG.normal(0, 0.8, (600, 6))
    test = splits(x.astype("float32"), y).test
    first, second = np.triu_indices(600, 1)
    expected = 100 * roc_auc_score(y[first] == y[second], cosine_similarity(x)[first, second])
    scored = TASK.score(x, test)
    assert scored.values["roc_auc"] == pytest.approx(expected, abs=1.5)
    assert scored.constant.better is True


def test_contrastive_loss_is_restored_and_checked():
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SupervisedContrastive(0.2)))
    assert (type(loss), loss.temperature) == (SupervisedContrastive, 0.2)
    with pytest.raises(InputError, match="temperature must be > 0. Received: 0"):
        SupervisedContrastive(0)
