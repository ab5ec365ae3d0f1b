"""Keypoints: one place in the image for each of K points, by heatmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject
from tfkd.tasks import bootstrap, heatmaps, pictures
from tfkd.tasks.precision import interpolated
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split

# A point is right within this share of the longer side of the image.
_PCK_DISTANCE = 0.05
# Constants of OKS for all points, in the place of those that COCO measured for parts of the body: about their mean.
_OKS_SIGMA = 0.06
_OKS_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
# Smallest area of the figure in OKS, as a share of the image: of few visible points the box has none.
_LEAST_AREA = 0.1
_LEAST = 10


class Keypoints(ScoredTask):
    """Finds K points by heatmaps of logits, [h, w, K]; labels are points, float32 [N, K, 3]."""

    name = "keypoints"
    labels = "points"
    metrics = (Metric("pck", "PCK"), Metric("oks_ap", "OKS AP"))
    soft_loss = "sigmoid_target"
    monitor = "near_points"

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        fits = len(shape) == 3 and shape[2] == self.outputs(split)
        return None if fits else f"one heatmap per point, [rows, columns, {self.outputs(split)}], for {split.name}"

    def hard_loss(self) -> keras.losses.Loss:
        """Binary cross-entropy with Gaussians around the points, see `tfkd.tasks.heatmap_loss`."""
        from tfkd.tasks.heatmap_loss import HeatmapCrossentropy

        return HeatmapCrossentropy()

    def training_metrics(self) -> list[keras.Metric]:
        """The share of points that are at most one cell away."""
        from tfkd.tasks.heatmap_loss import NearCells

        return [NearCells(name=self.monitor)]

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """PCK and OKS AP of the visible points, in percent.

        PCK is the share of visible points whose distance is at most 5 % of the longer side of the image. OKS AP is that
        of COCO for one figure in each image, with the same constant for all points and, in the place of the area of
        the figure, that of the box around its visible points, at least 10 % of the image.
        """
        import numpy as np

        found, n = heatmaps.decode(outputs), len(split)
        sides = np.array([split.input_shape[1], split.input_shape[0]], float)  # width, height
        near = _distances(found, split.y, sides) <= _PCK_DISTANCE * sides.max()
        visible = split.y[..., 2] > 0
        constant = _constant(split)
        near_constant = _distances(constant, split.y, sides) <= _PCK_DISTANCE * sides.max()
        columns = np.stack([(one & visible).sum(axis=1) for one in (near, near_constant)] + [visible.sum(axis=1)], 1)
        shares = bootstrap.replicate(lambda weights: _shares(weights @ columns.astype(float)), n, seed)
        oks, scores = _oks(found, split.y, sides), found[..., 2].mean(axis=1)
        values = _shares(columns.sum(axis=0)[None].astype(float))[0]
        ap = average_precision(np.ones((1, n)), oks, scores)[0]
        distances = np.where(visible, _distances(found, split.y, sides), 0).sum(axis=1)
        errors = distances / np.maximum(visible.sum(axis=1), 1) / sides.max()
        return Scored(
            {"pck": 100 * float(values[0]), "oks_ap": 100 * float(ap)},
            {
                "pck": 100 * shares[:, 0],
                "oks_ap": 100 * bootstrap.replicate(lambda weights: average_precision(weights, oks, scores), n, seed),
            },
            ConstantAnswer(
                "pck",
                100 * float(values[1]),
                bootstrap.is_above(shares[:, 0], shares[:, 1]) if n >= _LEAST else None,
                f"The mean place of each point, given to every sample, has a PCK of {100 * values[1]:.1f}%.",
            ),
            errors=errors,
            details=_details(split, found, near & visible, errors),
        )


def _constant(split: Split) -> np.ndarray:
    """The mean place of each point where it is visible, [1, K, 3]."""
    import numpy as np

    visible = split.y[..., 2:] > 0
    return np.where(visible, split.y, 0).sum(axis=0, keepdims=True) / np.maximum(visible.sum(axis=0), 1)


def _distances(found: np.ndarray, points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Distances in pixels, [N, K, 3], [N, K, 3] -> [N, K]."""
    import numpy as np

    return np.hypot(*np.moveaxis((found[..., :2] - points[..., :2]) * sides, -1, 0))


def _shares(counts: np.ndarray) -> np.ndarray:
    """[B, 3] -> [B, 2]: the first two columns divided by the third; NaN where that is 0."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return counts[:, :2] / counts[:, 2:]


def _oks(found: np.ndarray, points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of each sample, float64 [N]; NaN for one without a visible point.

    `OKS = mean over visible points of exp(−d² / (2 · area · (2 · sigma)²))`

    Reference:
        cocodataset.org/#keypoints-eval, and `COCOeval.computeOks` of pycocotools.
    """
    import numpy as np

    visible = points[..., 2] > 0
    area = areas(points, sides)
    exponent = _distances(found, points, sides) ** 2 / ((2 * _OKS_SIGMA) ** 2 * (area + np.spacing(1))[:, None] * 2)
    with np.errstate(invalid="ignore"):
        return np.where(visible, np.exp(-exponent), 0).sum(axis=1) / visible.sum(axis=1)


def areas(points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The area of each figure in pixels: that of the box around its visible points, at least 10 % of the image, [N]."""
    import numpy as np

    visible, place = points[..., 2:] > 0, points[..., :2].astype(float) * sides
    low = np.where(visible, place, np.inf).min(axis=1)
    high = np.where(visible, place, -np.inf).max(axis=1)
    box = np.where(np.isfinite(low), high - low, 0).prod(axis=1)
    return np.maximum(box, _LEAST_AREA * sides.prod())


def average_precision(weights: np.ndarray, oks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision over the OKS thresholds of COCO, of one figure in each sample.

    Args:
        weights: Weights of the samples [B, N].
        oks: OKS of each sample [N]; NaN for one that does not count.
        scores: Score of each sample [N].

    Returns:
        [B]; NaN for a row in which no sample counts.
    """
    import numpy as np

    order = np.argsort(-scores, kind="mergesort")
    order = order[np.isfinite(oks[order])]
    ranked, total = weights[:, order], weights[:, order].sum(axis=1)
    called = np.cumsum(ranked, axis=1)
    found = np.zeros(len(weights))
    for threshold in _OKS_THRESHOLDS:
        true = np.cumsum(ranked * (oks[order] >= threshold), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall, precision = true / total[:, None], true / called
        found += interpolated(recall, np.nan_to_num(precision))
    return np.where(total > 0, found / len(_OKS_THRESHOLDS), np.nan)


def _details(split: Split, found: np.ndarray, near: np.ndarray, errors: np.ndarray) -> JsonObject:
    """PCK of each point, and some samples with their points."""
    import numpy as np

    visible = split.y[..., 2] > 0
    by_class = [
        {
            "name": name,
            "objects": int(visible[:, place].sum()),
            "pck": 100 * float(near[:, place].sum() / visible[:, place].sum()) if visible[:, place].any() else None,
        }
        for place, name in enumerate(split.class_names)
    ]
    shown = []
    for row, why in pictures.chosen(errors):
        image = pictures.image_of(split, row)
        if image is not None:
            shown.append(
                {
                    "sample": int(split.ids[row]),
                    "why": why,
                    "wrong": float(errors[row]),
                    "image": pictures.encode(pictures.thinned(image)),
                    "label": np.round(split.y[row].astype(float), 4).tolist(),
                    "prediction": np.round(found[row], 4).tolist(),
                }
            )
    return {"per_class": by_class, "points": shown}


TASK = Keypoints()
