"""A million calls of `UnivariateGaussianMixture` beside the libraries' own MixtureSameFamily, and gradient variances.

    python benchmarks/distribution.py [--quick]

Writes benchmarks/results/distribution.json. Calls in float32, K = 8 and 64; JAX calls are compiled. The gradients are
of E[f(y)] with respect to logits and locations: variance of one sample's estimate, summed over the components.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as numpyro_dist
import torch
import torch.distributions as torch_dist
from measure import Others, in_rounds, machine, write

from ugmm_ppl import numpyro as in_numpyro
from ugmm_ppl import pyro as in_pyro

FUNCTIONS = {"y": lambda y: y, "y^2": lambda y: y**2, "sin y": jnp.sin, "max(y, 0)": lambda y: jnp.maximum(y, 0.0)}
MIXTURES = {"overlapping": (-1.0, 0.0, 1.5), "apart": (-2.5, 0.0, 3.0)}


def parameters(components):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=components), np.exp(rng.normal(-0.5, 0.5, components)), rng.normal(size=components)
    return [a.astype(np.float32) for a in arrays]


def torch_calls(components, values, u):
    loc, scale, logits = (torch.tensor(a) for a in parameters(components))
    ours = in_pyro.UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=False)
    parts = torch_dist.Normal(loc, scale, validate_args=False)
    shares = torch_dist.Categorical(logits=logits, validate_args=False)
    theirs = torch_dist.MixtureSameFamily(shares, parts, validate_args=False)
    y, level, shape = torch.tensor(values), torch.tensor(u), (len(values),)
    grad_loc = loc.clone().requires_grad_()
    moved = in_pyro.UnivariateGaussianMixture(grad_loc, scale, logits=logits, validate_args=False)
    return {
        "log_prob": (lambda: ours.log_prob(y), lambda: theirs.log_prob(y)),
        "cdf": (lambda: ours.cdf(y), lambda: theirs.cdf(y)),
        "sample": (lambda: ours.sample(shape), lambda: theirs.sample(shape)),
        "rsample": (lambda: ours.rsample(shape), None),
        "rsample and gradient": (lambda: torch.autograd.grad(moved.rsample(shape).sum(), grad_loc), None),
        "icdf": (lambda: ours.icdf(level), None),
    }


def jax_calls(components, values, u):
    loc, scale, logits = (jnp.asarray(a) for a in parameters(components))
    ours = in_numpyro.UnivariateGaussianMixture(loc, scale, logits=logits)
    theirs = numpyro_dist.MixtureSameFamily(numpyro_dist.Categorical(logits=logits), numpyro_dist.Normal(loc, scale))
    y, level, key, shape = jnp.asarray(values), jnp.asarray(u), jax.random.key(0), (len(values),)

    def ready(function):
        compiled = jax.jit(function)
        return lambda *a: jax.block_until_ready(compiled(*a))

    log_prob, cdf = ready(lambda d, y: d.log_prob(y)), ready(lambda d, y: d.cdf(y))
    sample, icdf = ready(lambda d, key: d.sample(key, shape)), ready(lambda d, u: d.icdf(u))

    def total(loc, key):
        return in_numpyro.UnivariateGaussianMixture(loc, scale, logits=logits).rsample(key, shape).sum()

    gradient = ready(jax.grad(total))
    return {
        "log_prob": (lambda: log_prob(ours, y), lambda: log_prob(theirs, y)),
        "cdf": (lambda: cdf(ours, y), lambda: cdf(theirs, y)),
        "sample": (lambda: sample(ours, key), lambda: sample(theirs, key)),
        "rsample": (lambda: sample(ours, key), None),
        "rsample and gradient": (lambda: gradient(loc, key), None),
        "icdf": (lambda: icdf(ours, level), None),
    }


def variances(samples):
    """Of one sample's gradient, pathwise and by the score function without a baseline, for each mixture and f."""
    scale = jnp.array([0.5, 0.8, 0.6])

    def both(f, loc, logits, key):
        def make(loc, logits):
            return in_numpyro.UnivariateGaussianMixture(loc, scale, logits=logits)

        y = jax.lax.stop_gradient(make(loc, logits).sample(key))
        pathwise = jax.grad(lambda *p: f(make(*p).sample(key)), argnums=(0, 1))(loc, logits)
        score = jax.grad(lambda *p: make(*p).log_prob(y), argnums=(0, 1))(loc, logits)
        return pathwise, jax.tree.map(lambda g: f(y) * g, score)

    keys, rows = jax.random.split(jax.random.key(1), samples), []
    for mixture, loc in MIXTURES.items():
        for name, f in FUNCTIONS.items():
            run = jax.jit(jax.vmap(lambda key, f=f, loc=loc: both(f, jnp.array(loc), jnp.zeros(3), key)))
            pathwise, score = (tuple(float(g.var(0).sum()) for g in one) for one in run(keys))
            for role, by_path, by_score in zip(("loc", "logits"), pathwise, score, strict=True):
                rows.append({"mixture": mixture, "f": name, "of": role, "pathwise": by_path, "score": by_score})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    count = 10_000 if quick else 1_000_000
    rng = np.random.default_rng(1)
    values, u = (a.astype(np.float32) for a in (2.0 * rng.normal(size=count), rng.uniform(0.001, 0.999, count)))
    others, rows = Others(), []
    for components in (8, 64):
        for library, make in (("torch", torch_calls), ("numpyro", jax_calls)):
            for name, (ours, theirs) in make(components, values, u).items():
                calls = {"ours": ours} | ({} if theirs is None else {"theirs": theirs})
                found = in_rounds(calls, rounds=2 if quick else 5, seconds=0.05 if quick else 0.3)
                times = {who: round(a["ms"], 3) for who, a in found.items()}
                ratio = round(times["theirs"] / times["ours"], 2) if theirs else None
                rows.append({"library": library, "call": name, "K": components, **times, "times faster": ratio})
                print(
                    f"{library:8} K={components:<3} {name:22} " + "  ".join(f"{k} {v}" for k, v in times.items()), ratio
                )
    spread = variances(1_000 if quick else 100_000)
    for row in spread:
        print("  ".join(f"{a:.3g}" if isinstance(a, float) else f"{a:11}" for a in row.values()))
    content = {
        "machine": machine(),
        "others_cores": others.cores(),
        "values": count,
        "calls": rows,
        "variances": spread,
    }
    print(f"wrote {write('distribution_quick' if quick else 'distribution', content)}")


if __name__ == "__main__":
    main()
