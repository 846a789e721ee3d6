"""Environment speed: steps/s of `minigrid/empty-8x8` against three peers, side by side.

    python benchmarks/speed/environment.py [--batches 1,64,1024] [--out environment.json]

The peers have an environment of their own (peers.txt); one that does not import is reported as
not installed. The room is the same (10×10 with its border, 200 steps) and so are the moves:
uniform turns and steps forward, drawn beforehand. The JAX environments run as
``lax.scan`` of ``vmap(step)`` with auto-reset; the carry holds every observation and its sum, so
none is optimized away. Contenders are timed in turn in one process, round after round; medians
are shown.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs import make

SIZE, LIMIT = 10, 200
# Moves per timed call: enough to time, few enough to take turns often.
SCAN_MOVES, SCAN_STEPS, LOOP_MOVES = 262_144, 8192, 2048


def scanned(reset: Callable, step: Callable, extra: Any, batch: int) -> tuple[Callable, int]:
    """A JAX environment's timed call and its number of moves.

    Args:
      reset: ``(key, extra) -> (observation, state)``.
      step: ``(state, action, extra) -> (observation, state)``, with auto-reset.
      extra: what both need, traced.
      batch: environments side by side.
    """
    steps = min(SCAN_STEPS, SCAN_MOVES // batch)
    actions = jnp.asarray(np.random.default_rng(0).integers(0, 3, (steps, batch)), jnp.int32)

    def total(observation):
        return sum(jnp.sum(leaf, dtype=jnp.int32) for leaf in jax.tree.leaves(observation))

    def run(observation, state, actions, extra):
        def body(carry, action):
            observation, state, seen = carry
            seen += total(observation)
            observation, state = jax.vmap(step, (0, 0, None))(state, action, extra)
            return (observation, state, seen), None

        carry = observation, state, jnp.zeros((), jnp.int32)
        return jax.lax.scan(body, carry, actions)[0]

    keys = jax.random.split(jax.random.PRNGKey(0), batch)
    start = jax.jit(jax.vmap(reset, (0, None)))(keys, extra)
    program = jax.jit(run).lower(*start, actions, extra).compile()
    return lambda: jax.block_until_ready(program(*start, actions, extra)), steps * batch


def ours(batch: int) -> tuple[Callable, int]:
    """entrob: the egocentric 7×7×3 window; the layout is traced."""
    env, params = make("minigrid/empty-8x8")
    key = jax.random.PRNGKey(0)  # not used by this environment
    return scanned(
        env.reset, lambda state, a, params: env.step(key, state, a, params)[:2], params, batch
    )


def navix(observation: str) -> Callable:
    """navix, with one of its observation functions."""
    importlib.import_module("navix")
    from navix import observations, rewards, terminations
    from navix.environments.empty import Room

    env = Room.create(
        height=SIZE,
        width=SIZE,
        max_steps=LIMIT,
        observation_fn=getattr(observations, observation),
        reward_fn=rewards.on_goal_reached,
        termination_fn=terminations.on_goal_reached,
    )

    # A timestep holds its observation, and an environment resets at the step after the last.
    def out(timestep):
        return timestep.observation, timestep

    return lambda batch: scanned(
        lambda key, _: out(env.reset(key)), lambda t, a, _: out(env.step(t, a)), None, batch
    )


def xminigrid() -> Callable:
    """xminigrid: what it returns is its egocentric window, 7×7 (tile, color)."""
    package = importlib.import_module("xminigrid")
    from xminigrid.wrappers import GymAutoResetWrapper

    env, params = package.make("MiniGrid-Empty-8x8")
    env, params = GymAutoResetWrapper(env), params.replace(height=SIZE, width=SIZE, max_steps=LIMIT)

    def out(timestep):
        return timestep.observation, timestep

    # Its actions are 0 forward, 1 turn right, 2 turn left.
    return lambda batch: scanned(
        lambda key, _: out(env.reset(params, key)),
        lambda t, a, _: out(env.step(params, t, 2 - a)),
        None,
        batch,
    )


def minigrid(image_only: bool) -> Callable:
    """MiniGrid in gymnasium's SyncVectorEnv: the image alone, or the whole dictionary."""
    from gymnasium.vector import SyncVectorEnv
    from minigrid.envs import EmptyEnv
    from minigrid.wrappers import ImgObsWrapper

    def single():
        env = EmptyEnv(size=SIZE, max_steps=LIMIT)
        return ImgObsWrapper(env) if image_only else env

    def prepare(batch: int) -> tuple[Callable, int]:
        envs = SyncVectorEnv([single] * batch)
        envs.reset(seed=0)
        steps = max(4, LOOP_MOVES // batch)
        actions = np.random.default_rng(0).integers(0, 3, (steps, batch))

        def call():
            seen = 0
            for action in actions:
                observation = envs.step(action)[0]
                seen += int((observation if image_only else observation["image"]).sum())
            return seen

        return call, steps * batch

    return prepare


#: Peer, observation, how to build it; the first is ours, which the others are compared with.
CONTENDERS = [
    ("entrob", "egocentric 7×7×3 = default", lambda: ours),
    ("navix", "egocentric 7×7×3", lambda: navix("symbolic_first_person")),
    ("navix", "default: whole grid 10×10×3", lambda: navix("symbolic")),
    ("xminigrid", "egocentric 7×7×2 = default", xminigrid),
    ("minigrid", "egocentric 7×7×3", lambda: minigrid(True)),
    ("minigrid", "default: image, direction, mission", lambda: minigrid(False)),
]


def contest(builders: dict, batch: int, rounds: int) -> dict:
    """Median steps/s of each contender at one batch size, taken in turn after a warm-up."""
    calls = {name: build(batch) for name, build in builders.items()}
    taken = {name: [] for name in calls}
    for call, _ in calls.values():
        call()
    for _ in range(rounds):
        for name, (call, _) in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: calls[name][1] / statistics.median(times) for name, times in taken.items()}


def cpu_model() -> str:
    """The processor's name, or the architecture where the system does not tell."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Print the table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,64,1024")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out")
    options = parser.parse_args()
    batches = [int(n) for n in options.batches.split(",")]

    builders = {}
    for peer, observation, load in CONTENDERS:
        try:
            builders[peer, observation] = load()
        except ImportError:
            continue
    rates = {n: contest(builders, n, options.rounds) for n in batches}

    reference = CONTENDERS[0][:2]
    heads = [f"steps/s at {n}" for n in batches] + [f"ours ÷ peer at {n}" for n in batches]
    print("| environment | observation | " + " | ".join(heads) + " |")
    print("|---|---|" + "---:|" * len(heads))
    rows = []
    for peer, observation, _ in CONTENDERS:
        name = (peer, observation)
        if name not in builders:
            print(f"| {peer} | {observation} | not installed |" + " |" * (len(heads) - 1))
            continue
        speed = {n: rates[n][name] for n in batches}
        ratio = {n: rates[n][reference] / speed[n] for n in batches}
        cells = [f"{speed[n]:,.0f}" for n in batches] + [f"{ratio[n]:,.2f}" for n in batches]
        print(f"| {peer} | {observation} | " + " | ".join(cells) + " |")
        rows.append({"environment": peer, "observation": observation})
        rows[-1] |= {"steps_per_s": speed, "ours_over_peer": ratio}

    if options.out:
        packages = ["jax", "gymnax", "gymnasium", "minigrid", "navix", "xminigrid", "numpy"]
        facts = {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in packages},
            "rounds": options.rounds,
        }
        with open(options.out, "w") as file:
            json.dump({"machine": facts, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
