"""``solve``: the exact optimum of a regularized objective, by either of two methods."""

import warnings
from collections.abc import Mapping

import jax
import numpy as np

from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import TabularMDP, checked, float64
from entrob.theory.mirror_descent import mirror_descent
from entrob.theory.regularized import Solution, weights

METHODS = {"interior_point": interior_point, "mirror_descent": mirror_descent}
"""The first solves all regularizers to 1e-9 in some ten steps; the second is the independent check,
and slow for strong state entropy."""


class NotSolved(UserWarning):
    """A solver stopped before its tolerance; the `Solution` holds the gap it reached."""


@float64
def solve(
    mdp: TabularMDP,
    regularizer: str | Mapping[str, float],
    alpha,
    method: str = "interior_point",
    tolerance: float = 1e-9,
    max_iterations: int | None = None,
) -> Solution:
    """Maximize E_ρ[r] + α Ω over all policies.

    Args:
      mdp: one MDP.
      regularizer: Ω: "policy" (E_d H(π)), "state" (H(d)), "state_action" (H(ρ)), or a mixture
        ``{"policy": w, "state": w}``.
      alpha: coefficient, > 0, in units of reward per nat.
      method: "interior_point" or "mirror_descent".
      tolerance: duality gap to stop at, > 0, in units of reward.
      max_iterations: steps at most; by default the method's own limit.

    Returns:
      A `Solution`; its `gap` bounds the distance to the optimum whatever happened, and `converged`
      says whether it is within the tolerance.

    Raises:
      ValueError: an argument out of its range; the message names it.
    Warns:
      NotSolved: outside of `jax.jit`, if the tolerance was not reached.
    """
    mdp = checked(mdp)
    w = weights(regularizer, alpha)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: known are {', '.join(METHODS)}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be > 0, not {tolerance:g}")
    limit = {} if max_iterations is None else {"max_iterations": max_iterations}
    found = METHODS[method](jax.tree.map(jax.numpy.asarray, mdp), w, tolerance, **limit)
    if not isinstance(found.gap, jax.core.Tracer) and not np.all(found.converged):
        warnings.warn(
            f"{method} stopped after {found.iterations} steps at a gap of {found.gap:.3g}, above "
            f"the tolerance of {tolerance:g}",
            NotSolved,
            stacklevel=3,
        )
    return found
