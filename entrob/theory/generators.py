"""Random MDPs, and MDPs taken from an environment's own dynamics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entrob.evaluation.exact import transitions
from entrob.theory.mdp import TabularMDP, check_number, float64, tabular_mdp

LOWEST_REWARD = 0.05
"""Random rewards lie in [0.05, 1]: positive, as Theorem 3.3 needs them."""


@float64
def garnet(key: jax.Array, states: int, actions: int, branching: int, gamma=0.9) -> TabularMDP:
    """A Garnet MDP (Archibald et al. 1995): each action leads to `branching` states.

    The states are drawn without replacement, their probabilities are the gaps between sorted
    uniform numbers; rewards are uniform in [0.05, 1], the first state is uniform.

    Args:
      key: a JAX key.
      states: S, at least 1.
      actions: A, at least 1.
      branching: successors of each pair, 1..S.
      gamma: discount in [0, 1).

    Raises:
      ValueError: a count out of range.
    """
    _check_counts(states, actions)
    if not 1 <= branching <= states:
        raise ValueError(f"branching must be in 1..{states}, not {branching}")
    moves, rewards = jax.random.split(key)
    P = random_rows(moves, (states, actions, states), branching)
    return _with_rewards(rewards, P, gamma)


@float64
def dense(key: jax.Array, states: int, actions: int, gamma=0.9) -> TabularMDP:
    """An MDP whose rows are uniform on the simplex; rewards and start as in `garnet`.

    Raises:
      ValueError: a count out of range.
    """
    _check_counts(states, actions)
    moves, rewards = jax.random.split(key)
    return _with_rewards(rewards, random_rows(moves, (states, actions, states)), gamma)


def random_rows(key: jax.Array, shape: tuple[int, ...], support: int | None = None) -> jax.Array:
    """Distributions over the last axis, uniform on the simplex: float64[shape].

    Args:
      key: a JAX key.
      shape: the last axis is what they are over.
      support: on how many entries, drawn without replacement; None: on all.
    """
    to, weights = jax.random.split(key)
    # Gaps between sorted uniform numbers are distributed as normalized exponential ones, which
    # are much cheaper to compile than a Dirichlet.
    weights = jax.random.exponential(weights, shape)
    if support is not None:
        # The largest of uniform numbers are a draw without replacement.
        drawn = jax.random.uniform(to, shape)
        weights *= drawn >= jax.lax.top_k(drawn, support)[0][..., -1:]
    return weights / weights.sum(-1, keepdims=True)


def gridworld(env: Any, params: Any, gamma=0.95, slip=0.0) -> TabularMDP:
    """The MDP of a finite environment such as ``entrob.make("minigrid/empty-8x8")``.

    Its states are the environment's and one more, the last, in which every episode that has
    terminated rests without reward.

    Args:
      env: a `finite` environment with deterministic dynamics.
      params: its params.
      gamma: discount in [0, 1).
      slip: probability, 0..1, that another action, uniform, takes the place of the chosen one.

    Returns:
      S states of the environment + 1, A actions; reward 1 for a successful move.

    Raises:
      ValueError: slip out of range, or an environment that is not finite.
    """
    if not getattr(env, "finite", False):
        raise ValueError(f"{env.name} is not finite")
    if not 0 <= slip <= 1:
        raise ValueError(f"slip must be in 0..1, not {slip:g}")
    with jax.enable_x64(False):  # environments are written for 32 bits
        table = jax.tree.map(np.asarray, transitions(env, params))
    states, actions = table.next_index.shape
    to = np.where(table.terminated, states, table.next_index)
    P = np.zeros((states + 1, actions, states + 1))
    P[np.arange(states)[:, None], np.arange(actions), to] = 1
    P[states, :, states] = 1
    r = np.zeros((states + 1, actions))
    r[:states] = table.success
    mix = np.full((actions, actions), slip / actions) + (1 - slip) * np.eye(actions)
    P = np.einsum("ab,sbt->sat", mix, P)
    return tabular_mdp(P, r @ mix.T, gamma, np.eye(states + 1)[table.start])


def _check_counts(states: int, actions: int) -> None:
    check_number("states", states, 1, strict=False)
    check_number("actions", actions, 1, strict=False)


def _with_rewards(key: jax.Array, P: jax.Array, gamma) -> TabularMDP:
    states, actions = P.shape[:2]
    r = jax.random.uniform(key, (states, actions), minval=LOWEST_REWARD, maxval=1.0)
    mu = jnp.full(states, 1 / states)
    return TabularMDP(P, r, jnp.asarray(gamma, float), mu)
