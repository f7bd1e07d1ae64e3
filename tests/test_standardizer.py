"""The constants of the standardisation: right in any dtype and unit, and NumPy's own where those are right."""

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.data.standardizer import Standardizer, moments

ROWS = 300_000
"""Enough for sums in float32 to be off by more than a hundredth of the spread."""


def columns(dtype, rows=ROWS):
    """Kelvin, pascal and years."""
    rng = np.random.default_rng(0)
    return (np.array([300.0, 101_325.0, 2000.0]) + [1.0, 500.0, 6.0] * rng.normal(size=(rows, 3))).astype(dtype)


@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_million_rows_of_few_digits_are_summed_in_float64(layout):
    x = columns(np.float32).copy(layout)
    found, exact = Standardizer.of(x), x.astype(np.longdouble)
    assert found.mean.dtype == found.scale.dtype == np.float64
    np.testing.assert_allclose(found.mean, exact.mean(0).astype(float), rtol=1e-12)
    np.testing.assert_allclose(found.scale, exact.std(0).astype(float), rtol=1e-10)
    assert abs(x.std(0) / exact.std(0) - 1.0).max() > 0.01 or layout == "F"  # in its own dtype it is wrong
    jointly = Standardizer.of(x, jointly=True)
    np.testing.assert_allclose([jointly.mean, jointly.scale], [float(exact.mean()), float(exact.std())], rtol=1e-10)
    target = Standardizer.of(x[:, 2])
    np.testing.assert_allclose([target.mean, target.scale], [found.mean[2], found.scale[2]], rtol=1e-10)


def test_half_floats_do_not_overflow():
    x = np.array([[60000.0, 1.0], [50000.0, 3.0]], np.float16)
    found = Standardizer.of(x)
    np.testing.assert_array_equal(found.mean, [(60000.0 + 49984.0) / 2, 2.0])  # the half float next to 50000
    np.testing.assert_array_equal(found.scale, [(60000.0 - 49984.0) / 2, 1.0])


def test_missing_values_are_left_out_in_any_dtype():
    x = columns(np.float32, 5000)
    x[np.random.default_rng(1).uniform(size=x.shape) < 0.2] = np.nan
    for a in (x, x[:, 0]):
        found, exact = Standardizer.of(a), a.astype(float)
        np.testing.assert_allclose(found.mean, np.nanmean(exact, 0), rtol=1e-13)
        np.testing.assert_allclose(found.scale, np.nanstd(exact, 0), rtol=1e-11)


@pytest.mark.parametrize("layout", ["C", "F"])
def test_of_float64_they_are_those_of_numpy_to_the_last_bit(layout):
    x = columns(np.float64, 3000).copy(layout)
    for a in (x, x[:, 0], np.where(x % 7.0 > 5.0, np.nan, x)):
        found, missing = Standardizer.of(a), np.isnan(a).any()
        np.testing.assert_array_equal(found.mean, np.nanmean(a, 0) if missing else a.mean(0))
        np.testing.assert_array_equal(found.scale, np.nanstd(a, 0) if missing else a.std(0))
        np.testing.assert_array_equal(found.standardize(a, "float32"), (a - found.mean) / found.scale)


@pytest.mark.parametrize("exponent", [-1060, -600, -460, 460, 600, 1019])
def test_units_whose_squares_are_beyond_float64(exponent):
    """Powers of two, which change no digit: the constants are those of the plain numbers in other units."""
    z = np.random.default_rng(3).normal(size=(200, 2)).round(3)
    x = np.ldexp(z, [exponent, 0])
    found, plain = Standardizer.of(x), Standardizer.of(z)
    digits = 1e-13 if exponent > -1000 else 1e-3  # numbers near the smallest have few
    np.testing.assert_allclose(np.ldexp(found.mean[0], -exponent), plain.mean[0], rtol=digits)
    np.testing.assert_allclose(np.ldexp(found.scale[0], -exponent), plain.scale[0], rtol=digits)
    np.testing.assert_array_equal([found.mean[1], found.scale[1]], [plain.mean[1], plain.scale[1]])
    np.testing.assert_allclose(found.standardize(x), plain.standardize(z), atol=10 * digits)
    y = Standardizer.of(x[:, 0])
    np.testing.assert_allclose([y.mean, y.scale], [found.mean[0], found.scale[0]], rtol=1e-14)


def test_a_constant_column_of_any_unit_has_scale_one():
    x = np.tile([1e308, 1e-310, 0.1], (50, 1))
    found = Standardizer.of(x)
    np.testing.assert_array_equal(found.scale, 1.0)
    np.testing.assert_allclose(found.mean, x[0], rtol=1e-12)


def test_a_memory_map_is_not_copied_whole(tmp_path, monkeypatch):
    """What is taken from it at a time stays small."""
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (4_000, 1_000))
    file[:] = 300.0 + np.random.default_rng(0).normal(size=file.shape)
    monkeypatch.setattr("ugmm_ppl.budgets.BLOCK", 2**16)
    import tracemalloc

    tracemalloc.start()
    moments(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < file.nbytes / 4


def test_single_precision_is_standardised_in_double():
    """Years: their distances from the mean are exact in float32, the mean is not."""
    x = np.array([[1999.0], [2000.0], [2000.0]], np.float32)
    found = Standardizer.of(x)
    np.testing.assert_allclose(found.standardize(x), (x.astype(float) - 5999.0 / 3.0) / np.sqrt(2.0 / 9.0), rtol=1e-11)
    assert found.standardize(x, "float32").dtype == np.float32
    assert found.standardize(x.astype(float), "float32").dtype == np.float64


@pytest.mark.parametrize("unit", [1e30, 1e-26, 1e-38])
def test_fits_of_single_precision_know_no_units(backend_name, unit):
    """The same answers as with float64, in units whose squares float32 does not hold."""
    z = np.random.default_rng(0).normal(size=(60, 2))
    settings = {"backend": backend_name, "method": "map", "num_steps": 30, "progress": False}
    x, y = (z * unit).astype(np.float32), (z[:, 0] * unit).astype(np.float32)
    regressor = up.Regressor(up.Network((2, 4)), 2)
    single = up.fit(regressor, x, y, **settings).predict(x)
    double = up.fit(regressor, x.astype(float), y.astype(float), **settings).predict(x.astype(float))
    for name in ("mean", "std"):
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=1e-3, atol=1e-3 * unit)
    np.testing.assert_allclose(single.log_density(y), double.log_density(y), atol=1e-2)
    circuit = up.Circuit(2, neurons=2)
    single, double = (up.fit(circuit, a, **settings | {"method": "em"}).log_density(a) for a in (x, x.astype(float)))
    np.testing.assert_allclose(single, double, atol=1e-2)
