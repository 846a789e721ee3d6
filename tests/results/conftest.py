"""Synthetic records with the columns of a run folder."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from entrob.perturbations import perturbations
from entrob.results.paper import Paper

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
