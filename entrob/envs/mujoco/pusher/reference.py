"""Gymnasium's own Pusher-v5 with the paper's blocks, in C MuJoCo, and policies in it.

What `mujoco/pusher` is compared with, and `stiff_contacts`, which gives Gymnasium's Pusher-v5 the
contacts of MuJoCo 2.3.7; contacts.md beside this file tells why. Needs gymnasium,
which entrob itself does not.
"""

import functools
import pathlib
import tempfile
from typing import Any

import jax
import mujoco
import numpy as np

from entrob.envs.mujoco.pusher.environment import (
    ARM,
    CONTACTS,
    FRAME_SKIP,
    PAPER_START,
    PusherParams,
)
from entrob.errors import unknown

# Half the blocks' height and their centers', in meters.
HALF_HEIGHT, HEIGHT = 0.05, -0.275
# Of all geoms of Gymnasium's Pusher, in meters.
MARGIN = 0.002
# Flags of `mjtDisableBit` for what was not there, or had to be asked for: several contacts of two
# geoms, and a search for contacts that replaced libccd's.
SINCE_3 = ("mjDSBL_MULTICCD", "mjDSBL_NATIVECCD")


def stiff_contacts(env, armature: float | None = None):
    """Give Gymnasium's Pusher-v5 the contacts of MuJoCo 2.3.7, at any time and for good.

    The inverse weights of puck and goal count the armature of their slides, which MuJoCo leaves out
    since 3.0, so that fingers pass through the puck. What else has changed since goes back too: the
    margins of two geoms add up (since 3.5), other routines find the contacts of a cylinder (since
    3.3), and two geoms may have several contacts.

    Args:
      env: an environment as `gymnasium.make` gives it, wrapped or not; it is changed, and nothing
        is wrapped around it. Fits ``gymnasium.make_vec(..., wrappers=[stiff_contacts])``.
      armature: in kg, what counts of the slides' armature; by default all of it.

    Returns:
      The environment.
    """
    stiffen(env.unwrapped.model, armature)
    return env


def stiffen(model: mujoco.MjModel, armature: float | None = None) -> None:
    """What `stiff_contacts` does, to a model of Pusher."""
    for name in ("object", "goal"):
        body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        if body < 0:  # ours has no body for the goal
            continue
        dofs = np.flatnonzero(model.dof_bodyid == body)
        counted = model.dof_armature[dofs[0]] if armature is None else float(armature)
        inertia = model.body_mass[body] + counted
        # What it is to move the body, averaged over three directions of which slides allow two.
        model.body_invweight0[body] = 2 / 3 / inertia, 0
        model.dof_invweight0[dofs] = 1 / inertia
    model.geom_margin[:] = MARGIN / 2 if margins_add_up() else MARGIN
    for flag in SINCE_3:
        model.opt.disableflags |= int(getattr(mujoco.mjtDisableBit, flag, 0))


@functools.cache
def margins_add_up() -> bool:
    """Whether two geoms touch below the sum of their margins, or below the larger one."""
    ball = "<geom size='0.1' margin='0.01'/>"
    free = f"<body pos='0 0 0.215'><freejoint/>{ball}</body>"
    world = f"<mujoco><worldbody>{ball}{free}</worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(world)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data.ncon > 0


