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

TAIL32 = 1e-4
"""Relative, float32: a tail probability exp(-z^2 / 2) with z^2 / 2 = 72 rounded to 72 x 6e-8, and erfc's own error."""

TAIL64 = 1e-11
"""As TAIL32, float64: z^2 / 2 = 72 rounded to 72 x 1e-16, and the sum over components."""

GRADIENT32 = 2e-5
"""Relative to the largest entry, float32: responsibilities carry the rounding of their exponents, |terms| x 6e-8."""

STOCHASTIC_KL = 0.05
"""Nats between a fitted Gaussian and the best of its family: what Adam's gradient noise leaves after one cycle."""

NETWORK32 = 1e-3
"""Relative and absolute, float32 against float64, a network: layer normalisation enlarges the rounding of a."""

ULP = 2.0
"""Units in the last place, 2^x by polynomial: half a unit each for the polynomial and three roundings with FMA."""

ULP_UNFUSED = 2.1
"""The same without fused multiply-add, where every product is rounded too."""

HALF16 = 5e-3
"""Relative to max(1, |value|), float16: a few units in the last place, 1e-3 each, of values near one."""

SUBNORMAL = 2.3e-308
"""What XLA takes for zero: numbers below the normal ones."""

DIFFERENCES = 1e-8
"""Relative to the largest entry: central differences in extended precision with step 1e-5, whose square is left."""

ELBO32 = 1e-4
"""Relative, weights of restarts: exp of differences of float32 losses, of some 100 to 1000 nats, rounded to 6e-8."""

SIGMAS = 5.0
"""Standard errors between an average over draws and its expectation: a false alarm in 2 million, seeds being fixed."""

HALF_ULPS = 3.0
"""Units of 2^-10 or 2^-7, relative to max(1, |value|), half precision: the answer is rounded, and scale and weights."""

AGAIN = 1e-9
"""Relative and absolute, float64: ten steps on another processor, whose exponentials differ in the last place."""
