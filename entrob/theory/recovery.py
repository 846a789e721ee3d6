"""How much of the exactly robust value does each entropy regularizer recover?

Eight adversaries, each with its exact robust optimum: rewards fall by `DROP` on a few pairs
(unstructured) or on all pairs of a few states (structured); the dynamics move within a ball of
total variation, KL or χ² divergence for every pair by itself (unstructured, (s, a)-rectangular) or
through the factors that pairs share (structured).  A policy π recovers the share

    (V(π) - V(π_0)) / (V(π*) - V(π_0)),

with V the value against the adversary's best answer to this policy, π* the exactly robust optimum
and π_0 the optimum without any adversary.  1 is as good as robust optimization, 0 no better than
doing nothing; it is negative where the regularizer costs more than it protects.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.sparse

from entrob.theory.batches import over
from entrob.theory.generators import garnet
from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import TabularMDP, float64, policy_of
from entrob.theory.regularized import REGULARIZERS, Weights
from entrob.theory.robust import (
    FactoredMDP,
    factored,
    robust_policy_evaluation,
    robust_value_iteration,
)

STATES, ACTIONS, BRANCHING, GAMMA = 20, 4, 5, 0.9
FACTORS, FACTOR_BRANCHING = 8, 2
"""Few factors a pair and few states a factor: with many, every action does much the same, and
nothing is to be gained from robustness."""
DROP = 1.0
"""How far a reward falls where the adversary strikes; rewards lie in [0.05, 1]."""
STRUCK = 4
"""States that are struck, or STRUCK · A pairs."""
RADII = {"tv": 0.5, "kl": 1.0, "chi2": 4.0}
"""How far a row or a factor may move: so far that robustness is worth something on these MDPs. At a
total variation of 0.2 the exactly robust policy gains only about 0.001 over the nominal one."""
CHANGES = ("reward", "kernel (TV)", "kernel (KL)", "kernel (χ²)")
"""What changes; the kernel within the balls of `RADII`, in this order."""
FORMS = ("unstructured", "structured")
"""Whether pairs change by themselves, or with all pairs of a state or of a factor."""


class Recovery(NamedTuple):
    """Values of every policy against every adversary, normalized as E_ρ[r].

    Attributes:
      alphas: float64[K], coefficients.
      regularized: float64[2, 4, 3, K, N], forms × changes × regularizers × coefficients × MDPs.
      nominal: float64[2, 4, N], of π_0.
      robust: float64[2, 4, N], of π*.
      certificate: float64[2, 4, N], bound on the error of `robust`.
      price: float64[2, 4, 3, K, N], nominal value of π_0 less that of the regularized policy.
    """

    alphas: np.ndarray
    regularized: np.ndarray
    nominal: np.ndarray
    robust: np.ndarray
    certificate: np.ndarray
    price: np.ndarray


def struck(rho: jax.Array, structured: bool) -> jax.Array:
    """What the reward adversary takes: DROP times the mass it can strike: float64[].

    Args:
      rho: float64[S, A].
      structured: STRUCK states with all their pairs, else STRUCK · A pairs.
    """
    mass = rho.sum(-1) if structured else rho.ravel()
    count = STRUCK if structured else STRUCK * rho.shape[1]
    return DROP * jax.lax.top_k(mass, min(count, mass.size))[0].sum()


def robust_to_rewards(mdp: TabularMDP, structured: bool) -> tuple[np.ndarray, float, float]:
    """The optimum against `struck`, as a linear program: (ρ float64[S, A], value, its error).

    max <ρ, r> - DROP (k t + Σ u) over the occupancy polytope with u ≥ 0, u ≥ mass - t: for the
    best t this is the sum of the k largest masses (Rockafellar and Uryasev 2000).
    """
    states, actions = mdp.r.shape
    pairs = states * actions
    groups = states if structured else pairs
    count = min(STRUCK if structured else STRUCK * actions, groups)
    belongs = np.arange(pairs) // actions if structured else np.arange(pairs)
    select = scipy.sparse.csr_array((np.ones(pairs), (belongs, np.arange(pairs))))
    # Variables: ρ, then u, then t.
    cost = np.concatenate([-np.ravel(mdp.r), np.full(groups, DROP), [DROP * count]])
    above = scipy.sparse.hstack([select, -scipy.sparse.eye(groups), -np.ones((groups, 1))])
    flow = np.repeat(np.eye(states), actions, 0) - mdp.gamma * np.reshape(mdp.P, (pairs, states))
    balance = np.hstack([flow.T, np.zeros((states, groups + 1))])
    found = scipy.optimize.linprog(
        cost,
        A_ub=above,
        b_ub=np.zeros(groups),
        A_eq=balance,
        b_eq=(1 - mdp.gamma) * mdp.mu,
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    dual = found.eqlin.marginals @ ((1 - mdp.gamma) * mdp.mu)
    rho = np.maximum(found.x[:pairs], 0).reshape(states, actions)
    return rho, -found.fun, abs(found.fun - dual)


@float64
def recover(key: jax.Array, mdps: int, alphas: np.ndarray) -> Recovery:
    """Solve `mdps` Garnet MDPs and as many factor models for all regularizers and coefficients.

    Args:
      key: a JAX key.
      mdps: N.
      alphas: float64[K], coefficients, > 0.
    """
    first, second = jax.random.split(key)
    draw = lambda k: garnet(k, STATES, ACTIONS, BRANCHING, GAMMA)
    plain = over(draw, jax.random.split(first, mdps))
    draw = lambda k: factored(k, STATES, ACTIONS, FACTORS, FACTOR_BRANCHING, GAMMA)
    shared = over(draw, jax.random.split(second, mdps))
    names = list(REGULARIZERS)
    weights = [Weights(0.0, 0.0)]
    weights += [Weights(a * w.policy, a * w.state) for w in REGULARIZERS.values() for a in alphas]
    weights = jax.tree.map(lambda *x: jnp.array(x), *weights)

    def solve(mdp):
        """ρ float64[1 + 3K, S, A] of π_0 and of the regularized optima."""
        return jax.lax.map(lambda w: interior_point(mdp, w, 1e-8).rho, weights)

    def against(structured: bool) -> list[tuple]:
        models = shared if structured else plain
        rho = over(solve, models.mdp if structured else models)
        kernels = [_kernels(models, rho, name, radius) for name, radius in RADII.items()]
        return [_rewards(plain, over(solve, plain) if structured else rho, structured), *kernels]

    results = [against(form == "structured") for form in FORMS]
    value, nominal, best, error = (
        np.array([[found[i] for found in form] for form in results]) for i in range(4)
    )
    shape = (*value.shape[:2], len(names), len(alphas), mdps)
    return Recovery(
        alphas=np.asarray(alphas),
        regularized=value[:, :, 1:].reshape(shape),
        nominal=value[:, :, 0],
        robust=best,
        certificate=error,
        price=(nominal[:, :, :1] - nominal[:, :, 1:]).reshape(shape),
    )


def _rewards(mdps: TabularMDP, rho: jax.Array, structured: bool):
    """(values [1 + 3K, N], nominal values, robust optimum [N], its error [N])."""

    def evaluate(mdp, rho):
        gain = jnp.sum(rho * mdp.r, (-2, -1))
        return gain - jax.vmap(lambda x: struck(x, structured))(rho), gain

    value, gain = (np.asarray(x).T for x in over(evaluate, mdps, rho))
    mdps = jax.tree.map(np.asarray, mdps)
    one = lambda i: jax.tree.map(lambda x: x[i], mdps)
    optima = [robust_to_rewards(one(i), structured)[1:] for i in range(value.shape[1])]
    return value, gain, *np.array(optima).T


def _kernels(models: TabularMDP | FactoredMDP, rho: jax.Array, ambiguity: str, radius: float):
    """As `_rewards`, for rows or factors that move."""

    def evaluate(model, rho):
        mdp = model if isinstance(model, TabularMDP) else model.mdp
        worst = lambda x: robust_policy_evaluation(model, policy_of(x), ambiguity, radius).value
        best = robust_value_iteration(model, ambiguity, radius)
        gain = jnp.sum(rho * mdp.r, (-2, -1))
        return jax.lax.map(worst, rho), gain, best.value, (1 - GAMMA) * best.error

    value, gain, best, error = (np.asarray(x) for x in over(evaluate, models, rho))
    return value.T, gain.T, best, error


def shares(found: Recovery, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Recovered share with its 95 % bootstrap interval over MDPs: float64[2, 4, 3, K, 3].

    The ratio of means, not the mean of ratios: where robustness gains nothing a ratio has no
    meaning.  The last axis holds the share, and the ends of its interval.
    """
    gained = found.regularized - found.nominal[..., None, None, :]
    possible = (found.robust - found.nominal)[..., None, None, :]
    count = possible.shape[-1]
    index = np.random.default_rng(seed).integers(count, size=(resamples, count))
    weights = np.stack([np.bincount(i, minlength=count) for i in index]) / count
    resampled = (gained @ weights.T) / (possible @ weights.T)
    middle = gained.mean(-1) / possible.mean(-1)
    ends = np.quantile(resampled, [0.025, 0.975], axis=-1)
    return np.stack([middle, *ends], -1)
