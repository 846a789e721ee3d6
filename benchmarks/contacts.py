"""Contacts of Pusher's puck in versions of MuJoCo, and here, against MuJoCo 2.3.7.

    python benchmarks/contacts.py [--out results/contacts.json]

For every version an environment of its own is made by pip. Prints the two tables of
entrob/envs/mujoco/contacts.md: how far random actions move the puck from the task's start, and
where 400 recorded pushes leave it, see tests/conformance/record_pushes.py.
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from entrob.compiling import compiler_options
from entrob.envs import make

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "conformance"))
pushes = importlib.import_module("record_pushes")

MODEL = pathlib.Path(gymnasium.__file__).parent / "envs/mujoco/assets/pusher_v5.xml"
HERE = mujoco.__version__
#: Version, and what is changed in it.
WAYS = (
    *((version, "nothing") for version in ("2.3.7", "3.0.0", "3.1.6", "3.2.7", "3.3.7", HERE)),
    *((version, "fields") for version in ("3.0.0", HERE)),
    (HERE, "all"),
)
#: Version, what is changed in it, and by how much starts are moved.
REPLAYED = (
    ("2.3.7", "nothing", 1e-9),
    ("2.3.7", "nothing", 1e-6),
    ("3.0.0", "nothing", 0),
    ("3.0.0", "fields", 0),
    ("3.3.7", "fields", 0),
    (HERE, "nothing", 0),
    (HERE, "diagexact", 0),
    (HERE, "fields", 0),
    (HERE, "all", 0),
)
SAID = {
    "nothing": "as it is",
    "fields": "two fields set",
    "all": "`stiff_contacts`",
    "diagexact": "`mjENBL_DIAGEXACT`",
}
QUANTILES = (0.5, 0.9, 0.95, 1.0)
#: A puck is in its place within this many meters.
CLOSE = 0.005


def ours(contacts: str, recorded: dict, **params: float) -> np.ndarray:
    """Where the puck is in `mujoco/pusher` under the recorded actions: float[n, T + 1, 2]."""
    env, nominal = make("mujoco/pusher", contacts=contacts)
    params = {name: jnp.float32(value) for name, value in params.items()}
    nominal = nominal.replace(block_on=jnp.float32(1), **params)

    def episode(qpos, qvel, actions):
        _, state = env.reset_env(jax.random.key(0), nominal)

        def step(state, action):
            state = env.step_env(jax.random.key(0), state, action, nominal)[1]
            return state, state.qpos[7:]

        return jax.lax.scan(step, state.replace(qpos=qpos, qvel=qvel), actions)[1]

    actions = jnp.float32(recorded["actions"]) / pushes.ROUND
    play = jax.jit(jax.vmap(episode), compiler_options=compiler_options())
    path = play(jnp.float32(recorded["qpos"]), jnp.float32(recorded["qvel"]), actions)
    return np.concatenate([recorded["qpos"][:, None, 7:], path], 1)


def agreement(path: np.ndarray, recorded: dict) -> dict:
    """How pucks [n, T + 1, 2] agree with the recorded ones; errors in mm."""
    error = np.linalg.norm(path - recorded["puck"], axis=-1)
    first = recorded["contacts"].any(-1).argmax(1)
    soon = {}
    for after in (5, 10, 20):
        at = np.minimum(first + after, error.shape[1] - 1)
        soon[after] = float(1e3 * np.quantile(error[np.arange(len(error)), at], 0.9))
    close = error[:, -1] < CLOSE
    return {
        "within_5_mm": float(close.mean()),
        "error_mm": {q: float(1e3 * np.quantile(error[:, -1], q)) for q in QUANTILES},
        "steps_after_contact_90_mm": soon,
        "within_5_mm_by_kind": {
            kind: float(close[recorded["kind"] == i].mean()) for i, kind in enumerate(pushes.KINDS)
        },
    }


def way_row(name: str, quantiles: dict) -> str:
    """A row of the first table."""
    return f"| {name} | " + " | ".join(f"{x:.3f}" for x in quantiles.values()) + " |"


def row(name: str, found: dict) -> str:
    """A row of the second table."""
    cells = [f"{found['within_5_mm']:.1%}"]
    cells += [f"{x:.2f}" for x in found["error_mm"].values()]
    cells += [f"{x:.2f}" for x in found["steps_after_contact_90_mm"].values()]
    cells += [f"{x:.0%}" for x in found["within_5_mm_by_kind"].values()]
    return f"| {name} | " + " | ".join(cells) + " |"


def measure(run: Callable) -> dict:
    """Both tables; `run(version, *arguments)` is what record_pushes.py writes there."""
    found = {"way_m": {}, "pushes": {}}
    print("| MuJoCo | 50 % (m) | 90 % | 99 % | 100 % |\n|---|" + "---:|" * 4)
    for version, change in WAYS:
        way = run(version, "random", "--change", change)["way"]
        quantiles = {q: float(np.quantile(way, q)) for q in (0.5, 0.9, 0.99, 1.0)}
        name = f"{version}, {SAID[change]}"
        found["way_m"][name] = quantiles
        print(way_row(name, quantiles), flush=True)
    recorded = dict(np.load(pushes.DATA))
    heads = ["within 5 mm", *(f"{q:.0%}" for q in QUANTILES), "+ 5", "+ 10", "+ 20", *pushes.KINDS]
    print("\n| | " + " | ".join(heads) + " |\n|---|" + "---:|" * len(heads))
    for version, change, moved in REPLAYED:
        name = f"{version}, {SAID[change]}" + (f", starts {moved:g} apart" if moved else "")
        path = run(version, "replay", "--change", change, "--moved", str(moved))["puck"]
        found["pushes"][name] = agreement(path, recorded)
        print(row(name, found["pushes"][name]), flush=True)
    variants = {
        "`mujoco/pusher`": ours("mujoco2", recorded),
        '`mujoco/pusher`, `contacts="mujoco3"`': ours("mujoco3", recorded),
        "the same, two fields set": ours("mujoco3", recorded, contact_armature=0.04),
    }
    for name, path in variants.items():
        found["pushes"][name] = agreement(path, recorded)
        print(row(name, found["pushes"][name]), flush=True)
    return found


def main() -> None:
    """Print the tables; write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def run(version, command, *arguments):
            files = [str(pushes.DATA)] * (command == "replay") + [str(folder / "out.npz")]
            pushes.in_version(version, folder, command, str(MODEL), *files, *arguments)
            return np.load(folder / "out.npz")

        found = measure(run)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
