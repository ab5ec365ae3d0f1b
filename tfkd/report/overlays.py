"""Samples of images with what a model found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonRecord
from tfkd.report import svg, words
from tfkd.report.svg import Plot
from tfkd.tasks import pictures

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Height of a row of images, in inches.
_ROW = 1.75
# Colours of the classes within images, which do not follow the scheme of the page: those of the light one.
_COLOURS = ("#2f5bd8", "#c2540a", "#0e7a4a", "#a02c8a", "#0b7d8f", "#8f6a00", "#6a4bc4", "#b02a4c")


def plots(details: JsonRecord, where: str) -> list[Plot]:
    """The images of a result; none where its samples are no images.

    Args:
        details: Details of a result, with `per_class` and one of `masks`, `centres` and `points`.
        where: Model and target, for the captions.
    """
    names = [one["name"] for one in details["per_class"]]
    if details.get("masks"):
        return [_masks(details["masks"], names, where)]
    if details.get("centres"):
        return [_centres(details["centres"], names, where)]
    if details.get("answers"):
        return [_answers(details["answers"], names, where), _precision(details["curves"], names, where)]
    if details.get("points"):
        return [_points(details["points"], names, where)]
    return []


def _masks(shown: Sequence[JsonRecord], names: Sequence[str], where: str) -> Plot:
    import numpy as np

    with svg.figure(height=_ROW * len(shown) + 0.35) as figure:
        grid = figure.subplots(len(shown), 3, squeeze=False)
        for row, (axes, one) in enumerate(zip(grid, shown, strict=True)):
            image = pictures.decode(one["image"])
            label, prediction = (pictures.decode(one[name]) for name in ("label", "prediction"))
            panels = (image, _blended(image, label), _blended(image, prediction))
            titles = ("image", "label", f"prediction: {words.percent(one['wrong'])} wrong")
            for axis, panel, title in zip(axes, panels, titles, strict=True):
                axis.imshow(panel, interpolation="nearest")
                axis.set_title(title if row == 0 or title.startswith("prediction") else "", fontsize=8.5)
                _bare(axis)
            axes[0].set_ylabel(f"sample {one['sample']}", fontsize=8.5)
        masks = [pictures.decode(one[name]) for one in shown for name in ("label", "prediction")]
        occurring = np.unique(np.concatenate([mask.ravel() for mask in masks])).tolist()
        _legend(figure, [(names[number], number) for number in occurring if 0 < number < len(names)][:8])
        caption = f"{where}: two test samples drawn at random, then the two with the most wrong pixels."
        return svg.plot(figure, "Masks", caption)


@contextmanager
def _two_by_two(shown: Sequence[JsonRecord], names: Sequence[str]) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with one image of each sample, two in a row, and the legend of classes that have an object."""
    rows = -(-len(shown) // 2)
    with svg.figure(height=2.55 * rows + 0.35) as figure:
        grid = figure.subplots(rows, 2, squeeze=False).ravel()
        for axis, one in zip(grid, shown, strict=False):
            image = pictures.decode(one["image"])
            height, width = image.shape[:2]
            # Shares of the image are coordinates, as in labels and predictions.
            axis.imshow(_faded(image), extent=(0, 1, 1, 0), aspect=height / width, interpolation="nearest")
            axis.set_xlim(0, 1)
            axis.set_ylim(1, 0)
        for axis in grid:
            _bare(axis)
        _legend(figure, list(zip(names, range(len(names)), strict=True))[:8])
        yield figure, list(grid)


def _centres(shown: Sequence[JsonRecord], names: Sequence[str], where: str) -> Plot:
    with _two_by_two(shown, names) as (figure, grid):
        for axis, one in zip(grid, shown, strict=False):
            axis.set_title(f"sample {one['sample']}: {one['wrong']} wrong or missing", fontsize=8.5)
            for left, top, right, bottom, number in one["boxes"]:
                _box(axis, (left, top, right, bottom), svg.series_colour(int(number)))
            for x, y, number, _ in one["centres"]:
                colour = svg.series_colour(int(number))
                axis.plot(
                    [x], [y], "o", markersize=7, color=colour, markeredgecolor=svg.colour("--card"), markeredgewidth=1
                )
        caption = f"{where}: labelled boxes, and the centres that were found. Two test samples are drawn at random."
        return svg.plot(figure, "Centres", f"{caption} Two have the most errors.")


def _answers(shown: Sequence[JsonRecord], names: Sequence[str], where: str) -> Plot:
    with _two_by_two(shown, names) as (figure, grid):
        for axis, one in zip(grid, shown, strict=False):
            axis.set_title(f"sample {one['sample']}: {one['wrong']} wrong or missing", fontsize=8.5)
            for left, top, right, bottom, number in one["boxes"]:
                _box(axis, (left, top, right, bottom), svg.series_colour(int(number)), ":")
            for left, top, right, bottom, number, score in one["answers"]:
                colour = svg.series_colour(int(number))
                _box(axis, (left, top, right, bottom), colour)
                axis.text(left, top, f"{100 * score:.0f}%", fontsize=7, color=colour, va="bottom")
        caption = f"{where}: labelled boxes are dotted, those that were found have their probability, if it is 40% or "
        return svg.plot(
            figure, "Boxes", f"{caption}more. Two test samples are drawn at random, two have the most errors."
        )


def _precision(curves: Sequence[Sequence[Sequence[float]]], names: Sequence[str], where: str) -> Plot:
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for number, (name, (recall, precision)) in enumerate(list(zip(names, curves, strict=True))[:8]):
            axes.plot(recall, precision, color=svg.series_colour(number), linewidth=1.8, label=name)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.03)
        figure.legend(loc="outside lower center", ncols=4)
        return svg.plot(figure, "Precision and recall", f"{where}: boxes with an IoU of at least 0.5 are right.")


