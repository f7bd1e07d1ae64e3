"""Every argument of `fit` refuses a wrong value: what is needed, what came, and the nearest valid one."""

import dataclasses
import inspect

import numpy as np
import pytest
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl.infer import METHODS

MODEL = up.Classifier(up.Network((4, 3)), 3)
X, Y = np.eye(4)[:2], [0, 1]
NAN, INF = float("nan"), float("inf")


def whole(name, least=1):
    """Wrong values of a count."""
    return [
        ({name: least - 1}, ValueError, (f"{name} must be at least {least}; got {least - 1}",)),
        ({name: 1.5}, TypeError, (f"{name} must be a whole number; got 1.5 of type float",)),
        ({name: "10"}, TypeError, (f"{name} must be a whole number; got '10'",)),
        ({name: True}, TypeError, (f"{name} must be a whole number; got True",)),
    ]


def positive(name):
    """Wrong values of a positive number."""
    return [
        *(({name: bad}, ValueError, (f"{name} must lie in (0, inf); got {bad}",)) for bad in (0.0, -1.0, NAN, INF)),
        ({name: "0.1"}, TypeError, (f"{name} must be a number; got '0.1'",)),
    ]


def flag(name):
    """Wrong values of a flag."""
    return [({name: bad}, TypeError, (f"{name} must be True or False; got {bad!r}",)) for bad in ("yes", 1, None)]


def by(method, cases):
    """The same for a method that has the setting."""
    return [({"method": method} | change, error, parts) for change, error, parts in cases]


