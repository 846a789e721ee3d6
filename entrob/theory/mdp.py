"""Tabular MDPs, occupancies and entropies, exactly, in float64.

All functions take one MDP; `jax.vmap` them over many, inside ``with jax.enable_x64(True)``.
Called directly they compute in float64 by themselves, return NumPy arrays and leave the setting as
they found it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from entrob.theory.linear import solve

TOLERANCE = 1e-9
"""How far probabilities may be from summing to 1."""


class TabularMDP(NamedTuple):
    """A Markov decision process with finitely many states and actions.

    Attributes:
      P: float64[S, A, S], P[s, a, s'] the probability of moving from s to s' under a.
      r: float64[S, A], rewards.
      gamma: float64[], discount in [0, 1).
      mu: float64[S], distribution of the first state.
    """

    P: jax.Array
    r: jax.Array
    gamma: jax.Array
    mu: jax.Array


def float64(function: Callable) -> Callable:
    """Run `function` with 64-bit JAX, whatever the setting around the call.

    Called where 64 bits are off, it returns NumPy arrays: JAX would halve its own at the next step.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        options: Any = jax.config  # whose type declares none of the options
        outside = not options.jax_enable_x64
        with jax.enable_x64(True):
            result = function(*args, **kwargs)
        return jax.tree.map(_to_numpy, result) if outside else result

    return wrapped


def _to_numpy(x):
    known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return np.asarray(x) if known and x.dtype == jnp.float64 else x


def as_float64(name: str, x, shape: tuple[int | None, ...] | None = None) -> jax.Array:
    """`x` as float64, its trailing axes compared with `shape` (None: any length).

    Raises:
      ValueError: another shape, or a value traced in 32 bits.
    """
    if isinstance(x, jax.core.Tracer):
        if x.dtype != jnp.float64:
            raise ValueError(f"{name} is traced as {x.dtype}: trace inside jax.enable_x64(True)")
    else:
        x = np.asarray(x, np.float64)
    if shape is not None:
        tail = x.shape[x.ndim - len(shape) :]
        wrong = len(tail) < len(shape) or any(n is not None and n != m for n, m in zip(shape, tail))
        if wrong:
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"{name} must have shape [{wanted}], not {list(x.shape)}")
    return x


def check_distribution(name: str, x) -> None:
    """Raise a `ValueError` if a known `x` is not a distribution along its last axis."""
    if isinstance(x, jax.core.Tracer):
        return
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has values that are not finite")
    if (x < 0).any():
        raise ValueError(f"{name} has a negative probability: {x.min():.3g}")
    off = np.abs(x.sum(-1) - 1).max(initial=0)
    if off > TOLERANCE:
        raise ValueError(f"{name} must sum to 1 along its last axis; it is off by {off:.3g}")


def check_number(name: str, x, low: float = 0.0, strict: bool = True) -> jax.Array:
    """A scalar as float64; raises a `ValueError` unless it is > `low` (>=, if not `strict`)."""
    x = as_float64(name, x)
    known = not isinstance(x, jax.core.Tracer)
    if known and not (np.isfinite(x) & ((x > low) if strict else (x >= low))).all():
        sign = ">" if strict else ">="
        raise ValueError(f"{name} must be {sign} {low:g}, not {np.min(x):g}")
    return x


def tabular_mdp(P, r, gamma, mu) -> TabularMDP:
    """A checked MDP in float64; leading axes, if any, are a batch.

    Args:
      P: [..., S, A, S], rows that sum to 1 within 1e-9.
      r: [..., S, A], finite.
      gamma: [...], in [0, 1).
      mu: [..., S], sums to 1 within 1e-9.

    Raises:
      ValueError: shapes that disagree, negative probabilities, rows that do not sum to 1, rewards
        that are not finite, gamma outside [0, 1); the message names the argument.
    """
    P = as_float64("P", P, (None, None, None))
    states, actions = P.shape[-3:-1]
    P = as_float64("P", P, (states, actions, states))
    r = as_float64("r", r, (states, actions))
    mu = as_float64("mu", mu, (states,))
    gamma = as_float64("gamma", gamma)
    check_distribution("P", P)
    check_distribution("mu", mu)
    if not isinstance(r, jax.core.Tracer) and not np.isfinite(r).all():
        raise ValueError("r has values that are not finite")
    if not isinstance(gamma, jax.core.Tracer) and not ((gamma >= 0) & (gamma < 1)).all():
        raise ValueError(f"gamma must be in [0, 1), not {np.max(gamma):g}")
    return TabularMDP(P, r, gamma, mu)


