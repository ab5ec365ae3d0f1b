"""The 1,797 handwritten digits of scikit-learn: embedded, nothing is downloaded.

Reference:
    Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import importlib.metadata

import numpy as np

from tfkd.data.sources.source import Arrays, Request, Source


def read(request: Request) -> Arrays:
    """Reads the digits as images [1797, 8, 8, 1], uint8, scaled from 0..16 to 0..255; there is no test part."""
    # The file that sklearn.datasets.load_digits reads: importing scikit-learn would take a second.
    file = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",", dtype=np.int64)
    x = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)[..., None]
    return Arrays(x, table[:, -1], name="digits", location="digits")


SOURCE = Source(accepts=lambda request: request.reference == "digits", read=read, names=("digits",))
