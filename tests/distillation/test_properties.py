"""Properties of the Distiller that other distillation code is known to lack.

The checks are in `tools/bench/peer_defects.py`, which also prints which of them the installed `keras.distillation` has.
"""

import pytest
from peer_defects import (
    CHECKS,
    FILE_CHECKS,
    LOSS_CHECKS,
    X,
    Y,
    check_weight_of_the_soft_loss_changes_the_loss,
    make_tfkd,
    net,
    tfkd_soft_loss,
    train_tfkd,
)


@pytest.mark.parametrize("check", CHECKS)
def test_distiller_has_property(check):
    check(make_tfkd)


@pytest.mark.parametrize("check", LOSS_CHECKS)
def test_soft_target_has_property(check):
    check(tfkd_soft_loss)


@pytest.mark.parametrize("check", FILE_CHECKS)
def test_files_of_the_distiller_have_property(check, tmp_path):
    check(make_tfkd, tmp_path)


def test_logged_terms_add_up_to_the_loss():
    history = make_tfkd(net(), net(32), alpha=0.75).fit(X, Y, epochs=1, verbose=0).history
    expected = 0.75 * history["soft_loss"][0] + 0.25 * history["hard_loss"][0]
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_weight_of_the_soft_loss_changes_the_loss():
    check_weight_of_the_soft_loss_changes_the_loss(train_tfkd)
