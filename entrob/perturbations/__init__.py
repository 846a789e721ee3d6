"""Perturbations: pure functions from nominal params to perturbed ones, 0 being the identity.

Some redraw a layout: of cells (`grid`) or of blocks, goals and hurdles (`physics`, which also
changes how bodies move, as `tasks` does for gymnax's tasks). One name can stand for several:
`perturb` takes the one that fits the params. An option is a name of its own, such as
``wall_mirrored``, ``mass_exact`` or ``observation_noise_raw``, so that tables say what was done.
Noise (`noise`) sets a field of ``params.noise`` and so needs an environment made with
``entrob.make(id, noise=True)``.
`with_randomization` lets an agent train under perturbations that are drawn anew in every episode,
`with_disturbance` under the forces of an adversary.
"""

from entrob.perturbations import grid, noise, physics, tasks
from entrob.perturbations.base import (
    CATEGORIES,
    NOMINAL,
    Perturbation,
    compose,
    instance_keys,
    needs_noise,
    perturb,
    perturbation,
    perturbations,
    stratum,
)
from entrob.perturbations.randomization import with_mixture, with_randomization

__all__ = [
    "CATEGORIES",
    "NOMINAL",
    "Perturbation",
    "compose",
    "grid",
    "instance_keys",
    "needs_noise",
    "noise",
    "perturb",
    "perturbation",
    "perturbations",
    "physics",
    "stratum",
    "tasks",
    "with_mixture",
    "with_randomization",
]
