"""A layered layout: each node is on a layer below its predecessors, layers are ordered for few crossing edges, and
nodes are aligned so that edges are straight if possible.

The method of K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system structures"
(IEEE Transactions on Systems, Man and Cybernetics, 1981), with the horizontal places found by least squares.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import accumulate, pairwise
from statistics import fmean
from typing import NamedTuple, TypeAlias

SIDE = 28.0
"""The gap between two neighbours in a layer."""

GAP = 42.0
"""The gap between two layers."""

_BEND_WIDTH = 12.0
_SWEEPS = 24


class Size(NamedTuple):
    """The size of a node."""

    width: float
    height: float


class Point(NamedTuple):
    """A position; y grows downwards."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The centre of each node, the path of each edge from source to target, and the total size."""

    places: Mapping[str, Point]
    ways: Mapping[tuple[str, str], Sequence[Point]]
    size: Size


class Bend(NamedTuple):
    """The point where an edge passes through a layer."""

    source: str
    target: str
    layer: int


Spot: TypeAlias = str | Bend
_Beside: TypeAlias = "defaultdict[Spot, list[Spot]]"


def layout(sizes: Mapping[str, Size], edges: Sequence[tuple[str, str]]) -> Layout:
    """Positions for all nodes; keeps the order of `sizes` if possible. An edge from a node to itself has no path."""
    forward = _without_cycles(list(sizes), edges)
    layer_of = _layers(list(sizes), forward)
    chains = {edge: _chain(edge, layer_of) for edge in forward}
    layers = _ordered(list(sizes), layer_of, list(chains.values()))
    widths = {node: sizes[node].width if isinstance(node, str) else _BEND_WIDTH for layer in layers for node in layer}
    xs = _across(layers, list(chains.values()), widths)
    heights = [max((sizes[node].height for node in layer if isinstance(node, str)), default=0.0) for layer in layers]
    tops = [sum(heights[:number]) + GAP * number for number in range(len(layers))]
    places = {node: Point(xs[node], tops[layer] + heights[layer] / 2) for node, layer in layer_of.items()}
    bands = [(top, top + height) for top, height in zip(tops, heights, strict=True)]
    ways: dict[tuple[str, str], Sequence[Point]] = {}
    for source, target in edges:
        if (source, target) in chains:
            ways[source, target] = _way(chains[source, target], xs, places, sizes, layer_of, bands)
        elif (target, source) in chains:
            ways[source, target] = _way(chains[target, source], xs, places, sizes, layer_of, bands)[::-1]
    width = max(xs[node] + widths[node] / 2 for node in xs)
    return Layout(places, ways, Size(width, tops[-1] + heights[-1]))


def _way(
    chain: Sequence[Spot],
    xs: Mapping[Spot, float],
    places: Mapping[str, Point],
    sizes: Mapping[str, Size],
    layer_of: Mapping[str, int],
    bands: Sequence[tuple[float, float]],
) -> list[Point]:
    """The path of an edge: straight down through each layer, to avoid its nodes, and sideways only between layers."""
    source, *bends, target = chain
    assert isinstance(source, str)
    assert isinstance(target, str)
    way = [
        Point(xs[source], places[source].y + sizes[source].height / 2),
        Point(xs[source], bands[layer_of[source]][1]),
    ]
    for bend in bends:
        assert isinstance(bend, Bend)
        way += [Point(xs[bend], bands[bend.layer][0]), Point(xs[bend], bands[bend.layer][1])]
    way += [
        Point(xs[target], bands[layer_of[target]][0]),
        Point(xs[target], places[target].y - sizes[target].height / 2),
    ]
    return way


def _without_cycles(nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges without cycles: edges that lead back are reversed, duplicates removed."""
    targets: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        if source != target:
            targets[source].append(target)
    found: dict[tuple[str, str], None] = {}
    done: set[str] = set()
    for node in nodes:
        # The path to the current node, each with its remaining targets: no recursion, however deep.
        way = {} if node in done else {node: iter(targets[node])}
        while way:
            source, rest = next(reversed(way.items()))
            target = next(rest, "")
            if not target:
                done.add(source)
                del way[source]
            elif target in way:
                found[target, source] = None
            else:
                found[source, target] = None
                if target not in done:
                    way[target] = iter(targets[target])
    return list(found)


def _layers(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of each node, from 0: one below its lowest predecessor."""
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(nodes, ()))
    sources: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        order.add(target, source)
        sources[target].append(source)
    layer_of: dict[str, int] = {}
    for node in order.static_order():
        layer_of[node] = max((layer_of[source] + 1 for source in sources[node]), default=0)
    return layer_of


