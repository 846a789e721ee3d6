"""A body on legs of two hinges each: what `legged_step` needs of such a MuJoCo model."""

import copy
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import scipy.linalg
from flax import struct

from entrob.envs.mujoco import dense
from entrob.envs.mujoco.dense import last
from entrob.envs.mujoco.soft import Soft, soften
from entrob.errors import EntrobError

# Degrees of freedom of the free root; its position has one number more.
ROOT = 6
# Hinges per leg.
HINGES = 2
# Contacts that a root's ball and the three capsules of a leg can have with the floor.
BALL, LEG = 1, 6


@struct.dataclass
class Knobs:
    """What a perturbation may change.

    Attributes:
      root_mass: float32[], in kg, of the body with the free joint, spread as in the model.
      gain: float32[u], of the motors, in N m per unit of control over their gear.
      friction: float32[], sliding friction of the floor.
      push: float32[3], force on the root's origin along the world's axes, in N.
      wall_pos: float32[], x of the wall's near face in meters.
      wall_depth: float32[], from there to its far face.
      wall_height: float32[], 0 is no wall.
    """

    root_mass: jax.Array
    gain: jax.Array
    friction: jax.Array
    push: jax.Array
    wall_pos: jax.Array
    wall_depth: jax.Array
    wall_height: jax.Array


class Solid(NamedTuple):
    """Mass of a rigid body, and its moments about the root's origin.

    Attributes:
      mass: [...].
      moment: [..., 3], mass times center.
      inertia: [..., 3, 3].
    """

    mass: dense.Array
    moment: dense.Array
    inertia: dense.Array


class Lightness(NamedTuple):
    """MuJoCo's inverse weights as functions of the root's mass; see `lightness`.

    Attributes:
      rise: float32[nv, 1], how each coordinate's inertia grows with the mass, per kg.
      bodies: float32[nbody, nv], each coordinate's share in ``body_invweight0[:, 0]``.
      dofs: float32[nv, nv], and in ``dof_invweight0``.
    """

    rise: np.ndarray
    bodies: np.ndarray
    dofs: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Legged:
    """A model's numbers at rest, all hinges at 0, in the root's frame; the last axis has size 1.

    There are L legs of a hip and an ankle. A capsule of each stands still on the root, one moves
    with the hip and one with the ankle; the root has a ball.

    Attributes:
      host: the compiled model.
      margin: distance in meters below which a contact counts.
      contacts: how many contacts are felt at once, the nearest.
      iterations: Newton iterations of the solver.
      soft: the softness of all constraints.
      lightness: what makes contacts and limits give way.
      axis: [L, 2, 3, 1], axes of the hinges.
      anchor: [L, 2, 3, 1], a point on each.
      links: `Solid` of [L, 2], what each hinge moves before the next, about its own center.
      center: [L, 2, 3, 1], these centers.
      trunk: `Solid`, what stands still on the root's body, that apart.
      root: `Solid`, the root's body per kg.
      limits: [L, 2, 2, 1], least and largest angle of the hinges.
      armature: [6, 1] of the root and [L, 2, 1] of the hinges.
      damping: the same.
      ends: [L, 3, 2, 3, 1], both ends of the axes of the capsules.
      radius: [L, 3, 1], theirs.
      ball: [3, 1], center of the root's ball.
      ball_radius: float.
      grip: float, friction of the wall.
      geoms: int[L, 3] and int[], ids of the capsules and of the ball.
      motors: float32[L, 2, u], gear of each motor at the hinge that it turns.
      reach: how far the body gets from the root's origin, at rest, in meters.
    """

    host: mujoco.MjModel
    margin: float
    contacts: int
    iterations: int
    soft: Soft
    lightness: Lightness
    axis: np.ndarray
    anchor: np.ndarray
    links: Solid
    center: np.ndarray
    trunk: Solid
    root: Solid
    limits: np.ndarray
    armature: tuple[np.ndarray, np.ndarray]
    damping: tuple[np.ndarray, np.ndarray]
    ends: np.ndarray
    radius: np.ndarray
    ball: np.ndarray
    ball_radius: float
    grip: float
    geoms: tuple[np.ndarray, int]
    motors: np.ndarray
    reach: float

    @property
    def legs(self) -> int:
        """How many."""
        return len(self.axis)

    @property
    def root_body(self) -> int:
        """Id of the body with the free joint."""
        return int(self.host.jnt_bodyid[0])


