"""Exact regularized optima: seconds per MDP of `entrob.theory.solve` against cvxpy, in one run.

    python benchmarks/speed/theory.py [--states 20,50,100] [--mdps 16] [--out theory.json]

Both solve the same Garnet MDPs with state-action entropy, cvxpy as exponential cones with Clarabel,
to the same tolerance.  They are timed in turn; entrob compiles once, which is listed apart.  The
last column is the largest difference of the optima.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import cvxpy
import jax
import numpy as np

from entrob.theory import garnet
from entrob.theory.batches import over
from entrob.theory.interior_point import interior_point
from entrob.theory.mdp import float64
from entrob.theory.regularized import Weights

ALPHA, ACTIONS, BRANCHING, GAMMA, TOLERANCE = 0.1, 4, 5, 0.9, 1e-8


def conic(mdp) -> float:
    """The optimum by cvxpy."""
    states, actions = mdp.r.shape
    rho = cvxpy.Variable((states, actions), nonneg=True)
    moved = sum(mdp.P[:, a].T @ rho[:, a] for a in range(actions))
    f = cvxpy.sum(cvxpy.multiply(rho, mdp.r)) + ALPHA * cvxpy.sum(cvxpy.entr(rho))
    balance = cvxpy.sum(rho, axis=1) - mdp.gamma * moved == (1 - mdp.gamma) * mdp.mu
    problem = cvxpy.Problem(cvxpy.Maximize(f), [balance])
    return problem.solve(solver="CLARABEL", tol_gap_abs=TOLERANCE, tol_gap_rel=TOLERANCE)


@float64
def contest(states: int, mdps: int) -> dict:
    """One row: seconds per MDP of both, and how far they differ."""
    keys = jax.random.split(jax.random.key(states), mdps)
    batch = over(lambda k: garnet(k, states, ACTIONS, BRANCHING, GAMMA), keys)
    w = Weights(ALPHA, ALPHA)
    solve = jax.jit(jax.vmap(lambda mdp: interior_point(mdp, w, TOLERANCE).value))
    begun = time.perf_counter()
    solve.lower(batch).compile()
    compiling = time.perf_counter() - begun
    jax.block_until_ready(solve(batch))
    ours, theirs, values, checks = [], [], None, []
    for i in range(mdps):
        begun = time.perf_counter()
        values = np.asarray(solve(batch))
        ours.append((time.perf_counter() - begun) / mdps)
        one = jax.tree.map(lambda x, i=i: np.asarray(x[i]), batch)
        begun = time.perf_counter()
        checks.append(conic(one))
        theirs.append(time.perf_counter() - begun)
    return {
        "states": states,
        "entrob_s": float(np.median(ours)),
        "cvxpy_s": float(np.median(theirs)),
        "ratio": float(np.median(theirs) / np.median(ours)),
        "compile_s": compiling,
        "difference": float(np.abs(values - checks).max()),
    }


def main() -> None:
    """Print a table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", default="20,50,100")
    parser.add_argument("--mdps", type=int, default=16)
    parser.add_argument("--out")
    options = parser.parse_args()
    rows = [contest(int(n), options.mdps) for n in options.states.split(",")]
    print("| states | entrob, ms per MDP | cvxpy, ms | ÷ | compiling, s | difference |")
    print("|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['states']} | {1e3 * row['entrob_s']:.2f} | {1e3 * row['cvxpy_s']:.1f} | "
            f"{row['ratio']:.0f} | {row['compile_s']:.1f} | {row['difference']:.0e} |"
        )
    if options.out:
        versions = {"jax": jax.__version__, "cvxpy": cvxpy.__version__}
        versions |= {"python": platform.python_version(), "rows": rows}
        Path(options.out).write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
