"""Pushes of Gymnasium's Pusher-v5, recorded and replayed in whichever MuJoCo is installed.

    python record_pushes.py record pusher_v5.xml pushes.npz [--count 360]
    python record_pushes.py replay pusher_v5.xml pushes.npz paths.npz [--change fields]
    python record_pushes.py random pusher_v5.xml ways.npz [--change fields]

Runs in an environment of its own that holds mujoco (2.3.7 for data/pusher_2_3_7.npz) and numpy
alone, so it imports nothing of entrob; `in_version` makes such an environment. pusher_v5.xml is
Gymnasium's model file; the paper's blocks are added to it. Lengths are in meters, angles in
radians, speeds per second.

Kinds of pushes, by number: 0 from the task's fixed start to its goal, 1 beside a block and at it,
2 anywhere and anywhere to, 3 a strike that lets the puck fly at a block, 4 a puck that flies at a
block from the beginning, the arm at rest.
"""

import argparse
import pathlib
import subprocess
import sys
import venv
import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np

#: What MuJoCo 2.3.7 recorded.
DATA = pathlib.Path(__file__).parent / "data" / "pusher_2_3_7.npz"

KINDS = ("task", "block", "free", "strike", "flight")
TASK, BLOCK, FREE, STRIKE, FLIGHT = range(5)
#: Steps of an episode, and timesteps of the model per step.
STEPS, FRAME_SKIP = 100, 5
#: Steps for which a random action is held.
HELD = 20
#: A push moves the puck farther than this.
LEAST_WAY = 0.05
#: Actions are multiples of 1 / ROUND, which 16 bits hold and float32 represents.
ROUND = 8192
#: Where the puck is when its slides are at 0, and where the task's start is.
HOME, START = np.array([0.45, -0.05]), np.array([0.65, -0.35])
#: The paper's blocks (x, y), half as wide, half as high, and the height of their centers.
BLOCKS = np.array([[0.52, -0.24], [0.55, -0.21], [0.58, -0.18]])
HALF_WIDTH, HALF_HEIGHT, HEIGHT = 0.015, 0.05, -0.275
RADIUS = 0.05
ARM = slice(7)
#: The puck's slides, y before x.
PUCK = slice(7, 9)
#: What may be changed: the two fields, these and everything else that is not as in 2.3.7, or
#: MuJoCo's own way to exact weights.
CHANGES = ("nothing", "fields", "all", "diagexact")
#: The puck's masses whose compiled fields are recorded, as multiples of the model's own.
MASSES = (1.0, 2.0, 1000.0, 5000.0, 20000.0)


def load(path: str, blocks: bool = True, mass: float = 1.0) -> mujoco.MjModel:
    """Compile Gymnasium's model with the blocks, and the puck `mass` times as heavy."""
    root = ElementTree.parse(path).getroot()
    world = root.find("worldbody")
    for i, (x, y) in enumerate(BLOCKS if blocks else ()):
        shape = {"type": "box", "size": f"{HALF_WIDTH} {HALF_WIDTH} {HALF_HEIGHT}"}
        meets = {"contype": "0", "conaffinity": "1", "condim": "1", "margin": "0.002"}
        place = {"name": f"block{i}", "pos": f"{x} {y} {HEIGHT}"}
        ElementTree.SubElement(world, "geom", {**place, **shape, **meets})
    geom = world.find("body[@name='object']/geom")
    geom.set("density", repr(float(geom.get("density")) * mass))
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))


def count_the_armature(model: mujoco.MjModel) -> None:
    """Give the puck and the goal the inverse weights that MuJoCo compiled until 2.3.7."""
    for name in ("object", "goal"):
        body = model.body(name).id
        dofs = np.flatnonzero(model.dof_bodyid == body)
        inertia = model.body_mass[body] + model.dof_armature[dofs[0]]
        # A translation's inverse inertia, averaged over three directions: slides allow two.
        model.body_invweight0[body] = 2 / 3 / inertia, 0
        model.dof_invweight0[dofs] = 1 / inertia


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[int, int]:
    """The number of contacts of the puck with the arm and with blocks."""
    puck = model.body("object").id
    geoms = np.array([(c.geom1, c.geom2) for c in list(data.contact)[: data.ncon]], int)
    bodies = model.geom_bodyid[geoms.reshape(-1, 2)]
    own = (bodies == puck).any(1)
    boxes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)
    block = own & np.isin(geoms.reshape(-1, 2), boxes).any(1)
    return int((own & (bodies > 0).all(1)).sum()), int(block.sum())


def begin(data: mujoco.MjData, model: mujoco.MjModel, qpos, qvel) -> None:
    """Reset to positions and velocities [9], the goal's at 0, as Gymnasium's ``set_state``."""
    mujoco.mj_resetData(model, data)
    data.qpos[:9], data.qvel[:9] = qpos, qvel
    mujoco.mj_forward(model, data)