def build(
    host: mujoco.MjModel,
    capsules: np.ndarray,
    ball: int,
    wall: int,
    margin: float,
    contacts: int,
    iterations: int,
) -> Legged:
    """Read a legged body from a model.

    Args:
      host: the model.
      capsules: int[L, 3], ids of each leg's capsules: on the root, behind hip and ankle.
      ball: id of the root's ball.
      wall: id of the wall.
      margin: see `Legged`, as are `contacts` and `iterations`.

    Raises:
      EntrobError: the model is not a free root with legs of two hinges, all with a range, motors
        and equal softness, or its geoms are of other kinds or bodies.
    """
    _check(host, capsules, ball, contacts)
    legs = len(capsules)
    rest = mujoco.MjData(host)
    mujoco.mj_kinematics(host, rest)
    root = int(host.jnt_bodyid[0])
    turn, at = rest.xmat[root].reshape(3, 3), rest.xpos[root]

    def local(points):
        return (points - at) @ turn

    body = _bodies(host, rest, turn, local)
    links = _links(host)
    trunk = np.flatnonzero((links == 0) & (np.arange(host.nbody) != root))
    own = _solid(body, [root], np.zeros(3))
    hinges = (legs, HINGES)
    groups = [np.flatnonzero(links == k) for k in range(1, 1 + legs * HINGES)]
    mass = np.array([host.body_mass[g].sum() for g in groups])
    center = np.array([host.body_mass[g] @ body.moment[g] for g in groups]) / mass[:, None]
    solids = [_solid(body, g, c) for g, c in zip(groups, center)]
    geoms = capsules.ravel()
    half = rest.geom_xmat[geoms].reshape(-1, 3, 3)[:, :, 2] * host.geom_size[geoms, 1:2]
    ends = local(np.stack([rest.geom_xpos[geoms] - half, rest.geom_xpos[geoms] + half], 1))
    radius = host.geom_size[geoms, 0]
    softness = np.hstack([host.geom_solref, host.geom_solimp])[ball]
    motors = np.zeros((legs * HINGES, host.nu))
    motors[host.actuator_trnid[:, 0] - 1, np.arange(host.nu)] = host.actuator_gear[:, 0]
    split = lambda x: (last(x[:ROOT]), last(x[ROOT:].reshape(hinges)))
    return Legged(
        host=host,
        margin=margin,
        contacts=contacts,
        iterations=iterations,
        soft=soften(host.opt.timestep, *softness),
        lightness=lightness(host, root),
        axis=last((rest.xaxis[1:] @ turn).reshape(*hinges, 3)),
        anchor=last(local(rest.xanchor[1:]).reshape(*hinges, 3)),
        links=Solid(*(last(np.array(x).reshape(*hinges, *x[0].shape)) for x in zip(*solids))),
        center=last(center.reshape(*hinges, 3)),
        trunk=Solid(*map(last, _solid(body, trunk, np.zeros(3)))),
        root=Solid(*(last(x / host.body_mass[root]) for x in own)),
        limits=last(host.jnt_range[1:].reshape(*hinges, 2)),
        armature=split(host.dof_armature),
        damping=split(host.dof_damping),
        ends=last(ends.reshape(legs, HINGES + 1, 2, 3)),
        radius=last(radius.reshape(legs, HINGES + 1)),
        ball=last(local(rest.geom_xpos[ball])),
        ball_radius=float(host.geom_size[ball, 0]),
        grip=float(max(host.geom_friction[[ball, wall], 0])),
        geoms=(capsules, ball),
        motors=np.asarray(motors.reshape(*hinges, host.nu), np.float32),
        reach=float(np.max(np.linalg.norm(ends, axis=-1) + radius[:, None])),
    )


