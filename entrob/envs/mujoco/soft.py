"""How MuJoCo softens constraints: its documentation, "Computation", section "Constraint model"."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.envs.mujoco.dense import Array


class Soft(NamedTuple):
    """How MuJoCo softens a constraint: stiffness, damping, and impedance over violation."""

    stiffness: float
    damping: float
    least: float
    most: float
    width: float
    middle: float
    power: float

    def impedance(self, pos: jax.Array) -> jax.Array:
        """Between `least` and `most`, by how much the constraint is violated."""
        x = jnp.minimum(jnp.abs(pos) / self.width, 1.0)
        low = x**self.power / self.middle ** (self.power - 1)
        high = 1 - (1 - x) ** self.power / (1 - self.middle) ** (self.power - 1)
        return self.least + jnp.where(x < self.middle, low, high) * (self.most - self.least)

    def row(self, pos: jax.Array, speed: jax.Array, light: Array) -> tuple[jax.Array, jax.Array]:
        """Weight and aim of constraints that are violated by `-pos`, in any shape.

        A constraint presses with ``weight max(0, aim - a)`` at an acceleration ``a`` along it.

        Args:
          pos: how far from the constraint, negative where it is violated.
          speed: velocity along the constraint.
          light: inertia that MuJoCo takes the constraint to have.
        """
        impedance = self.impedance(pos)
        weight = jnp.where(pos < 0, light * impedance / (1 - impedance), 0.0)
        return weight, -self.damping * speed - self.stiffness * impedance * pos


def soften(step, timeconst, dampratio, least, most, width, middle, power) -> Soft:
    """From a timestep in seconds and MuJoCo's solref and solimp."""
    # MuJoCo lets no constraint be faster than two timesteps.
    timeconst = max(timeconst, 2 * step)
    stiffness = 1 / (most * timeconst * dampratio) ** 2
    numbers = (stiffness, 2 / (most * timeconst), least, most, width, middle)
    power = int(power) if power == int(power) else float(power)
    return Soft._make([*map(float, numbers), power])
