"""Imports run one way: a room knows what stands below it, and nothing else. Type-only and lazy imports count too."""

import ast
from pathlib import Path

import ugmm_ppl

ROOT = Path(ugmm_ppl.__file__).parent

LINES = (
    {"typing": ("typing",)},
    {"checks": ("checks",), "neuron": ("neuron",)},
    {"ops": ("ops",)},
    {"kernels": ("kernels",), "distributions": ("distributions",), "data": ("data",)},
    {"backends": ("backends",), "nn": ("nn",)},
    {"priors": ("priors",), "metrics": ("metrics",)},
    {"likelihoods": ("likelihoods",)},
    {"pyro": ("pyro",), "numpyro": ("numpyro",), "models": ("models",)},
    {"guides": ("guides",)},
    {"infer": ("infer",)},
    {"posterior": ("posterior",), "calibration": ("calibration",)},
    {"arviz": ("arviz",)},
    {"diagnostics": ("diagnostics",)},
    {"report": ("report",)},
    {"fitting": ("fitting",)},
    {"circuit": ("circuit",), "latent": ("latent",)},
    {"the public names": ("",)},
    {"cli": ("cli", "__main__")},
)
"""From the bottom up: lines of rooms, which do not know each other, and the modules and packages of each."""

UPWARDS = {
    "backend: guide model.base training",
    "checkpoint: storage",
    "checks.model: network prior",
    "guide: model.base",
    "kernels.for_jax: numpyro.arrays numpyro.ops",
    "kernels.for_torch: pyro.ops",
    "latent.density: circuit.prior",
    "latent.fit: circuit.prior",
    "latent.model: circuit.checks circuit.prior",
    "model.base: posterior training",
    "numpyro.inference: guide model.base",
    "numpyro.training: training",
    "ops: neuron",
    "page: ",
    "posterior: arviz diagnostics page",
    "prior: backend model.base",
    "pyro.inference: guide model.base",
    "pyro.training: training",
    "storage: circuit.model latent.model",
}
"""What does not hold yet; nothing is ever added."""


def modules():
    """Dotted name in the package, "" for itself -> file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path, names):
    """Modules of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in dotted:
            package, _, rest = name.partition(".")
            if package == ROOT.name:
                yield rest if rest in names else rest.rpartition(".")[0]


def place(module):
    """Line and room of a module."""
    top = module.partition(".")[0]
    for line, rooms in enumerate(LINES):
        for room, homes in rooms.items():
            if top in homes:
                return line, room
    raise AssertionError(f"{module} has no place in LINES")


def test_imports_run_one_way():
    names = modules()
    found = set()
    for module, path in names.items():
        line, room = place(module)
        others = sorted(
            {other for other in imported(path, names) if place(other)[1] != room and place(other)[0] >= line}
        )
        if others:
            found.add(f"{module}: {' '.join(others)}")
    assert not found - UPWARDS, "imports that do not run downwards"
    assert not UPWARDS - found, "mended: take them out of UPWARDS"