def checked(mdp: TabularMDP) -> TabularMDP:
    """The MDP after the checks of `tabular_mdp`, for functions that take one from outside."""
    return tabular_mdp(*mdp)


def checked_policy(mdp: TabularMDP, policy) -> jax.Array:
    """float64[S, A]; raises a `ValueError` if it is not a policy of this MDP."""
    policy = as_float64("policy", policy, mdp.r.shape[-2:])
    check_distribution("policy", policy)
    return policy


def uniform_policy(mdp: TabularMDP) -> np.ndarray:
    """Every action with the same probability: float64[S, A]."""
    return np.full(mdp.r.shape, 1 / mdp.r.shape[-1])


@float64
def occupancy(mdp: TabularMDP, policy) -> jax.Array:
    """Normalized discounted state-action occupancy ρ(s, a) = d(s) π(a|s): float64[S, A].

    d(s) = (1 - γ) Σ_t γ^t P(s_t = s), by solving (I - γ P_π^T) d = (1 - γ) μ.

    Args:
      mdp: one MDP.
      policy: float64[S, A], π(a|s).

    Raises:
      ValueError: not a policy, or an MDP that `tabular_mdp` refuses.
    """
    mdp = checked(mdp)
    policy = checked_policy(mdp, policy)
    return state_distribution(mdp, policy)[:, None] * policy


def state_distribution(mdp: TabularMDP, policy: jax.Array) -> jax.Array:
    """d(s) of `occupancy`, without checks: float64[S]."""
    moves = jnp.einsum("sat,sa->ts", mdp.P, policy)
    d = solve(jnp.eye(len(mdp.mu)) - mdp.gamma * moves, (1 - mdp.gamma) * mdp.mu)
    return jnp.maximum(d, 0)  # rounding may leave -1e-18 at a state that is never visited


def values(mdp: TabularMDP, policy: jax.Array, reward: jax.Array) -> jax.Array:
    """V(s) = E Σ_t γ^t reward(s_t, a_t) from each state: float64[S]; reward is float64[S, A]."""
    moves = jnp.einsum("sat,sa->st", mdp.P, policy)
    gain = jnp.sum(policy * reward, -1)
    return solve(jnp.eye(len(gain)) - mdp.gamma * moves, gain)


@float64
def policy_of(rho: jax.Array) -> jax.Array:
    """π(a|s) = ρ(s, a) / d(s), uniform where d(s) = 0: float64[S, A]."""
    d = rho.sum(-1, keepdims=True)
    return jnp.where(d > 0, rho / jnp.where(d > 0, d, 1), 1 / rho.shape[-1])


@float64
def entropy(p: jax.Array) -> jax.Array:
    """-Σ p log p over the last axis, in nats, with 0 log 0 = 0."""
    return entr(p).sum(-1)


@float64
def state_entropy(rho: jax.Array) -> jax.Array:
    """H_S(d), in nats: float64[]."""
    return entropy(rho.sum(-1))


@float64
def policy_entropy(rho: jax.Array) -> jax.Array:
    """E_{s~d} H(π(·|s)), in nats: float64[]."""
    return jnp.sum(rho.sum(-1) * entropy(policy_of(rho)))


@float64
def state_action_entropy(rho: jax.Array) -> jax.Array:
    """H(ρ) = H_S(d) + E_d H(π(·|s)), in nats: float64[]."""
    return entropy(rho.ravel())


@float64
def expected_reward(mdp: TabularMDP, policy) -> jax.Array:
    """E_ρ[r], which is (1 - γ) times the expected discounted return: float64[]."""
    mdp = checked(mdp)
    return jnp.sum(occupancy(mdp, policy) * mdp.r)


def reachable(mdp: TabularMDP) -> jax.Array:
    """Which states some policy visits: bool[S]."""
    leads = (mdp.P > 0).any(1) & (mdp.gamma > 0)

    def grow(carry):
        reached, _ = carry
        more = reached | (leads & reached[:, None]).any(0)
        return more, (more != reached).any()

    return jax.lax.while_loop(lambda c: c[1], grow, (mdp.mu > 0, jnp.array(True)))[0]
