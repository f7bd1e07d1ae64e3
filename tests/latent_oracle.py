"""Latent networks whose density has a closed form, by NumPy and SciPy."""

import itertools

import numpy as np
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl.fitting.registry import fit_type

TREE = (1, 1, 3)
"""One input per neuron: a chain z -> h -> three columns, which is linear with normal noise."""


def linear_values(seed=0, sizes=TREE):
    """Parameters of a network with one input per neuron, float64 by site."""
    rng = np.random.default_rng(seed)
    values = {}
    for i, (k, j) in enumerate(itertools.pairwise(sizes)):
        assert k == 1
        values[f"layers.{i}.gain"] = rng.uniform(0.5, 1.5, (j, k)) * rng.choice([-1.0, 1.0], (j, k))
        values[f"layers.{i}.loc"] = rng.normal(size=(j, k))
        values[f"layers.{i}.log_scale"] = np.log(rng.uniform(0.4, 0.9, (j, k)))
    return values


def picking_values(seed=0):
    """A network (2, 3) whose neurons pick one input each, by weights of one and zero, and the picked inputs."""
    rng = np.random.default_rng(seed)
    picked = np.array([0, 1, 0])
    logits = np.where(np.arange(2) == picked[:, None], 0.0, -np.inf)
    return {
        "layers.0.gain": rng.normal(1.0, 0.3, (3, 2)),
        "layers.0.loc": rng.normal(size=(3, 2)),
        "layers.0.log_scale": np.log(rng.uniform(0.4, 0.9, (3, 2))),
        "layers.0.logits": logits,
    }, picked


def linear_moments(values, sizes=TREE):
    """Mean and covariance of all layers joined, z first, of a network with one input per neuron."""
    mean, cov = np.zeros(1), np.eye(1)
    for i in range(len(sizes) - 1):
        gain, loc, scale = (values[f"layers.{i}.{role}"][:, 0] for role in ("gain", "loc", "log_scale"))
        last = slice(len(mean) - 1, len(mean))
        rows = gain[:, None] * cov[last]  # covariance with all before
        own = gain[:, None] * cov[last, last] * gain + np.diag(np.exp(2.0 * scale))
        mean = np.concatenate([mean, gain * mean[last] - loc])
        cov = np.block([[cov, rows.T], [rows, own]])
    return mean, cov


def linear_posterior(values, x, sizes=TREE):
    """Log density of rows `(B,)`, and mean `(B, d)` and covariance `(d, d)` of all layers above given them."""
    mean, cov = linear_moments(values, sizes)
    d = len(mean) - x.shape[1]
    below = cov[d:, d:]
    to_hidden = np.linalg.solve(below, cov[d:, :d]).T
    log_density = stats.multivariate_normal(mean[d:], below).logpdf(x)
    return log_density, mean[:d] + (x - mean[d:]) @ to_hidden.T, cov[:d, :d] - to_hidden @ cov[d:, :d]


def exact_encoder(values, x, sizes=TREE):
    """Parameters of the encoder without hidden widths whose Normals are the posterior, layer by layer from x up."""
    mean, cov = linear_moments(values, sizes)
    ends = np.cumsum([0, *sizes])
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    params = {}
    for layer in range(len(sizes) - 1):
        up_, down = parts[layer], parts[layer + 1]
        slope = np.linalg.solve(cov[down, down], cov[down, up_]).T
        left = cov[up_, up_] - slope @ cov[down, up_]
        assert left.shape == (1, 1)
        zero = np.zeros_like(slope)
        params[f"encoder.{layer}.skip"] = np.concatenate([slope, zero])
        params[f"encoder.{layer}.0.weight"] = np.zeros((2, sizes[layer + 1]))
        bias = np.concatenate([mean[up_] - slope @ mean[down], 0.5 * np.log(np.diag(left))])
        params[f"encoder.{layer}.0.bias"] = bias
    return params


def fit_of(model, values, params, backend_name, train_x=None):
    """A MAP fit with given parameters of the model and of its encoder."""
    fit = fit_type(model)(
        model=model, backend=backend_name, method="map", guide="delta", dtype="float64", device="cpu", seed=0,
        temperature=1.0, init_scale=0.05, rank=1, x_units=None, y_units=None,
        feature_names=[f"x{i}" for i in range(model.num_inputs)], class_names=None, train_x=train_x,
        train_y=None if train_x is None else np.full(len(train_x), -1),
    )  # fmt: skip
    fit.state = [{f"{name}:loc": value for name, value in values.items()} | params]
    return fit


def linear_model(encoder_widths=()):
    """The tree-shaped network."""
    return up.LatentNetwork(TREE, encoder_widths=encoder_widths)
