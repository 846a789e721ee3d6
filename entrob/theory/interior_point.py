"""A primal-dual interior-point method for the regularized objective.

max f(ρ) subject to A ρ = (1 - γ) μ and ρ ≥ 0, A the balance of `regularized`.  With multipliers V
of the balance and z of ρ ≥ 0 the optimum solves

    ∇f(ρ) - Aᵀ V + z = 0,   A ρ = (1 - γ) μ,   ρ z = 0,

and Newton's method follows the path ρ z = τ to τ = 0.  The Hessian of -f is diagonal plus one rank
per state, so a step solves systems of size S; no matrix over pairs by pairs appears.  All weights
are served alike, also a = 0 or b = 0, where the objective is not strictly concave; z is what then
keeps the steps defined.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.theory.linear import solve
from entrob.theory.mdp import TabularMDP, policy_of, reachable, state_distribution
from entrob.theory.regularized import Solution, Weights, certified, gradient, objective, upper_bound

TO_THE_BOUNDARY = 0.995
"""Share of the way to the boundary that a step may go."""


class Iterate(NamedTuple):
    """Where the method stands.

    Attributes:
      rho: float64[S, A], > 0 on states that can be visited.
      V: float64[S].
      z: float64[S, A], > 0.
      bound: float64[], the least upper bound so far.
      best: float64[], the largest f so far.
      policy: float64[S, A], which attains it.
      steps: int32[].
    """

    rho: jax.Array
    V: jax.Array
    z: jax.Array
    bound: jax.Array
    best: jax.Array
    policy: jax.Array
    steps: jax.Array


@jax.jit
def interior_point(
    mdp: TabularMDP, w: Weights, tolerance: float = 1e-9, max_iterations: int = 100
) -> Solution:
    """Maximize the regularized objective; `Solution.gap` certifies the result.

    Args:
      mdp: one MDP; nothing is checked.
      w: weights; both may be 0, which is the plain MDP.
      tolerance: stop at this gap, in units of reward.
      max_iterations: stop here in any case.
    """
    visited = reachable(mdp)
    pairs = visited[:, None]
    start = jnp.full(mdp.r.shape, 1 / mdp.r.shape[1])
    rho = jnp.where(pairs, state_distribution(mdp, start)[:, None] * start, 1.0)
    scale = jnp.abs(mdp.r).max() + w.policy + w.state
    first = Iterate(
        rho=rho,
        V=jnp.zeros(len(mdp.mu)),
        # Complementary to ρ from the first step, so that no pair is pushed to the boundary early.
        z=0.1 * scale / (rho * jnp.sum(pairs * jnp.ones_like(rho))),
        bound=jnp.array(jnp.inf),
        best=jnp.array(-jnp.inf),
        policy=start,
        steps=jnp.array(0),
    )

    def unfinished(it):
        return (it.bound - it.best > tolerance) & (it.steps < max_iterations)

    step = lambda it: _step(mdp, w, visited, it)
    last = jax.lax.while_loop(unfinished, step, first)
    return certified(mdp, w, last.policy, last.bound, last.steps, tolerance)


def _step(mdp: TabularMDP, w: Weights, visited: jax.Array, it: Iterate) -> Iterate:
    """Predictor and corrector (Mehrotra 1992), then the certificate."""
    pairs = visited[:, None]
    d = it.rho.sum(-1)
    inverse = it.rho / (w.policy + it.z) * pairs
    # M = D + κ 11ᵀ per state, D = (a + z)/ρ, κ = (b - a)/d; its inverse by Sherman and Morrison,
    # with 1 + κ Σ 1/D written so that nothing cancels.
    whole = jnp.sum(it.rho / d[:, None] * (w.state + it.z) / (w.policy + it.z), -1)
    kappa = jnp.where(visited, (w.state - w.policy) / (d * whole), 0.0)

    def solve_block(x):
        scaled = inverse * x
        return scaled - inverse * (kappa * scaled.sum(-1))[:, None]

    def balance(x):
        return x.sum(-1) - mdp.gamma * jnp.einsum("sat,sa->t", mdp.P, x)

    def transposed(V):
        return V[:, None] - mdp.gamma * mdp.P @ V

    schur = _schur(mdp, inverse, kappa, visited)
    dual_residual = gradient(mdp, w, it.rho) - transposed(it.V) + it.z
    primal_residual = ((1 - mdp.gamma) * mdp.mu - balance(it.rho * pairs)) * visited

    def direction(complement):
        right = solve_block(dual_residual + complement / it.rho)
        dV = solve(schur, (balance(right) - primal_residual) * visited)
        drho = right - solve_block(transposed(dV))
        dz = (complement - it.z * drho) / it.rho
        return jnp.where(pairs, drho, 0), dV, jnp.where(pairs, dz, 0)

    number = jnp.sum(pairs * jnp.ones_like(it.rho))
    tau = jnp.sum(jnp.where(pairs, it.rho * it.z, 0)) / number
    drho, _, dz = direction(-it.rho * it.z)
    forward = jnp.minimum(_reach(it.rho, drho), _reach(it.z, dz))
    aimed = jnp.sum(jnp.where(pairs, (it.rho + forward * drho) * (it.z + forward * dz), 0)) / number
    target = tau * jnp.clip(aimed / tau, 0, 1) ** 3
    drho, dV, dz = direction(target - it.rho * it.z - drho * dz * forward**2)
    forward = jnp.minimum(1, TO_THE_BOUNDARY * jnp.minimum(_reach(it.rho, drho), _reach(it.z, dz)))
    rho = it.rho + forward * drho
    V = it.V + forward * dV
    z = it.z + forward * dz

    policy = policy_of(rho)
    value = objective(mdp, w, state_distribution(mdp, policy)[:, None] * policy)
    better = value > it.best
    return Iterate(
        rho=rho,
        V=V,
        z=z,
        bound=jnp.minimum(it.bound, upper_bound(mdp, w, V, visited)),
        best=jnp.where(better, value, it.best),
        policy=jnp.where(better, policy, it.policy),
        steps=it.steps + 1,
    )


def _schur(mdp: TabularMDP, inverse: jax.Array, kappa: jax.Array, visited: jax.Array) -> jax.Array:
    """A M⁻¹ Aᵀ, with ones on the diagonal of states that cannot be visited: float64[S, S]."""
    eye = jnp.eye(len(kappa))
    columns = eye[:, None] - mdp.gamma * mdp.P  # [s, a, t]: what the pair adds to balance t
    root = columns * jnp.sqrt(inverse)[:, :, None]
    flat = root.reshape(-1, len(kappa))
    sums = jnp.einsum("sat,sa->st", columns, inverse)
    full = flat.T @ flat - sums.T @ (kappa[:, None] * sums)
    return jnp.where(visited[:, None] & visited, full, eye)


def _reach(x: jax.Array, dx: jax.Array) -> jax.Array:
    """Largest share of a step, at most 1, that keeps x >= 0: float64[]."""
    return jnp.minimum(1, jnp.min(jnp.where(dx < 0, -x / jnp.where(dx < 0, dx, 1), jnp.inf)))
