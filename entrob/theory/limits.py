"""What entropy regularization cannot do: Theorems 4.1 and 4.2."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.theory.mdp import (
    TabularMDP,
    check_distribution,
    check_number,
    checked,
    checked_policy,
    float64,
    state_distribution,
    tabular_mdp,
)
from entrob.theory.regularized import Weights
from entrob.theory.returns import cvar


class Refutation(NamedTuple):
    """Two rewards of which at least one refutes a claimed regularizer.

    Attributes:
      rewards: float64[2, S], functions of the state: a constant, and an indicator.
      errors: float64[2], |min over the set - (E_ρ[r] + Ω)| for each.
      floor: float64[], what max(errors) is at least, for any number Ω.
    """

    rewards: jax.Array
    errors: jax.Array
    floor: jax.Array


@float64
def refute(omega, mdp: TabularMDP, policy, kernel) -> Refutation:
    """Refute that a regularizer Ω(π, P) equals kernel robustness for every reward (Theorem 4.1).

    The claim is min {E_ρ̃[r] : P̃ in the set} = E_ρ[r] + Ω(π, P) for all r, with a set that holds P
    and at least one other kernel that moves the policy's state distribution d. A constant reward
    forces Ω = 0, whatever the set. The reward 1 where d > d̃, else 0, has a minimum that is lower
    than E_ρ[r] by at least TV(d, d̃). No number Ω serves both: one is off by TV/2 or more. (With
    more kernels in the set the second minimum falls further.)

    Args:
      omega: the number Ω(π, P), or a function of (policy, P) that returns it.
      mdp: one MDP; its rewards are not used.
      policy: float64[S, A].
      kernel: float64[S, A, S], the other member of the set.

    Raises:
      ValueError: a kernel of another shape or whose rows do not sum to 1.
    """
    mdp = checked(mdp)
    policy = checked_policy(mdp, policy)
    other = tabular_mdp(kernel, mdp.r, mdp.gamma, mdp.mu)
    number = omega(policy, mdp.P) if callable(omega) else omega
    d, moved = state_distribution(mdp, policy), state_distribution(other, policy)
    rewards = jnp.stack([jnp.ones(len(d)), (d > moved).astype(float)])
    least = jnp.minimum(rewards @ d, rewards @ moved)
    errors = jnp.abs(least - (rewards @ d + number))
    return Refutation(rewards, errors, jnp.abs(d - moved).sum() / 4)


class RiskyMDP(NamedTuple):
    """An MDP in which regularization buys risk, with its regularized optimum in closed form.

    Attributes:
      mdp: states 0 the start, 1 safe, then K good and K bad leaves; action 0 leads to the safe
        leaf, action i to good leaf i, or to bad leaf i with probability `bad`; leaves are final.
      risky: p, the probability with which the regularized optimum does not take action 0.
      bad: q, probability of a bad leaf after a risky action; p q = β.
    """

    mdp: TabularMDP
    risky: float
    bad: float


def risky_mdp(w: Weights, gap, beta, gamma=0.9) -> RiskyMDP:
    """Theorem 4.2's MDP: the regularized optimum loses `gap` in CVaR_β of the return.

    The safe leaf pays 0 and has the best mean, so it is optimal without regularization, and no
    policy's CVaR exceeds its mean: it is optimal for CVaR_β too. A risky action pays η less in the
    mean and has entropy. With p the probability of risk, the objective's derivative vanishes at

        log(p / (1 - p)) = log K + (bγ h(q) - γη) / κ,    κ = a (1 - γ) + b γ,

    with h the entropy of a coin, and a, b the weights of policy and state entropy. K is chosen so
    that p > β, and q = β/p, so that the lowest share β of returns are exactly the bad leaves, which
    pay gap (1 - γ)/γ less than the safe one: a return that is lower by `gap`.

    Args:
      w: weights, >= 0, at least one > 0.
      gap: M, > 0, in units of return.
      beta: in (0, 1).
      gamma: discount in (0, 1).

    Raises:
      ValueError: an argument out of its range.
    """
    gap, beta, gamma = (
        float(check_number(name, x)) for name, x in [("gap", gap), ("beta", beta), ("gamma", gamma)]
    )
    for name, x in [("beta", beta), ("gamma", gamma)]:
        if x >= 1:
            raise ValueError(f"{name} must be < 1, not {x:g}")
    a, b = (float(check_number("a weight", x, strict=False)) for x in w)
    kappa = a * (1 - gamma) + b * gamma
    check_number("the sum of the weights", kappa)
    loss = gap * (1 - gamma) / gamma
    eta = min(loss / 2, kappa / gamma * math.log(2))
    K = math.ceil(2 * beta / (1 - beta)) + 1

    def excess(p):
        q = beta / p
        coin = -q * math.log(q) - (1 - q) * math.log1p(-q) if q < 1 else 0.0
        return math.log(p / (1 - p)) - math.log(K) - (b * gamma * coin - gamma * eta) / kappa

    low, high = beta, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < 1 and excess(middle) < 0 else (low, middle)
    p, q = low, beta / low

    states, actions = 2 + 2 * K, K + 1
    P = np.zeros((states, actions, states))
    P[1:] = np.eye(states)[1:, None]
    P[0, 0, 1] = 1
    risky, leaf = np.arange(1, K + 1), np.arange(2, K + 2)
    P[0, risky, leaf], P[0, risky, leaf + K] = 1 - q, q
    r = np.zeros((states, actions))
    r[leaf] = (q * loss - eta) / (1 - q)
    r[leaf + K] = -loss
    return RiskyMDP(tabular_mdp(P, r, gamma, np.eye(states)[0]), p, q)


@float64
def leaf_cvar(risky: RiskyMDP, policy, beta) -> jax.Array:
    """Exact lower-tail CVaR_β of the return in a `RiskyMDP`: float64[].

    Every episode takes one action that matters, so the return has one value per leaf.
    """
    mdp = risky.mdp
    policy = checked_policy(mdp, policy)
    mass = policy[0] @ mdp.P[0]
    check_distribution("the leaves' probabilities", mass)
    returns = mdp.gamma / (1 - mdp.gamma) * mdp.r[:, 0]
    return cvar(returns, mass, beta)
