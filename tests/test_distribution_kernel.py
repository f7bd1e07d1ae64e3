"""`UnivariateGaussianMixture.log_prob` of many values of one mixture, which the native kernel computes."""

import numpy as np
import pytest
from helpers import density, draw_mixture, gradients, mixture
from scipy import stats
from tolerances import GRADIENT32, ORACLE32, PARITY

from ugmm_ppl.kernels import library

pytestmark = pytest.mark.skipif(library.load()[0] is None, reason="the native kernel was not built here")

SHAPE, COMPONENTS = (3, 12_001), 8  # more than one chunk, and not a whole number of them


def log_prob(backend, value, loc, scale, logits):
    return backend.dist.UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=False).log_prob(value)


@pytest.mark.parametrize("kernel", ["native", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients(backend_name, rng, monkeypatch, kernel, dtype):
    """The same by both ways, and by SciPy."""
    from ugmm_ppl.backends.load import load_backend

    monkeypatch.setenv(library.VARIABLE, kernel)
    backend = load_backend(backend_name)
    loc, scale, weights = draw_mixture(rng, COMPONENTS)
    value = 3.0 * rng.normal(size=SHAPE)
    value, loc, scale = (a.astype(np.float32).astype(np.float64) for a in (value, loc, scale))
    with backend.settings(dtype=dtype, device="cpu"):
        used = []
        original = backend.ops.shared_log_prob

        def spy(*arguments):
            used.append(original(*arguments) is not None)
            return original(*arguments)

        monkeypatch.setattr(type(backend.ops), "shared_log_prob", staticmethod(spy))
        _, got = gradients(backend, lambda *a: log_prob(backend, *a).sum(), [value, loc, scale, np.log(weights)])
        assert used == [kernel == "native"]
        each = np.asarray(log_prob(backend, *(backend.array(a) for a in (value, loc, scale, np.log(weights)))))
    p = density(value, loc, scale, weights)
    tolerance = ORACLE32 if dtype == "float32" else PARITY
    np.testing.assert_allclose(each, np.log(p), rtol=tolerance, atol=tolerance)
    z = (value[..., None] - loc) / scale
    r = weights * stats.norm.pdf(z) / scale / p[..., None]
    want = [-(r * z / scale).sum(-1), *(a.sum((0, 1)) for a in (r * z / scale, r * (z**2 - 1) / scale, r - weights))]
    for one, other in zip(got, want, strict=True):
        largest = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=(GRADIENT32 if dtype == "float32" else PARITY) * largest)


def test_an_expanded_mixture_is_still_one(rng):
    """In Pyro, whose plates expand it: broadcasting is seen by its strides."""
    torch = pytest.importorskip("torch")
    from ugmm_ppl.backends.load import load_backend

    backend = load_backend("pyro")
    loc, scale, weights = draw_mixture(rng, COMPONENTS)
    d = mixture(backend, loc, scale, probs=weights).expand((20_000,))
    value = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    m = d.mixture
    assert backend.ops.shared_log_prob(value, m.loc, m.scale, m.log_weights) is not None
    np.testing.assert_allclose(
        d.log_prob(value).numpy(), np.log(density(value.numpy(), loc, scale, weights)), rtol=ORACLE32, atol=ORACLE32
    )
