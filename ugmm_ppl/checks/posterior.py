"""What is inferred, and how: guides, methods, and the weights of restarts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import choice, listed


def guide(families: Any, valid: Collection[str]) -> dict[str, str]:
    """Return families of a guide by pattern; one family stands for all sites, the pattern "*"."""
    if not isinstance(families, Mapping):
        return {"*": choice("guide", families, valid)}
    if not families or not all(isinstance(pattern, str) for pattern in families):
        raise ValueError(
            "guide must be one family, or map patterns of site names to families, e.g. "
            f"{{'readout.*': 'full', '*': 'normal'}}; got {families!r}."
        )
    return {pattern: choice(f"guide[{pattern!r}]", family, valid) for pattern, family in families.items()}


def guide_patterns(patterns: Iterable[str], chosen: Mapping[str, str | None], inferred: Iterable[str]) -> None:
    """Refuse inferred sites that no pattern matches, and patterns that are the first to match no site at all."""
    left = [site for site in inferred if chosen[site] is None]
    if left:
        raise ValueError(
            f"guide needs a pattern for every inferred site; got none that matches {listed(left)}. "
            "Add '*' with a family as the last one."
        )
    for pattern in patterns:
        if pattern not in chosen.values():
            raise ValueError(
                f"every pattern of guide must be the first to match some site; got {pattern!r}, which is it "
                f"for none of {listed(chosen)}. Correct it, take it out, or put it before a wider one."
            )


def full_block(pattern: str, entries: int, most: int) -> None:
    """Refuse a full covariance that is too large."""
    if entries > most:
        raise ValueError(
            f"a full guide needs at most {most} entries, as its covariance has the square of that; the sites of "
            f"{pattern!r} have {entries}. Use 'lowrank', or a mapping such as {{'readout.*': 'full', '*': 'normal'}}."
        )


def bayesian(sites: Any, readout: str) -> list[str]:
    """Return the patterns of the sites that are inferred; `readout` is what "readout" stands for."""
    if isinstance(sites, str):
        named = {"all": "*", "readout": readout}
        if sites not in named:
            raise ValueError(
                f"bayesian must be 'all', 'readout' or a list of site names; got {sites!r}. Try [{sites!r}]."
            )
        return [named[sites]]
    if (
        not isinstance(sites, list | tuple)
        or not (patterns := list(sites))
        or not all(isinstance(p, str) for p in patterns)
    ):
        raise ValueError(
            "bayesian must be 'all', 'readout' or a list of site names or patterns, e.g. ['layers.0.*']; "
            f"got {sites!r}."
        )
    return patterns


def bayesian_patterns(matched: Mapping[str, Sequence[str]], sites: Iterable[str]) -> None:
    """Refuse patterns of inferred sites that match none."""
    for pattern, names_ in matched.items():
        if not names_:
            raise ValueError(
                f"every name in bayesian must match a site; got {pattern!r}. The sites are {listed(sites)}."
            )


def nothing_inferred(inferred: Any) -> None:
    """Refuse to infer some sites by a method that has a point at every site."""
    if inferred != "all":
        raise ValueError(
            f"bayesian needs a method that infers, 'svi', 'laplace', 'nuts' or 'sghmc'; got bayesian={inferred!r} and "
            "a point at every site. Leave bayesian out, or choose another method or guide."
        )


def laplace_families(families: Mapping[str, str], curved: Mapping[str, bool], points: Collection[str]) -> None:
    """Refuse families of a guide that are not made of a curvature.

    Args:
        families: Families by pattern.
        curved: Those that are made of a curvature, and whether of its diagonal alone.
        points: Those that are points, which may stand beside them.
    """
    asked = set(families.values())
    if asked - set(curved) - set(points) or not asked & set(curved):
        known = " and ".join(f"{name!r} (diagonal)" if diagonal else repr(name) for name, diagonal in curved.items())
        raise ValueError(
            f"method='laplace' needs a guide of {known} blocks; got {listed(families.values())}. With too many "
            "parameters for 'full' use bayesian='readout', or 'normal'."
        )


def sampler(method: str, dropout: Any) -> None:
    """Refuse dropout where the density must not change from call to call."""
    if np.any(dropout):
        raise ValueError(f"method={method!r} needs a network without dropout; got dropout={dropout}. Use 0.0.")


def no_stochastic_gradients(model: Any) -> ValueError:
    """The error for a sampler on mini-batches of rows that have variables of their own."""
    return ValueError(
        f"method='sghmc' needs a density of every row in closed form; that of a {type(model).__name__} is an integral. "
        "Use 'svi' or 'nuts'."
    )


def no_weights() -> ValueError:
    """The error for weights of rows where the variables of every row are sampled."""
    return ValueError(
        "method='nuts' samples the layers of every row, and has no p(x) that could be raised to a weight. Repeat rows "
        "of whole weights, numpy.repeat(x, weights, axis=0), or use 'svi' or 'map'."
    )


def no_information(model: Any) -> ValueError:
    """The error for a model without the curvature that a Laplace approximation needs."""
    return ValueError(
        f"method='laplace' needs a model of y given x, with the Fisher information of its likelihood; "
        f"{type(model).__name__} has none. Use 'svi' or 'nuts'."
    )


def no_curvature(sites: Iterable[str]) -> ValueError:
    """The error for a precision that is not positive definite."""
    return ValueError(
        f"a Laplace approximation needs a positive definite precision; got one that is not for {listed(sites)}. Give "
        "these sites Normal priors, or more training steps, or leave them out of bayesian."
    )


def no_em(model: Any) -> ValueError:
    """The error for a method that a model has not."""
    return ValueError(
        f"method='em' needs a Circuit, whose expected counts are exact; got {type(model).__name__}. Use 'svi' or 'map'."
    )


def weighing(how: str, method: str, bound: bool, temperature: float, given: bool) -> None:
    """Refuse ways to weigh restarts that do not apply to a fit, or lack their data."""
    if how == "elbo" and not (bound and temperature == 1.0):
        raise ValueError(
            "weights by 'elbo' need method='svi' and temperature=1.0, whose loss is a bound of the evidence; got "
            f"method={method!r}, temperature={temperature}. Use 'stacking' on held-out rows."
        )
    if how == "stacking" and not given:
        raise ValueError("weights by 'stacking' need x and y of held-out rows; got none. Give rows kept out of fit.")
    if how != "stacking" and given:
        raise ValueError(f"weights by {how!r} use no data; got x or y. Leave them out, or use 'stacking'.")


def kept_draws(asked: int | None, kept: int) -> None:
    """Refuse to ask for more draws than a sampler kept."""
    if asked is not None and asked > kept:
        raise ValueError(f"num_draws must be at most {kept}, the draws that NUTS kept per chain; got {asked}.")


def no_log_q(method: str) -> ValueError:
    """The error for the density of a guide that a method has not."""
    return ValueError(f"log_q needs method='svi' or 'laplace'; this fit is by {method!r}, which has no guide density.")


def no_diagnosis(model: Any) -> TypeError:
    """The error for the diagnosis of a fit that is no density of y given what a network makes of x."""
    return TypeError(
        f"a fit of a network (Classifier, Regressor) is needed; got one of {type(model).__name__}. Judge "
        "it by its log density of rows that it was not fitted to."
    )