WRONG = {
    "model": [({"model": "net"}, TypeError, ("model must be an up.Classifier", "got 'net'"))],
    "x": [
        ({"x": [[1.0, NAN, 3.0, 4.0]] * 2}, ValueError, ("x must be finite; got nan in row 0, column 1",)),
        ({"x": [[1.0, 2.0, INF, 4.0]] * 2}, ValueError, ("x must be finite; got inf in row 0, column 2",)),
        ({"x": [1.0, 2.0]}, ValueError, ("x must be 2-D, (examples, 4 features); got shape (2,)",)),
        (
            {"x": np.ones((2, 3))},
            ValueError,
            ("x must have 4 columns, the number of inputs of layer 0; got shape (2, 3)",),
        ),
        ({"x": np.ones((0, 4)), "y": []}, ValueError, ("x must have at least one row; got shape (0, 4)",)),
        ({"x": np.array([["a"] * 4] * 2)}, TypeError, ("x must hold real numbers; got dtype <U1",)),
    ],
    "y": [
        ({"y": [0, 3]}, ValueError, ("y must lie in 0..2 (classes=3); got 3 in row 1",)),
        ({"y": [0, -1]}, ValueError, ("y must lie in 0..2 (classes=3); got -1 in row 1",)),
        ({"y": [0.0, 0.5]}, ValueError, ("y must hold whole class codes 0..2; got 0.5 in row 1",)),
        ({"y": [0.0, NAN]}, ValueError, ("y must be finite; got nan in row 1",)),
        ({"y": ["a", "b"]}, TypeError, ("y must hold whole class codes 0..2; got dtype <U1",)),
        ({"y": [0, 1, 2]}, ValueError, ("y must have one value per row of x, 2; got 3",)),
        ({"y": [[0, 1], [1, 0]]}, ValueError, ("y must be 1-D, one value per row of x; got shape (2, 2)",)),
        ({"y": None}, TypeError, ("y must hold one value per row of x; got None", "up.Circuit")),
    ],
    "weights": [
        ({"weights": [1.0, -1.0]}, ValueError, ("weights must be at least 0; got -1.0 at index (1,)",)),
        ({"weights": [1.0]}, ValueError, ("weights must hold one number per row of x, shape (2,); got shape (1,)",)),
        ({"weights": [0, 0]}, ValueError, ("weights must have a row that counts",)),
        ({"weights": ["a", "b"]}, TypeError, ("weights must hold real numbers",)),
    ],
    "backend": [({"backend": "numpy"}, ValueError, ("backend must be one of", "Did you mean 'numpyro'?"))],
    "method": [
        ({"method": "vi"}, ValueError, ("method must be one of", "got 'vi'. Did you mean 'svi'?")),
        ({"method": 3}, ValueError, ("method must be one of", "got 3")),
        ({"method": "em"}, ValueError, ("method='em' needs a Circuit",)),
    ],
    "guide": [
        ({"guide": "norm"}, ValueError, ("guide must be one of", "got 'norm'. Did you mean 'normal'?")),
        ({"guide": {}}, ValueError, ("guide must be one family, or map patterns", "got {}")),
        ({"guide": {"*": "ful"}}, ValueError, ("guide['*'] must be one of", "got 'ful'. Did you mean 'full'?")),
        (
            {"guide": {"readout.*": "full"}},
            ValueError,
            ("pattern for every inferred site; got none that matches 'layers.0.loc'",),
        ),
        (
            {"guide": {"*": "full", "r*": "normal"}},
            ValueError,
            ("first to match some site; got 'r*', which is it for none",),
        ),
    ],
    "bayesian": [
        (
            {"bayesian": "layers"},
            ValueError,
            ("bayesian must be 'all', 'readout' or a list", "got 'layers'", "Try ['layers']"),
        ),
        ({"bayesian": []}, ValueError, ("bayesian must be 'all', 'readout' or a list", "got []")),
        (
            {"bayesian": ["*.bia"]},
            ValueError,
            ("must match a site; got '*.bia'. The sites are 'layers.0.loc'", "'readout.bias'"),
        ),
        (
            {"bayesian": "readout", "guide": "delta"},
            ValueError,
            ("bayesian needs a method that infers", "Leave bayesian out"),
        ),
    ],
    "num_steps": whole("num_steps"),
    "batch_size": whole("batch_size"),
    "learning_rate": positive("learning_rate"),
    "num_restarts": whole("num_restarts"),
    "start": [
        ({"start": "maps"}, ValueError, ("start must be one of", "Did you mean 'map'?")),
        ({"start": 3}, ValueError, ("start must be one of", "got 3")),
    ],
    "optimizer": [
        (
            {"optimizer": "adamw"},
            ValueError,
            ("optimizer must be one of 'adam', 'sgd'", "got 'adamw'. Did you mean 'adam'?"),
        ),
        ({"optimizer": 3}, TypeError, ("optimizer must be 'adam' or 'sgd' or", "got 3")),
    ],
    "schedule": [
        (
            {"schedule": "onecycle"},
            ValueError,
            ("schedule must be one of", "got 'onecycle'. Did you mean 'one-cycle'?"),
        ),
        ({"schedule": 3}, ValueError, ("schedule must be one of", "got 3")),
        ({"schedule": lambda done: NAN}, ValueError, ("schedule must give finite factors >= 0", "got nan at step 0")),
    ],
    "clip_norm": positive("clip_norm"),
    "num_particles": whole("num_particles"),
    "split_batch": [
        *flag("split_batch"),
        (
            {"num_particles": 8, "split_batch": True},
            ValueError,
            ("split_batch needs at least one row for each of num_particles=8; got batches of 2",),
        ),
    ],
    "temperature": positive("temperature"),
    "kl_warmup": [
        ({"kl_warmup": 1.0}, ValueError, ("kl_warmup must lie in [0, 1); got 1.0",)),
        ({"kl_warmup": -0.1}, ValueError, ("kl_warmup must lie in [0, 1); got -0.1",)),
        ({"kl_warmup": "half"}, TypeError, ("kl_warmup must be a number; got 'half'",)),
    ],
    "validation": [
        ({"validation": 1.5}, ValueError, ("validation must lie in (0, 1); got 1.5",)),
        ({"validation": 0.001}, ValueError, ("validation must leave at least one row", "0.001 of 2 rows")),
        ({"validation": "tenth"}, TypeError, ("validation must be a share in (0, 1) or held-out data (x, y)",)),
        ({"validation": (X, Y, Y, Y)}, ValueError, ("validation must be a share in (0, 1) or held-out data (x, y)",)),
        ({"validation": (X[:, :2], Y)}, ValueError, ("validation[0] must have 4 columns",)),
        ({"validation": (X, [0, 7])}, ValueError, ("must lie in 0..2 (classes=3); got 7 in row 1",)),
    ],
    "patience": [
        ({"patience": 3}, ValueError, ("patience", "needs validation", "validation=0.1")),
        *(({"validation": (X, Y)} | change, error, parts) for change, error, parts in whole("patience")),
    ],
    "checkpoint": [
        ({"checkpoint": 3}, TypeError, ("checkpoint must be the path of an .npz file; got 3",)),
        ({"checkpoint": "c.pt"}, ValueError, ("checkpoint must be the path of an .npz file; got 'c.pt'",)),
    ],
    "every": whole("every"),
    "callbacks": [
        ({"callbacks": [3]}, TypeError, ("callbacks must be functions", "got 3")),
        ({"callbacks": print}, TypeError, ("callbacks must be a list of functions", "Give [")),
    ],
    "init_scale": positive("init_scale"),
    "rank": whole("rank"),
    "num_chains": by("nuts", whole("num_chains")),
    "num_warmup": by("nuts", whole("num_warmup")),
    "num_draws": by("nuts", whole("num_draws")),
    "thin": by("sghmc", whole("thin")),
    "friction": by(
        "sghmc",
        [
            ({"friction": 1.0}, ValueError, ("friction must lie in (0, 1); got 1.0",)),
            ({"friction": 0.0}, ValueError, ("friction must lie in (0, 1); got 0.0",)),
            ({"friction": "x"}, TypeError, ("friction must be a number; got 'x'",)),
        ],
    ),
    "exposure": [
        ({"exposure": [1.0]}, ValueError, ("the likelihood Categorical takes no extra columns; got exposure=",)),
    ],
    **{
        name: [({name: [1]}, ValueError, (f"the likelihood Categorical takes no extra columns; got {name}=",))]
        for name in ("censored", "upper", "lower_limit", "upper_limit")
    },
    "trials": [({"trials": [1]}, ValueError, ("the likelihood Categorical takes no extra columns; got trials=",))],
    "max_tree_depth": by("nuts", whole("max_tree_depth")),
    "seed": whole("seed", least=0),
    "device": [
        ({"device": "cuda:7"}, ValueError, ("device must be one of those present, 'cpu'", "got 'cuda:7'")),
        ({"device": "gpu0"}, ValueError, ("device must be one of those present, 'cpu'", "got 'gpu0'")),
        ({"device": None}, ValueError, ("device must be one of those present, 'cpu'", "got None")),
    ],
    "dtype": [
        ({"dtype": "float16"}, ValueError, ("dtype must be one of 'float32', 'float64'; got 'float16'",)),
        ({"dtype": "float"}, ValueError, ("dtype must be one of", "Did you mean 'float")),
    ],
    "standardize": [
        ({"standardize": "column"}, ValueError, ("standardize must be True, False or 'jointly'; got 'column'",)),
        ({"standardize": 1}, ValueError, ("standardize must be True, False or 'jointly'; got 1",)),
    ],
    "feature_names": [
        ({"feature_names": ["a", "b"]}, ValueError, ("feature_names needs 4 different names; got 2",)),
        ({"feature_names": ["a", "b", "b", "c"]}, ValueError, ("feature_names needs 4 different names",)),
    ],
    "class_names": [
        ({"class_names": ["a", "b"]}, ValueError, ("class_names needs 3 different names; got 2",)),
    ],
    "progress": flag("progress"),
}
CASES = [(name, *case) for name, cases in WRONG.items() for case in cases]
IDS = [f"{name}-{number}" for number, (name, *_) in enumerate(CASES)]


