"""Synthetic records with the columns of a run folder."""

import numpy as np
import pandas as pd
import pytest

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
):
    """(runs, curves, evaluation): method -> success at the largest magnitude, noisy over seeds.

    `diverged` holds (method, seed) pairs.  Success falls linearly from 1 at magnitude 0.
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
                )
            for name, magnitudes in perturbations.items():
                for magnitude in magnitudes:
                    strength = magnitude / max(*magnitudes, 1e-9)
                    mean = 1 - strength * (1 - rate) + spread * strength * generator.normal()
                    mean = float(np.clip(np.nan if lost else mean, 0, 1))
                    evaluation.append(
                        identity | _row(generator, name, float(magnitude), 0 if lost else mean)
                    )
    return pd.DataFrame(runs), pd.DataFrame(curves), pd.DataFrame(evaluation)


def _row(generator, name, magnitude, mean):
    reached = generator.random(INSTANCES) < mean
    steps = np.clip(generator.gamma(4, 15, INSTANCES).astype(int) + 14, 1, HORIZON)[reached]
    histogram = np.bincount(steps - 1, minlength=HORIZON).astype(np.int32)
    exact = np.clip(mean + 0.2 * generator.normal(size=INSTANCES), 0, 1).astype(np.float32)
    diffuse = name in DIFFUSE
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
