"""On a CUDA device: the kernels against the formula in extended precision, and fits; `pytest -m gpu`."""

import functools

import numpy as np
import pytest
from helpers import assert_relative
from kernel_cases import SHAPES, agree_with_oracle, assert_gradients, at_all_distances, draw, oracle, oracle_gradients
from tolerances import EXACT64, GRADIENT32, NETWORK32, ORACLE32

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]


@pytest.fixture(autouse=True)
def gpu(backend_name):
    """Skips where the backend sees no GPU, with the reason."""
    backend = load_backend(backend_name)
    try:
        backend.device("cuda")
    except ValueError as error:
        pytest.skip(f"{backend_name} sees no CUDA device: {error}")
    return backend


def run(backend, arguments, upstream, dtype="float32"):
    """Activations and gradients on the GPU, of NumPy arguments, as NumPy arrays of float64."""
    with backend.settings(dtype="float64" if dtype == "float64" else "float32", device="cuda"):
        if backend.name == "pyro":
            import torch

            leaves = [torch.tensor(a, dtype=getattr(torch, dtype)).requires_grad_() for a in arguments]
            assert leaves[0].is_cuda
            out = backend.ops.activation(*leaves)
            found = torch.autograd.grad(out, leaves, torch.tensor(upstream, dtype=out.dtype))
            return backend.numpy(out.double()), [backend.numpy(a.double()) for a in found]
        import jax

        @jax.jit
        def both(upstream, *arguments):
            out, vjp = jax.vjp(backend.ops.activation, *arguments)
            return out, vjp(upstream)

        out, found = both(*(jax.numpy.asarray(a, dtype) for a in (upstream, *arguments)))
        assert next(iter(out.devices())).platform == "gpu"
        return np.asarray(out, float), [np.asarray(a, float) for a in found]


def agree(backend, arguments, rng):
    agree_with_oracle(functools.partial(run, backend), arguments, rng)


def test_the_fused_kernel_is_in_use(backend_name):
    from ugmm_ppl.kernels import library

    if backend_name == "pyro":
        assert library._triton_problem() == ""
        assert library.choose("cuda", "float32") == "triton"
    else:
        from ugmm_ppl.kernels import for_jax

        assert for_jax._pallas_problem() == ""
        assert for_jax._choose("float32").gpu == for_jax.ON_GPU


@pytest.mark.parametrize("shape", SHAPES)
def test_all_leading_axes(gpu, rng, shape):
    agree(gpu, draw(rng, *SHAPES[shape], 4, 19, "float32"), rng)


@pytest.mark.parametrize("shape", [(8, 8, 64), (128, 128, 784), (257, 65, 129), (1, 1, 1), (2, 3, 4096), (1000, 1, 3)])
def test_shapes(gpu, rng, shape):
    rows, neurons, inputs = shape
    agree(gpu, draw(rng, (rows,), [()] * 3, neurons, inputs, "float32"), rng)


def test_neurons_in_turn(gpu, rng, monkeypatch):
    """One program adds to the gradient of x what tile after tile of neurons gives it."""
    from ugmm_ppl.kernels import gpu as shared_out

    if gpu.name == "pyro":
        from ugmm_ppl.kernels import triton_calls

        monkeypatch.setattr(triton_calls, "_multiprocessors", lambda device: 1)
    else:
        from ugmm_ppl.kernels import pallas_kernels

        monkeypatch.setattr(pallas_kernels, "MULTIPROCESSORS", 1)
    shape = shared_out.Shape(1, 300, 300, 100)
    tile = shared_out.of_gradients(shape)[0]
    assert shared_out.parts(shape, tile, 1, (True,) * 4).neurons > 2 * tile.neurons
    arguments = draw(rng, (300,), [()] * 3, 300, 100, "float32")
    for _ in range(3):
        agree(gpu, arguments, rng)


def test_impossible_components(gpu, rng):
    """Values may be -inf, gradients are never NaN."""
    x, loc, scale, log_weights = draw(rng, (20,), [()] * 3, 12, 70, "float32")
    log_weights[:3, 1::2], log_weights[3], log_weights[4, :-1] = -np.inf, -np.inf, -np.inf
    x[0], x[1, 5:], x[2, ::3] = np.inf, np.inf, -np.inf
    agree(gpu, [x, loc, scale, log_weights], rng)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e6])
def test_extreme_distances_and_scales(gpu, rng, scale):
    """Responsibilities sum to one: both passes round a term alike."""
    x, loc, _, log_weights = draw(rng, (40,), [()] * 3, 9, 100, "float32")
    arguments = [(1e4 * x / np.abs(x).max()).astype("float32"), loc, np.full_like(loc, scale), log_weights]
    want, *_ = oracle(*arguments)
    upstream = rng.uniform(0.5, 1.5, want.shape).astype("float32")
    out, found = run(gpu, arguments, upstream)
    assert_relative(out, want, ORACLE32)
    assert all(np.isfinite(gradient).all() for gradient in found)
    np.testing.assert_allclose(found[3].sum(-1), upstream.sum(0), rtol=GRADIENT32)


def test_inputs_at_all_distances(gpu, rng):
    """Also where 2^(t - peak) leaves float32, for some rows and neurons of a tile."""
    agree(gpu, at_all_distances(rng), rng)


def test_nan_passes_through(gpu, rng):
    x, loc, scale, log_weights = draw(rng, (4,), [()] * 3, 3, 30, "float32")
    x[1, 7], log_weights[2, 3] = np.nan, np.nan
    out, (dx, *_) = run(gpu, (x, loc, scale, log_weights), np.ones((4, 3)))
    np.testing.assert_array_equal(np.isnan(out), [[i == 1 or j == 2 for j in range(3)] for i in range(4)])
    assert np.isnan(dx).any()


