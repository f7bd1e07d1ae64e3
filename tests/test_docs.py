"""The documentation is true: its code runs, and it names everything that is public."""

import contextlib
import importlib
import importlib.util
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
API = re.compile(r"^::: (ugmm_ppl[\w.]*)", re.M)


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


def documented():
    """Names after `:::` in the pages of the API."""
    return {name for page in (ROOT / "docs" / "api").glob("*.md") for name in API.findall(page.read_text())}


def modules():
    """Every module of the package that a person may import, found without importing it."""
    root = Path(ugmm_ppl.__file__).parent
    dotted = (
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for path in root.rglob("*.py")
        if path.name != "__main__.py"
    )
    return sorted(name.removesuffix(".__init__") for name in dotted)


def test_every_module_has_a_page():
    pages = {page.stem for page in (ROOT / "docs" / "api").glob("*.md")}
    missing_pages = [name for name in modules() if name not in pages]
    assert not missing_pages
    stale = sorted(pages - set(modules()))
    assert not stale, "pages of modules that are not there"
    for name in modules():
        text = (ROOT / "docs" / "api" / f"{name}.md").read_text()
        assert re.search(rf"^::: {re.escape(name)}$", text, re.M), f"docs/api/{name}.md does not show {name}"


@pytest.mark.parametrize("package", ["ugmm_ppl", "ugmm_ppl.pyro", "ugmm_ppl.numpyro"])
def test_every_public_name_is_documented(package):
    backend = package.partition(".")[2]
    if backend and not INSTALLED[backend]:
        pytest.skip(f"{backend} is not installed here")
    page = (ROOT / "docs" / "api" / f"{package}.md").read_text()
    shown = documented()
    for name in importlib.import_module(package).__all__:
        assert f"`{name}`" in page, f"docs/api/{package}.md does not name {name}"
        thing = getattr(importlib.import_module(package), name)
        home = getattr(thing, "__module__", None)
        assert home in shown, f"{package}.{name} lives in {home}, which no page shows"


def test_the_order_of_the_packages_is_the_one_that_is_tested():
    """The table of docs/inside.md has the lines of tests/test_direction.py, from the top down."""
    table = (ROOT / "docs" / "inside.md").read_text().partition("## The packages")[2].partition("\n## ")[0]
    rows = [set(re.findall(r"`(\w+)`", cell)) for cell in re.findall(r"^\| (`.*?) \|", table, re.M)][1:]
    lines = [{home or "__init__" for homes in rooms.values() for home in homes} for rooms in reversed(LINES)]
    assert rows == [line - {"__main__"} for line in lines]


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
