"""The documentation is true: its code runs, and it names everything that is public."""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import INSTALLED
from test_direction import LINES

import ugmm_ppl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z]+)(?:: (?P<value>[\w. ]+))? -->\n)?^```(?P<language>python|bash)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
API_PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
SHOWN = re.compile(r"^::: (?P<target>\S+)\n(?P<options>(?:    .*\n)*)", re.M)
MEMBERS = re.compile(r"^ +members: (?:false|\[(?P<names>[^\]]*)\])", re.M)
MOST_PAGES = 20


def blocks(page):
    """(language, mark, value, code, line) of every fenced block of Python or shell."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield found["language"], found["mark"], found["value"], found["code"], line


def missing(need):
    """Why a block that needs something cannot run here, or None."""
    if need in INSTALLED:
        return None if INSTALLED[need] else f"{need} is not installed here"
    if need in ("arviz 0", "arviz 1"):
        major = min(1, int(version("arviz").split(".")[0]))
        return None if need == f"arviz {major}" else f"ArviZ is {version('arviz')} here"
    return None if importlib.util.find_spec(need) else f"{need} is not installed here"


def run_commands(code):
    """Run the `ugmm-ppl` lines of a shell block in this process."""
    from typer.testing import CliRunner

    from ugmm_ppl.cli.app import app

    for line in code.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "ugmm-ppl", f"only ugmm-ppl is run here; got {line!r}"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(b[0] == "python" for b in blocks(p))], ids=lambda p: str(p.relative_to(ROOT))
)
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values")  # ArviZ 0.23 under pandas 3.1
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")  # ArviZ 0.23 under Matplotlib 3.11
@pytest.mark.filterwarnings(
    "ignore:Estimated shape parameter of Pareto distribution:UserWarning"
)  # what az.loo is there to tell
def test_code_runs(page, tmp_path, monkeypatch):
    """The blocks of a page in their order, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__docs__"}
    ran = 0
    for language, mark, value, code, line in blocks(page):
        if mark == "file":
            Path(value).write_text(code)
        if language == "bash":
            if mark == "run":
                run_commands(code)
            continue
        reason = missing(value) if mark == "needs" else None
        if reason:
            print(f"{page.name}:{line} is not run: {reason}")
            continue
        assert mark in (None, "needs", "file"), f"{page.name}:{line} has the unknown mark {mark!r}"
        source = "\n" * (line - 1) + code  # so that a traceback names the line of the page
        try:
            with contextlib.redirect_stdout(None):
                exec(compile(source, str(page), "exec"), namespace)
        finally:
            if "matplotlib" in namespace or importlib.util.find_spec("matplotlib"):
                import matplotlib.pyplot as plt

                plt.close("all")
        ran += 1
    assert ran, f"no block of {page.name} could run here"


def public_modules():
    """Packages, and files directly in the package: what a person may import, by name."""
    root = Path(ugmm_ppl.__file__).parent
    names = {path.parent.name for path in root.glob("*/__init__.py")} | {path.stem for path in root.glob("[!_]*.py")}
    return ["ugmm_ppl", *(f"ugmm_ppl.{name}" for name in sorted(names))]


def public_names(module):
    """Those that a package lists; of a file its functions and classes."""
    if hasattr(module, "__path__"):
        return getattr(module, "__all__", [])
    own = {name: thing for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
    return [name for name, thing in own.items() if callable(thing) and not name.startswith("_")]


def not_here(name):
    """Why what a dotted name says cannot be imported here, or None."""
    backend = name.split(".")[1] if "." in name else ""
    return None if INSTALLED.get(backend, True) else f"{name} is not looked at: {backend} is not installed here"


def resolved(name):
    """What a dotted name says, or None if there is no such thing."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None


@dataclasses.dataclass(frozen=True)
class Shown:
    """One `:::` of a page: the dotted name after it, and which members are shown; None is all."""

    page: str
    target: str
    members: tuple[str, ...] | None

    def shows(self, name, thing):
        """Whether a public name is shown: itself, or by the module in which it is defined."""
        if not_here(self.target):
            return False
        if resolved(self.target) is thing:
            return True
        home = self.target == getattr(thing, "__module__", None)
        return home and (self.members is None or name in self.members)


def shown():
    """Every `:::` of the pages of the API."""
    found = []
    for page in API_PAGES:
        for block in SHOWN.finditer(page.read_text()):
            members = MEMBERS.search(block["options"])
            names = None if members is None else tuple(re.findall(r"\w+", members["names"] or ""))
            found.append(Shown(page.name, block["target"], names))
    return found


def listed(page):
    """Names in the first column of the tables of a page."""
    first = re.findall(r"^\| (.*?) \|", page.read_text(), re.M)
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_the_api_has_few_pages():
    assert 0 < len(API_PAGES) <= MOST_PAGES


def test_what_the_pages_of_the_api_show_is_there():
    lost = []
    for block in shown():
        reason = not_here(block.target)
        if reason:
            print(reason)
            continue
        names = [block.target, *(f"{block.target}.{member}" for member in block.members or ())]
        lost += [f"{block.page}: {name}" for name in names if resolved(name) is None]
    assert not lost, "what pages of the API show and is not there"


@pytest.mark.parametrize("name", public_modules())
def test_every_public_name_is_documented(name):
    """On a page of the API, in a table of names, and by a block that shows it."""
    if not_here(name):
        pytest.skip(not_here(name))
    module = importlib.import_module(name)
    blocks = shown()
    tables = [ROOT / "docs" / "api" / "ugmm_ppl.md"] if module is ugmm_ppl else API_PAGES
    in_tables = set().union(*(listed(page) for page in tables))
    for public in public_names(module):
        thing = getattr(module, public)
        assert public in in_tables, f"no table lists {name}.{public}"
        if inspect.ismodule(thing):
            assert (ROOT / "docs" / "api" / f"{thing.__name__}.md").is_file(), f"{thing.__name__} has no page"
            continue
        assert any(block.shows(public, thing) for block in blocks), f"no ::: shows {name}.{public}"


ANY_ARRAY = {"Backend.numpy", "Distribution.arrays", "Ops.constant"}
"""Public functions of arrays that have no shape of their own."""


def annotations(thing):
    """Annotations of a function, or of a class and its methods, which are written as text: (name, text)."""
    if not inspect.isclass(thing):
        return [(thing.__name__, str(text)) for text in getattr(thing, "__annotations__", {}).values()]
    found = []
    for kind in (kind for kind in thing.__mro__ if kind.__module__.startswith("ugmm_ppl")):
        for name, member in [(kind.__name__, kind), *vars(kind).items()]:
            function = getattr(member, "fget", None) or getattr(member, "func", None) or member
            if not name.startswith("_") or name in ("__call__", "__init__"):
                own = inspect.get_annotations(function) if callable(function) else {}
                said = {key: text for key, text in own.items() if not key.startswith("_")}
                found += [(f"{kind.__name__}.{name}", str(text)) for text in said.values()]
    return found


@pytest.mark.parametrize("name", public_modules())
def test_public_signatures_name_shapes(name):
    """By the names of `ugmm_ppl.typing`."""
    if not_here(name):
        pytest.skip(not_here(name))
    module = importlib.import_module(name)
    things = [getattr(module, public) for public in public_names(module)]
    own = [thing for thing in things if callable(thing) and str(getattr(thing, "__module__", "")).startswith(name)]
    bare = {f"{where}: {text}" for thing in own for where, text in annotations(thing) if "ndarray" in text}
    assert not {each for each in bare if each.split(":")[0] not in ANY_ARRAY}


def test_the_order_of_the_packages_is_the_one_that_is_tested():
    """The table of docs/inside.md has the lines of tests/test_direction.py, from the top down."""
    table = (ROOT / "docs" / "inside.md").read_text().partition("## The packages")[2].partition("\n## ")[0]
    rows = [set(re.findall(r"`(\w+)`", cell)) for cell in re.findall(r"^\| (`.*?) \|", table, re.M)][1:]
    lines = [{home or "__init__" for homes in rooms.values() for home in homes} for rooms in reversed(LINES)]
    assert rows == [line - {"__main__"} for line in lines]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_to_files_hold(page):
    """Those of the pages that are not on the site, where MkDocs looks at them."""
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert link.startswith("https://") or (ROOT / link).exists(), f"{page} links to {link}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert str(page.relative_to(ROOT / "docs")) in navigation, f"mkdocs.yml does not list {page.name}"


def test_the_neuron_is_one_formula():
    """The page of the neuron says what the code says, on numbers."""
    import numpy as np

    from ugmm_ppl import neuron
    from ugmm_ppl.ops.numpy import NUMPY

    x, loc, scale, weights = (
        np.array([0.5, -1.0]),
        np.array([[0.2, 0.1]]),
        np.array([[0.5, 2.0]]),
        np.array([[0.25, 0.75]]),
    )
    by_hand = np.log(
        sum(
            w * np.exp(-0.5 * ((a - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
            for a, m, s, w in zip(x, loc[0], scale[0], weights[0], strict=True)
        )
    )
    np.testing.assert_allclose(neuron.activation(NUMPY, x, loc, scale, np.log(weights)), [by_hand], rtol=1e-14)
