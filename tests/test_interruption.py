"""A fit that is interrupted, or whose loss is not finite, keeps what was reached."""

import numpy as np
import pytest
from test_fit import iris

import ugmm_ppl as up
from ugmm_ppl.backends.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_compiler")


def test_an_interruption_keeps_what_was_reached(backend_name, monkeypatch):
    update, calls = Progress.update, []

    def stop_at_the_third(self, steps, **watched):
        calls.append(steps)
        if len(calls) == 3:
            raise KeyboardInterrupt
        update(self, steps, **watched)

    monkeypatch.setattr(Progress, "update", stop_at_the_third)
    x, x_test, y, _ = iris()
    fit = up.fit(up.Classifier(up.Network((4, 8)), 3), x, y, backend=backend_name, num_steps=500, progress=False)
    assert fit.interrupted
    assert np.isfinite(fit.losses[0]).sum() == sum(calls)
    assert np.isfinite(fit.predict(x_test).probs).all()


def test_interrupted_nuts_keeps_the_draws_of_every_chain(backend_name, monkeypatch, tmp_path):
    settings = {
        "backend": backend_name, "method": "nuts", "num_chains": 2, "num_warmup": 3, "num_draws": 6, "max_tree_depth": 2
    }  # fmt: skip
    x, x_test, y, _ = iris()
    model = up.Classifier(up.Network((4, 8)), 3)
    whole = up.fit(model, x, y, progress=False, **settings)
    update = Progress.update

    def stop_after(steps):
        def interrupted(self, now, **watched):
            update(self, now, **watched)
            self.reached = getattr(self, "reached", 0) + now
            if self.reached == steps:
                raise KeyboardInterrupt

        return interrupted

    monkeypatch.setattr(Progress, "update", stop_after(3 + 4))
    fit = up.fit(model, x, y, progress=False, **settings)
    assert fit.interrupted
    assert fit.stats["diverging"].shape == (2, 4)
    for name, value in fit.posterior().items():
        np.testing.assert_array_equal(value, whole.posterior()[name][:, :4])
    fit.save(tmp_path / "fit.npz")
    assert np.isfinite(up.load(tmp_path / "fit.npz").predict(x_test).probs).all()
    monkeypatch.setattr(Progress, "update", stop_after(2))
    with pytest.raises(KeyboardInterrupt):
        up.fit(model, x, y, progress=False, **settings)


@pytest.mark.parametrize("guide", ["normal", "lowrank", "delta"])
def test_a_loss_that_is_not_finite_stops_with_step_site_and_last_good_state(backend_name, guide):
    x, _, y, _ = iris()
    model = up.Classifier(up.Network((4, 8)), 3)
    with pytest.raises(
        up.NonFiniteError, match=r"got NaN or inf at step \d+, in the gradient of .*(readout|layers)"
    ) as caught:
        up.fit(model, x, y, backend=backend_name, guide=guide, num_steps=20, learning_rate=1e30, progress=False)
    error = caught.value
    assert error.step == np.isfinite(error.fit.losses).sum()
    assert set(error.sites) & {"readout.weight", "layers.0.log_scale"}
    assert all(np.isfinite(value).all() for value in error.fit.state[0].values())
