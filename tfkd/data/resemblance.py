"""Images that resemble each other: the same photo in another size, compression or brightness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tfkd.data import images
from tfkd.data.lazy import LazySamples
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.reading import ReadingOptions
from tfkd.data.splits import Split

# Smaller images have too little detail to tell two of one class apart.
SMALLEST_SIDE = 48
# Largest number of the 128 bits in which the hashes of resembling images differ.
MOST_BITS = 6
# An image whose gray values deviate less from their mean has no gradients to compare.
_FLAT = 4.0
_CHUNK = 256
# The size in which files are compared: 9 x 9 fields of 8 x 8 pixels.
_COMPARED = ReadingOptions(image_size=(72, 72), color="gray", resize="box")


def hashes(x: np.ndarray | LazySamples) -> tuple[np.ndarray, np.ndarray]:
    """Difference hashes of images.

    The image is averaged over 9 x 9 fields. A bit says whether a field is brighter than its right neighbour, or its
    lower one.

    Args:
        x: Images [N, H, W, C], 0..255.

    Returns:
        The hashes, uint64 [N, 2], and whether each image has enough contrast to be compared, bool [N].

    Reference:
        Krawetz: Kind of Like That (The Hacker Factor Blog, 2013), for dHash.
    """
    parts = [_hashes(np.asarray(x[start : start + _CHUNK], np.float32)) for start in range(0, len(x), _CHUNK)]
    found, contrast = zip(*parts, strict=True)
    return np.concatenate(found), np.concatenate(contrast)


def _hashes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gray = images.mean(axis=3)
    for axis in (1, 2):  # sums over fields of almost equal size
        edges = np.linspace(0, gray.shape[axis], 10).astype(int)
        sizes = np.diff(edges).reshape([-1 if one == axis else 1 for one in range(3)])
        gray = np.add.reduceat(gray, edges[:-1], axis=axis) / sizes
    bits = [gray[:, :8, :8] > gray[:, :8, 1:], gray[:, :8, :8] > gray[:, 1:, :8]]
    packed = [np.packbits(one.reshape(len(images), 64), axis=1).view(np.uint64) for one in bits]
    return np.concatenate(packed, axis=1), gray.std(axis=(1, 2)) >= _FLAT


def pairs(split: Split, other: Split) -> np.ndarray:
    """Pairs of images of two splits that resemble each other and are not equal.

    Args:
        split: Split of images.
        other: Another split of images of the same size.

    Returns:
        Positions in both splits, int64 [P, 2]; for each image of `other` at most the most similar one. Empty where the
        samples are no images, or smaller than `SMALLEST_SIDE`.
    """
    if isinstance(split.x, NamedArrays) or len(split.input_shape) != 3 or min(split.input_shape[:2]) < SMALLEST_SIDE:
        return np.zeros((0, 2), np.int64)
    found = list(_pairs(split, other))
    return np.array(found, np.int64).reshape(-1, 2)


def _pairs(split: Split, other: Split) -> Iterator[tuple[int, int]]:
    assert not isinstance(split.x, NamedArrays)
    assert not isinstance(other.x, NamedArrays)
    (first, usable), (second, usable_too) = hashes(split.x), hashes(other.x)
    rows = np.flatnonzero(usable)
    if not len(rows):
        return
    equal = set(split.digests.tolist())
    for column in np.flatnonzero(usable_too):
        distance = np.bitwise_count(first[rows] ^ second[column]).sum(axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] <= MOST_BITS and int(other.digests[column]) not in equal:
            yield int(rows[nearest]), int(column)


def groups(files: Sequence[Path]) -> np.ndarray:
    """The group of each image file: files that resemble each other, directly or through others, have the same number.

    Equal images are in one group too. An image that is smaller than
    `SMALLEST_SIDE`, or has no contrast, is a group of its own.

    Args:
        files: Image files. Each is decoded, and each pair is compared.

    Returns:
        int32 [N].

    Raises:
        InputError: An image cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_hash_of_file, files))
    rows = np.flatnonzero([one is not None for one in found])
    codes = np.array([one for one in found if one is not None], np.uint64).reshape(-1, 2)
    ends: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    for number, row in enumerate(rows):
        distance = np.bitwise_count(codes[number + 1 :] ^ codes[number]).sum(axis=1)
        near = rows[number + 1 :][distance <= MOST_BITS]
        ends.append(np.stack([np.full(len(near), row), near]))
    return _components(len(files), np.concatenate(ends, axis=1))


def joined(groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Groups of samples that are connected by groups of two kinds.

    Args:
        groups: Number of the group of each sample, int [N].
        others: The same of another kind.

    Returns:
        int32 [N].

    >>> joined(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    links = [np.stack([np.unique(kind, return_index=True)[1][kind], np.arange(len(kind))]) for kind in (groups, others)]
    return _components(len(groups), np.concatenate(links, axis=1))


def _components(count: int, links: np.ndarray) -> np.ndarray:
    """The connected component of each of `count` samples, int32; the links are pairs of positions, int [2, L]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(links.shape[1], bool), (links[0], links[1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _hash_of_file(file: Path) -> np.ndarray | None:
    """The hash of an image file, uint64 [2]; None where it is not compared."""
    small = images.decode(file, _COMPARED)
    code, contrast = hashes(small[None])
    return code[0] if contrast[0] and min(images.size_of(file)) >= SMALLEST_SIDE else None
