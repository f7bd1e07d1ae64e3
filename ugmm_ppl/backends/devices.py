"""Devices by name: "cpu", and "cuda:0", "cuda:1", ... for the NVIDIA GPUs that a backend sees."""

from __future__ import annotations

import warnings

from ugmm_ppl import checks

CPU = "cpu"


def name_of(device: str | int) -> str:
    """The name of a device given as "cpu", "gpu", "cuda", "gpu:1", "cuda:1" or 1; anything else as it is."""
    kind, _, index = str(device).partition(":")
    if kind.isdecimal():
        return f"cuda:{kind}"
    if kind in ("gpu", "cuda"):
        return f"cuda:{index or 0}"
    return CPU if device == "cpu:0" else str(device)


def choose(device: str | int, count: int) -> str:
    """The name of a device, with `count` GPUs present.

    Raises:
        ValueError: It is not there; the message lists what is.
    """
    available = [CPU, *(f"cuda:{i}" for i in range(count))]
    name = name_of(device)
    if name not in available:
        raise checks.no_device(device, available)
    return name


def of_stored_fit(backend: str, stored: str, asked: str | int | None) -> str:
    """Where a fit that was made on the device `stored` predicts: as asked, or there, or on the CPU, with a warning.

    Raises:
        ValueError: The device that was asked for is not there.
    """
    from ugmm_ppl.backends.load import load_backend

    if name_of(stored if asked is None else asked) == CPU:
        return CPU
    if asked is not None:
        return load_backend(backend).device_name(asked)
    try:
        return load_backend(backend).device_name(stored)
    except checks.MissingExtraError:
        return stored  # without its backend it does not predict at all
    except ValueError:
        warnings.warn(checks.fit_of_another_device(stored), UserWarning, stacklevel=3)
        return CPU
