"""Synthetic records with the columns of a run folder."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from entrob.perturbations import perturbations
from entrob.report.paper import Paper
from entrob.statistics.board import COLUMNS, Board, checked, weighted

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

DEFAULT_RATES = {"none": 0.1, "policy_entropy": 0.3, "state_entropy": 0.8}
DEFAULT_PERTURBATIONS = {
    "wall": (0, 2, 4, 6, 8),
    "random_walls": (0, 7, 14, 20),
    "goal_shift": (0, 3, 7),
    "elbow": (0, 5),
    "slip": (0, 0.2, 0.5),
}
DIFFUSE = ("slip",)
HORIZON = 200
INSTANCES = 40


def synthetic(
    rates=DEFAULT_RATES,
    seeds=range(8),
    perturbations=DEFAULT_PERTURBATIONS,
    diverged=(),
    points=12,
    spread=0.05,
    exact=True,
):
    """(runs, curves, evaluation): method -> success at the largest magnitude, noisy over seeds.

    `diverged` holds (method, seed) pairs.  Success falls linearly from 1 at magnitude 0.  Without
    `exact`, no environment of the records is finite.
    """
    generator = np.random.default_rng(7)
    runs, curves, evaluation = [], [], []
    for method, rate in rates.items():
        for seed in seeds:
            identity = {"run_id": f"{method}-{seed}", "method": method, "seed": seed}
            lost = (method, seed) in diverged
            runs.append(
                identity
                | {"coefficients": "{}", "fidelity": "paper", "frames": 3_000_000}
                | {"status": "diverged" if lost else "finished"}
                | {"diverged_at": 17 if lost else -1, "cause": "loss is NaN" if lost else ""}
            )
            for i in range(1, points + 1):
                value = np.nan if lost or i == 1 else 1 - np.exp(-5 * i / points)
                value += 0.03 * generator.normal()
                curves.append(
                    identity
                    | {"frames": i * 3_000_000 // points, "episodes": 8, "return_mean": value}
                    | {"success": min(value, 1), "policy_entropy": 7 - 5 * i / points}
                    | {"bonus_mean": (method == "state_entropy") / i}
                )
            for name, magnitudes in perturbations.items():
                for magnitude in magnitudes:
                    strength = magnitude / max(*magnitudes, 1e-9)
                    mean = 1 - strength * (1 - rate) + spread * strength * generator.normal()
                    mean = float(np.clip(np.nan if lost else mean, 0, 1))
                    evaluation.append(
                        identity
                        | _row(generator, name, float(magnitude), 0 if lost else mean, exact)
                    )
    return pd.DataFrame(runs), pd.DataFrame(curves), pd.DataFrame(evaluation)


def _row(generator, name, magnitude, mean, finite):
    reached = generator.random(INSTANCES) < mean
    steps = np.clip(generator.gamma(4, 15, INSTANCES).astype(int) + 14, 1, HORIZON)[reached]
    histogram = np.bincount(steps - 1, minlength=HORIZON).astype(np.int32)
    exact = np.clip(mean + 0.2 * generator.normal(size=INSTANCES), 0, 1).astype(np.float32)
    diffuse = name in DIFFUSE or not finite
    return {
        "perturbation": name,
        "magnitude": magnitude,
        "episodes": INSTANCES,
        "success": reached.mean(),
        "success_solvable": reached.mean(),
        "solvable": 1.0,
        "steps_to_success": histogram,
        "return_mean": reached.mean(),
        "regret_mean": 3.0,
        "exact_success": np.nan if diffuse else exact.mean(),
        "exact_worst": np.nan if diffuse else exact.min(),
        "exact_cvar": np.nan if diffuse else np.sort(exact)[: INSTANCES // 10].mean(),
        "instance_success": exact,
    }


@pytest.fixture
def make_frames():
    """The factory `synthetic`."""
    return synthetic


def synthetic_traces(runs, perturbations, share=10, steps=30):
    """Paths of a puck, `share` per run, with the columns of `traces.parquet`."""
    generator = np.random.default_rng(3)
    t = np.linspace(0, 1, steps)
    rows = []
    for run in runs.itertuples():
        for number, (name, magnitude) in enumerate(perturbations):
            for i in range(share):
                bend = generator.normal(0, 0.08) * np.sin(np.pi * t)
                x = 0.65 - 0.2 * t + bend
                y = -0.35 + 0.3 * t + bend
                cut = steps - 5 * (number + i % 3)
                points = np.stack([x, y], -1)[:cut].astype(np.float32).ravel()
                rows.append(
                    {"run_id": run.run_id, "method": run.method, "seed": run.seed}
                    | {"perturbation": name, "magnitude": float(magnitude)}
                    | {"instance": run.seed * share + i, "points": points}
                )
    return pd.DataFrame(rows)


def manifest_of(name):
    """What the manifest of an experiment in benchmarks/ declares, as JSON would bring it back."""
    data = tomllib.loads((BENCHMARKS / f"{name}.toml").read_text())
    own = "grid" if data["environment"].startswith("minigrid") else "physics"
    units = {
        perturbation: variant.unit
        for perturbation in data["perturbations"]
        for variant in perturbations.variants(perturbation)
        if variant.fn.__module__.endswith((own, "noise"))
    }
    methods = {method["name"]: method.get("coefficients", {}) for method in data["methods"]}
    return json.loads(json.dumps({"methods": methods, "units": units, "paper": data["paper"]}))


@pytest.fixture
def make_traces():
    """The factory `synthetic_traces`."""
    return synthetic_traces


@pytest.fixture
def manifests():
    """The function `manifest_of`."""
    return manifest_of


@pytest.fixture
def minigrid():
    """The facts of benchmarks/minigrid.toml."""
    return Paper.read(manifest_of("minigrid"))


@pytest.fixture
def pusher():
    """The facts of benchmarks/pusher.toml."""
    return Paper.read(manifest_of("pusher"))


def _synthetic_board():
    """Two tasks, three ranked methods and one of each kind that is not; means set by hand."""
    generator = np.random.default_rng(11)
    classes = {
        "grid": {"wall": "routes", "slip": "action noise"},
        "pole": {"slip": "action noise", "mass": "dynamics", "gravity": "dynamics"},
    }
    # Per method: family, price, and what it recovers of the damage in each class.
    methods = {
        "good": ("losses", 0.0, {"routes": 0.5, "action noise": 0.6, "dynamics": 0.3}),
        "plain": ("losses", 0.01, {}),
        "dear": ("intrinsic", 0.12, {"routes": 0.1, "action noise": -0.2}),
        "idle": ("shaping", 0.0, {}),
        "same": ("shaping", 0.0, {}),
        "partial": ("temperature", 0.0, {"routes": 0.4}),
        "placebo_reward": ("controls", 0.0, {}),
        "pr_mdp": ("adversaries", 0.02, {"action noise": 0.4}),
    }
    scores, cells, tuning, activity = [], [], [], []
    noise = lambda scale: float(generator.normal(0, scale))
    for task, played in classes.items():
        base = {seed: 0.97 + noise(0.005) for seed in range(8)}
        own = {name: m for name, m in methods.items() if (name, task) != ("partial", "pole")}
        scores += [(task, "none", s, "nominal", 0.0, base[s], 0.0) for s in base]
        for name, (_, price, _) in own.items():
            for s in base:
                value = base[s] - price - abs(noise(0.05 if name == "dear" else 0.004))
                scores.append((task, name, s, "nominal", 0.0, value, (base[s] - value) / 0.97))
        for perturbation, category in played.items():
            for magnitude in (1.0, 2.0):
                none = 0.95 if perturbation == "gravity" else 0.9 - 0.3 * magnitude
                facts = (task, perturbation, magnitude)
                cells.append((*facts, category, none, 0.97, 1.0))
                plain = {s: none + noise(0.04) for s in base}
                scores += [(task, "none", s, *facts[1:], plain[s], np.nan) for s in base]
                for name, (_, _, helps) in own.items():
                    gain = helps.get(category, 0.0) * (1 - none)
                    scores += [
                        (task, name, s, *facts[1:], plain[s] + gain + noise(0.02), np.nan)
                        for s in base
                    ]
        for s in (1_000_000, 1_000_001):
            tuning.append({"task": task, "method": "none", "coefficient": 0.0, "seed": s})
            tuning[-1] |= {"nominal": 1.0, "chosen": False}
            for coefficient, nominal, share in ((0.1, 1.0, 0.1), (1, 0.98, 0.4), (10, 0.9, 0.5)):
                row = {"task": task, "method": "good", "coefficient": coefficient, "seed": s}
                row |= {"nominal": nominal, "chosen": coefficient == 1, "activity": 0.1}
                tuning.append(row | dict.fromkeys(played.values(), share))
        for name in own:
            status = {"same": "identical"}.get(name, "")
            status = "inactive" if (name, task) == ("idle", "grid") else status
            if name not in ("placebo_reward", "pr_mdp"):
                amount = {"identical": 0.0, "inactive": 0.005}.get(status, 0.2)
                activity += [(task, name, s, amount, status) for s in base]
    columns = ["task", "perturbation", "magnitude", "category", "none", "nominal", "reference"]
    facts = {"label": "paper", "source": "A paper.", "coef": 0.1, "doc": "What it does."}
    manifest = {
        "title": "A board",
        "tasks": {task: {"coefficients": {"good": 1.0}} for task in classes},
        "methods": {name: {"family": m[0], **facts} for name, m in methods.items()},
        "calibrated": True,
    }
    return Board(
        pd.DataFrame(scores, columns=COLUMNS["scores"]),
        weighted(pd.DataFrame(cells, columns=columns)),
        pd.DataFrame(tuning).reindex(columns=COLUMNS["tuning"]),
        pd.DataFrame(activity, columns=COLUMNS["activity"]),
        manifest,
    )


@pytest.fixture
def board():
    """A board made by hand."""
    return checked(_synthetic_board())
