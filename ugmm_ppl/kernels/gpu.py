"""What the Triton and the Pallas kernels share: constants, and how a call is shared out to the multiprocessors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LN2 = math.log(2.0)
LOG2E = 1.0 / LN2
HALF_LOG2_2PI = 0.5 * math.log2(2.0 * math.pi)
ROOT_HALF_LOG2E = math.sqrt(0.5 * LOG2E)

HUGE = 3e38
"""In place of an activation of -inf, whose components all have no share: 2^(t - HUGE) is 0."""

REACH = 3.4e25
"""An input beyond it is beyond all components; held there, its squares still overflow and its gradient is 0."""

SMALL = 2.0**-60
"""Smallest sum of 2^(t - peak) that is exact: what float32 drops is then below 2^-66 K of it."""

FAR = 32.0
"""Of an activation in base 2: up to here its rounding is not felt in 2^(t - a)."""


class Tile(NamedTuple):
    """What one program works on at a time: rows x neurons x inputs, by some warps of 32 threads."""

    rows: int
    neurons: int
    inputs: int
    warps: int

    @property
    def terms(self) -> int:
        """Terms of equation (2) in it."""
        return self.rows * self.neurons * self.inputs


OF_ACTIVATIONS = (Tile(16, 16, 32, 4), Tile(16, 16, 32, 8), Tile(8, 16, 32, 4), Tile(8, 8, 32, 1), Tile(4, 8, 32, 1))
"""Tiles for activations, from which the first is taken that gives all multiprocessors work."""

OF_GRADIENTS = (Tile(4, 64, 32, 4), Tile(4, 16, 64, 2), Tile(4, 32, 32, 4), Tile(4, 16, 32, 1))
"""Tiles for gradients, from which the first is taken, as rows and neurons can be split."""

WARPS = 8
"""Of a multiprocessor that has work enough."""

SPLIT_STEPS = 4
"""Least steps of a part of the rows."""


class Shape(NamedTuple):
    """Sizes of a call: leading axes along which a parameter varies as groups, the others as rows."""

    groups: int
    rows: int
    neurons: int
    inputs: int


class Parts(NamedTuple):
    """Into how many parts neurons and rows are split, and the length of a part in whole tiles."""

    of_neurons: int
    neurons: int
    of_rows: int
    rows: int


def fitting(tiles: Sequence[Tile], shape: Shape) -> list[Tile]:
    """The tiles for a call, none larger than it."""
    rows, neurons, inputs = (power_of_2(n) for n in (shape.rows, shape.neurons, max(shape.inputs, 16)))
    found = []
    for tile in tiles:
        cut = Tile(min(tile.rows, rows), min(tile.neurons, neurons), min(tile.inputs, inputs), 1)
        found.append(cut._replace(warps=max(1, tile.warps * cut.terms // tile.terms)))
    return list(dict.fromkeys(found))


def tile_of_activations(shape: Shape, multiprocessors: int) -> Tile:
    """The first that gives all multiprocessors work; the last if none does."""
    tiles = fitting(OF_ACTIVATIONS, shape)

    def warps(tile: Tile) -> int:
        return shape.groups * ceil(shape.rows, tile.rows) * ceil(shape.neurons, tile.neurons) * tile.warps

    return next((tile for tile in tiles if warps(tile) >= WARPS * multiprocessors), tiles[-1])


def parts(shape: Shape, tile: Tile, multiprocessors: int, wanted: Sequence[bool]) -> Parts:
    """Parts enough for all multiprocessors, with as few copies of the gradients `wanted` as can be.

    Every part of the neurons has its own copy of the gradient of x, every part of the rows of those of the parameters.
    """
    programs = ceil(WARPS * multiprocessors, tile.warps * shape.groups * ceil(shape.inputs, tile.inputs))
    most_of_rows = max(1, shape.rows // (SPLIT_STEPS * tile.rows))
    ways = []
    for of_neurons in range(1, min(programs, ceil(shape.neurons, tile.neurons)) + 1):
        of_rows = min(ceil(programs, of_neurons), most_of_rows)
        copies = wanted[0] * of_neurons * shape.rows + sum(wanted[1:]) * of_rows * shape.neurons
        ways.append((-min(of_neurons * of_rows, programs), copies, of_neurons, of_rows))
    *_, of_neurons, of_rows = min(ways)
    neurons, rows = (
        ceil(ceil(size, count), step) * step
        for size, count, step in ((shape.neurons, of_neurons, tile.neurons), (shape.rows, of_rows, tile.rows))
    )
    return Parts(ceil(shape.neurons, neurons), neurons, ceil(shape.rows, rows), rows)


def power_of_2(n: int) -> int:
    """The smallest that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
