"""Few points that stand for many: K-means, K-center-greedy, the nearest to the middle; and a plane to see them on.

Pure functions of points (N, D) in fp64. Ties go to the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def squared_distances(points: Floats, others: Floats) -> Floats:
    """|p − q|² of every point to every other: (N, D), (M, D) → (N, M), never below 0."""
    crossed = points @ others.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * crossed + (others**2).sum(1)[None, :], 0.0)


def k_means(points: Floats, k: int, draw: np.random.Generator, most: int = 100) -> tuple[Floats, Ints]:
    """(centroids (K, D), whose each point is (N,)): Lloyd's iterations from k-means++ (Arthur & Vassilvitskii 2007).

    At most `most` of them. A cluster that loses all its points takes the point that lies farthest from its own
    centroid. Raises ValueError for more clusters than points.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"{k} clusters of {len(points)} points")
    centroids = _spread(points, k, draw)
    owners = np.full(len(points), -1, np.int64)
    for _ in range(most):
        distances = squared_distances(points, centroids)
        found = distances.argmin(1)
        for empty in sorted({*range(k)} - {*found.tolist()}):
            shared = np.bincount(found, minlength=k)[found] > 1  # none is emptied to fill another
            found[int(np.where(shared, distances[np.arange(len(points)), found], -1.0).argmax())] = empty
        if (found == owners).all():
            break
        owners = found
        sums = np.zeros_like(centroids)
        np.add.at(sums, owners, points)
        centroids = sums / np.bincount(owners, minlength=k)[:, None]
    return centroids, owners


def _spread(points: Floats, k: int, draw: np.random.Generator) -> Floats:
    """k-means++: the first by chance, each further one with a chance in proportion to its squared distance."""
    chosen = [int(draw.integers(len(points)))]
    nearest = squared_distances(points, points[chosen])[:, 0]
    while len(chosen) < k:
        total = nearest.sum()
        # where all points lie on those chosen, any other will do
        shares = nearest / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(draw.choice(len(points), p=shares)))
        nearest = np.minimum(nearest, squared_distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def k_center_greedy(points: Floats, count: int, first: int) -> list[int]:
    """`count` points from `first` on, each the farthest from those before it: their cover's radius is at most twice the
    least that any so many have (Gonzalez 1985; Sener & Savarese 2018, algorithm 1)."""
    chosen = [first][:count]
    nearest = squared_distances(points, points[[first]])[:, 0]
    nearest[first] = -1.0  # taken, also where others lie on it
    while len(chosen) < min(count, len(points)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, squared_distances(points, points[chosen[-1:]])[:, 0])
        nearest[chosen] = -1.0
    return chosen


def nearest_to(points: Floats, centre: Floats, count: int) -> list[int]:
    """The `count` points that lie nearest to the centre (D,), the nearest first."""
    return np.argsort(squared_distances(points, centre[None, :])[:, 0], kind="stable")[:count].tolist()


def apportioned(sizes: Sequence[int], total: int) -> list[int]:
    """`total` places shared in proportion to the sizes, none more than its size: by the largest remainders."""
    whole = sum(sizes)
    if not 0 <= total <= whole:
        raise ValueError(f"{total} of {whole}")
    exact = [size * total / whole if whole else 0.0 for size in sizes]
    found = [int(share) for share in exact]
    by_rest = sorted(range(len(sizes)), key=lambda i: (found[i] - exact[i], i))
    for i in by_rest[: total - sum(found)]:
        found[i] += 1
    return found


def distance_to_nearest(points: Floats, chosen: Sequence[int], at_once: int = 1024) -> Floats:
    """How far every point lies from the nearest chosen one: (N,)."""
    parts = [squared_distances(points[i : i + at_once], points[list(chosen)]) for i in range(0, len(points), at_once)]
    found = np.sqrt(np.concatenate([part.min(1) for part in parts]))
    found[list(chosen)] = 0.0  # to rounding it may be more
    return found


def principal_plane(points: Floats) -> Floats:
    """The points on their two widest axes (PCA): (N, 2), centred; an axis points to where its largest weight is
    positive. Fewer axes are zeros."""
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    seen = centred @ (axes * signs[:, None]).T
    return np.pad(seen, ((0, 0), (0, 2 - seen.shape[1])))
