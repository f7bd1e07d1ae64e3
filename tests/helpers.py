"""What several test files share: gradients and trees of either backend as NumPy, random parameters, messages."""

import contextlib
import functools
import re

import numpy as np
import pytest
from scipy import stats


def gradient_function(backend, function, arguments):
    """A scalar function of that many arrays as one of NumPy arrays that gives its value and gradients, float64."""
    if backend.name == "numpyro":
        import jax

        both = jax.jit(jax.value_and_grad(function, argnums=tuple(range(arguments))))
    else:

        def both(*arrays):
            arrays = [a.clone().requires_grad_() for a in arrays]
            value = function(*arrays)
            value.backward()
            return value.detach(), [a.grad for a in arrays]

    def evaluated(*arrays):
        value, grads = both(*(backend.array(np.asarray(a)) for a in arrays))
        return float(value), [np.asarray(g, dtype=np.float64) for g in grads]

    return evaluated


def gradients(backend, function, arrays):
    """Value and gradients of a scalar function of several arrays, as NumPy float64."""
    return gradient_function(backend, function, len(arrays))(*arrays)


def compiled(backend, function):
    """A function of arrays of the backend as one of NumPy arrays, compiled where the backend compiles."""
    if backend.name == "numpyro":
        import jax

        function = jax.jit(function)
    return lambda *arrays: np.asarray(function(*(backend.array(np.asarray(a)) for a in arrays)))


@functools.cache
def bound(backend, function):
    """A function of `ugmm_ppl.neuron` on the arrays of a backend, as one of NumPy arrays, compiled once."""
    return compiled(backend, functools.partial(function, backend.ops))


def apply(backend, function, *arguments):
    """A function of distributions and arrays of the backend, compiled if the backend compiles; NumPy arrays out."""
    if backend.name == "numpyro":
        import jax

        return jax.tree.map(np.asarray, jax.jit(function)(*arguments))
    result = function(*arguments)
    return [np.asarray(a) for a in result] if isinstance(result, list) else np.asarray(result)


def evaluate(backend, function, *arrays):
    """Value of a function of several arrays, as NumPy."""
    return compiled(backend, function)(*arrays)


def draw_layer(rng, neurons, inputs):
    """Parameters of a layer: loc, scale, weights."""
    scale = np.exp(rng.normal(-0.3, 0.5, (neurons, inputs)))
    return rng.normal(size=(neurons, inputs)), scale, rng.dirichlet(np.ones(inputs), neurons)


def draw_mixture(rng, components, shape=()):
    """Loc, scale and weights of mixtures of K components."""
    scale = np.exp(rng.normal(-0.3, 0.7, (*shape, components)))
    return 2.0 * rng.normal(size=(*shape, components)), scale, rng.dirichlet(np.ones(components), shape)


def mixture(backend, loc, scale, *, validate_args=None, **weights):
    """The backend's distribution with arguments from NumPy."""
    loc, scale = backend.array(loc), backend.array(scale)
    weights = {name: backend.array(value) for name, value in weights.items()}
    return backend.dist.UnivariateGaussianMixture(loc, scale, **weights, validate_args=validate_args)


def density(value, loc, scale, weights):
    """The density by SciPy."""
    return (weights * stats.norm.pdf(np.asarray(value)[..., None], loc, scale)).sum(-1)


def cumulative(value, loc, scale, weights):
    """The distribution function by SciPy."""
    return (weights * stats.norm.cdf(np.asarray(value)[..., None], loc, scale)).sum(-1)


def assert_relative(got, want, tolerance):
    """|got - want| <= tolerance max(1, |want|), with infinities in the same places and no NaN anywhere."""
    got, want = np.broadcast_arrays(np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64))
    assert not np.isnan(got).any()
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    got, want = got[finite], want[finite]
    error = np.abs(got - want) / np.maximum(1.0, np.abs(want))
    assert error.max(initial=0.0) <= tolerance, (
        f"largest error {error.max():.2e} of max(1, |value|), tolerance {tolerance:.0e}"
    )


@contextlib.contextmanager
def refused(error, *parts):
    """Expect exactly this class of error, with a message that holds every part in this order."""
    with pytest.raises(error) as caught:
        yield caught
    message = str(caught.value)
    assert type(caught.value) is error
    assert re.search(".*".join(map(re.escape, parts)), message, re.DOTALL), f"{parts} not in: {message}"


traced = pytest.mark.filterwarnings(  # torch's own of tracing, whose class has no name without torch
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*(trace to be incorrect|generalize to other inputs|in the trace|nondeterministic|Output nr).*",
)
