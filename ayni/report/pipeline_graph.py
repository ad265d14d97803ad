"""Where each stage stands in the picture of the pipeline: layers from top to bottom, few crossings (Sugiyama 1981)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

BOX = (164.0, 46.0)
_GAP = (20.0, 34.0)
_MARGIN = 6.0
_ROW = 50.0
_RAIL = 74.0

Parents = Mapping[str, Sequence[str]]  # node → the nodes it reads from, all earlier in the mapping


@dataclass(frozen=True)
class Node:
    """A box by its centre, in the units of the picture."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Edge:
    """An arrow as an SVG path."""

    source: str
    target: str
    path: str


@dataclass(frozen=True)
class Picture:
    width: float
    height: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def reduced(parents: Parents) -> dict[str, list[str]]:
    """The same order with every arrow left out that a longer way implies."""
    above: dict[str, set[str]] = {}
    kept: dict[str, list[str]] = {}
    for name, direct in parents.items():
        implied = set().union(*(above[parent] for parent in direct))
        kept[name] = [parent for parent in direct if parent not in implied]
        above[name] = implied | set(direct)
    return kept


def layered(parents: Parents) -> Picture:
    """Layers from top to bottom; a stage stands just under the last stage it reads from."""
    arrows = reduced(parents)
    layer: dict[str, int] = {}
    for name, direct in arrows.items():
        layer[name] = 1 + max((layer[parent] for parent in direct), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name, at in layer.items():
        rows[at].append(name)
    links: dict[str, list[str]] = {name: [] for name in layer}  # neighbours one layer up, through bends
    chains: list[tuple[str, str, list[str]]] = []
    for name, direct in arrows.items():
        for parent in direct:
            chain = [parent]
            for at in range(layer[parent] + 1, layer[name]):
                bend = f"\0{parent}\0{name}\0{at}"
                rows[at].append(bend)
                links[bend] = [chain[-1]]
                chain.append(bend)
            links[name].append(chain[-1])
            chains.append((parent, name, [*chain, name]))
    return _positioned(_untangle(rows, links), links, chains)


def rail(parents: Parents) -> Picture:
    """One stage a row and the arrows as arcs at the left: for narrow screens. `Node` marks the row's dot."""
    arrows = reduced(parents)
    y = {name: _ROW * (index + 0.5) for index, name in enumerate(arrows)}
    rank = {name: index for index, name in enumerate(arrows)}
    edges = []
    for name, direct in arrows.items():
        for parent in direct:
            span = rank[name] - rank[parent]
            bulge = _RAIL - min(_RAIL - 4, 10 + 9 * (span - 1)) * 1.25 if span > 1 else _RAIL
            ends = f"C {bulge:.1f} {y[parent]:.1f} {bulge:.1f} {y[name]:.1f} {_RAIL:.1f} {y[name]:.1f}"
            edges.append(Edge(parent, name, f"M {_RAIL:.1f} {y[parent]:.1f} {ends}"))
    nodes = tuple(Node(name, _RAIL, at) for name, at in y.items())
    return Picture(360.0, _ROW * len(arrows), nodes, tuple(edges))


def _untangle(rows: list[list[str]], links: Mapping[str, list[str]]) -> list[list[str]]:
    """Orders every layer by the mean place of its neighbours, sweeping down and up; the order that crosses least."""
    below: dict[str, list[str]] = {name: [] for name in links}
    for name, direct in links.items():
        for parent in direct:
            below[parent].append(name)
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(8):
        near = below if sweep % 2 else links
        position = {name: index / max(1, len(row) - 1) for row in rows for index, name in enumerate(row)}
        turned = []
        for row in rows[::-1] if sweep % 2 else rows:
            wish = {n: sum(position[m] for m in near[n]) / len(near[n]) if near[n] else position[n] for n in row}
            turned.append(sorted(row, key=wish.__getitem__))
            position |= {name: index / max(1, len(row) - 1) for index, name in enumerate(turned[-1])}
        rows = turned[::-1] if sweep % 2 else turned
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: Sequence[Sequence[str]], links: Mapping[str, list[str]]) -> int:
    position = {name: index for row in rows for index, name in enumerate(row)}
    count = 0
    for row in rows:
        ends = [(position[parent], position[name]) for name in row for parent in links[name]]
        count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[:i])
    return count


def _width(name: str) -> float:
    return 16.0 if name[:1] == "\0" else BOX[0]


def _positioned(
    rows: list[list[str]], links: Mapping[str, list[str]], chains: Sequence[tuple[str, str, list[str]]]
) -> Picture:
    below: dict[str, list[str]] = {name: [] for name in links}
    for name, direct in links.items():
        for parent in direct:
            below[parent].append(name)
    height: dict[str, int] = {}
    for row in rows[::-1]:
        height |= {name: 1 + max((height[child] for child in below[name]), default=-1) for name in row}
    weight = {name: 8.0 ** min(at, 6) for name, at in height.items()}  # what much hangs from stays where it is
    x = {name: position for row in rows for name, position in _spread(row, dict.fromkeys(row, 0.0), weight).items()}
    for sweep in range(9):  # down, up, …, down: the last one hangs every box straight under what it reads
        near = below if sweep % 2 else links
        for row in rows[::-1] if sweep % 2 else rows:
            wish = {name: median(x[n] for n in near[name]) if near[name] else x[name] for name in row}
            x |= _spread(row, wish, weight)
    left = min((x[name] - _width(name) / 2 for name in x), default=0.0) - _MARGIN
    right = max((x[name] + _width(name) / 2 for name in x), default=0.0) + _MARGIN
    step = BOX[1] + _GAP[1]
    y = {name: _MARGIN + BOX[1] / 2 + at * step for at, row in enumerate(rows) for name in row}
    nodes = tuple(Node(name, x[name] - left, y[name]) for name in x if name[0] != "\0")
    edges = tuple(
        Edge(source, target, _path([(x[name] - left, y[name]) for name in chain])) for source, target, chain in chains
    )
    return Picture(right - left, _MARGIN * 2 + BOX[1] + step * max(0, len(rows) - 1), nodes, edges)


def _spread(row: Sequence[str], wish: Mapping[str, float], weight: Mapping[str, float]) -> dict[str, float]:
    """The places of a layer's members nearest to their wishes that keep order and room: weighted least squares,
    by pooling neighbours that would overlap (isotonic regression)."""
    offset, at = {}, 0.0
    for before, after in pairwise(["", *row]):
        at += (_width(before) + _width(after)) / 2 + _GAP[0] if before else 0.0
        offset[after] = at
    pools: list[tuple[float, float, list[str]]] = []  # (place less offset, weight, members)
    for name in row:
        pool = (wish[name] - offset[name], weight[name], [name])
        while pools and pools[-1][0] > pool[0]:
            position, mass, members = pools.pop()
            total = mass + pool[1]
            pool = ((position * mass + pool[0] * pool[1]) / total, total, members + pool[2])
        pools.append(pool)
    return {name: position + offset[name] for position, _, members in pools for name in members}


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A smooth way from the foot of the first box through the bends to the head of the last."""
    (x, y), half = points[0], BOX[1] / 2
    text, y = f"M {x:.1f} {y + half:.1f}", y + half
    for index, (next_x, centre) in enumerate(points[1:], 1):
        last = index == len(points) - 1
        top = centre - half - (5 if last else 0)
        middle = (y + top) / 2
        text += f" C {x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {top:.1f}"
        if not last:
            text += f" L {next_x:.1f} {centre + half:.1f}"
        x, y = next_x, centre + half
    return text
