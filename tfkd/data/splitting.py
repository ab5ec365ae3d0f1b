"""Divides the rows of a data set into parts: stratified by class, with rows of one group in one part."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data import images, manifest, resemblance, targets
from tfkd.data.manifest import Row
from tfkd.data.reading import Request
from tfkd.data.sources import folder
from tfkd.data.splits import ROLES, Role, class_ranks
from tfkd.errors import InputError


def rows_of(request: Request, out: Path) -> list[JsonObject]:
    """The rows of a folder of class folders or of a manifest, with paths relative to another manifest.

    Args:
        request: The data set.
        out: The manifest that the rows are for.

    Raises:
        InputError: The data set is neither, or it is malformed.
    """
    path = request.path
    if path.is_dir():
        return [
            {"path": manifest.relative(path / file, out), "label": label, **({"split": part} if part else {})}
            for file, label, part in folder.rows(path)
        ]
    if path.suffix.lower() not in manifest.SUFFIXES or not path.is_file():
        raise InputError(
            f"split: data must be a folder of class folders or a manifest. Received: {path}. Write a manifest."
        )
    rows = manifest.read(path)
    parts = manifest.parts(path, rows)
    found = [dict(row.values) for row in rows]
    if targets.read(path, rows, request.labels)[2] == "classes":
        for row, label in zip(found, manifest.labels(path, rows), strict=True):
            row["label"] = label
    for number, row in enumerate(found):
        if "path" in row:
            row["path"] = manifest.relative(path.parent / row["path"], out)
        if parts:
            row["split"] = parts[number]
    return found


def groups_of(rows: Sequence[JsonRecord], group: str) -> list[str]:
    """The group of each row.

    Args:
        rows: Rows of a data set.
        group: Name of a column, or a regular expression whose first parenthesis is the group in the path, such as
            `speaker_(\\d+)`.

    Raises:
        InputError: There is no such column, a value in it is empty, or the expression is wrong or does not match a
            path.
    """
    if group in rows[0]:
        found = [manifest.text_of(row[group]) for row in rows]
        if "" in found:
            number = found.index("")
            raise InputError(
                f"split: the column {group!r} must name the group of each sample. Received: nothing in sample "
                f"{number + 1}, {rows[number].get('path', 'a row of values')}. Fill it, with a name of its own where "
                "the sample is in no group."
            )
        return found
    if "(" not in group or "path" not in rows[0]:
        raise InputError(
            f"split: group must be a column, or a regular expression of the path with a parenthesis. Received: "
            f"{group!r}. Columns: {', '.join(rows[0])}."
        )
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(
            f"split: group must be a regular expression. Received: {group!r}: {error}. Use 'speaker_(\\d+)'."
        ) from None
    found = []
    for row in rows:
        match = pattern.search(str(row["path"]))
        if match is None or not match.groups() or not match[1]:
            raise InputError(f"split: group must match each path. Received: {group!r} and {row['path']}. Correct it.")
        found.append(match[1])
    return found


def divide(
    labels: Sequence[str], shares: Mapping[Role, float], *, groups: Sequence[str] | None = None, seed: int = 0
) -> list[Role]:
    """Assigns samples to parts so that each class is divided in the same shares.

    Args:
        labels: Label of each sample.
        shares: Share of each part but train, > 0, with a sum < 1.
        groups: Group of each sample, whose samples stay together; None for single samples, which are divided exactly.
        seed: Random seed, >= 0.

    Raises:
        InputError: The shares are out of range, or a part would lack a class.
    """
    if not all(0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise InputError(f"split: shares must be > 0 with a sum < 1. Received: {dict(shares)}. Use 0.1 and 0.2.")
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    if groups is None:
        found = _divide_samples(y, shares, seed)
    else:
        found = _divide_groups(y, np.unique(np.asarray(groups), return_inverse=True)[1], shares, seed)
    for role in ("train", *shares):
        missing = set(range(len(names))) - set(y[found == role].tolist())
        if missing:
            raise InputError(
                f"split: each part needs samples of each class. Received: no {names[min(missing)]} for {role}. Add "
                f"{'groups' if groups is not None else 'samples'} of that class, or choose other shares."
            )
    return found.tolist()


def _divide_samples(y: np.ndarray, shares: Mapping[Role, float], seed: int) -> np.ndarray:
    rank, size = class_ranks(y, seed)
    found, begin = np.full(len(y), "train", object), np.zeros(len(y), np.int64)
    for role, share in shares.items():
        end = begin + np.maximum(1, np.rint(share * size)).astype(np.int64)
        found[(begin <= rank) & (rank < end)] = role
        begin = end
    return found


def _divide_groups(y: np.ndarray, group: np.ndarray, shares: Mapping[Role, float], seed: int) -> np.ndarray:
    """Gives each group, the largest first, to the part that lacks most of its classes.

    scikit-learn's StratifiedGroupKFold does so for equal shares only.
    """
    counts = np.zeros((group.max() + 1, y.max() + 1))
    np.add.at(counts, (group, y), 1)
    roles: list[Role] = ["train", *shares]
    wanted = np.outer([1 - sum(shares.values()), *shares.values()], counts.sum(axis=0))
    filled, chosen = np.zeros_like(wanted), np.zeros(len(counts), np.int64)
    order = np.random.default_rng(seed).permutation(len(counts))
    for one in order[np.argsort(-counts[order].max(axis=1), kind="stable")]:
        lacking = ((wanted - filled) / np.maximum(wanted, 1))[:, counts[one] > 0].mean(axis=1)
        chosen[one] = int(lacking.argmax())
        filled[chosen[one]] += counts[one]
    return np.array(roles, object)[chosen[group]]


def split(
    rows: list[JsonObject],
    shares: Mapping[Role, float],
    *,
    group: str | None = None,
    seed: int = 0,
    labels: str | None = None,
    images_in: Path | None = None,
) -> list[JsonObject]:
    """Rows with a column `split`; parts that the data set has stay as they are, and only missing ones are divided.

    Args:
        rows: Rows of a data set.
        shares: Share of validation and test part.
        group: See `groups_of`; None for no groups.
        seed: Random seed, >= 0.
        labels: Kind of the labels, see `tfkd.data.label_kinds`; None to find it. Classes are stratified.
        images_in: Folder that the paths of images are relative to, if images that are divided and resemble each other
            stay together, see `tfkd.data.resemblance.groups`; None for no comparison.

    Raises:
        InputError: Nothing is left to divide, a group would be in two parts, the samples are no images or cannot be
            read, or see `divide`.
    """
    given = [row.get("split", "train") for row in rows]
    missing = {role: share for role, share in shares.items() if role not in given}
    if not missing:
        raise InputError(
            "split: the data set must lack a validation or test part. Received: one with both. Use it as it is."
        )
    free = [number for number, part in enumerate(given) if part == "train"]
    groups = None if group is None else groups_of(rows, group)
    if groups is not None:
        places = collections.defaultdict(set)
        for one, part in zip(groups, given, strict=True):
            places[one].add(part)
        torn = next((one for one, found in places.items() if len(found) > 1), None)
        if torn is not None:
            raise InputError(
                f"split: the parts of the data set must not share a group. Received: {torn!r} in "
                f"{', '.join(sorted(places[torn]))}. Move it to one part."
            )
    kind = targets.read(Path("split"), [Row(number, row) for number, row in enumerate(rows, 1)], labels)[2]
    together = None if groups is None else [groups[number] for number in free]
    if images_in is not None:
        together = _with_similar(together, [rows[number] for number in free], images_in)
    divided = divide(
        [rows[number]["label"] if kind == "classes" else "" for number in free], missing, groups=together, seed=seed
    )
    for number, part in zip(free, divided, strict=True):
        given[number] = part
    # In a table of values another column than `group` would be a value of the samples.
    renamed = {group: "group"} if group in rows[0] and "path" not in rows[0] else {}
    return [
        {**{renamed.get(name, name): value for name, value in row.items()}, "split": part}
        for row, part in zip(rows, given, strict=True)
    ]


def _with_similar(groups: Sequence[str] | None, rows: Sequence[JsonRecord], folder: Path) -> list[str]:
    """Groups of images that resemble each other, joined where they share one of other groups."""
    other = next((row for row in rows if not images.is_image(str(row.get("path", "")))), None)
    if other is not None:
        raise InputError(
            f"split: keep_similar=True compares images. Received: a sample that is none, {other.get('path', 'a row')}. "
            "Leave it out."
        )
    similar = resemblance.groups([folder / str(row["path"]) for row in rows])
    if groups is None:
        return [str(one) for one in similar]
    joined = resemblance.joined(similar, np.unique(np.asarray(groups), return_inverse=True)[1])
    return [str(one) for one in joined]


def summary(rows: Sequence[JsonRecord]) -> dict[str, int]:
    """The number of samples of each part."""
    counts = collections.Counter(row["split"] for row in rows)
    return {role: counts[role] for role in ROLES if counts[role]}
