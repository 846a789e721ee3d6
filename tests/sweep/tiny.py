"""A tiny experiment that trains, tests and reports in a second once it is compiled."""

from pathlib import Path

TOML = """
title = "tiny"
environment = "minigrid/empty-8x8"
num_envs = 2
num_steps = 8
chunk = 5
points = 5
instances = 4

[[methods]]
name = "none"

[[methods]]
name = "state_entropy"
coefficients = { policy_entropy = 0.01, state_entropy = 0.01 }

[perturbations]
wall = [0, 6]

[presets.smoke]
seeds = 2
frames = 240

[tune]
seeds = 2

[tune.grids.policy_entropy]
values = [0.01, 0.1]
"""


def write(folder: Path, text: str = TOML) -> str:
    """Write the experiment file and return its path."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return str(path)
