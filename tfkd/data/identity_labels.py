"""Labels of an embedding: the identity of each sample, int64 [N], such as a person, a voice or a product.

The parts of a data set that tfkd divides have different identities: an embedding is for identities that it has not
seen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from tfkd.errors import InputError

log = logging.getLogger("tfkd")

KIND = "identities"


def check_names(parts: Mapping[str, np.ndarray], names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The name of each identity of all parts.

    Args:
        parts: Checked class numbers of each part by the name of the array, with `y_train`.
        names: Given names; empty for the numbers.
        where: File, folder or name, for messages.

    Raises:
        InputError: A label is no identity, or the training part has no two identities with two samples each.
    """
    count = len(names) or max(int(y.max()) for y in parts.values()) + 1
    for key, y in parts.items():
        wrong = np.flatnonzero((y < 0) | (y >= count))
        if len(wrong):
            raise InputError(
                f"load: {where}: identities must be in 0..{count - 1}. Received: {y[wrong[0]]} in {key}, row "
                f"{wrong[0]}. Correct it."
            )
    repeated = (np.unique(parts["y_train"], return_counts=True)[1] >= 2).sum()
    if repeated < 2:
        raise InputError(
            f"load: {where}: an embedding needs two identities or more with two training samples each. Received: "
            f"{repeated}. Add samples."
        )
    tested = np.unique(parts.get("y_test", np.zeros(0, np.int64)))
    if seen := np.isin(tested, parts["y_train"]).sum():
        log.warning(
            "%s: %s of the %s identities of the test part are in the training part, too: the metrics are not those of "
            "identities that the embedding has not seen.",
            where, seen, len(tested),
        )  # fmt: skip
    return names or tuple(str(number) for number in range(count))


def choose(y: np.ndarray, share: float, seed: int, where: str) -> np.ndarray:
    """A mask [N] that chooses all samples of a share of the identities at random, at least two and never all.

    Args:
        y: Identities [N].
        share: Share of the identities, 0..1; 0 chooses none.
        seed: Random seed, >= 0.
        where: File, folder or name, for messages.

    Raises:
        InputError: There are fewer than four identities.
    """
    if share == 0:
        return np.zeros(len(y), bool)
    found = np.unique(y)
    if len(found) < 4:
        raise InputError(
            f"load: {where}: parts with different identities need four or more. Received: {len(found)}. Add samples of "
            "other identities, or give the parts."
        )
    count = int(np.clip(np.rint(share * len(found)), 2, len(found) - 2))
    return np.isin(y, np.random.default_rng(seed).permutation(found)[:count])
