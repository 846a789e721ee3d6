"""A chain of hinges and a sliding puck: what `chain_step` needs of such a MuJoCo model."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import mujoco
import numpy as np
from flax import struct

from entrob.envs.mujoco.dense import last
from entrob.envs.mujoco.physics import Pairs
from entrob.envs.mujoco.pusher.contacts import Shape
from entrob.envs.mujoco.soft import Soft, soften
from entrob.errors import EntrobError


@struct.dataclass
class Knobs:
    """What a perturbation may change.

    Attributes:
      damping: float32[n], of the h hinges in N m s/rad, then of the two slides in N s/m.
      limits: float32[h, 2], least and largest angle of the hinges.
      gain: float32[h], torque of the motors per unit of control, in N m.
      puck_mass: float32[], in kg.
      contact_armature: float32[], in kg, the part of the slides' armature by which contacts of the
        puck are stiffer.
      place: float32[g, 3], where the geoms `Chain.movable` are.
      size: float32[g, 3], their sizes as MuJoCo has them.
      push: float32[2], force on the puck along the slides, in N.
    """

    damping: jax.Array
    limits: jax.Array
    gain: jax.Array
    puck_mass: jax.Array
    contact_armature: jax.Array
    place: jax.Array
    size: jax.Array
    push: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """A model's numbers at rest, all joints at 0, in world coordinates; the last axis has size 1.

    Attributes:
      host: the model.
      pairs: what can meet.
      movable: ids of the geoms whose place and size come with the knobs.
      watched: ids of the bodies whose positions are returned.
      iterations: Newton steps per timestep.
      soft: the softness of all constraints.
      links: int[nbody], the last hinge that moves each body; -1 for none.
      puck: id of the body with the slides.
      axis: [h, 3, 1], axes of the hinges.
      anchor: [h, 3, 1], a point on each.
      mass: [h, 1, 1], of what each hinge moves before the next.
      center: [h, 3, 1], their centers of mass.
      inertia: [h, 3, 3, 1], their inertias about those.
      slide: [2, 3, 1], axes of the puck's slides, at right angles.
      bodies: [nbody, 3, 1], positions of the bodies.
      geoms: places [3, ngeom, 1], axes [3, 3, ngeom, 1] and sizes [3, ngeom, 1] of the geoms.
    """

    host: mujoco.MjModel
    pairs: tuple[Pairs, ...]
    movable: tuple[int, ...]
    watched: tuple[int, ...]
    iterations: int
    soft: Soft
    links: np.ndarray
    puck: int
    axis: np.ndarray
    anchor: np.ndarray
    mass: np.ndarray
    center: np.ndarray
    inertia: np.ndarray
    slide: np.ndarray
    bodies: np.ndarray
    geoms: Shape


def build(
    host: mujoco.MjModel,
    pairs: Sequence[Pairs],
    movable: Iterable[int],
    watched: Iterable[int],
    iterations: int,
) -> Chain:
    """Read a chain from a model; for the arguments see `Chain`.

    Raises:
      EntrobError: the model is not hinges in a row with limits and a motor each, and then two
        slides, or has contacts with friction or not equally soft.
    """
    h = int(np.sum(host.jnt_type == mujoco.mjtJoint.mjJNT_HINGE))
    links = _links(host, h)
    touching = np.unique(np.concatenate([p.geoms.ravel() for p in pairs]))
    slides = host.jnt_type[h:] == mujoco.mjtJoint.mjJNT_SLIDE
    geoms = np.hstack([host.geom_solref, host.geom_solimp])[touching]
    soft = np.vstack([geoms, np.hstack([host.jnt_solref, host.jnt_solimp])[:h]])
    limited = np.flatnonzero(host.jnt_limited)
    needs = {
        "two slides after its hinges": len(slides) == 2 and slides.all() and not host.qpos0.any(),
        "hinges in a row": np.array_equal(links[host.jnt_bodyid[:h]], np.arange(h)),
        "a motor on every hinge": np.array_equal(host.actuator_trnid[:, 0], np.arange(h)),
        "limits on its hinges alone": np.array_equal(limited, np.arange(h)),
        "contacts without friction": (host.geom_condim[touching] == 1).all(),
        "one solref and one solimp": (soft == soft[0]).all() and (soft[0, :2] > 0).all(),
    }
    for what, holds in needs.items():
        if not holds:
            raise EntrobError(f"the model does not fit: it needs {what}")

    rest = mujoco.MjData(host)
    mujoco.mj_kinematics(host, rest)
    numbers = {
        "axis": rest.xaxis[:h],
        "anchor": rest.xanchor[:h],
        "slide": rest.xaxis[h:],
        "bodies": rest.xpos,
        **_masses(host, rest, links, h),
    }
    axes = rest.geom_xmat.reshape(-1, 3, 3).transpose(1, 2, 0)
    shape = Shape(rest.geom_xpos.T, axes, host.geom_size.T)
    return Chain(
        host=host,
        pairs=tuple(pairs),
        movable=tuple(int(g) for g in movable),
        watched=tuple(int(b) for b in watched),
        iterations=iterations,
        soft=soften(host.opt.timestep, *soft[0]),
        links=links,
        puck=int(host.jnt_bodyid[h]),
        geoms=Shape._make(map(last, shape)),
        **{name: last(x) for name, x in numbers.items()},
    )


def _links(host: mujoco.MjModel, h: int) -> np.ndarray:
    links = np.full(host.nbody, -1)
    for b in range(1, host.nbody):
        own = np.flatnonzero(host.jnt_bodyid[:h] == b)
        links[b] = own[-1] if len(own) else links[host.body_parentid[b]]
    return links


def _masses(host: mujoco.MjModel, rest: mujoco.MjData, links: np.ndarray, h: int) -> dict:
    """Mass, center and inertia of each link, which may be several bodies."""
    mass, center, inertia = np.zeros((h, 1)), np.zeros((h, 3)), np.zeros((h, 3, 3))
    for k in range(h):
        bodies = np.flatnonzero(links == k)
        mass[k] = host.body_mass[bodies].sum()
        center[k] = host.body_mass[bodies] @ rest.xipos[bodies] / mass[k]
        for b in bodies:
            turn, d = rest.ximat[b].reshape(3, 3), rest.xipos[b] - center[k]
            inertia[k] += turn * host.body_inertia[b] @ turn.T
            inertia[k] += host.body_mass[b] * (d @ d * np.eye(3) - np.outer(d, d))
    return {"mass": mass, "center": center, "inertia": inertia}