def _check(host: mujoco.MjModel, capsules: np.ndarray, ball: int, contacts: int) -> None:
    """Raise `EntrobError` unless the model is one that `legged_step` can step."""
    legs, joints = len(capsules), host.jnt_type
    if joints[0] != mujoco.mjtJoint.mjJNT_FREE or (joints[1:] != mujoco.mjtJoint.mjJNT_HINGE).any():
        raise EntrobError("a legged model needs a free root joint and hinges, nothing else")
    if not host.jnt_limited[1:].all() or host.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
        raise EntrobError("a legged model needs ranges for its hinges and the RK4 integrator")
    links = _links(host)
    # The hinge before each: hips have none, ankles their leg's hip.
    above = links[host.body_parentid[host.jnt_bodyid[1:]]]
    hips = 1 + HINGES * np.arange(legs)
    order = np.stack([0 * hips, hips], 1).ravel()
    geoms = np.append(capsules.ravel(), ball)
    kinds = np.append(
        np.full(capsules.size, mujoco.mjtGeom.mjGEOM_CAPSULE), mujoco.mjtGeom.mjGEOM_SPHERE
    )
    on = np.append(np.stack([0 * hips, hips, hips + 1], 1).ravel(), 0)
    soft = np.vstack(
        [
            np.hstack([host.geom_solref, host.geom_solimp]),
            np.hstack([host.jnt_solref, host.jnt_solimp])[1:],
        ]
    )
    motor = (
        (host.actuator_dyntype == mujoco.mjtDyn.mjDYN_NONE)
        & (host.actuator_gaintype == mujoco.mjtGain.mjGAIN_FIXED)
        & (host.actuator_biastype == mujoco.mjtBias.mjBIAS_NONE)
        & (host.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT)
        & (host.actuator_trnid[:, 0] > 0)
        & (host.actuator_ctrllimited == 1)
        & (host.actuator_forcelimited == 0)
    )
    root = [host.dof_armature[:ROOT], host.dof_damping[:ROOT]]
    needs = {
        "legs of a hip and an ankle, one after the other": np.array_equal(above, order),
        "capsules and a ball on the root, hip and ankle": (
            np.array_equal(host.geom_type[geoms], kinds)
            and np.array_equal(links[host.geom_bodyid[geoms]], on)
        ),
        "hinges at 0 in its initial pose": not host.qpos0[ROOT + 1 :].any(),
        "motors with a range of control and nothing else": motor.all(),
        "neither springs nor dry friction": not (
            host.jnt_stiffness.any() or host.dof_frictionloss.any()
        ),
        "one armature and one damping for its root": all((x == x[0]).all() for x in root),
        "one solref and one solimp": (soft == soft[0]).all() and (soft[0, :2] > 0).all(),
    }
    for what, holds in needs.items():
        if not holds:
            raise EntrobError(f"the model does not fit: it needs {what}")
    most = BALL + LEG * legs
    if contacts > most:
        raise EntrobError(
            f"contacts must be at most {most}, as many as there may be with the floor"
        )


def _links(host: mujoco.MjModel) -> np.ndarray:
    """The last hinge that moves each body, counted from 1: int[nbody]; 0 for the root."""
    links = np.zeros(host.nbody, int)
    for b in range(1, host.nbody):
        own = np.flatnonzero(host.jnt_bodyid[1:] == b)
        links[b] = 1 + own[-1] if len(own) else links[host.body_parentid[b]]
    return links


def _bodies(host: mujoco.MjModel, rest: mujoco.MjData, turn: np.ndarray, local) -> Solid:
    """All bodies in the root's frame, each about its own center; `moment` is that center."""
    axes = np.einsum("ji,bjk->bik", turn, rest.ximat.reshape(-1, 3, 3))
    inertia = np.einsum("bij,bj,bkj->bik", axes, host.body_inertia, axes)
    return Solid(host.body_mass, local(rest.xipos), inertia)


def _solid(bodies: Solid, some, about: np.ndarray) -> Solid:
    """Some of them as one, about a point."""
    mass, arm = bodies.mass[some], bodies.moment[some] - about
    square = np.einsum("bi,bi->b", arm, arm)[:, None, None] * np.eye(3)
    steiner = mass[:, None, None] * (square - arm[:, :, None] * arm[:, None])
    return Solid(mass.sum(), mass @ arm, np.sum(bodies.inertia[some] + steiner, 0))


