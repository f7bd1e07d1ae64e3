"""What the Triton and the Pallas kernels share: constants, and how a call is shared out to the multiprocessors."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

LN2 = math.log(2.0)
LOG2E = 1.0 / LN2
HALF_LOG2_2PI = 0.5 * math.log2(2.0 * math.pi)
ROOT_HALF_LOG2E = math.sqrt(0.5 * LOG2E)

HUGE = 3e38
"""In place of an activation of -inf, whose components all have no share: 2^(t - HUGE) is 0."""

REACH = 3.4e25
"""An input beyond it is beyond all components; held there, its gradient is 0: for scales between 1e-12 and 1e6 its
distance is finite, and the square of that overflows."""

LEAST = -60.0
"""Of a sum of 2^(t - peak), in base 2: what float32 drops of a larger one is below 2^-66 K of it, and its inverse is an
ordinary number too."""

SMALL = 2.0**LEAST
"""Smallest sum of 2^(t - peak) that is exact."""

FAR = 32.0
"""Of an activation in base 2: up to here its rounding is not felt in 2^(t - a)."""


class Tile(NamedTuple):
    """What one program works on at a time: rows x neurons x inputs, by some warps of 32 threads."""

    rows: int
    neurons: int
    inputs: int
    warps: int


OF_ACTIVATIONS = (Tile(8, 8, 32, 2), Tile(8, 16, 32, 4), Tile(16, 16, 32, 4), Tile(8, 8, 64, 4))
"""Tiles for activations, from which the first is taken that gives all multiprocessors work; else the last."""

OF_GRADIENTS = (Tile(4, 16, 64, 2), Tile(4, 16, 32, 1), Tile(4, 32, 32, 2), Tile(2, 32, 32, 2))
"""Tiles for gradients, from which the first is taken, as rows and neurons can be split."""

WARPS = 8
"""Of a multiprocessor that has work enough; those that take most registers have room for no more."""

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


def of_activations(shape: Shape) -> tuple[Tile, ...]:
    """The tiles for activations, none larger than the call."""
    return _fitting(OF_ACTIVATIONS, shape, False)


def of_gradients(shape: Shape) -> tuple[Tile, ...]:
    """The tiles for gradients, none larger than the call."""
    return _fitting(OF_GRADIENTS, shape, True)


@functools.cache
def _fitting(tiles: tuple[Tile, ...], shape: Shape, sums: bool) -> tuple[Tile, ...]:
    """With warps in proportion to what fills the registers: terms, or sums, which few rows make no fewer."""

    def held(tile: Tile) -> int:
        return tile.neurons * tile.inputs * (1 if sums else tile.rows)

    rows, neurons, inputs = (power_of_2(n) for n in (shape.rows, shape.neurons, max(shape.inputs, 16)))
    found = []
    for tile in tiles:
        cut = Tile(min(tile.rows, rows), min(tile.neurons, neurons), min(tile.inputs, inputs), 1)
        found.append(cut._replace(warps=max(1, tile.warps * held(cut) // held(tile))))
    return tuple(dict.fromkeys(found))


@functools.cache
def filling(tiles: tuple[Tile, ...], shape: Shape, multiprocessors: int) -> Tile:
    """The first tile of activations that gives all multiprocessors work; the last if none does."""

    def warps(tile: Tile) -> int:
        return shape.groups * ceil(shape.rows, tile.rows) * ceil(shape.neurons, tile.neurons) * tile.warps

    return next((tile for tile in tiles if warps(tile) >= WARPS * multiprocessors), tiles[-1])


@functools.cache
def parts(shape: Shape, tile: Tile, multiprocessors: int, wanted: tuple[bool, ...]) -> Parts:
    """Parts with which the gradients that are wanted take the shortest time, or 5 % more with fewer copies of them.

    The multiprocessors work on as many programs at a time as they have room for, and all take as long as the largest
    part. Every part of the neurons has its own copy of the gradient of x, every part of the rows of those of the
    parameters.
    """
    room = max(1, WARPS * multiprocessors // tile.warps)
    others = shape.groups * ceil(shape.inputs, tile.inputs)
    rounds = ceil(others, room)
    most_of_rows = max(1, shape.rows // (SPLIT_STEPS * tile.rows))
    ways = set()
    for of_neurons in range(1, min(room, ceil(shape.neurons, tile.neurons)) + 1):
        for more in range(rounds, 2 * rounds + 3):
            of_rows = min(most_of_rows, max(1, more * room // (others * of_neurons)))
            neurons = ceil(ceil(shape.neurons, of_neurons), tile.neurons) * tile.neurons
            rows = ceil(ceil(shape.rows, of_rows), tile.rows) * tile.rows
            ways.add(Parts(ceil(shape.neurons, neurons), neurons, ceil(shape.rows, rows), rows))

    def time(way: Parts) -> int:
        return ceil(others * way.of_neurons * way.of_rows, room) * way.neurons * way.rows

    def copies(way: Parts) -> int:
        return wanted[0] * way.of_neurons * shape.rows + sum(wanted[1:]) * way.of_rows * shape.neurons

    shortest = min(map(time, ways))
    return min((way for way in ways if time(way) <= 1.05 * shortest), key=lambda way: (copies(way), time(way), way))


def power_of_2(n: int) -> int:
    """The smallest that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
