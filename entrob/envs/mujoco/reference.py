"""Gymnasium's own Pusher-v5 with the paper's blocks, in C MuJoCo: policies and pushes in it.

What `mujoco/pusher` is compared with. Needs gymnasium, which entrob itself does not.
"""

import pathlib
import tempfile
from typing import NamedTuple

import jax
import mujoco
import numpy as np

from entrob.envs.mujoco.pusher import ARM, FRAME_SKIP, PAPER_START, PusherParams

# Where the puck is when its slides are at 0, and half the blocks' height and their center's.
HOME, HALF_HEIGHT, HEIGHT = np.array([0.45, -0.05]), 0.05, -0.275
KINDS = ("task", "block", "block", "free")


def gymnasium_pusher(params: PusherParams, several_contacts: bool = False):
    """Gymnasium's Pusher-v5 as params describe it, without time limit; starts are Gymnasium's.

    Args:
      params: see `PusherParams`; `fixed_start` and `max_steps_in_episode` are not used.
      several_contacts: leave MuJoCo 4's ``multiccd`` on. Before, a pair of geoms had one contact by
        default, as it has here. With several, a puck's contact counts twice at the face of a block,
        and near its edge often has a normal that is off by tens of degrees.

    Returns:
      The unwrapped `gymnasium.Env`.
    """
    import gymnasium

    assets = pathlib.Path(gymnasium.__file__).parent / "envs/mujoco/assets"
    spec = mujoco.MjSpec.from_file(str(assets / "pusher_v5.xml"))
    if params.block_on > 0:
        blocks = zip(np.asarray(params.block_pos, float), np.asarray(params.block_size, float))
        for i, (pos, size) in enumerate(blocks):
            block = spec.worldbody.add_geom(name=f"block{i}", type=mujoco.mjtGeom.mjGEOM_BOX)
            block.pos, block.size = [*pos, HEIGHT], [*size, HALF_HEIGHT]
            block.contype, block.conaffinity, block.condim, block.margin = 0, 1, 1, 0.002
    spec.compile()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pusher.xml"
        path.write_text(spec.to_xml())
        env = gymnasium.make(
            "Pusher-v5",
            xml_file=str(path),
            frame_skip=FRAME_SKIP,
            reward_near_weight=float(params.near_weight),
            reward_dist_weight=float(params.dist_weight),
            reward_control_weight=float(params.control_weight),
        ).unwrapped
    _change(env.model, params)
    # What MuJoCo derives from masses.
    mujoco.mj_setConst(env.model, env.data)
    if not several_contacts:
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
      Success bool[episodes], and the undiscounted return float[episodes] until the end.
    """
    act = jax.jit(jax.vmap(act))
    envs = [gymnasium_pusher(params) for _ in range(at_once)]
    start = np.r_[np.zeros(len(ARM)), PAPER_START, 0, 0]
    goal, key = np.asarray(params.goal_pos), jax.random.key(seed)
    successes, returns = [], []
    for _ in range(-(-episodes // at_once)):
        for env in envs:
            env.reset(seed=0)
            env.set_state(start, np.zeros(len(start)))
        obs = np.stack([env._get_obs() for env in envs])
        memories = jax.tree.map(lambda x: np.stack([x] * at_once), memory)
        success, total = np.zeros(at_once, bool), np.zeros(at_once)
        for _ in range(int(params.max_steps_in_episode)):
            key, key_act = jax.random.split(key)
            actions, memories = act(jax.random.split(key_act, at_once), memories, obs)
            obs, rewards = zip(*(env.step(a)[:2] for env, a in zip(envs, np.asarray(actions))))
            obs = np.stack(obs)
            total += np.where(success, 0, rewards)
            # The puck's (x, y) as it is observed.
            success |= np.linalg.norm(obs[:, 17:19] - goal, axis=1) < params.success_radius
        successes.append(success)
        returns.append(total)
    return np.concatenate(successes)[:episodes], np.concatenate(returns)[:episodes]


class Pushes(NamedTuple):
    """Recorded episodes of T steps; contacts are counted per timestep of the model.

    Attributes:
      qpos: float64[n, T + 1, 9], arm and puck.
      qvel: float64[n, T + 1, 9].
      actions: float32[n, T, 7].
      obs: float64[n, T, 23], after each action.
      rewards: float64[n, T].
      arm: int[n], contacts of finger and puck.
      block: int[n], contacts of puck and block.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    actions: np.ndarray
    obs: np.ndarray
    rewards: np.ndarray
    arm: np.ndarray
    block: np.ndarray


