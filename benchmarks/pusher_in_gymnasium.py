"""Policies trained here, played in Gymnasium's Pusher-v5 (C MuJoCo) with the same blocks.

    python benchmarks/pusher_in_gymnasium.py runs/pusher/paper [--out transfer.json]

Every trained run is played in both simulators, nominal and behind the paper's wall; the intervals
of the difference in success should hold 0.
"""

import argparse
import dataclasses
import json

from entrob.cli import setup

setup()

import jax  # noqa: E402
import pandas as pd  # noqa: E402
from scipy.stats import binomtest  # noqa: E402

from entrob.envs.mujoco.reference import play  # noqa: E402
from entrob.perturbations import perturb  # noqa: E402
from entrob.results.store import Store, read_frame  # noqa: E402
from entrob.sweep.experiment import load  # noqa: E402
from entrob.sweep.measure import policies  # noqa: E402
from entrob.sweep.program import nominal, program  # noqa: E402
from entrob.sweep.runner import finished, groups  # noqa: E402

MAGNITUDES = (0.0, 1.0)  # of the wall, in the paper's


def difference(ours: float, theirs: float, n: int) -> tuple[float, float]:
    """95 % interval of a difference of two proportions of n each (Newcombe 1998, method 10)."""
    (l1, u1), (l2, u2) = (
        binomtest(round(p * n), n).proportion_ci(method="wilson") for p in (ours, theirs)
    )
    gap = ours - theirs
    low = gap - ((ours - l1) ** 2 + (u2 - theirs) ** 2) ** 0.5
    return low, gap + ((u1 - ours) ** 2 + (theirs - l2) ** 2) ** 0.5


def main() -> None:
    """Print the table; write it as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of a finished run of the experiment pusher")
    parser.add_argument("--episodes", type=int, help="by default as many as were played here")
    parser.add_argument("--out")
    options = parser.parse_args()
    store = Store(options.folder)
    manifest = store.manifest()
    experiment = load(manifest["experiment"], manifest["preset"])
    experiment = dataclasses.replace(experiment, frames=manifest["frames_per_run"])
    here = read_frame(store.root / "evaluation.parquet")
    here = here[here.perturbation == "wall"].set_index(["run_id", "magnitude"])
    rows = []
    for group in groups(experiment):
        prog = program(experiment, group)
        _, params = nominal(experiment, group, noise=False)
        worlds = {m: perturb(jax.random.key(0), params, "wall", m) for m in MAGNITUDES}
        for batch in finished(experiment, store, group):
            networks = policies(store, batch, prog)
            for i, run in enumerate(batch.runs):
                policy = jax.tree.map(lambda x, i=i: x[i], networks)
                for magnitude, world in worlds.items():
                    ours = here.loc[(run.id, magnitude)]
                    n = options.episodes or int(ours.episodes)
                    success, returns = play(
                        lambda key, memory, obs: prog.agent.act(key, policy, memory, obs),  # noqa: B023
                        prog.agent.start(),
                        world,
                        n,
                    )
                    low, high = difference(ours.success, success.mean(), n)
                    rows.append(
                        {
                            "method": run.method.name,
                            "seed": run.seed,
                            "wall": magnitude,
                            "success_here": float(ours.success),
                            "success_gymnasium": float(success.mean()),
                            "difference_low": low,
                            "difference_high": high,
                            "return_here": float(ours.return_mean),
                            "return_gymnasium": float(returns.mean()),
                            "episodes": n,
                        }
                    )
    table = pd.DataFrame(rows)
    inside = (table.difference_low <= 0) & (table.difference_high >= 0)
    print(table.round(3).to_string(index=False))
    print(f"{inside.sum()} of {len(table)} intervals of the difference hold 0")
    if options.out:
        with open(options.out, "w") as file:
            found = {"intervals_with_0": int(inside.sum()), "of": len(table), "rows": rows}
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
