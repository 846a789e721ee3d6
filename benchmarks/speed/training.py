"""Training speed on MiniGrid: frames/s over 1..256 agents, and where the time goes.

    python benchmarks/speed/training.py [--agents 1,8,75] [--out training.json]

Every number of a table is taken in turn, round after round, in one process; medians are shown.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import time

from entrob.cli import setup

setup()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from entrob.agents.actor_critic import make_agent  # noqa: E402
from entrob.agents.collect import collect  # noqa: E402
from entrob.agents.spec import Hyper, Spec  # noqa: E402
from entrob.agents.spec import tabulate as tabulate_states  # noqa: E402
from entrob.envs import make  # noqa: E402
from entrob.regularizers import chain, policy_entropy, state_entropy  # noqa: E402
from entrob.sweep.program import padded, sharded  # noqa: E402

UPDATES = 10  # per timed call: 8000 frames and agent


def prepare(agents: int, regularizer, tabulate: bool = True, part: str = "all"):
    """A compiled chunk of training: ``(call, frames per call, compile seconds, bytes)``.

    `part` ``"rollout"`` leaves out all but the rollout, ``"bonus"`` all but it and the bonus.
    """
    env, params = make("minigrid/empty-8x8")
    spec = Spec(env, regularizer, tabulate=tabulate)
    agent, width = make_agent(spec), padded(agents)
    coefs = {name: np.full(width, 0.01, np.float32) for name in regularizer.names}
    hyper = jax.tree.map(lambda x: np.full(width, x, np.float32), Hyper()).replace(coefs=coefs)

    def init(seeds, hyper, params):
        keys = jax.vmap(jax.random.PRNGKey)(seeds)
        return jax.vmap(agent.init, (0, 0, None))(keys, hyper, params)

    def some(state, hyper, params):
        finite = tabulate_states(spec, agent.model, params)

        def update(state, key):
            actors, rollout, *_ = collect(
                spec, agent.model, finite, params, lambda dist: dist, 0.0, state.policy,
                state.actors, key,
            )  # fmt: skip
            states, bonus = state.regularizers, rollout.reward
            if part == "bonus":
                bonus, states, _ = regularizer.reward(key, states, rollout, hyper.coefs)
            # The network must seem to change, or its table would be computed once for all updates.
            still = 0.0 * (bonus + rollout.value).sum()
            network = jax.tree.map(lambda x: x + still, state.network)
            return state.replace(network=network, actors=actors, regularizers=states), still

        return jax.lax.scan(update, state, jax.random.split(jax.random.PRNGKey(0), UPDATES))

    def chunk(state, hyper, params):
        one = functools.partial(agent.train_chunk, updates=UPDATES) if part == "all" else some
        return jax.vmap(one, (0, 0, None))(state, hyper, params)

    over = (True, True, False)
    state = sharded(init, over)(np.arange(width, dtype=np.uint32), hyper, params)
    start = time.perf_counter()
    compiled = sharded(chunk, over).lower(state, hyper, params).compile()
    seconds = time.perf_counter() - start
    carried = [state]

    def call():
        carried[0], _ = compiled(carried[0], hyper, params)
        jax.block_until_ready(carried[0])

    call()
    temp = compiled.memory_analysis().temp_size_in_bytes
    return call, width * UPDATES * spec.frames_per_update, seconds, temp


def measure(programs: dict, rounds: int) -> dict[str, float]:
    """Median seconds per call of each program, taken in turn."""
    taken = {name: [] for name in programs}
    for _ in range(rounds):
        for name, (call, *_) in programs.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Print the tables; write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", default="1,2,4,8,16,32,75,128,256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    options = parser.parse_args()
    counts = [int(n) for n in options.agents.split(",")]
    full = chain(policy_entropy(), state_entropy())

    curve = {f"{n}": prepare(n, full) for n in counts}
    seconds = measure(curve, options.rounds)
    rows = []
    print("| agents | frames/s | ms per update | compile, s | temporary memory, MB |")
    print("|---:|---:|---:|---:|---:|")
    for n in counts:
        _, frames, compile_s, temp = curve[f"{n}"]
        rate, update = frames / seconds[f"{n}"], seconds[f"{n}"] / UPDATES * 1e3
        rows.append({"agents": n, "frames_per_s": rate, "ms_per_update": update})
        rows[-1] |= {"compile_s": compile_s, "temp_bytes": temp}
        print(f"| {n} | {rate:,.0f} | {update:.1f} | {compile_s:.1f} | {temp / 1e6:.0f} |")

    ablations = {
        "none": prepare(75, chain()),
        "policy entropy": prepare(75, chain(policy_entropy())),
        "policy + state entropy": prepare(75, full),
        "policy + state entropy, network on every frame": prepare(75, full, tabulate=False),
    }
    seconds = measure(ablations, options.rounds)
    print("\n75 agents:\n\n| program | frames/s | time, ratio to none |\n|---|---:|---:|")
    parts = []
    for name, (_, frames, *_) in ablations.items():
        ratio = seconds[name] / seconds["none"]
        parts.append({"program": name, "frames_per_s": frames / seconds[name], "ratio": ratio})
        print(f"| {name} | {frames / seconds[name]:,.0f} | {ratio:.3f} |")
    kinds = ("rollout", "bonus", "all")
    pieces = {part: prepare(75, full, part=part) for part in kinds}
    seconds = measure(pieces, options.rounds)
    rollout, bonus, total = (seconds[part] / UPDATES * 1e3 for part in kinds)
    shares = {
        "rollout": rollout,
        "bonus": bonus - rollout,
        "advantages and gradient": total - bonus,
    }
    print("\n75 agents, one update:\n\n| part | ms | share |\n|---|---:|---:|")
    for name, ms in shares.items():
        print(f"| {name} | {ms:.1f} | {ms / total:.0%} |")
    if options.out:
        facts = {
            "device": f"{jax.devices()[0].device_kind} × {len(jax.devices())}",
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "python": platform.python_version(),
            "rounds": options.rounds,
        }
        with open(options.out, "w") as file:
            shares = {"ms_per_update": shares, "agents": 75}
            found = {"machine": facts, "curve": rows, "ablations": parts, "parts": shares}
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
