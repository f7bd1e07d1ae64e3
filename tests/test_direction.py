"""Imports run one way: a room knows what stands below it, and nothing else. Type-only and lazy imports count too."""

import ast
from pathlib import Path

import ugmm_ppl

ROOT = Path(ugmm_ppl.__file__).parent

LINES = (
    {"typing": ("typing",), "budgets": ("budgets",)},
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

FLAT = 8
"""Most files directly in the package, each of which is public."""


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


def imports():
    """Module -> modules of the package that it imports, but for itself."""
    names = modules()
    return {module: set(imported(path, names)) - {module} for module, path in names.items()}


def circles(graph):
    """Groups of modules that import each other, however far around."""
    reached = {module: {module} for module in graph}
    grown = True
    while grown:
        grown = False
        for module, others in graph.items():
            more = set().union(*(reached[other] for other in others)) - reached[module]
            reached[module] |= more
            grown |= bool(more)
    return {frozenset(b for b in reached[a] if a in reached[b]) for a in graph} - {frozenset({a}) for a in graph}


def test_imports_run_one_way():
    found = {}
    for module, others in imports().items():
        line, room = place(module)
        above = sorted(other for other in others if place(other)[1] != room and place(other)[0] >= line)
        if above:
            found[module] = above
    assert not found, "imports that do not run downwards"


def test_no_imports_go_in_a_circle():
    assert not circles(imports())
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}  # it can find one


def test_few_modules_lie_flat():
    flat = {module for module in modules() if "." not in module and (ROOT / f"{module}.py").is_file()}
    assert len(flat) <= FLAT, sorted(flat)
