"""Perturbations: pure functions from nominal params to perturbed ones, 0 being the identity.

The spatially structured ones (`grid`) redraw a layout, the diffuse ones (`noise`) set a field of
``params.noise`` and so need an environment made with ``entrob.make(id, noise=True)``.
"""

from entrob.perturbations import grid, noise
from entrob.perturbations.base import Perturbation, compose, perturb, perturbation, perturbations
from entrob.perturbations.noise import Noise, with_noise

__all__ = [
    "Noise",
    "Perturbation",
    "compose",
    "grid",
    "noise",
    "perturb",
    "perturbation",
    "perturbations",
    "with_noise",
]
