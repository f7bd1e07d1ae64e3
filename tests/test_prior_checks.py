"""What makes no prior."""

import pytest
from helpers import refused
from test_prior import NETWORK

import ugmm_ppl as up
from ugmm_ppl.checks import MissingExtraError

NORMAL = up.dist.Normal(0.0, 1.0)

BAD = {
    "both scales": (
        lambda: up.Prior(scale=up.dist.HalfNormal(1.0), log_scale=NORMAL),
        ValueError,
        ("one of log_scale and scale", "both", "Keep"),
    ),
    "both weights": (
        lambda: up.Prior(weights=up.dist.Dirichlet(1.0), logits=NORMAL),
        ValueError,
        ("one of logits and weights", "both", "Keep"),
    ),
    "both in a layer": (
        lambda: up.Prior(layers={1: {"scale": up.dist.HalfNormal(1.0), "log_scale": NORMAL}}),
        ValueError,
        ("Prior.layers[1] needs one of log_scale and scale", "both"),
    ),
    "a number": (
        lambda: up.Prior(loc=1.0),
        TypeError,
        ("Prior.loc must be a distribution such as up.dist.Normal", "got 1.0"),
    ),
    "a PPL's name": (lambda: up.Prior(loc="Normal"), TypeError, ("Prior.loc must be a distribution", "got 'Normal'")),
    "simplex for loc": (
        lambda: up.Prior(loc=up.dist.Dirichlet(1.0)),
        ValueError,
        ("Prior.loc must not be on the simplex", "got dist.Dirichlet(1.0)"),
    ),
    "reals for weights": (
        lambda: up.Prior(weights=NORMAL),
        ValueError,
        ("Prior.weights must be on the simplex, e.g. dist.Dirichlet", "got dist.Normal"),
    ),
    "reals for scale": (
        lambda: up.Prior(scale=NORMAL),
        ValueError,
        ("Prior.scale must be a distribution over positive numbers", "LogNormal", "got dist.Normal(0.0, 1.0)"),
    ),
    "unknown role": (
        lambda: up.Classifier(up.Network((3, 4)), 2, up.Prior(layers={0: {"locs": NORMAL}})),
        ValueError,
        ("role in Prior.layers[0] must be one of 'loc'", "got 'locs'", "mean 'loc'?"),
    ),
    "readout of a layer": (
        lambda: up.Classifier(up.Network((3, 4)), 2, up.Prior(layers={0: {"readout": NORMAL}})),
        ValueError,
        ("role in Prior.layers[0]", "got 'readout'"),
    ),
    "negative layer": (
        lambda: up.Prior(layers={-1: {"loc": NORMAL}}),
        ValueError,
        ("layer number in Prior.layers must be at least 0", "got -1"),
    ),
    "layer by name": (
        lambda: up.Prior(layers={"0": {"loc": NORMAL}}),
        TypeError,
        ("layer number in Prior.layers must be a whole number", "got '0'"),
    ),
    "layer that is not there": (
        lambda: up.Classifier(NETWORK, 3, up.Prior(layers={2: {"loc": NORMAL}})),
        ValueError,
        ("layers 0..1 of sizes=(3, 4, 2)", "got layer 2"),
    ),
    "unknown distribution": (
        lambda: up.dist.Norml(0.0, 1.0),
        ValueError,
        ("distribution must be one of", "got 'Norml'", "mean 'Normal'?"),
    ),
    "lower case": (
        lambda: up.dist.halfnormal(1.0),
        ValueError,
        ("distribution must be one of", "got 'halfnormal'", "mean 'HalfNormal'?"),
    ),
    "not a prior": (
        lambda: up.Classifier(NETWORK, 3, NORMAL),
        TypeError,
        ("prior must be an up.Prior", "got dist.Normal(0.0, 1.0)"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_priors_are_refused(case):
    make, error, parts = BAD[case]
    with refused(error, *parts):
        make()


@pytest.mark.parametrize(
    "description",
    [
        up.dist.Normal(0.0, -1.0),
        up.dist.Normal(0.0, 1.0, 2.0, 3.0),
        up.dist.Normal(0.0, sigma=1.0),
        up.dist.Gamma(1.0, 0.0),
    ],
)
def test_arguments_that_the_ppl_refuses_name_the_description(backend, description, monkeypatch):
    """Also with validation off, as `torch.compile` leaves torch's."""
    for base in backend.dist.Normal.mro():
        if "_validate_args" in vars(base):
            monkeypatch.setattr(base, "_validate_args", False)
    with refused(
        ValueError,
        f"the prior {description!r} could not be built",
        f"arguments that the PPL's class {description.name} takes",
    ):
        backend.build(description, (4, 3))


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    from ugmm_ppl.checks.machine import require

    with refused(
        MissingExtraError, "numpyro needs the package no_such_ppl", "not installed", 'pip install "ugmm-ppl[numpyro]"'
    ):
        require("no_such_ppl", "numpyro")
