"""Policies trained here, played in Gymnasium's Pusher-v5 (C MuJoCo) with the same blocks.

    python benchmarks/pusher_in_gymnasium.py runs/pusher/paper [--out transfer.json]

Every trained run is played in both simulators, nominal and behind the paper's wall, in Gymnasium
with the contacts of `reference.stiff_contacts`. Of success, return and the puck's final distance to
the goal, the 95 % intervals of the difference should hold 0, but for one in twenty.
"""

import argparse
import dataclasses
import json

from entrob.cli import setup

setup()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy.stats import binomtest, ttest_ind  # noqa: E402

from entrob.compiling import compiler_options  # noqa: E402
from entrob.envs.mujoco.pusher.reference import play  # noqa: E402
from entrob.persistence.store import Store  # noqa: E402
from entrob.perturbations import perturb  # noqa: E402
from entrob.sweep.measure import policies  # noqa: E402
from entrob.sweep.program import program  # noqa: E402
from entrob.sweep.reading import load  # noqa: E402
from entrob.sweep.stored import finished, groups  # noqa: E402

MAGNITUDES = (0.0, 1.0)  # of the wall, in the paper's


def of_proportions(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % interval of the difference of two shares bool[n] (Newcombe 1998, method 10)."""
    p, q = ours.mean(), theirs.mean()
    (l1, u1), (l2, u2) = (
        binomtest(int(x.sum()), len(x)).proportion_ci(method="wilson") for x in (ours, theirs)
    )
    low, high = ((p - l1) ** 2 + (u2 - q) ** 2) ** 0.5, ((u1 - p) ** 2 + (q - l2) ** 2) ** 0.5
    return p - q - low, p - q + high


def of_means(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % interval of the difference of two means float[n] (Welch's t)."""
    return tuple(ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95))


#: What is compared, in the order in which `play` returns it, and the interval of its difference.
COMPARED = {"success": of_proportions, "return": of_means, "distance": of_means}


def player(env, agent, steps: int, episodes: int):
    """Compiled ``(policy, params, key) -> success, return, final distance`` [episodes] in ours.

    Episodes end with success, as in `entrob.envs.mujoco.pusher.reference.play`.
    """

    def episode(policy, params, key):
        obs, state = env.reset_env(key, params)

        def step(loop, key):
            obs, state, carry, success, total, distance = loop
            action, carry = agent.actor.act(key, policy, carry, obs)
            obs, state, reward, *_ = env.step_env(key, state, action, params)
            away = jnp.linalg.norm(state.puck[:2] - params.goal_pos)
            total += jnp.where(success, 0, reward)
            distance = jnp.where(success, distance, away)
            return (obs, state, carry, success | env.is_success(state, params), total, distance), 0

        begun = obs, state, agent.actor.initial(), jnp.bool_(False), jnp.float32(0), jnp.float32(0)
        return jax.lax.scan(step, begun, jax.random.split(key, steps))[0][3:]

    def play_all(policy, params, key):
        keys = jax.random.split(key, episodes)
        return jax.vmap(episode, (None, None, 0))(policy, params, keys)

    return jax.jit(play_all, compiler_options=compiler_options())


def compared(ours, theirs) -> dict[str, float]:
    """Means in both simulators, and the interval of the difference, of what is `COMPARED`."""
    row = {}
    for (name, interval), mine, gyms in zip(COMPARED.items(), ours, theirs):
        mine, gyms = np.asarray(mine), np.asarray(gyms)
        low, high = interval(mine, gyms)
        row |= {f"{name}_here": mine.mean(), f"{name}_gymnasium": gyms.mean()}
        row |= {f"{name}_low": low, f"{name}_high": high}
    return {name: float(value) for name, value in row.items()}


def main() -> None:
    """Print the table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of a finished run of the experiment pusher")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out")
    options = parser.parse_args()
    store = Store(options.folder)
    manifest = store.manifest()
    experiment = load(manifest["experiment"], manifest["preset"])
    experiment = dataclasses.replace(experiment, frames=manifest["frames_per_run"])
    rows = []
    for group in groups(experiment):
        prog = program(experiment, group)
        env, params = prog.task.pair(noise=False)
        here = player(env, prog.agent, int(params.max_steps_in_episode), options.episodes)
        worlds = {m: perturb(jax.random.key(0), params, "wall", m) for m in MAGNITUDES}
        for batch in finished(experiment, store, group):
            networks = policies(store, batch, prog)
            for i, run in enumerate(batch.runs):
                policy = jax.tree.map(lambda x, i=i: x[i], networks)
                for magnitude, world in worlds.items():
                    theirs = play(
                        lambda key, carry, obs: prog.agent.actor.act(key, policy, carry, obs),  # noqa: B023
                        prog.agent.actor.initial(),
                        world,
                        options.episodes,
                    )
                    ours = here(policy, world, jax.random.key(1))
                    named = {"method": run.method.name, "seed": run.seed, "wall": magnitude}
                    rows.append({**named, **compared(ours, theirs), "episodes": options.episodes})
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    inside = {
        name: int(((table[f"{name}_low"] <= 0) & (table[f"{name}_high"] >= 0)).sum())
        for name in COMPARED
    }
    for name, count in inside.items():
        print(f"{name}: {count} of {len(table)} intervals of the difference hold 0")
    if options.out:
        with open(options.out, "w") as file:
            found = {"intervals_with_0": inside, "of": len(table), "rows": rows}
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
