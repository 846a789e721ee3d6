"""A world without training: runs that do what a formula says, so that whole suites take seconds."""

import numpy as np
import pandas as pd

from entrob.persistence.store import write_frame, write_json
from entrob.perturbations import NOMINAL
from entrob.suite.scores import CONDITION
from entrob.sweep.experiment import digest
from entrob.sweep.groups import runs_of

TOML = """
title = "Two tiny tasks"
controls = ["none_tuned", "domain_randomization"]

[common]
algorithm = "ppo"
num_envs = 2
num_steps = 8
chunk = 5
points = 5
instances = 3

[common.hyper]
learning_rate = 1e-3

[rules]
calibration = 4
references = 1
magnitudes = 2
baseline = 3
seeds = 2
candidates = 3

[[methods]]
name = "pr_mdp"
adversary = { kind = "pr_mdp" }

[[methods]]
name = "rarl"
adversary = { kind = "rarl" }

[tasks.grid]
environment = "minigrid/empty-8x8"
perturbations = { wall = [6], slip = [0.4] }

[tasks.robot]
environment = "gymnax:PointRobot-misc"
episodes = 2
params = { goal_spread = 0.0 }
perturbations = { sticky_action = [0.5], force = [0.3] }

[presets.smoke]
methods = [
  "policy_entropy", "steer", "placebo_loss", "pr_mdp", "rarl", "none_tuned", "domain_randomization",
]
seeds = 3
frames = 80

[presets.one]
tasks = ["grid"]
methods = ["policy_entropy", "none_tuned"]
seeds = 6
frames = 80

[presets.quick]
given = "smoke"
tasks = ["grid"]
methods = ["policy_entropy", "pr_mdp", "none_tuned"]
seeds = 6
frames = 80
"""


def strength(method) -> float:
    """How much a method does: its one number, in units of those of its formula's knee."""
    if method.adversary:
        return method.adversary.get("strength", 0.1)
    return sum(method.coefficients.values()) + method.temperature - 1


def score(method, name: str, magnitude: float, high: float, seed: int) -> float:
    """Falls with the magnitude, less so for a method that does much, which costs it nominally."""
    much = strength(method)
    cost = 0.1 * max(much - 0.2, 0.0)
    lost = 0.8 * magnitude / high * (0.5 if method.mixture else 1 / (1 + much))
    noise = 0.001 * np.sin(seed + len(method.name))
    return float(np.clip(0.95 - cost - (lost if name != NOMINAL else 0.0) + noise, 0, 1))


def activity(method) -> float:
    """Linear in what a method does; `steer` does nothing."""
    return 0.0 if "steer" in method.coefficients else 0.5 * sum(method.coefficients.values())


class World:
    """Stands in for `entrob.sweep.runner.run`.

    Attributes:
      calls: folder of each call, and its experiment.
      stop: the call at whose end the power fails, counted from 0.
      broken: names of methods that do not work.
      value: the formula, `score`.
    """

    def __init__(self):
        self.calls, self.stop, self.broken, self.value = [], None, (), score

    def run(
        self, experiment, store, command, parallel_runs=None, test=True, trainers=None, **others
    ):
        identity = {"experiment": experiment.name, "experiment_hash": experiment.hash}
        store.claim(identity)
        bad = {m.name: "no" for m in experiment.methods if m.name.split("@")[0] in self.broken}
        for method in experiment.methods:
            if method.name not in bad:
                self._method(experiment, store, method, test)
        self.calls.append((store.root, experiment))
        if self.stop == len(self.calls) - 1:
            raise KeyboardInterrupt
        seconds = {f"{k}_time_s": 1.0 for k in ("train", "test", "compile")}
        manifest = {**store.manifest(), **seconds, "frames": 80, "broken": bad}
        write_json(store.manifest_path, manifest)
        return manifest

    def _method(self, experiment, store, method, test):
        runs = runs_of(experiment, method)
        who = [{"run_id": r.id, "method": method.name, "seed": r.seed} for r in runs]
        more = {"status": "finished", "activity": activity(method)}
        name = digest(method.identity, [r.id for r in runs])
        write_frame(store.part("runs", name), pd.DataFrame([row | more for row in who]))
        if test:
            frame = evaluation(experiment, method, runs, self.value)
            write_frame(store.part("evaluation", digest(name, experiment.perturbations)), frame)

    def calls_of(self, task: str, stage: str):
        """The experiments of a stage, in order."""
        return [e for root, e in self.calls if (root.parent.name, root.name) == (task, stage)]

    def stages(self):
        """Task and stage of every call, in order, without repetitions."""
        names = [(root.parent.name, root.name) for root, _ in self.calls]
        return list(dict.fromkeys(names))


def evaluation(experiment, method, runs, formula=score) -> pd.DataFrame:
    """Records of runs under everything, as far as scores look at them."""
    tested = {NOMINAL: (0.0,), **experiment.perturbations}
    highs = {"wall": 8.0, "slip": 1.0, "sticky_action": 1.0, "force": 1.0, NOMINAL: 1.0}
    rows = []
    for run in runs:
        for name, magnitudes in tested.items():
            for magnitude in magnitudes:
                value = formula(method, name, magnitude, highs[name], run.seed)
                exact = value if name in ("wall", NOMINAL) else np.nan
                rows.append(
                    {"run_id": run.id, "method": method.name, "seed": run.seed}
                    | dict(zip(CONDITION, (name, magnitude)))
                    | {"exact_success": exact, "instance_success": [exact] * 3}
                    | {"success_solvable": value, "success": value, "return_mean": 10 * value}
                )
    return pd.DataFrame(rows)
