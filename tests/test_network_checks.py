"""What makes no network."""

import pytest
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl.nn import Dense, LayerNorm, Linear

BAD_LAYERS = {
    "no layer": (lambda: up.Network([Dense(3), 4], inputs=2), TypeError, ("layers must all be layers", "got 4 at 1")),
    "no inputs": (lambda: up.Network([Dense(3)]), ValueError, ("needs inputs=", "got None")),
    "short and long": (
        lambda: up.Network([Dense(3)], inputs=2, tied=True), ValueError, ("belong to the short form", "Dense(32, drop"),
    ),
    "both": (lambda: up.Network((2, 3), sizes=(2, 3)), ValueError, ("layers or sizes", "got both")),
    "inputs twice": (lambda: up.Network((2, 3), inputs=2), ValueError, ("inputs belongs to a list of layers",)),
    "open units": (
        lambda: up.Network([Dense(), Linear()], inputs=2), ValueError, ("only the last layer", "units=None in layer 0"),
    ),
    "an image for a vector": (
        lambda: up.Network([Dense(3)], inputs=(1, 4)), ValueError, ("Dense needs inputs of a vector", "Put Flatten"),
    ),
    "one number normalised": (
        lambda: up.Network([Dense(1), LayerNorm(), Linear()], inputs=2), ValueError, ("at least 2 inputs", "got 1"),
    ),
    "no units": (lambda: Dense(0), ValueError, ("units must be at least 1", "got 0")),
    "outputs": (
        lambda: up.Classifier(up.Network([Dense(5), Linear(4)], inputs=2), 3), ValueError,
        ("must have 3 outputs", "got the shape (4,)", "as in Linear()"),
    ),
    "prior of a hidden linear layer": (
        lambda: up.Classifier(
            up.Network([Linear(5), Linear()], inputs=2), 3, up.Prior(layers={0: {"loc": up.dist.Normal(0.0, 1.0)}})
        ),
        ValueError,
        ("role in Prior.layers[0] must be one of 'weight', 'bias'", "got 'loc'"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_layers_that_make_no_network_are_refused(case):
    make, error, parts = BAD_LAYERS[case]
    with refused(error, *parts):
        make()


BAD = {
    "one size": ({"sizes": (4,)}, ValueError, ("at least one hidden width, e.g. (4, 32)", "got (4,)")),
    "a number": ({"sizes": 4}, ValueError, ("at least one hidden width, e.g. (4, 32)", "got 4")),
    "half a number": ({"sizes": 4.5}, ValueError, ("at least one hidden width, e.g. (4, 32)", "got 4.5")),
    "nothing": ({"sizes": None}, ValueError, ("at least one hidden width, e.g. (4, 32)", "got None")),
    "zero width": ({"sizes": (4, 0)}, ValueError, ("each of sizes must be at least 1", "got 0")),
    "half a width": ({"sizes": (4, 2.5)}, TypeError, ("each of sizes must be a whole number", "got 2.5 of type float")),
    "width as text": ({"sizes": (4, "8")}, TypeError, ("each of sizes must be a whole number", "got '8' of type str")),
    "width True": ({"sizes": (4, True)}, TypeError, ("each of sizes must be a whole number", "got True")),
    "sizes as text": ({"sizes": "48"}, TypeError, ("each of sizes must be a whole number", "got '4'")),
    "one normalised neuron": (
        {"sizes": (4, 1)},
        ValueError,
        ("hidden widths of at least 2", "got sizes=(4, 1)", "wider layer, or normalization=None"),
    ),
    "normalization": (
        {"normalization": "batch"},
        ValueError,
        ("normalization, unless None, must be one of 'layer'", "got 'batch'"),
    ),
    "readout": (
        {"readout": "linaer"},
        ValueError,
        ("readout must be one of 'linear', 'ugmm'", "got 'linaer'", "mean 'linear'"),
    ),
    "initial": (
        {"initial": "papper"},
        ValueError,
        ("initial must be one of 'spread', 'paper'", "'papper'", "mean 'paper'"),
    ),
    "dropout of one": ({"dropout": 1.0}, ValueError, ("dropout must lie in [0, 1)", "got 1.0")),
    "dropout as text": ({"dropout": "0.1"}, TypeError, ("dropout must be a number", "got '0.1' of type str")),
    "too many dropouts": ({"dropout": (0.1, 0.2)}, ValueError, ("one number or one per layer of neurons, 1", "got 2")),
    "bad one of dropouts": ({"dropout": (-0.1,)}, ValueError, ("dropout must lie in [0, 1)", "got -0.1")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(case):
    changes, error, parts = BAD[case]
    with refused(error, *parts):
        up.Network(**({"sizes": (4, 8)} | changes))