def _points(shown: Sequence[JsonRecord], names: Sequence[str], where: str) -> Plot:
    with _two_by_two(shown, names) as (figure, grid):
        for axis, one in zip(grid, shown, strict=False):
            axis.set_title(f"sample {one['sample']}: mean distance {words.percent(one['wrong'])}", fontsize=8.5)
            for number, (label, found) in enumerate(zip(one["label"], one["prediction"], strict=True)):
                if label[2] > 0:
                    colour = svg.series_colour(number)
                    axis.plot(*zip(label[:2], found[:2], strict=True), color=colour, linewidth=1.2)
                    axis.plot(*label[:2], "o", markersize=7, markerfacecolor="none", markeredgecolor=colour)
                    axis.plot(*found[:2], "x", markersize=7, color=colour, markeredgewidth=2)
        caption = (
            f"{where}: a ring is the label of a visible point, a cross what was found; distances in shares of the "
        )
        return svg.plot(figure, "Points", f"{caption}longer side. Two samples are drawn at random, two are the worst.")


def _box(axis: Axes, ends: tuple[float, float, float, float], colour: str, style: str = "-") -> None:
    left, top, right, bottom = ends
    axis.plot(
        [left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, linewidth=1.4, linestyle=style
    )


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.set_frame_on(False)


def _legend(figure: Figure, entries: list[tuple[str, int]]) -> None:
    """One patch for each class."""
    from matplotlib.patches import Patch

    patches = [Patch(color=svg.series_colour(number), label=name) for name, number in entries]
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=4)


def _blended(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A gray image with the classes of a mask in colour, uint8 [H, W, 3]; class 0 and ignored pixels stay gray."""
    import numpy as np

    from tfkd.data.dense_labels import IGNORED

    palette = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in _COLOURS])
    gray = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    coloured = (mask > 0) & (mask != IGNORED)
    mixed = np.where(coloured[..., None], 0.25 * gray + 0.75 * palette[mask % len(palette)], 0.6 * gray + 90)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _faded(image: np.ndarray) -> np.ndarray:
    """A paler image, so that lines stand out, uint8 [H, W, 3]."""
    import numpy as np

    return np.rint(0.55 * image + 110).astype(np.uint8)
