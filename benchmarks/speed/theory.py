"""Exact regularized optima: seconds per MDP of `entrob.theory.solve` against cvxpy, in one run.

    python benchmarks/speed/theory.py [--states 20,50,100] [--mdps 16] [--largest 2000] \
        [--out theory.json]

Both solve the same Garnet MDPs with state-action entropy, cvxpy as exponential cones with Clarabel,
to the same tolerance, one MDP after another: on a CPU `jax.lax.map` is faster than `jax.vmap` from
20 states on.  They are timed in turn; entrob compiles once, which is listed apart.  The last column
is the largest difference of the optima.  The largest MDP is solved alone, by entrob only, and both
calls are listed, the first of which compiles.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import cvxpy
import jax
import numpy as np

from entrob.theory import garnet, solve
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
    one = lambda mdp: interior_point(mdp, w, TOLERANCE).value
    run = jax.jit(lambda mdps: jax.lax.map(one, mdps))
    begun = time.perf_counter()
    run.lower(batch).compile()
    compiling = time.perf_counter() - begun
    jax.block_until_ready(run(batch))
    ours, theirs, values, checks = [], [], None, []
    for i in range(mdps):
        begun = time.perf_counter()
        values = np.asarray(run(batch))
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


@float64
def largest(states: int) -> dict:
    """Seconds of two calls of `solve` on one MDP, its steps and its gap."""
    mdp = garnet(jax.random.key(states), states, ACTIONS, BRANCHING, GAMMA)
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        found = solve(mdp, "state_action", ALPHA, tolerance=TOLERANCE)
        seconds.append(time.perf_counter() - begun)
    steps, gap = int(found.iterations), float(found.gap)
    times = {"first_s": seconds[0], "second_s": seconds[1]}
    return {"states": states, **times, "steps": steps, "gap": gap}


def main() -> None:
    """Print a table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", default="20,50,100")
    parser.add_argument("--mdps", type=int, default=16)
    parser.add_argument("--largest", type=int, default=2000)
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
    alone = largest(options.largest)
    print(
        f"{alone['states']} states: {alone['first_s']:.2f} s, then {alone['second_s']:.2f} s, "
        f"{alone['steps']} steps to a gap of {alone['gap']:.0e}"
    )
    if options.out:
        versions = {"jax": jax.__version__, "cvxpy": cvxpy.__version__}
        versions |= {"python": platform.python_version(), "rows": rows, "largest": alone}
        Path(options.out).write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