def test_every_argument_has_a_wrong_value():
    assert set(WRONG) == set(inspect.signature(up.fit).parameters)


@pytest.mark.parametrize(
    ("name", "change", "error", "parts"), CASES, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CASES)]
)
def test_a_wrong_value_is_refused(backend_name, name, change, error, parts):
    arguments = {"model": MODEL, "x": X, "y": Y, "backend": backend_name, "progress": False, "standardize": False}
    arguments |= change if change.get("method") in ("nuts", "sghmc") else {"num_steps": 1} | change
    with refused(error, *parts):
        up.fit(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)


VALUES = {field.name: field.default for method in METHODS.values() for field in dataclasses.fields(method.settings)}


@pytest.mark.parametrize("method", METHODS)
def test_a_setting_of_other_methods_is_refused_with_those_that_have_it(method):
    """Before anything is done, and even if it has its default."""
    own = METHODS[method].settings.names()
    for name, value in VALUES.items():
        if name in own:
            continue
        having = [repr(each.name) for each in METHODS.values() if name in each.settings.names()]
        with refused(TypeError, f"method='{method}' has no setting {name}, which belongs to", *having, "Leave it out"):
            up.fit(MODEL, X, Y, method=method, **{name: value})


def test_an_argument_that_no_method_has_is_refused_with_the_nearest():
    with refused(TypeError, "arguments that it has; got 'num_step'. Did you mean 'num_steps'?"):
        up.fit(MODEL, X, Y, num_step=3)
    with refused(TypeError, "got 'zzz'", "help(ugmm_ppl.fit)"):
        up.fit(MODEL, X, Y, zzz=3)


def test_settings_are_those_of_the_signature_and_of_the_documentation():
    """With the defaults of the methods; help() says what each is."""
    parameters = inspect.signature(up.fit).parameters
    for name, value in VALUES.items():
        own = {getattr(each.settings(), name) for each in METHODS.values() if name in each.settings.names()}
        assert parameters[name].default == (value if len(own) == 1 else ...)
        assert f"\n        {name}: " in up.fit.__doc__
    assert up.fit.__doc__.index("Args:") < up.fit.__doc__.index("num_steps:") < up.fit.__doc__.index("Returns:")


@pytest.mark.usefixtures("quick_compiler")
def test_settings_are_kept_with_the_fit(backend_name, tmp_path):
    """All that make the result what it is, under their names, in the file too."""
    settings = {"num_steps": 3, "learning_rate": 0.125, "guide": {"readout.*": "full", "*": "normal"}, "rank": 3}
    fit = up.fit(MODEL, X, Y, backend=backend_name, validation=0.5, progress=False, standardize=False, **settings)
    assert settings.items() <= fit.training.items()
    assert len(fit.training["validation"]) == 16  # a digest of the rows
    fit.save(tmp_path / "fit.npz")
    assert up.load(tmp_path / "fit.npz").training == fit.training