def test_double_precision(gpu, rng):
    """By chunks."""
    arguments = draw(rng, (3, 50), [(3, 1)] * 3, 6, 40)
    want, *_ = oracle(*arguments)
    upstream = rng.normal(size=want.shape)
    out, found = run(gpu, arguments, upstream, "float64")
    assert_relative(out, want, EXACT64)
    assert_gradients(found, oracle_gradients(arguments, upstream), EXACT64)


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_half_precision_is_storage_only(gpu, rng, dtype, unit):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which comes with JAX, is not installed here")
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    arguments = [a.astype(kind).astype(np.float64) for a in draw(rng, (40,), [()] * 3, 20, 100)]
    want, *_ = oracle(*arguments)
    upstream = rng.normal(size=want.shape).astype(kind).astype(np.float64)
    out, found = run(gpu, arguments, upstream, dtype)
    np.testing.assert_allclose(out, want.astype(float), rtol=unit)
    for one, other in zip(found, oracle_gradients(arguments, upstream), strict=True):
        largest = float(np.abs(other).max())
        np.testing.assert_allclose(one, other.astype(float), rtol=unit, atol=GRADIENT32 * largest)


def test_the_same_bits_on_repetition(gpu, rng):
    arguments = draw(rng, (3, 300), [(3, 1)] * 3, 70, 200, "float32")
    upstream = rng.normal(size=(3, 300, 70))
    first, again = (run(gpu, arguments, upstream) for _ in range(2))
    for one, other in zip((first[0], *first[1]), (again[0], *again[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_gradient_for_each_of_a_batch(gpu, rng):
    """vmap, on the GPU, against the whole."""
    arguments = draw(rng, (5,), [()] * 3, 4, 30, "float32")
    _, (dx, dloc, *_) = run(gpu, arguments, np.ones((5, 4)))
    with gpu.settings(dtype="float32", device="cuda"):
        if gpu.name == "pyro":
            from torch import func as lib
        else:
            import jax as lib
        x, loc, scale, log_weights = (gpu.array(a) for a in arguments)
        gradient = lib.grad(lambda row, loc: gpu.ops.activation(row, loc, scale, log_weights).sum(), (0, 1))
        each = lib.vmap(gradient, (0, None))(x, loc)
        hessian = lib.hessian(lambda loc: gpu.ops.activation(x, loc, scale, log_weights).sum())(loc)
    assert_relative(gpu.numpy(each[0]), dx, GRADIENT32)
    assert_relative(gpu.numpy(each[1].sum(0)), dloc, GRADIENT32)
    assert np.isfinite(gpu.numpy(hessian)).all()


# --------------------------------------------------------------------------------------------------------------- fits


def test_a_fit_travels(gpu, rng, tmp_path):
    """Trained on the GPU; its file predicts the same without one."""
    x = rng.normal(size=(300, 5))
    y = (x[:, 0] * x[:, 1] > 0.0).astype(int)
    settings = {"backend": gpu.name, "num_steps": 60, "batch_size": 64, "learning_rate": 0.05, "progress": False}
    fit = up.fit(up.Classifier(up.Network((5, 16)), 2), x, y, device="gpu", num_restarts=2, **settings)
    assert fit.device == "cuda:0"
    assert np.isfinite(fit.losses).all()
    assert fit.losses[:, -10:].mean() < fit.losses[:, :10].mean()
    again = up.fit(up.Classifier(up.Network((5, 16)), 2), x, y, device=0, num_restarts=2, **settings)
    # The same bits from torch; XLA measures which product of matrices is the fastest whenever it compiles.
    np.testing.assert_allclose(fit.losses, again.losses, rtol=0.0 if gpu.name == "pyro" else NETWORK32)
    fit.save(tmp_path / "fit.npz")
    points = [up.load(tmp_path / "fit.npz", device=device).points() for device in (None, "cpu")]
    for one, other in zip(*points, strict=True):
        for name, value in one.items():
            np.testing.assert_allclose(value, other[name], rtol=NETWORK32)
    probs = [up.load(tmp_path / "fit.npz", device=device).predict(x, num_draws=400).probs for device in ("cuda", "cpu")]
    np.testing.assert_allclose(*probs, atol=0.1)  # torch draws other numbers on a GPU: two means of 400 draws


@pytest.mark.parametrize("method", ["map", "laplace", "nuts"])
def test_other_methods(gpu, rng, method):
    x = rng.normal(size=(30, 3))
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=30)
    short = {"num_warmup": 10, "num_draws": 5, "num_chains": 2, "max_tree_depth": 5}
    settings = short if method == "nuts" else {"num_steps": 30}
    model = up.Regressor(up.Network((3, 4)), 2)
    fit = up.fit(model, x, y, backend=gpu.name, device="cuda", method=method, progress=False, **settings)
    assert np.isfinite(fit.predict(x).mean).all()


def test_the_same_loss_as_on_the_cpu(gpu, rng):
    """JAX draws the same noise on both, so that a few steps agree; torch does not."""
    if gpu.name != "numpyro":
        pytest.skip("torch's random numbers differ between devices")
    x, y = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    settings = {"backend": "numpyro", "num_steps": 10, "seed": 1, "progress": False}
    losses = [
        up.fit(up.Classifier(up.Network((5, 16)), 3), x, y, device=device, **settings).losses
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*losses, rtol=NETWORK32)