def record(env, n: int, seed: int = 0, steps: int = 100) -> Pushes:
    """Scripted pushes: the fingers are drawn behind the puck, then through it, with noise.

    A quarter start as in the paper, half beside a block and push at it, a quarter anywhere.

    Args:
      env: of `gymnasium_pusher`, with the paper's blocks.
      n: episodes.
      seed: of starts, stiffness and noise.
      steps: steps of each.
    """
    rng = np.random.default_rng(seed)
    episodes = [_push(env, rng, KINDS[i % len(KINDS)], steps) for i in range(n)]
    return Pushes(*(np.array(x) for x in zip(*episodes)))


def _start(rng: np.random.Generator, blocks: np.ndarray, kind: str):
    """Start and goal of a push, clear of the blocks [3, 4]."""
    centers, half = blocks[:, :2], blocks[:, 2:]
    start, goal = HOME + np.array([0.2, -0.3]), HOME
    while kind != "task":
        low, high = [-0.2, -0.3], [0.2, 0.0]
        start = HOME + rng.uniform(low, high)
        if kind == "block":
            start = centers.mean(0) + rng.uniform(-0.14, 0.14, 2)
        gap = np.linalg.norm(np.maximum(np.abs(start - centers) - half, 0), axis=1).min()
        if 0.052 < gap < (0.06 if kind == "block" else np.inf):
            angle = rng.uniform(0, 2 * np.pi)
            away = start + 0.2 * np.array([np.cos(angle), np.sin(angle)])
            goal = centers[rng.integers(len(centers))] if kind == "block" else away
            break
    return start, goal


def _push(env, rng: np.random.Generator, kind: str, steps: int):
    model, data = env.model, env.data
    tip, puck = model.body("tips_arm").id, model.body("object").id
    boxes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)
    blocks = np.hstack([model.geom_pos[boxes, :2], model.geom_size[boxes, :2]])
    start, goal = _start(rng, blocks, kind)
    stiff, damping, noise = rng.uniform(12, 50), rng.uniform(0.4, 0.8), rng.uniform(0, 0.1)
    side, height = rng.uniform(-0.03, 0.03), rng.uniform(-0.29, -0.24)
    arrive, lead = rng.integers(15, 30), rng.uniform(0, 0.06)

    mujoco.mj_resetData(model, data)
    qpos, qvel = np.zeros(model.nq), np.zeros(model.nv)
    qpos[7:9], qvel[:7] = (start - HOME)[::-1], rng.uniform(-0.005, 0.005, 7)
    env.set_state(qpos, qvel)
    jacobian, arm, block = np.zeros((3, model.nv)), 0, 0
    path, actions, seen, rewards = [np.r_[data.qpos[:9], data.qvel[:9]]], [], [], []
    for t in range(steps):
        mujoco.mj_jacBody(model, data, jacobian, None, tip)
        here = data.xpos[puck, :2].copy()
        ahead = (goal - here) / (np.linalg.norm(goal - here) + 1e-9)
        reach = lead - (0.12 if t < arrive else 0.05)
        target = here + reach * ahead + side * np.array([-ahead[1], ahead[0]])
        pull = stiff * (np.append(target, height) - data.xpos[tip])
        torque = (jacobian.T @ pull - damping * data.qvel)[:7] + noise * rng.standard_normal(7)
        action = np.clip(torque, -2, 2).astype(np.float32)
        obs, reward, *_ = env.step(action)
        bodies = model.geom_bodyid[data.contact.geom[: data.ncon]]
        touched = bodies[(bodies == puck).any(1)].min(1, initial=puck)
        geoms = data.contact.geom[: data.ncon][(bodies == puck).any(1)]
        arm += int((touched > 0).sum())
        block += int(np.isin(geoms, boxes).any(1).sum())
        path.append(np.r_[data.qpos[:9], data.qvel[:9]])
        actions.append(action)
        seen.append(obs)
        rewards.append(reward)
    path = np.array(path)
    return path[:, :9], path[:, 9:], np.array(actions), np.array(seen), rewards, arm, block
