"""All tolerances of the suite, with their reasons."""

PARITY = 1e-10
"""Relative and absolute, float64: the same formula in two libraries; differs by the order of sums only."""

EXACT64 = 1e-12
"""Relative, float64: a closed form against the same closed form by another route."""

ORACLE32 = 2e-6
"""Relative to max(1, |value|), float32 against float64 or mpmath: the bound that the documentation states."""

QUADRATURE = 1e-8
"""Absolute, float64: SciPy's adaptive quadrature asks for 1e-10."""

GRADIENT64 = 1e-6
"""Relative, float64: central differences with step 1e-5 leave an error of about 1e-9 / gradient."""

SAMPLING_P = 1e-4
"""Smallest p-value of a goodness-of-fit test with a fixed seed: a false alarm in 10,000 seeds."""