def step(model: mujoco.MjModel, data: mujoco.MjData, action) -> tuple[int, int]:
    """One step of the environment; contacts of the puck with arm and blocks, over its timesteps."""
    data.ctrl[:] = action
    arm = block = 0
    for _ in range(FRAME_SKIP):
        mujoco.mj_step(model, data)
        touched = touching(model, data)
        arm, block = arm + touched[0], block + touched[1]
    return arm, block


def start_and_goal(rng: np.random.Generator, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the puck starts, clear of the blocks, and where it is to go: (x, y) each."""
    if kind == TASK:
        return START, HOME
    while True:
        start = HOME + rng.uniform([-0.2, -0.3], [0.2, 0.0])
        if kind != FREE:
            start = BLOCKS.mean(0) + rng.uniform(-0.25, 0.25, 2)
        beyond = np.maximum(np.abs(start - BLOCKS) - HALF_WIDTH, 0)
        gap = np.linalg.norm(beyond, axis=1).min() - RADIUS
        nearest, farthest = {
            BLOCK: (0.002, 0.01),
            FREE: (0.002, np.inf),
            STRIKE: (0.03, 0.08),
            FLIGHT: (0.01, 0.08),
        }[kind]
        if nearest < gap < farthest:
            break
    angle = rng.uniform(0, 2 * np.pi)
    goal = start + 0.2 * np.array([np.cos(angle), np.sin(angle)])
    if kind != FREE:
        goal = BLOCKS[rng.integers(len(BLOCKS))]
    return start, goal


def push(model: mujoco.MjModel, rng: np.random.Generator, kind: int):
    """One closed-loop push: the fingers are drawn behind the puck, then through it, with noise.

    Returns:
      qpos [STEPS + 1, 9], the first qvel [9], actions [STEPS, 7], and contacts of the puck with arm
      and blocks [STEPS, 2].
    """
    data = mujoco.MjData(model)
    tip, puck = model.body("tips_arm").id, model.body("object").id
    start, goal = start_and_goal(rng, kind)
    qpos, qvel = np.zeros(9), np.zeros(9)
    qpos[PUCK], qvel[ARM] = (start - HOME)[::-1], rng.uniform(-0.005, 0.005, 7)
    way = (goal - start) / np.linalg.norm(goal - start)
    if kind == FLIGHT:
        qvel[ARM], qvel[PUCK] = 0, rng.uniform(0.8, 2.0) * way[::-1]
    stiff, damping, noise = rng.uniform(12, 50), rng.uniform(0.4, 0.8), rng.uniform(0, 0.1)
    side, height = rng.uniform(-0.03, 0.03), rng.uniform(-0.29, -0.24)
    arrive, lead = rng.integers(15, 30), rng.uniform(0, 0.06)
    if kind == STRIKE:
        stiff, lead, arrive = rng.uniform(40, 80), rng.uniform(0.05, 0.1), rng.integers(25, 35)
    begin(data, model, qpos, qvel)
    jacobian = np.zeros((3, model.nv))
    path, actions, contacts = [data.qpos[:9].copy()], [], []
    struck = False
    for t in range(STEPS):
        mujoco.mj_jacBody(model, data, jacobian, None, tip)
        here = data.xpos[puck, :2].copy()
        ahead = (goal - here) / (np.linalg.norm(goal - here) + 1e-9)
        # After a strike the fingers draw back, and leave the puck to itself.
        reach = lead - (0.12 if t < arrive or struck else 0.05)
        target = here + reach * ahead + side * np.array([-ahead[1], ahead[0]])
        pull = stiff * (np.append(target, height) - data.xpos[tip])
        torque = (jacobian.T @ pull - damping * data.qvel)[ARM] + noise * rng.standard_normal(7)
        action = np.round(np.clip(torque, -2, 2) * ROUND) / ROUND * (kind != FLIGHT)
        arm, block = step(model, data, action)
        struck |= kind == STRIKE and t >= arrive and arm > 0
        path.append(data.qpos[:9].copy())
        actions.append(action)
        contacts.append((arm, block))
    return np.array(path), qvel, np.array(actions), np.array(contacts)


def farthest(puck: np.ndarray) -> np.ndarray:
    """The farthest that pucks [..., T, 2] are from where they begin."""
    return np.linalg.norm(puck - puck[..., :1, :], axis=-1).max(-1)


def record(path: str, count: int, seed: int) -> dict[str, np.ndarray]:
    """Pushes of more than `LEAST_WAY`, a fifth of each kind; those at blocks meet one."""
    model, rng = load(path), np.random.default_rng(seed)
    kept = []
    for kind in np.arange(count) % len(KINDS):
        while True:
            qpos, qvel, actions, contacts = push(model, rng, kind)
            meets = contacts[:, 1].any() or kind in (TASK, FREE)
            if farthest(qpos[:, PUCK]) > LEAST_WAY and meets:
                break
        kept.append((kind, qpos, qvel, actions, contacts))
    kind, qpos, qvel, actions, contacts = (np.array(x) for x in zip(*kept))
    return {
        "kind": kind.astype(np.uint8),
        "qpos": qpos[:, 0],
        "qvel": qvel,
        "actions": np.round(actions * ROUND).astype(np.int16),
        "puck": qpos[..., PUCK].astype(np.float32),
        "arm": qpos[:, -1, ARM].astype(np.float32),
        "contacts": contacts.astype(np.uint8),
    }


def replay(model: mujoco.MjModel, pushes, moved: float = 0.0, seed: int = 0) -> np.ndarray:
    """Where the puck is under recorded actions: float[n, STEPS + 1, 2], y before x.

    Args:
      model: of whichever version.
      pushes: what `record` gives.
      moved: standard deviation of what is added to every joint's position at the beginning.
      seed: of that.
    """
    rng, data, paths = np.random.default_rng(seed), mujoco.MjData(model), []
    for qpos, qvel, actions in zip(pushes["qpos"], pushes["qvel"], pushes["actions"] / ROUND):
        begin(data, model, qpos + moved * rng.standard_normal(9), qvel)
        path = [data.qpos[PUCK].copy()]
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, FRAME_SKIP)
            path.append(data.qpos[PUCK].copy())
        paths.append(path)
    return np.array(paths)


def random_ways(model: mujoco.MjModel, count: int, seed: int) -> np.ndarray:
    """The puck's farthest way under random actions from the task's start: float[count].

    They are uniform, and each is held for `HELD` steps, as otherwise the arm hardly moves.
    """
    rng, data, ways = np.random.default_rng(seed), mujoco.MjData(model), []
    qpos = np.zeros(9)
    qpos[PUCK] = (START - HOME)[::-1]
    for _ in range(count):
        begin(data, model, qpos, np.zeros(9))
        path = [data.qpos[PUCK].copy()]
        for action in np.repeat(rng.uniform(-2, 2, (STEPS // HELD, 7)), HELD, axis=0):
            data.ctrl[:] = action
            mujoco.mj_step(model, data, FRAME_SKIP)
            path.append(data.qpos[PUCK].copy())
        ways.append(farthest(np.array(path)))
    return np.array(ways)


def compiled(path: str) -> dict[str, np.ndarray]:
    """Masses of pucks and their inverse weights, as compiled: float[len(MASSES)] each."""
    rows = []
    for mass in MASSES:
        model = load(path, mass=mass)
        body, dof = model.body("object").id, model.joint("obj_slidey").dofadr[0]
        inverse = model.body_invweight0[body, 0], model.dof_invweight0[dof]
        rows.append((model.body_mass[body], *inverse))
    mass, body, dof = np.array(rows).T
    return {"puck_mass": mass, "body_invweight0": body, "dof_invweight0": dof}


def change(model: mujoco.MjModel, what: str) -> None:
    """Change a compiled model in one of the ways in `CHANGES`."""
    if what == "diagexact":
        model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_DIAGEXACT)
    if what in ("fields", "all"):
        count_the_armature(model)
    if what == "all":
        # Margins add up since 3.5, and these flags, where they exist, are for what came later.
        if tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 5):
            model.geom_margin[:] /= 2
        for flag in ("mjDSBL_MULTICCD", "mjDSBL_NATIVECCD"):
            model.opt.disableflags |= int(getattr(mujoco.mjtDisableBit, flag, 0))


def in_version(version: str, folder: pathlib.Path, *arguments: str) -> None:
    """Run this file under a version of MuJoCo, in an environment that is made in the folder.

    Raises:
      RuntimeError: pip cannot install that version, and why.
    """
    place = folder / version
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", f"mujoco=={version}", "numpy"]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            python.unlink()
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise RuntimeError(f"pip cannot install mujoco=={version}: {lines[-1]}")
    subprocess.run([python, __file__, *arguments], check=True, stdout=sys.stderr)


def main() -> None:
    """Write what the command asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["record", "replay", "random"])
    parser.add_argument("model", help="Gymnasium's pusher_v5.xml")
    parser.add_argument("files", nargs="+", help="the output; before it, for replay, the pushes")
    parser.add_argument("--count", type=int, default=400, help="how many, of record and random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moved", type=float, default=0.0, help="noise on starts, of replay")
    parser.add_argument("--change", choices=CHANGES, default="nothing", help="of the model")
    options = parser.parse_args()
    found = {"version": np.array(mujoco.__version__)}
    if options.command == "record":
        found |= record(options.model, options.count, options.seed) | compiled(options.model)
    else:
        model = load(options.model, blocks=options.command == "replay")
        change(model, options.change)
        if options.command == "replay":
            pushes = np.load(options.files[0])
            found["puck"] = replay(model, pushes, options.moved, options.seed)
        else:
            found["way"] = random_ways(model, options.count, options.seed)
    np.savez_compressed(options.files[-1], **found)


if __name__ == "__main__":
    main()