def gymnasium_pusher(params: PusherParams, contacts: str = "mujoco2"):
    """Gymnasium's Pusher-v5 as params describe it, without time limit; starts are Gymnasium's.

    Args:
      params: see `PusherParams`; `fixed_start` and `max_steps_in_episode` are not used.
      contacts: ``"mujoco2"``, those of `stiff_contacts` with the armature that params have, or
        ``"mujoco3"``, those of the installed MuJoCo but for several contacts of two geoms: with
        those, a puck's contact counts twice at the face of a block, and near its edge often has a
        normal that is off by tens of degrees.

    Returns:
      The unwrapped `gymnasium.Env`.

    Raises:
      EntrobError: unknown contacts.
    """
    import gymnasium

    if contacts not in CONTACTS:
        raise unknown("contacts", contacts, CONTACTS)

    assets = pathlib.Path(gymnasium.__file__).parent / "envs/mujoco/assets"
    spec = mujoco.MjSpec.from_file(str(assets / "pusher_v5.xml"))
    if params.block_on > 0:
        blocks = zip(np.asarray(params.block_pos, float), np.asarray(params.block_size, float))
        for i, (pos, size) in enumerate(blocks):
            block = spec.worldbody.add_geom(name=f"block{i}", type=mujoco.mjtGeom.mjGEOM_BOX)
            block.pos, block.size = [*pos, HEIGHT], [*size, HALF_HEIGHT]
            block.contype, block.conaffinity, block.condim, block.margin = 0, 1, 1, MARGIN
    spec.compile()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pusher.xml"
        path.write_text(spec.to_xml(), encoding="utf-8")
        env: Any = gymnasium.make(
            "Pusher-v5",
            xml_file=str(path),
            frame_skip=FRAME_SKIP,
            reward_near_weight=float(params.near_weight),
            reward_dist_weight=float(params.dist_weight),
            reward_control_weight=float(params.control_weight),
        ).unwrapped
    _change(env.model, params)
    # What MuJoCo derives from masses, and only then what it derives otherwise than it did.
    mujoco.mj_setConst(env.model, env.data)
    if contacts == "mujoco2":
        return stiff_contacts(env, float(params.contact_armature))
    env.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MULTICCD)
    return env


def _change(model: mujoco.MjModel, params: PusherParams) -> None:
    arm = slice(len(ARM))
    model.dof_damping[arm] = params.joint_damping
    model.dof_damping[len(ARM) : len(ARM) + 2] = params.puck_friction
    model.jnt_range[arm] = params.joint_range
    model.actuator_gainprm[:, 0] = params.actuator_gain
    puck = model.body("object").id
    model.body_inertia[puck] *= float(params.puck_mass) / model.body_mass[puck]
    model.body_mass[puck] = params.puck_mass
    model.body_pos[model.body("goal").id, :2] = params.goal_pos


def play(act, memory, params: PusherParams, episodes: int, seed: int = 0, at_once: int = 20):
    """Let a policy push the puck from the paper's start in C MuJoCo.

    Args:
      act: ``(key, memory, obs float32[23]) -> (action float32[7], memory)``, the policy.
      memory: what an episode begins with.
      params: what `gymnasium_pusher` is built with; episodes end at success or after
        `max_steps_in_episode`.
      episodes: how many, rounded up to a multiple of `at_once`.
      seed: of the policy's noise.
      at_once: simulators side by side, for which the policy is evaluated together.

    Returns:
      Success bool[episodes], the undiscounted return float[episodes] until the end, and the
      distance float[episodes] in meters between puck and goal there.
    """
    act = jax.jit(jax.vmap(act))
    envs = [gymnasium_pusher(params) for _ in range(at_once)]
    start = np.r_[np.zeros(len(ARM)), PAPER_START, 0, 0]
    goal, key = np.asarray(params.goal_pos), jax.random.key(seed)
    successes: list[np.ndarray] = []
    returns: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    for _ in range(-(-episodes // at_once)):
        for env in envs:
            env.reset(seed=0)
            env.set_state(start, np.zeros(len(start)))
        obs = np.stack([env._get_obs() for env in envs])
        memories = jax.tree.map(lambda x: np.stack([x] * at_once), memory)
        success, total, distance = np.zeros(at_once, bool), np.zeros(at_once), np.zeros(at_once)
        for _ in range(int(params.max_steps_in_episode)):
            key, key_act = jax.random.split(key)
            actions, memories = act(jax.random.split(key_act, at_once), memories, obs)
            seen, rewards = zip(*(env.step(a)[:2] for env, a in zip(envs, np.asarray(actions))))
            obs = np.stack(seen)
            total += np.where(success, 0, rewards)
            # The puck's (x, y) as it is observed.
            away = np.linalg.norm(obs[:, 17:19] - goal, axis=1)
            distance = np.where(success, distance, away)
            success |= away < params.success_radius
        for found, new in zip((successes, returns, distances), (success, total, distance)):
            found.append(new)
    return tuple(np.concatenate(found)[:episodes] for found in (successes, returns, distances))
