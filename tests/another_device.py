"""Fits on a device that is not the CPU, of a machine that has none: `python tests/another_device.py numpyro`.

JAX can split the CPU into two devices. torch can be told of a device by Python: the tensors of the one below are held
on the CPU, and an operation that mixes them with others fails, as it would on a GPU. `up.fit` is told that this is
"cuda". Changes torch for good, so it runs in a process of its own; `test_devices.py` starts it.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np


def second_device_of_jax():
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    import jax

    from ugmm_ppl.numpyro import backend

    first, second = jax.devices("cpu")
    backend._devices = lambda kind: [first] if kind == "cpu" else [second]

    def all_are_there(moment):
        assert {device for array in jax.live_arrays() for device in array.devices()} == {second}

    return all_are_there


def second_device_of_torch():
    import torch
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils import _pytree as tree
    from torch.utils._device import DeviceContext
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("elsewhere")
    there = torch.device("elsewhere:0")

    class Elsewhere(torch.Tensor):
        @staticmethod
        def __new__(cls, held):
            return torch.Tensor._make_wrapper_subclass(
                cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
                device=there,
            )  # fmt: skip

        def __init__(self, held):
            self.held = held

        def tolist(self):
            return self.held.tolist()

        @classmethod
        def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
            return run(operator, *args, **(kwargs or {}))

    def held(a):
        return a.held if isinstance(a, Elsewhere) else a

    def run(operator, *args, **kwargs):
        """On what the tensors hold; results are elsewhere too."""
        name = operator.name().partition(".")[0]
        tensors = [a for a in tree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        copies = name in ("aten::_to_copy", "aten::copy_")
        strangers = [a for a in tensors if not isinstance(a, Elsewhere) and a.ndim > 0]
        if strangers and not copies and not name.startswith("aten::index"):  # an index may be on the CPU
            raise RuntimeError(f"{name} of tensors elsewhere and on the CPU, {[tuple(a.shape) for a in strangers]}")
        own_args, own_kwargs = tree.tree_map(held, (args, kwargs), is_leaf=lambda a: isinstance(a, torch.Tensor))
        back = {id(held(a)): a for a in tensors}
        if "device" in own_kwargs:
            own_kwargs["device"] = "cpu"
        if name == "aten::_to_copy" and torch.device(kwargs.get("device") or args[0].device) != there:
            return operator(*own_args, **own_kwargs)
        found = operator(*own_args, **own_kwargs)
        return tree.tree_map(lambda a: back.get(id(a), Elsewhere(a)) if isinstance(a, torch.Tensor) else a, found)

    def default_device():
        modes = (m.device for m in reversed(_get_current_function_mode_stack()) if isinstance(m, DeviceContext))
        return next(modes, torch.device("cpu"))

    def by_copy(name):
        """A function that makes tensors in C++, where devices of Python are unknown."""
        original = getattr(torch, name)

        def make(*args, device=None, requires_grad=False, **kwargs):
            if device is None:
                same = name == "as_tensor" and isinstance(args[0], torch.Tensor)
                device = args[0].device if same else default_device()
            if args and isinstance(args[0], Elsewhere):
                made = args[0].to(device=device, dtype=kwargs.get("dtype") or args[0].dtype)
            else:
                with torch.device("cpu"):
                    made = original(*args, **kwargs)
                made = made.to(device)
            return made.requires_grad_() if requires_grad else made

        return make

    library_of_all = torch.library.Library("_", "IMPL")
    library_of_all.fallback(run, "PrivateUse1")
    torch.get_default_device = default_device
    for name in ("tensor", "as_tensor", "arange", "linspace", "eye", "randn"):
        setattr(torch, name, by_copy(name))

    from ugmm_ppl.backends.load import load_backend
    from ugmm_ppl.kernels import library

    backend, choose = type(load_backend("pyro")), library.choose
    load_backend("pyro").inference.own_generator = lambda: torch.Generator("cpu")  # there is none elsewhere
    backend.device = lambda self, device: torch.device("cpu") if device == "cpu" else there
    backend.device_name = lambda self, device: "cpu" if device == "cpu" else "cuda:0"
    library.choose = lambda kind, dtype: "reference" if kind == "elsewhere" else choose(kind, dtype)
    one = torch.ones(2, device=there)
    try:
        one + torch.ones(2)
    except RuntimeError as error:
        assert "elsewhere and on the CPU" in str(error)
    else:
        raise AssertionError("tensors of two devices were mixed")
    return lambda moment, kept=library_of_all: None  # without its library the device would be gone


def main(backend):
    watch = second_device_of_torch() if backend == "pyro" else second_device_of_jax()
    import ugmm_ppl as up

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4))
    y, noisy = (x[:, 0] > 0).astype(int), x[:, 0] + 0.1 * rng.normal(size=40)
    classifier = up.Classifier(up.Network((4, 6, 5), dropout=0.2), 2)
    regressor = up.Regressor(up.Network((4, 6), tied=True), components=2)
    simplex = up.Prior(
        loc=up.dist.Laplace(0.0, 1.0), scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(0.5)
    )
    steps = {"num_steps": 3, "batch_size": 20, "callbacks": [watch]}
    nuts = {"method": "nuts", "num_warmup": 2, "num_draws": 2, "num_chains": 2, "max_tree_depth": 2}
    several = {"num_restarts": 2, "num_particles": 2, "split_batch": True, "temperature": 0.5}
    cases = {
        "svi": (classifier, (x, y), steps | several),
        "regression": (regressor, (x, noisy), steps | {"guide": "lowrank"}),
        "laplace": (classifier, (x, y), {"method": "laplace", "num_steps": 3}),
        "nuts": (up.Classifier(up.Network((4, 3)), 2, simplex), (x, y), nuts),
        "circuit": (up.Circuit(4, classes=2, neurons=2), (x, y), {"num_steps": 2}),
        "latent network": (up.LatentNetwork((2, 4)), (x,), {"num_steps": 2}),
    }
    for name, (model, data, settings) in cases.items():
        fit = up.fit(model, *data, backend=backend, device="cuda", progress=False, seed=1, **settings)
        assert fit.device == "cuda:0"
        if name == "regression":
            results(up, fit, *data)
        if name == "svi":
            again = up.fit(model, *data, backend=backend, device="cuda", progress=False, start=fit, **steps)
            assert np.isfinite(again.losses).all()
        print(name)


def results(up, fit, x, y):
    """They leave the device, and are those of the CPU."""
    fit.log_likelihood(x, y, 2)
    fit.to_arviz(num_draws=2)
    with tempfile.TemporaryDirectory() as folder:
        fit.save(Path(folder) / "fit.npz")
        fits = fit, up.load(Path(folder) / "fit.npz", device="cpu"), up.load(Path(folder) / "fit.npz")
    assert [one.device for one in fits] == ["cuda:0", "cpu", "cuda:0"]
    means = [one.predict(x[:5], num_draws=2).mean for one in fits]
    for other in means[1:]:
        np.testing.assert_allclose(other, means[0], rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
