"""Nearest neighbors over points: entrob against a plain top-k and scipy's tree, side by side.

    python benchmarks/speed/knn.py [--points 800,3200] [--dims 2,6] [--out knn.json]

The k-th nearest distances (the point included) of normal points, float32. Contenders are timed in
turn, round after round, in one process; medians are shown. Among 12800 points the plain top-k takes
half a minute a call and holds 0.7 GB of distances. The last table is the state-entropy
bonus on MiniGrid's 256 states, 800 visits per agent, vmapped over agents: from counts, and from
the same visits taken as points.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from scipy.spatial import cKDTree

from entrob.envs import make
from entrob.estimators import knn_distances, neighbors, smallest_distances, smallest_from_counts

K = 5


def top_k_distances(x: jax.Array, k: int) -> jax.Array:
    """The plain way: the full matrix of distances, then `lax.top_k`. float32[n]."""
    squared = jnp.sum((x[:, None] - x[None]) ** 2, -1)
    return jnp.sqrt(-jax.lax.top_k(-squared, k)[0][:, -1])


def tree_distances(x: np.ndarray, k: int) -> np.ndarray:
    """scipy's k-d tree, built and queried on one core: float64[n]."""
    return cKDTree(x).query(x, k=[k])[0][:, 0]


def compiled(f: Callable, x: jax.Array) -> Callable:
    """A call that takes no arguments and returns when the result is there."""
    program = jax.jit(f).lower(x).compile()
    return lambda: jax.block_until_ready(program(x))


def contest(contenders: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds per call of each contender, taken in turn after one call to warm up.

    Slow contests get fewer rounds, at least one, to stay near half a minute.
    """
    taken = {name: [] for name in contenders}
    start = time.perf_counter()
    for call in contenders.values():
        call()
    rounds = max(1, min(rounds, int(30 / (time.perf_counter() - start))))
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def points_contest(n: int, dim: int, rounds: int) -> dict[str, float]:
    """Seconds of the three ways on the same points, after checking that they agree."""
    x = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    contenders = {
        "entrob": compiled(lambda x: knn_distances(x, K), jnp.asarray(x)),
        "top-k": compiled(lambda x: top_k_distances(x, K), jnp.asarray(x)),
        "scipy": lambda: tree_distances(x, K),
    }
    for name in ("entrob", "top-k"):
        np.testing.assert_allclose(contenders[name](), contenders["scipy"](), rtol=1e-4)
    return contest(contenders, rounds)


def counts_contest(agents: int, rounds: int) -> dict[str, float]:
    """Seconds of log(mean of the k smallest + 1) for 800 visits of each agent: counts, points."""
    env, params = make("minigrid/empty-8x8")
    states = env.states(params)
    features = jax.vmap(lambda state: env.entropy_features(state, params))(states)
    near = neighbors(features)
    # Visits thin out from the start, as an agent's do: ties, and some values all alone.
    weight = np.exp(-np.asarray(states.pos).sum(-1) / 2.0)
    rng = np.random.default_rng(0)
    index = jnp.asarray(rng.choice(len(weight), (agents, 800), p=weight / weight.sum()), jnp.int32)

    def by_counts(index):
        counts = jnp.zeros(len(features)).at[index].add(1.0)
        return jnp.log1p(smallest_from_counts(counts, near, K)[1])[index]

    def by_points(index):
        return jnp.log1p(smallest_distances(features[index], K).mean(-1))

    contenders = {
        "counts": compiled(jax.vmap(by_counts), index),
        "points": compiled(jax.vmap(by_points), index),
    }
    np.testing.assert_allclose(contenders["counts"](), contenders["points"](), rtol=1e-5)
    return contest(contenders, rounds)


def main() -> None:
    """Print the tables; write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", default="800,3200,12800")
    parser.add_argument("--dims", default="2,6")
    parser.add_argument("--agents", type=int, default=75)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out")
    options = parser.parse_args()

    rows = []
    print("| points | dimensions | entrob, ms | top-k ÷ entrob | scipy ÷ entrob |")
    print("|---:|---:|---:|---:|---:|")
    for n in map(int, options.points.split(",")):
        for dim in map(int, options.dims.split(",")):
            seconds = points_contest(n, dim, options.rounds)
            rows.append({"points": n, "dimensions": dim, "k": K, "seconds": seconds})
            ours, top, tree = (seconds[name] for name in ("entrob", "top-k", "scipy"))
            print(f"| {n} | {dim} | {ours * 1e3:.2f} | {top / ours:.2f} | {tree / ours:.2f} |")

    bonus = counts_contest(options.agents, options.rounds)
    print("\n| agents | from counts, ms | points ÷ counts |\n|---:|---:|---:|")
    ratio = bonus["points"] / bonus["counts"]
    print(f"| {options.agents} | {bonus['counts'] * 1e3:.2f} | {ratio:.1f} |")
    if options.out:
        facts = {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "scipy": scipy.__version__,
            "python": platform.python_version(),
            "rounds_at_most": options.rounds,
        }
        bonus = {"agents": options.agents, "seconds": bonus}
        with open(options.out, "w") as file:
            json.dump({"machine": facts, "points": rows, "bonus": bonus}, file, indent=1)


if __name__ == "__main__":
    main()
