"""What makes no latent network, and data and queries that it refuses."""

import numpy as np
import pytest
from helpers import refused
from latent_oracle import (
    exact_encoder,
    fit_of,
    linear_model,
    linear_values,
)  # fmt: skip

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.latent import encoder

pytestmark = pytest.mark.usefixtures("quick_compiler")


CASES = [
    (lambda: up.LatentNetwork((4,)), ValueError, ("sizes needs", "(4,)")),
    (lambda: up.LatentNetwork((2, 0)), ValueError, ("each of sizes must be at least 1", "0")),
    (lambda: up.LatentNetwork((2, 4), classes=1), ValueError, ("classes must be at least 2",)),
    (lambda: up.LatentNetwork((2, 4), components=0), ValueError, ("components must be at least 1",)),
    (lambda: up.LatentNetwork((2, 4), encoder="mpl"), ValueError, ("encoder", "Did you mean 'mlp'?")),
    (lambda: up.LatentNetwork((2, 4), encoder=3), TypeError, ("encoder must be one of 'mlp', 'per-example'", "got 3")),
    (lambda: up.LatentNetwork((2, 4), gain="yes"), TypeError, ("gain must be True, False or a prior", "'yes'")),
    (lambda: up.LatentNetwork((2, 4), class_prior=1.0), TypeError, ("class_prior must be a prior", "1.0")),
    (lambda: up.LatentNetwork((2, 4), prior=1), TypeError, ("prior must be an up.Prior",)),
    (
        lambda: up.LatentNetwork((2, 4), prior=up.Prior(readout=up.dist.Normal(0.0, 1.0))), ValueError,
        ("prior must be over neurons alone", "Leave readout out"),
    ),
    (
        lambda: up.LatentNetwork((2, 4), prior=up.Prior(layers={1: {}})), ValueError,
        ("prior.layers must name layers 0..0", "got layer 1"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "parts"), CASES)
def test_wrong_networks_are_refused(make, error, parts):
    with refused(error, *parts):
        make()


MODEL = up.LatentNetwork((1, 2))

ROWS = np.random.default_rng(0).normal(size=(6, 2))


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "parts"),
    [
        ([[1.0, np.nan], [0.0, 1.0]], None, {}, ValueError, ("got nan in row 0, column 1", "use a Circuit")),
        (np.zeros((4, 3)), None, {}, ValueError, ("must have 2 columns", "(4, 3)", "sizes=(..., 3)")),
        (np.zeros(4), None, {}, ValueError, ("must be 2-D", "(4,)")),
        ([["a", "b"]], None, {}, TypeError, ("must hold real numbers",)),
        (ROWS, np.zeros(6, int), {}, ValueError, ("this LatentNetwork has no classes",)),
        (ROWS, None, {"method": "laplace"}, ValueError, ("a model of y given x", "LatentNetwork has none", "'nuts'")),
        (ROWS, None, {"method": "em"}, ValueError, ("method='em' needs a Circuit",)),
    ],
)
def test_bad_data_are_refused(x, y, options, error, parts):
    with refused(error, *parts):
        up.fit(MODEL, x, y, progress=False, **options)


def test_queries_refuse_what_they_cannot_say(backend_name):
    values = linear_values()
    fit = fit_of(linear_model(), values, exact_encoder(values, None), backend_name)
    x = np.zeros((2, 3))
    with refused(ValueError, "method must be one of 'importance', 'annealed'"):
        fit.log_evidence(x, method="anneal")
    with refused(ValueError, "num_samples must be at least 1"):
        fit.log_evidence(x, num_samples=0)
    with refused(ValueError, "layer must be a number in 0..1"):
        fit.reconstruct(x, layer=2)
    with refused(ValueError, "has no classes, so y must be None"):
        fit.sample(3, 1)
    with refused(ValueError, "got nan in row 1"):
        fit.encode([[0.0] * 3, [np.nan] * 3])
    with refused(TypeError, "no outputs in closed form"):
        linear_model().outputs(load_backend(backend_name).ops, {}, x)


def test_modules_of_the_other_kind_are_refused(backend64):
    with refused(TypeError, "encoder must make a", "Module"):
        encoder.make_local_guide(backend64, (1, 2), lambda i, o: (i, o), ())
