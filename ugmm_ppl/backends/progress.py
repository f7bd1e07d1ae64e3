"""Blocks of steps, and the progress bar over them: step, speed, and the loss or what else there is to watch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Progress:
    """Counts steps in blocks, and shows them if asked to.

    Args:
        total: Number of steps.
        label: What is being done.
        show: Show a bar.
    """

    def __init__(self, total: int, label: str, *, show: bool) -> None:
        from tqdm.auto import tqdm

        self._bar: Any = tqdm(total=total, desc=label, unit="step", disable=not show, dynamic_ncols=True)

    def update(self, steps: int, **watched: float) -> None:
        """Tell that steps were done, and what to show: `loss=` and `held_out=` in nats, `diverging=` draws."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in watched.items()}, refresh=False)
        self._bar.update(steps)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def blocks(total: int) -> Iterator[int]:
    """The sizes of blocks that make up `total` steps, all equal but the last where it must differ."""
    size = block_size(total)
    yield from [size] * (total // size)
    if total % size:
        yield total % size


def block_size(total: int) -> int:
    """Steps of a block: some dozens of equal blocks make up `total` steps, where that is possible."""
    least = max(1, min(500, total // 100))
    return next((n for n in range(least, 3 * least + 1) if total % n == 0), least)
