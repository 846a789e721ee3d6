"""The paper's theory, exactly, on tabular MDPs: every theorem as a program that can fail.

Everything computes in float64.  A function called directly sees to that by itself; under `jax.jit`
or `jax.vmap`, trace inside ``with jax.enable_x64(True)``:

    with jax.enable_x64(True):
        mdps = jax.vmap(lambda key: theory.garnet(key, 20, 4, 5))(keys)
        optima = jax.vmap(lambda mdp: theory.solve(mdp, "state", 0.1))(mdps)

Importing this package changes no setting; float32 results elsewhere stay as they are.
"""

from entrob.theory.coverage import estimate, kernel_bound_sampled, reward_bound
from entrob.theory.divergences import worst_expectation
from entrob.theory.generators import dense, garnet, gridworld
from entrob.theory.kernel_uncertainty import kernel_bound, kernel_gauge, worst_case_kernel
from entrob.theory.limits import refute, risky_mdp
from entrob.theory.mdp import (
    TabularMDP,
    entropy,
    expected_reward,
    occupancy,
    policy_entropy,
    policy_of,
    state_action_entropy,
    state_entropy,
    tabular_mdp,
    uniform_policy,
)
from entrob.theory.regularized import Solution
from entrob.theory.returns import cvar, cvar_bounds, return_distribution
from entrob.theory.reward_uncertainty import (
    gauge,
    in_uncertainty_set,
    minimize_reward,
    worst_case_reward,
)
from entrob.theory.robust import factored, robust_policy_evaluation, robust_value_iteration
from entrob.theory.solve import NotSolved, solve

__all__ = [
    "NotSolved",
    "Solution",
    "TabularMDP",
    "cvar",
    "cvar_bounds",
    "dense",
    "entropy",
    "estimate",
    "expected_reward",
    "factored",
    "garnet",
    "gauge",
    "gridworld",
    "in_uncertainty_set",
    "kernel_bound",
    "kernel_bound_sampled",
    "kernel_gauge",
    "minimize_reward",
    "occupancy",
    "policy_entropy",
    "policy_of",
    "refute",
    "return_distribution",
    "reward_bound",
    "risky_mdp",
    "robust_policy_evaluation",
    "robust_value_iteration",
    "solve",
    "state_action_entropy",
    "state_entropy",
    "tabular_mdp",
    "uniform_policy",
    "worst_case_kernel",
    "worst_case_reward",
    "worst_expectation",
]
