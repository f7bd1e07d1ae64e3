"""The progress bar of training: step, speed, and the loss or what else there is to watch."""

from __future__ import annotations

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
