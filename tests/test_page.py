"""The report: one file, nothing from outside, nothing of the user's data that is not escaped."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import INSTALLED
from helpers import refused
from scipy import stats
from tolerances import SAMPLING_P

import ugmm_ppl as up
from ugmm_ppl.report.page import write_report
from ugmm_ppl.report.pictures import loo_pit

pytestmark = [
    pytest.mark.usefixtures("quick_compiler"),
    pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping:DeprecationWarning"),  # ArviZ 0.23
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values:DeprecationWarning"),
]

BACKEND = "pyro" if INSTALLED["pyro"] else "numpyro"
EVIL = ["<script>alert('a')</script>", "$\\frac{", 'b" onload="c', "<!-- d -->"]


class Page(HTMLParser):
    """Tags, attributes, headings and open elements of a page."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.headings = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def checked(path):
    """The page, well formed, with nothing that is fetched or run."""
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    addresses = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(value.startswith("#") for value in addresses)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)), "pictures share ids"
    assert {value[1:] for value in addresses} <= set(ids)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    return text, page


def test_report_of_a_classifier_escapes_the_data(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = (x[:, 0] > 0).astype(int)
    model = up.Classifier(up.Network((4, 3)), 2)
    names = {"feature_names": EVIL, "class_names": ["<b>no</b>", "$yes"]}
    fit = up.fit(model, x, y, backend=BACKEND, num_steps=60, num_restarts=2, progress=False, **names)
    found = fit.report(tmp_path / "report.html", title="<i>mine</i>", more_steps=False, test=(x[:9], y[:9]))
    text, page = checked(tmp_path / "report.html")
    assert "<b>no" not in text
    assert "<i>mine" not in text
    assert "&lt;i&gt;mine&lt;/i&gt;" in text
    assert page.headings[0] == "Verdicts"
    wanted = {"Training", "Predictive checks", "Reliability", "R-hat of functions", "Influence of inputs"}
    assert wanted | {"Worst predicted rows"} <= set(page.headings)
    assert {heading.split()[0] for heading in page.headings} >= {"Forest", "Ridge", "Neuron"}
    assert "held-out rows" in text
    for line in found:
        assert line.name in text
    for name in found.problems:
        assert f"Problems: {', '.join(found.problems)}" in text, name


def test_report_of_a_regressor_and_without_data(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3))
    fit = up.fit(
        up.Regressor(up.Network((3, 4)), 2), x, x[:, 0], backend=BACKEND, num_steps=60, progress=False,
        feature_names=["a", "b", "c"],
    )  # fmt: skip
    write_report(fit, tmp_path / "report.html", more_steps=False)
    _, page = checked(tmp_path / "report.html")
    assert "LOO-PIT" in page.headings
    fit.save(tmp_path / "fit.npz")
    with refused(ValueError, "x and y are needed", "Give both"):
        up.load(tmp_path / "fit.npz").report(tmp_path / "other.html")


@pytest.mark.parametrize("discrete", [True, False])
def test_loo_pit_of_the_right_model_is_uniform(rng, discrete):
    """Of counts too, where P(y_rep <= y) alone is not."""
    draw = rng.poisson if discrete else rng.normal
    y, drawn = draw(1.0, size=500).astype(float), draw(1.0, size=(1, 400, 500)).astype(float)
    u = loo_pit(drawn, y, 0.01 * rng.normal(size=drawn.shape), np.zeros((1, 400)))
    assert stats.kstest(u, "uniform").pvalue > SAMPLING_P
    if discrete:
        assert stats.kstest((drawn[0] <= y).mean(0), "uniform").pvalue < 1e-9


@pytest.mark.parametrize(
    ("likelihood", "extras", "said"),
    [
        (up.likelihoods.Poisson(), {"exposure": np.full(40, 2.0)}, "bars that end at zero are as observed"),
        (up.likelihoods.Ordinal(3), {}, "levels up to each threshold"),
        (up.likelihoods.Censored(up.likelihoods.Normal()), {"censored": np.arange(40) % 2}, "Kaplan-Meier estimate"),
        (up.likelihoods.Gamma(), {}, "Data sets drawn before and after"),
    ],
    ids=["counts", "levels", "survival", "positive"],
)
def test_the_likelihood_says_by_which_picture_it_is_checked(likelihood, extras, said, rng, tmp_path):
    x, y = rng.normal(size=(40, 2)), np.arange(40) % 3 + (isinstance(likelihood, up.likelihoods.Gamma))
    model = up.Model(up.Network((2, 3)), likelihood)
    fit = up.fit(model, x, y, backend=BACKEND, num_steps=5, progress=False, **extras)
    fit.report(tmp_path / "report.html", more_steps=False, test=(x, y, extras))
    text, _ = checked(tmp_path / "report.html")
    assert "held-out rows" in text
    assert said in text
    assert ("Of the training rows, of whole numbers randomised" in text) == ("censored" not in extras)
