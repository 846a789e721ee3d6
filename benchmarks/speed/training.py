"""Training speed of an experiment: frames/s over the number of agents, and where the time goes.

    python benchmarks/speed/training.py [--agents 1,8,75] [--out training.json]
    python benchmarks/speed/training.py --experiment pusher --agents 2,8 --side 2 --updates 1

Every number of a table is taken in turn, round after round, in one process; medians are shown.
"""

import argparse
import functools
import json
import statistics
import time

from entrob.cli import setup

setup()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from entrob.agents.actor_critic import make_agent  # noqa: E402
from entrob.agents.collect import collect  # noqa: E402
from entrob.agents.spec import Hyper, Spec, tabulated  # noqa: E402
from entrob.compiling import padded, sharded  # noqa: E402
from entrob.persistence.provenance import provenance  # noqa: E402
from entrob.regularizers import chain, policy_entropy  # noqa: E402
from entrob.rollout import Context  # noqa: E402
from entrob.sweep.groups import group_methods  # noqa: E402
from entrob.sweep.program import program  # noqa: E402
from entrob.sweep.reading import load  # noqa: E402

PARTS = ("environment", "rollout", "bonus", "all")


def prepare(spec: Spec, env_params, numbers: dict, agents: int, updates: int, part: str = "all"):
    """A compiled chunk of training: ``(call, frames per call, compile seconds, bytes)``.

    Each part goes on from the one before: ``"environment"`` steps with random actions,
    ``"rollout"`` lets the policy act, ``"bonus"`` adds the regularizers' rewards, ``"all"`` learns.
    """
    env, regularizer = spec.env, spec.regularizer
    agent, width = make_agent(spec), padded(agents)
    coefs = {name: np.full(width, 0.01, np.float32) for name in regularizer.names}
    hyper = jax.tree.map(lambda x: np.full(width, x, np.float32), Hyper(**numbers))
    hyper = hyper.replace(coefs=coefs)

    def init(seeds, hyper, params):
        keys = jax.vmap(jax.random.PRNGKey)(seeds)
        return jax.vmap(agent.init, (0, 0, None))(keys, hyper, params)

    def steps(state, key, params):
        """Steps alone, in episodes that never end."""
        space, n = env.action_space(params), spec.num_envs

        def step(env_state, key):
            key_act, key_step = (jax.random.split(k, n) for k in jax.random.split(key))
            actions = jax.vmap(space.sample)(key_act)
            _, env_state, reward, *_ = jax.vmap(env.step_env, (0, 0, 0, None))(
                key_step, env_state, actions, params
            )
            return env_state, reward

        keys = jax.random.split(key, spec.num_steps)
        env_state, reward = jax.lax.scan(step, state.rollout_state.env_state, keys)
        return state.replace(
            rollout_state=state.rollout_state._replace(env_state=env_state)
        ), reward.sum()

    def rollouts(state, key, params, hyper, finite):
        context = Context(0.0, hyper.gamma, finite=finite)
        rollout_state, rollout, *_ = collect(
            agent.build, params, context, state.policy, lambda dist: dist, state.rollout_state, key
        )
        states, bonus = state.regularizers, rollout.reward
        if part == "bonus":
            bonus, states = agent.build.chain.reward(key, states, rollout, hyper.coefs)
        # The network must seem to change, or its table would be computed once for all updates.
        still = 0.0 * (bonus + rollout.value).sum()
        network = jax.tree.map(lambda x: x + still, state.network)
        return state.replace(
            network=network, rollout_state=rollout_state, regularizers=states
        ), still

    def some(state, hyper, params, finite):
        def update(state, key):
            if part == "environment":
                return steps(state, key, params)
            return rollouts(state, key, params, hyper, finite)

        return jax.lax.scan(update, state, jax.random.split(jax.random.PRNGKey(0), updates))

    def whole(state, hyper, params, finite):
        return agent.train_chunk(state, hyper, params, updates, finite)

    def chunk(state, hyper, params, finite):
        one = whole if part == "all" else some
        return jax.vmap(one, (0, 0, None, None))(state, hyper, params, finite)

    over = (True, True, False)
    state = sharded(init, over)(np.arange(width, dtype=np.uint32), hyper, env_params)
    start, finite = time.perf_counter(), agent.tables(env_params)
    compiled = sharded(chunk, (*over, False)).lower(state, hyper, env_params, finite).compile()
    seconds = time.perf_counter() - start
    carried = [state]

    def call():
        carried[0], _ = compiled(carried[0], hyper, env_params, finite)
        jax.block_until_ready(carried[0])

    call()
    temp = compiled.memory_analysis().temp_size_in_bytes
    return call, width * updates * spec.frames_per_update, seconds, temp


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
    parser.add_argument("--experiment", default="minigrid")
    parser.add_argument("--agents", default="1,2,4,8,16,32,75,128,256")
    parser.add_argument("--side", type=int, default=75, help="agents of the other tables")
    parser.add_argument("--updates", type=int, default=10, help="per timed call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    options = parser.parse_args()
    counts, side = [int(n) for n in options.agents.split(",")], options.side
    experiment = load(options.experiment, "paper")
    # The first group of plain methods: policy and state entropy.
    group = group_methods(experiment.methods)[0]
    agent, env_params, _ = program(experiment, group)
    spec, numbers = agent.spec, experiment.hyper
    compiled = functools.partial(prepare, env_params=env_params, numbers=numbers)
    compiled = functools.partial(compiled, updates=options.updates)

    curve = {f"{n}": compiled(spec, agents=n) for n in counts}
    seconds = measure(curve, options.rounds)
    rows = []
    print("| agents | frames/s | ms per update | compile, s | temporary memory, MB |")
    print("|---:|---:|---:|---:|---:|")
    for n in counts:
        _, frames, compile_s, temp = curve[f"{n}"]
        rate, update = frames / seconds[f"{n}"], seconds[f"{n}"] / options.updates * 1e3
        rows.append({"agents": n, "frames_per_s": rate, "ms_per_update": update})
        rows[-1] |= {"compile_s": compile_s, "temp_bytes": temp}
        print(f"| {n} | {rate:,.0f} | {update:.1f} | {compile_s:.1f} | {temp / 1e6:.0f} |")

    plain = {"none": chain(), "policy entropy": chain(policy_entropy())}
    ablations = {
        name: compiled(spec._replace(regularizer=reg), agents=side) for name, reg in plain.items()
    }
    ablations["policy + state entropy"] = compiled(spec, agents=side)
    if tabulated(spec, agent.model):
        every = spec._replace(tabulate=False)
        ablations["policy + state entropy, network on every frame"] = compiled(every, agents=side)
    seconds = measure(ablations, options.rounds)
    print(f"\n{side} agents:\n\n| program | frames/s | time, ratio to none |\n|---|---:|---:|")
    programs = []
    for name, (_, frames, *_) in ablations.items():
        ratio = seconds[name] / seconds["none"]
        programs.append({"program": name, "frames_per_s": frames / seconds[name], "ratio": ratio})
        print(f"| {name} | {frames / seconds[name]:,.0f} | {ratio:.3f} |")
    pieces = {part: compiled(spec, agents=side, part=part) for part in PARTS}
    seconds = measure(pieces, options.rounds)
    upto = {part: seconds[part] / options.updates * 1e3 for part in PARTS}
    labels = ("environment steps", "policy and bookkeeping", "bonus", "advantages and gradient")
    ends = list(upto.values())
    shares = dict(zip(labels, np.diff([0.0, *ends]).tolist()))
    print(f"\n{side} agents, one update:\n\n| part | ms | share |\n|---|---:|---:|")
    for name, ms in shares.items():
        print(f"| {name} | {ms:.1f} | {ms / ends[-1]:.0%} |")
    if options.out:
        facts = provenance() | {"rounds": options.rounds, "experiment": experiment.name}
        with open(options.out, "w") as file:
            found = {"machine": facts, "curve": rows, "ablations": programs}
            found["parts"] = {"ms_per_update": shares, "agents": side}
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