def _chain(edge: tuple[str, str], layer_of: Mapping[str, int]) -> list[Spot]:
    """The spots of an edge: its source, a bend on each layer that it passes, its target."""
    source, target = edge
    return [source, *(Bend(*edge, layer) for layer in range(layer_of[source] + 1, layer_of[target])), target]


def _ordered(nodes: Sequence[str], layer_of: Mapping[str, int], chains: Sequence[Sequence[Spot]]) -> list[list[Spot]]:
    """The layers, each in an order with few crossings: sweeps down and up in turn move connected spots together."""
    layers: list[list[Spot]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for node in nodes:
        layers[layer_of[node]].append(node)
    for chain in chains:
        for spot in chain[1:-1]:
            assert isinstance(spot, Bend)
            layers[spot.layer].append(spot)
    above, below = _neighbours(chains)
    best, fewest = layers, _crossings(layers, below)
    for sweep in range(_SWEEPS):
        layers = [list(layer) for layer in layers]
        neighbours, numbers = (below, range(len(layers) - 2, -1, -1)) if sweep % 2 else (above, range(1, len(layers)))
        for number in numbers:
            beside = layers[number + 1 if sweep % 2 else number - 1]
            place = {spot: index for index, spot in enumerate(beside)}
            own = {spot: index for index, spot in enumerate(layers[number])}
            scale = len(beside) / max(len(own), 1)
            layers[number].sort(
                key=lambda spot: (
                    fmean(place[each] for each in neighbours[spot]) if neighbours[spot] else own[spot] * scale
                )
            )
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _neighbours(
    chains: Iterable[Sequence[Spot]],
) -> tuple[defaultdict[Spot, list[Spot]], defaultdict[Spot, list[Spot]]]:
    above: defaultdict[Spot, list[Spot]] = defaultdict(list)
    below: defaultdict[Spot, list[Spot]] = defaultdict(list)
    for chain in chains:
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    return above, below


def _crossings(layers: Sequence[Sequence[Spot]], below: Mapping[Spot, Sequence[Spot]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        place = {spot: index for index, spot in enumerate(lower)}
        seen: list[int] = []
        for spot in upper:
            ends = sorted(place[each] for each in below.get(spot, ()))
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _across(
    layers: Sequence[Sequence[Spot]], chains: Iterable[Sequence[Spot]], widths: Mapping[Spot, float]
) -> dict[Spot, float]:
    """The x of each spot: close to its neighbours above and below, with a distance to those beside it."""
    above, below = _neighbours(chains)
    xs: dict[Spot, float] = {}
    for layer in layers:
        x = 0.0
        for spot in layer:
            xs[spot] = x + widths[spot] / 2
            x += widths[spot] + SIDE
    # Up and down in turn, then by both sides; the last pass goes down, which keeps single chains straight.
    passes = [(layers, above), (layers[::-1], below)] * _SWEEPS
    both = defaultdict(list, {spot: [*above[spot], *below[spot]] for spot in xs})
    for ordered, beside in [*passes, *[(layers, both), (layers[::-1], both)] * _SWEEPS, (layers, above)]:
        for layer in ordered:
            wanted, weights = [], []
            for spot in layer:
                pulls = [_pull(spot, other) for other in beside[spot]]
                pulled = sum(pull * xs[other] for pull, other in zip(pulls, beside[spot], strict=True))
                wanted.append(pulled / sum(pulls) if pulls else xs[spot])
                weights.append(sum(pulls) or 0.1)
            apart = [(widths[left] + widths[right]) / 2 + SIDE for left, right in pairwise(layer)]
            xs.update(zip(layer, _apart(wanted, weights, apart), strict=True))
    left = min(xs[spot] - widths[spot] / 2 for spot in xs)
    return {spot: x - left for spot, x in xs.items()}


def _pull(one: Spot, other: Spot) -> float:
    """How strongly two spots are aligned vertically: long edges get straightened first."""
    return 1.0 + 3.0 * (isinstance(one, Bend) + isinstance(other, Bend))


def _apart(wanted: Sequence[float], weights: Sequence[float], apart: Sequence[float]) -> list[float]:
    """The weighted least-squares positions near the wanted ones that keep these distances; pools adjacent violators."""
    offsets = [0.0, *accumulate(apart)]
    blocks: list[tuple[float, float, int]] = []
    for place, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, total, count = place - offset, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, heavy, many = blocks.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, count = total + heavy, count + many
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
