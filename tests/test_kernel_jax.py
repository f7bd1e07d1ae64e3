"""The native kernel in JAX: what is JAX's own, beyond the transformations that both backends have."""

import subprocess
import sys

import numpy as np
import pytest
from kernel_cases import close, draw, needs_native, oracle

jax = pytest.importorskip("jax", reason="jax is not installed here")
pytest.importorskip("numpyro", reason="numpyro is not installed here")
from jax.test_util import check_grads  # noqa: E402

from ugmm_ppl.kernels import for_jax  # noqa: E402

pytestmark = needs_native


@pytest.fixture(autouse=True)
def native(monkeypatch):
    """The native kernel is in use."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")


def test_checks_first_and_second_derivatives(rng):
    """Against finite differences, in both modes and their combinations; draws of the parameters, one batch."""
    with jax.enable_x64(True):
        arguments = [jax.numpy.asarray(a) for a in draw(rng, (2,), [(2, 1)] * 3, 2, 3)]
        check_grads(jax.jit(for_jax.activation), arguments, order=2, modes=("fwd", "rev"))


def test_scan_and_eager(rng):

    with jax.enable_x64(True):
        x, *parameters = (jax.numpy.asarray(a) for a in draw(rng, (4, 3), [()] * 3, 2, 5))
        _, found = jax.lax.scan(lambda carry, row: (carry, for_jax.activation(row, *parameters)), 0.0, x)
        want = oracle(*(np.asarray(a) for a in (x, *parameters)))[0]
        close(found, want)
        close(for_jax.activation(x, *parameters), want)


DEVICES = """
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from ugmm_ppl.kernels import for_jax
from kernel_cases import draw, oracle, oracle_gradients

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 2
rng = np.random.default_rng(0)
arguments = draw(rng, (4,), [()] * 3, 2, 3)
x, *parameters = given = [jnp.asarray(a) for a in arguments]
out, gradients = oracle(*arguments)[0], oracle_gradients(arguments, np.ones((4, 2)))


def close(got, want):
    np.testing.assert_allclose(got, np.asarray(want, float), rtol=1e-12, atol=1e-12)


halves = x.reshape(2, 2, 3)
close(jax.pmap(for_jax.activation, in_axes=(0, None, None, None))(halves, *parameters).reshape(4, 2), out)
gradient = jax.grad(lambda *a: for_jax.activation(*a).sum(), argnums=(0, 1, 2, 3))
found = jax.pmap(gradient, in_axes=(0, None, None, None))(halves, *parameters)
close(found[0].reshape(4, 3), gradients[0])
for one, other in zip(found[1:], gradients[1:]):
    close(one.sum(0), other)

mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
for check in (False, True):
    sharded = jax.jit(jax.shard_map(for_jax.activation, mesh=mesh, in_specs=(P("batch"), P(), P(), P()),
                                    out_specs=P("batch"), check_vma=check))
    close(sharded(*given), out)
    for one, other in zip(jax.grad(lambda *a: sharded(*a).sum(), argnums=(0, 1, 2, 3))(*given), gradients):
        close(one, other)

# Gradients that are not wanted, batched: buffers of no size, where 8 MB written would end the process.
x, *parameters = draw(rng, (2, 1), [()] * 3, 1, 1_000_000)
some = jax.jit(jax.vmap(jax.grad(lambda *a: for_jax.activation(*a).sum(), argnums=1), (0, None, None, None)))
found = some(x, *parameters)
close(found.sum(0), oracle_gradients([x, *parameters], np.ones((2, 1, 1)))[1])
print("all is well")
"""


def test_on_two_devices(monkeypatch):
    """pmap and shard_map split a batch; in a process of its own, as the devices are made when JAX begins."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")
    monkeypatch.setenv("PYTHONPATH", ":".join(p for p in sys.path if p))
    result = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, check=False)
    assert result.stdout == "all is well\n", result.stderr[-3000:]
