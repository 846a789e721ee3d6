"""From outcomes to the table of `entrob theory`: a row per statement."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from entrob.theory import checks, limits
from entrob.theory.batches import over
from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import float64
from entrob.theory.recovery import CHANGES, FORMS, Recovery
from entrob.theory.regularized import REGULARIZERS, Weights
from entrob.theory.rollout_optima import RolloutOptima

SUBSET = 1000
"""Instances of the checks that cost the most: mirror descent and sampled trajectories."""

GAMMA, BETAS, DRAWS = 0.9, (0.05, 0.25, 0.5, 0.75, 0.9), 40
"""Where Theorem 4.2 is tried: discount, levels β, and pairs (α, M) for each."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      statement: its number in the paper, or its section.
      claim: what was checked.
      instances: on how many.
      violations: how many of them contradict it.
      error: the largest deviation, in units of reward if the claim names no other.
      tightness: bound over exact value, median; NaN for equalities.
      tightness_low: 2.5 % quantile.
      tightness_high: 97.5 % quantile.
      claimed: whether we claim it; False documents what fails as the paper prints it.
    """

    statement: str
    claim: str
    instances: int
    violations: int
    error: float
    tightness: float = math.nan
    tightness_low: float = math.nan
    tightness_high: float = math.nan
    claimed: bool = True


class Check(NamedTuple):
    """A check of `checks` and how its row reads.

    Attributes:
      statement: see `Row`.
      claim: see `Row`.
      function: from an `Instance` to an `Outcome`.
      limit: how many instances at most; None: all.
      claimed: see `Row`.
      ratio: the column its tightness fills in the frame of ratios, if any.
    """

    statement: str
    claim: str
    function: Callable[[checks.Instance], checks.Outcome]
    limit: int | None = None
    claimed: bool = True
    ratio: str = ""


def all_checks() -> list[Check]:
    """Every check on random instances, in the order of the paper."""
    partial = functools.partial
    names = {"state": "Theorem 3.1", "policy": "Table 1", "state_action": "Table 1"}
    duality = [
        Check(
            paper,
            f"{name.replace('_', '-')} entropy is the exact worst case over rewards",
            partial(checks.reward_duality, regularizer=name),
        )
        for name, paper in names.items()
    ]
    optima = [
        Check(
            "Section 2",
            f"optimum with {name.replace('_', '-')} entropy certified by its duality gap",
            partial(checks.optimum, regularizer=name),
        )
        for name in names
    ]
    agreement = [
        Check(
            "Section 2",
            f"two solvers agree, {name.replace('_', '-')} entropy",
            partial(checks.solvers_agree, regularizer=name),
            SUBSET,
        )
        for name in names
    ]
    return [
        *duality,
        Check(
            "Theorem 3.1",
            "the worst reward as printed, without α log S, attains the bound",
            checks.reward_as_printed,
            claimed=False,
        ),
        Check(
            "Theorem 3.2", "reward sets grow with α, from max ≤ ε to mean ≤ ε", checks.nested_sets
        ),
        Check(
            "Theorem 3.3",
            "bound ≤ exact worst case over kernels",
            partial(checks.kernel_bound, with_policy=False),
            ratio="state",
        ),
        Check(
            "A.4.1",
            "bound with policy entropy ≤ exact worst case",
            partial(checks.kernel_bound, with_policy=True),
            ratio="state_action",
        ),
        Check(
            "Theorem 4.1",
            "no Ω(π, P) equals kernel robustness: seven refuted",
            checks.no_regularizer,
        ),
        *optima,
        *agreement,
        Check(
            "Section 2",
            "mirror descent, policy entropy: at least the guaranteed linear rate",
            checks.linear_rate,
            SUBSET,
        ),
    ]


def run_checks(
    instances: checks.Instance, timed: Callable[..., Any]
) -> tuple[list[Row], pd.DataFrame]:
    """All rows of `all_checks` and of the corollaries, and the ratios of the kernel bounds.

    Args:
      instances: a batch.
      timed: (name, function, *args) -> the function's result, after noting its time.

    Returns:
      The rows; and a frame with a row per instance: alpha, state, state_action, the bounds of
      Theorem 3.3 and A.4.1 over the exact worst case.
    """
    count = len(instances.alpha)
    rows, ratios = [], {"alpha": np.asarray(instances.alpha)}
    first = lambda n: jax.tree.map(lambda x: x[: min(n, count)], instances)
    for check in all_checks():
        part = first(check.limit or count)
        found = timed(f"{check.statement}: {check.claim}", over, check.function, part)
        rows.append(_row(check.statement, check.claim, found, check.claimed))
        if check.ratio:
            ratios[check.ratio] = np.asarray(found.tightness)
    few = first(SUBSET)
    for n in (16, 256):
        function = functools.partial(checks.sampled_bounds, trajectories=n)
        both = timed(f"Corollaries A.1 and A.2, n = {n}", over, function, few)
        for name, found in zip(("A.1", "A.2"), both):
            claim = f"n = {n}: fails with probability ≤ 0.05 (error: largest share of 32 data sets)"
            rows.append(_row(f"Corollary {name}", claim, found))
    return rows, pd.DataFrame(ratios)


def _row(statement: str, claim: str, found: checks.Outcome, claimed: bool = True) -> Row:
    tightness = np.asarray(found.tightness)
    spread = np.full(3, np.nan)
    if not np.isnan(tightness).all():
        spread = np.nanquantile(tightness, [0.5, 0.025, 0.975])
    violations = int(np.sum(found.violated))
    middle, low, high = spread
    error = float(np.max(found.error))
    return Row(statement, claim, len(tightness), violations, error, middle, low, high, claimed)


@float64
def risk_losses(key: jax.Array) -> pd.DataFrame:
    """Theorem 4.2 solved: what the regularized optimum loses in CVaR_β where M is asked for.

    Args:
      key: a JAX key, for α and M, log-uniform in [0.01, 10] and [0.1, 100].

    Returns:
      regularizer, beta, alpha, wanted (M), lost, gap (of the solver, in units of reward).
    """
    draws = jax.random.uniform(key, (2, DRAWS), minval=np.log(0.1), maxval=np.log(100))
    alphas, wanted = np.exp(draws[0]) / 10, np.exp(draws[1])
    rows = []
    for name, share in REGULARIZERS.items():
        for beta in BETAS:
            w = [Weights(a * share.policy, a * share.state) for a in alphas.tolist()]
            risky = [limits.risky_mdp(x, m, beta, GAMMA) for x, m in zip(w, wanted.tolist())]
            sizes = {len(r.mdp.mu) for r in risky}
            for size in sizes:  # MDPs of one size are solved together
                same = [i for i, r in enumerate(risky) if len(r.mdp.mu) == size]
                rows += _solve_risky([risky[i] for i in same], [w[i] for i in same], beta, name)
    return pd.DataFrame(rows, columns=["regularizer", "beta", "alpha", "wanted", "lost", "gap"])


def _solve_risky(risky: list, w: list, beta: float, name: str) -> list[tuple]:
    stack = lambda *x: np.stack(x)
    solve = lambda mdp, w: interior_point(mdp, w, 1e-13, 60)
    found = over(solve, jax.tree.map(stack, *[r.mdp for r in risky]), jax.tree.map(stack, *w))
    rows = []
    for i, (r, x) in enumerate(zip(risky, w)):
        policy = np.asarray(found.policy[i])
        safe = np.eye(policy.shape[1])[np.zeros(len(policy), int)]
        lost = limits.leaf_cvar(r, safe, beta) - limits.leaf_cvar(r, policy, beta)
        wanted = -r.mdp.r.min() * r.mdp.gamma / (1 - r.mdp.gamma)
        alpha = float(max(x.policy, x.state))
        rows.append((name, beta, alpha, float(wanted), float(lost), float(found.gap[i])))
    return rows


def risk_row(losses: pd.DataFrame) -> Row:
    """Theorem 4.2's row."""
    error = np.abs(losses.lost - losses.wanted) / losses.wanted
    return Row(
        "Theorem 4.2",
        "the regularized optimum loses exactly M in CVaR (relative error)",
        len(losses),
        int((error > 1e-5).sum()),
        float(error.max()),
    )


def rollout_row(title: str, found: RolloutOptima) -> Row:
    """Section 4.3's row: a deterministic policy attains the single-rollout optimum."""
    single = list(found.rollouts).index(1)
    randomness = float(found.policy_entropy[single])
    claim = f"2×6 grid, {title}: deterministic policies attain the n = 1 optimum (policy entropy)"
    return Row("Section 4.3", claim, 1, int(randomness > 0.01), randomness)


def robust_rows(found: Recovery) -> list[Row]:
    """Robust baselines: no regularized policy has more than the exactly robust value."""
    excess = found.regularized - (found.robust + found.certificate)[..., None, None, :]
    rows = []
    for form, parts in zip(FORMS, excess):
        for change, part in zip(CHANGES, parts):
            claim = f"{change}, {form}: no regularized policy exceeds the exactly robust value"
            violations = int((part > 1e-8).sum())
            rows.append(Row("robust baseline", claim, part.size, violations, max(part.max(), 0.0)))
    return rows


def failed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that we claim and that were violated."""
    return table[table.claimed & (table.violations > 0)]