def lightness(host: mujoco.MjModel, body: int) -> Lightness:
    """What MuJoCo's compiler derives from a model's inertia, as a function of one body's mass.

    The inertia matrix is affine in that mass, so that one change of coordinates makes it diagonal
    whatever the mass. Constraints give way in proportion to these numbers.
    """
    base, more = (_inertia(host, body, factor) for factor in (1, 2))
    rise, modes = scipy.linalg.eigh((more - base) / host.body_mass[body], base)
    data = mujoco.MjData(host)
    mujoco.mj_forward(host, data)
    bodies, jacobian = np.zeros((host.nbody, host.nv)), np.zeros((3, host.nv))
    for i in range(1, host.nbody):
        mujoco.mj_jacBodyCom(host, data, jacobian, None, i)
        bodies[i] = np.mean((jacobian @ modes) ** 2, axis=0)
    dofs = modes**2
    # The root's three translations count alike, and so do its three rotations.
    dofs[:3], dofs[3:6] = dofs[:3].mean(0), dofs[3:6].mean(0)
    return Lightness(last(rise), bodies.astype(np.float32), dofs.astype(np.float32))


def weights(lightness: Lightness, extra: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``body_invweight0[:, 0]`` [nbody, B] and ``dof_invweight0`` [nv, B].

    Args:
      lightness: of the model.
      extra: float32[B], so much more mass, in kg.
    """
    light = 1 / (1 + extra * lightness.rise)
    bodies, dofs = (dense.dot(jnp.asarray(x), light) for x in lightness[1:])
    return bodies, dofs


class Prepared(NamedTuple):
    """What stays the same while a control is held.

    Attributes:
      trunk: `Solid` of all that does not move with a hinge.
      torque: [L, 2, B], of the motors.
      push: [3, B], in the world's frame.
      friction: [B], of the floor.
      invweight: [n, B], of the bodies of all capsules, the ball's last.
      hinge_invweight: [L, 2, B].
      center: ([B], [B]), of the wall in x and z.
      half: ([B], [B]), of the wall's extents.
      walled: bool[B], whether there is one.
    """

    trunk: Solid
    torque: jax.Array
    push: jax.Array
    friction: jax.Array
    invweight: jax.Array
    hinge_invweight: jax.Array
    center: tuple[jax.Array, jax.Array]
    half: tuple[jax.Array, jax.Array]
    walled: jax.Array


def prepare(legged: Legged, knobs: Knobs, ctrl: jax.Array) -> Prepared:
    """See `Prepared`; `knobs` and the control [u, B] with the copies along a last axis."""
    host, (capsules, ball) = legged.host, legged.geoms
    low, high = dense.last(host.actuator_ctrlrange.T)
    torque = dense.dot(jnp.asarray(legged.motors), knobs.gain * jnp.clip(ctrl, low, high))
    extra = knobs.root_mass - host.body_mass[legged.root_body]
    bodies, dofs = weights(legged.lightness, extra)
    half = knobs.wall_depth / 2, knobs.wall_height / 2
    return Prepared(
        trunk=jax.tree.map(lambda x, y: x + knobs.root_mass * y, legged.trunk, legged.root),
        torque=torque,
        push=knobs.push,
        friction=knobs.friction,
        invweight=bodies[host.geom_bodyid[np.append(capsules, ball)]],
        hinge_invweight=dofs[ROOT:].reshape(-1, HINGES, dofs.shape[-1]),
        center=(knobs.wall_pos + half[0], half[1]),
        half=half,
        walled=knobs.wall_height > 0,
    )


def _inertia(host: mujoco.MjModel, body: int, factor: float) -> np.ndarray:
    """The inertia matrix at rest, a body being so much heavier: float[nv, nv]."""
    host = copy.copy(host)
    host.body_mass[body] *= factor
    host.body_inertia[body] *= factor
    data = mujoco.MjData(host)
    mujoco.mj_forward(host, data)
    matrix = np.zeros((host.nv, host.nv))
    for row, unit in zip(matrix, np.eye(host.nv)):
        mujoco.mj_mulM(host, data, row, unit)
    return matrix
