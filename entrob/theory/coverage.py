"""The bounds from sampled trajectories: Corollaries A.1 and A.2.

From n independent trajectories, cut after T steps with their last state given the weight γ^T of
all that would follow, one has d̂, a distribution, and R̂, an average reward.  With probability at
least 1 - δ

    E_ρ[r] + α H(d) ≥ R̂ + α H(d̂) - c,
    c = range(r) (√(log(2/δ) / 2n) + γ^T) + α (ω(1/n) √(n log(2/δ) / 2) + ω(γ^T)),

where ω(t) = t log(S - 1) + h(t) is the most that an entropy changes when a distribution moves by t
in total variation (Audenaert 2007; log S for t ≥ 1 - 1/S) and h the entropy of a coin.  Proof: one
trajectory moves R̂ by range(r)/n and H(d̂) by ω(1/n) at most, so McDiarmid's inequality holds for
each with δ/2; the mean of H(d̂) is at most the entropy of the mean of d̂ (Jensen), which cutting
has moved by γ^T.  A.1 is this inequality less α log S + ε; A.2 has log r for r, and exponentials.
The constants are ours.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from entrob.theory.mdp import TabularMDP, check_number, checked, checked_policy, entropy, float64


class Estimate(NamedTuple):
    """What n trajectories say.

    Attributes:
      d: float64[S], d̂.
      reward: float64[], R̂ of r.
      log_reward: float64[], the same of log r; NaN or -∞ where r is not positive.
    """

    d: jax.Array
    reward: jax.Array
    log_reward: jax.Array


@float64
def estimate(key: jax.Array, mdp: TabularMDP, policy, trajectories: int, horizon: int) -> Estimate:
    """Sample trajectories of a policy and average them, discounted and normalized.

    Args:
      key: a JAX key.
      mdp: one MDP.
      policy: float64[S, A].
      trajectories: n, >= 1.
      horizon: T, >= 1.

    Raises:
      ValueError: a count below 1, or not a policy of the MDP.
    """
    mdp = checked(mdp)
    policy = checked_policy(mdp, policy)
    check_number("trajectories", trajectories, 1, strict=False)
    check_number("horizon", horizon, 1, strict=False)
    return _estimate(key, mdp, policy, trajectories, horizon)


@functools.partial(jax.jit, static_argnames=("trajectories", "horizon"))
def _estimate(key: jax.Array, mdp: TabularMDP, policy, trajectories: int, horizon: int) -> Estimate:
    # Pairs and successors by inverting distribution functions: one uniform number each.
    which = lambda cumulated, u: jnp.minimum(
        (u[:, None] >= cumulated).sum(-1), cumulated.shape[-1] - 1
    )
    by_action = jnp.cumsum(jnp.asarray(policy), -1)
    by_state = jnp.cumsum(jnp.asarray(mdp.P), -1)
    r = jnp.asarray(mdp.r)
    first, rest = jax.random.split(key)
    state = which(jnp.cumsum(mdp.mu), jax.random.uniform(first, (trajectories,)))

    def visit(state, u, weight, sums):
        action = which(by_action[state], u[0])
        d, reward, log_reward = sums
        gain = r[state, action]
        sums = (
            d.at[state].add(weight / trajectories),
            reward + weight * gain.mean(),
            log_reward + weight * jnp.log(gain).mean(),
        )
        return action, sums

    def step(carry, t):
        state, sums = carry
        u = jax.random.uniform(jax.random.fold_in(rest, t), (2, trajectories))
        action, sums = visit(state, u, (1 - mdp.gamma) * mdp.gamma**t, sums)
        return (which(by_state[state, action], u[1]), sums), None

    nothing = (jnp.zeros(len(mdp.mu)), jnp.array(0.0), jnp.array(0.0))
    (state, sums), _ = jax.lax.scan(step, (state, nothing), jnp.arange(horizon))
    last = jax.random.uniform(jax.random.fold_in(rest, horizon), (2, trajectories))
    return Estimate(*visit(state, last, mdp.gamma**horizon, sums)[1])


def entropy_modulus(t, states: int) -> jax.Array:
    """ω(t): the most that the entropy of S states changes within total variation t: float64[]."""
    t = jnp.asarray(t, float)
    inside = t * np.log(max(states - 1, 1)) + entr(t) + entr(1 - t)
    return jnp.where(t < 1 - 1 / states, inside, np.log(states))


def slack(span, states: int, gamma, alpha, delta, trajectories: int, horizon: int) -> jax.Array:
    """c of the module's text, for rewards that span `span`: float64[], in units of reward."""
    cut = gamma ** jnp.asarray(horizon, float)
    one = jnp.log(2 / delta)
    mean = span * (jnp.sqrt(one / (2 * trajectories)) + cut)
    moved = entropy_modulus(1 / trajectories, states) * jnp.sqrt(trajectories * one / 2)
    return mean + alpha * (moved + entropy_modulus(cut, states))


@float64
def reward_bound(
    found: Estimate, mdp: TabularMDP, alpha, epsilon, delta, trajectories: int, horizon: int
) -> jax.Array:
    """Corollary A.1: at most the worst case of Theorem 3.1, with probability >= 1 - δ: float64[].

    R̂ + α (H(d̂) - log S) - ε - c.

    Args:
      found: what `estimate` returned.
      mdp: the MDP; used are S, γ and the range of r.
      alpha: coefficient, > 0.
      epsilon: size of the set, >= 0.
      delta: probability of failure, > 0.
      trajectories: n, as sampled.
      horizon: T, as sampled.

    Raises:
      ValueError: an argument out of its range.
    """
    alpha, epsilon, delta = _numbers(alpha, epsilon, delta)
    mdp = checked(mdp)
    c = slack(
        jnp.ptp(jnp.asarray(mdp.r)), len(mdp.mu), mdp.gamma, alpha, delta, trajectories, horizon
    )
    return found.reward + alpha * (entropy(found.d) - np.log(len(mdp.mu))) - epsilon - c


@float64
def kernel_bound_sampled(
    found: Estimate, mdp: TabularMDP, alpha, epsilon, delta, trajectories: int, horizon: int
) -> jax.Array:
    """Corollary A.2: at most the worst case of Theorem 3.3, with probability >= 1 - δ: float64[].

    exp(L̂ + α (H(d̂) - log S) - ε - c), L̂ the sampled mean of log r, whose range enters c.
    Arguments and errors as in `reward_bound`; r must be positive.
    """
    alpha, epsilon, delta = _numbers(alpha, epsilon, delta)
    mdp = checked(mdp)
    if not isinstance(mdp.r, jax.core.Tracer) and not (mdp.r > 0).all():
        raise ValueError(f"r must be positive, its least value is {np.min(mdp.r):g}")
    span = jnp.log(mdp.r.max() / mdp.r.min())
    c = slack(span, len(mdp.mu), mdp.gamma, alpha, delta, trajectories, horizon)
    entropy_term = alpha * (entropy(found.d) - np.log(len(mdp.mu)))
    return jnp.exp(found.log_reward + entropy_term - epsilon - c)


def _numbers(alpha, epsilon, delta):
    epsilon = check_number("epsilon", epsilon, strict=False)
    return check_number("alpha", alpha), epsilon, check_number("delta", delta)
