"""Pusher's speed: steps/s of `mujoco/pusher` against brax's, Gymnasium's and EnvPool's, in one run.

    python benchmarks/speed/pusher.py [--copies 1,32,256,1024,4096] [--out pusher.json]
    python benchmarks/speed/pusher.py --shapes     # the puck's collision shape: accuracy and speed
    python benchmarks/speed/pusher.py --solver     # solver iterations: accuracy and speed

How they take turns: contest.py. brax's "pusher" has other contacts and, but for `mjx`, other
physics. Accuracy is against MuJoCo 2.3.7: Gymnasium's Pusher-v5 with the paper's blocks, over the
400 pushes in tests/conformance/data, all with the inverse weights that count the armature.
"""

import importlib
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from contest import OPTIONS, Task, arguments, rates, save

RECORDED = pathlib.Path(__file__).parents[2] / "tests/conformance/data/pusher_2_3_7.npz"
# Recorded actions are multiples of 1 / ROUND.
ROUND = 8192
# With Gymnasium's random start.
TASK = Task("mujoco/pusher", {"fixed_start": jnp.bool_(False)}, "Pusher-v5", "pusher", 100)


def replayed(prepare: Callable, pushes: dict, copies: int = 40) -> dict:
    """How far recorded pucks end from where MuJoCo 2.3.7 has them, and how fast.

    Args:
      prepare: ``-> (roll, extra)``; ``roll(extra, qpos, qvel, actions) -> qpos[T, n]`` of one
        episode.
      pushes: the recorded ones, a multiple of `copies`.
      copies: how many side by side.
    """
    roll, extra = prepare()
    inputs = pushes["qpos"], pushes["qvel"], pushes["actions"] / ROUND
    inputs = [jnp.asarray(x, jnp.float32) for x in inputs]
    batched = jax.jit(jax.vmap(roll, (None, 0, 0, 0)))
    begun = time.perf_counter()
    few = [x[:copies] for x in inputs]
    program = batched.lower(extra, *few).compile(compiler_options=OPTIONS)
    compiled = time.perf_counter() - begun
    ends, taken = [], []
    for i in range(0, len(pushes["qpos"]), copies):
        begun = time.perf_counter()
        qpos = np.asarray(program(extra, *(x[i : i + copies] for x in inputs)))
        taken.append(time.perf_counter() - begun)
        ends.append(qpos[:, -1, 7:9])
    error = np.linalg.norm(np.concatenate(ends) - pushes["puck"][:, -1], axis=1)
    # A solver that does not converge may leave no number, which is nowhere near.
    error = np.nan_to_num(error, nan=np.inf)
    block = pushes["contacts"][..., 1].any(1)
    quantiles = np.quantile(error, (0.5, 0.9, 0.95, 1.0), method="lower")
    return {
        "episodes": len(error),
        "within_5_mm": float(np.mean(error < 0.005)),
        "error_mm": dict(zip((0.5, 0.9, 0.95, 1.0), (float(1e3 * q) for q in quantiles))),
        "block_within_5_mm": float(np.mean(error[block] < 0.005)),
        "steps_per_s": copies * inputs[2].shape[1] / statistics.median(taken),
        "compile_s": compiled,
    }


def chain(iterations: int = 4, closed: bool = False) -> Callable:
    """Our environment; `closed` has the cylinder's contacts in closed form, as for mujoco3."""
    from entrob.envs.mujoco.pusher import environment as task

    def prepare():
        two, three = (task.CONTACTS[name] for name in ("mujoco2", "mujoco3"))
        shapes = three if closed else two
        mixed = two._replace(finger_puck=shapes.finger_puck, block_puck=shapes.block_puck)
        task.CONTACTS["benchmark"] = mixed
        env = task.Pusher(contacts="benchmark", iterations=iterations)
        params = env.default_params.replace(block_on=jnp.float32(1))

        def roll(params, qpos, qvel, actions):
            _, state = env.reset_env(jax.random.key(0), params)

            def step(state, action):
                state = env.step_env(jax.random.key(0), state, action, params)[1]
                return state, state.qpos

            return jax.lax.scan(step, state.replace(qpos=qpos, qvel=qvel), actions)[1]

        return roll, params

    return prepare


def mjx(edits=(), iterations: int = 20, ls_iterations: int = 50) -> Callable:
    """MJX as it is, on our model with some text replaced and the inverse weights of 2.3.7."""

    def prepare():
        mujoco, mjx = importlib.import_module("mujoco"), importlib.import_module("mujoco.mjx")
        from entrob.envs.mujoco import physics
        from entrob.envs.mujoco.pusher import reference

        text = (physics.resources() / "pusher.xml").read_text()
        for old, new in edits:
            if old not in text:
                raise ValueError(f"the model has no {old!r}")
            text = text.replace(old, new)
        host = mujoco.MjModel.from_xml_string(text)
        flags = host.opt.disableflags
        reference.stiffen(host)
        host.opt.disableflags = flags  # those that MJX does not know
        host.opt.iterations, host.opt.ls_iterations = iterations, ls_iterations
        model, empty = mjx.put_model(host), mjx.make_data(host)

        def roll(model, qpos, qvel, actions):
            def step(data, action):
                data = jax.lax.fori_loop(
                    0, 5, lambda _, d: mjx.step(model, d), data.replace(ctrl=action)
                )
                return data, data.qpos

            return jax.lax.scan(step, empty.replace(qpos=qpos, qvel=qvel), actions)[1]

        return roll, model

    return prepare


CYLINDER = 'type="cylinder" size="0.05 0.05" density="0.01" contype="0" conaffinity="2"/>'
BALL = '<geom name="puck_ball" type="sphere" size="0.05" mass="0" contype="4" conaffinity="0"/>'
SEEN = CYLINDER.replace(' conaffinity="2"', ' conaffinity="0"')
SHAPES = {
    "2.3.7's contacts of cylinder and box (ours)": chain(),
    "closed form: cylinder and box": chain(closed=True),
    "MJX: cylinder, a sphere for blocks": mjx(),
    "MJX: sphere": mjx([(CYLINDER, SEEN), (BALL, BALL.replace('"0"/>', '"2"/>'))]),
    "MJX: cylinder, capsule posts": mjx(
        [
            ('<geom type="box" size="0.015 0.015 0.05"', '<geom type="capsule" size="0.0169 0.05"'),
            (CYLINDER, CYLINDER.replace('contype="0"', 'contype="4"')),
            (BALL, ""),
        ]
    ),
}
SOLVERS = {
    **{f"ours, {i} Newton steps": chain(i) for i in (2, 3, 4, 6, 8)},
    **{f"MJX, {i} and {ls}": mjx((), i, ls) for i, ls in ((1, 4), (2, 4), (4, 8), (20, 50))},
}


def accuracy(variants: dict, episodes: int) -> dict:
    """The table of accuracies; returns {variant: what `replayed` measures}."""
    with np.load(RECORDED) as file:
        pushes = {name: file[name] for name in ("qpos", "qvel", "actions", "puck", "contacts")}
    pushes = {name: x[:episodes] for name, x in pushes.items()}
    print(
        "| variant | episodes | within 5 mm | behind blocks | 50 % (mm) | 90 % | 95 % | 100 % |",
        end="",
    )
    print(" steps/s at 40 | compile (s) |")
    print("|---|" + "---:|" * 9)
    rows = {}
    for name, prepare in variants.items():
        rows[name] = row = replayed(prepare, pushes)
        cells = [
            f"{row['episodes']}",
            f"{row['within_5_mm']:.1%}",
            f"{row['block_within_5_mm']:.1%}",
        ]
        cells += [f"{x:.2f}" for x in row["error_mm"].values()]
        cells += [f"{row['steps_per_s']:,.0f}", f"{row['compile_s']:.1f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return rows


def main() -> None:
    """Print a table; add it to the JSON that ``--out`` names."""
    parser = arguments(__doc__, "1,32,256,1024,4096")
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--solver", action="store_true")
    parser.add_argument("--quick", action="store_true", help="32 copies, short calls, 80 pushes")
    options = parser.parse_args()
    if options.quick:
        options.copies, options.rounds, options.calls = "32", 2, 640
    episodes = 80 if options.quick else 400

    if options.shapes:
        save(options.out, "shapes", accuracy(SHAPES, episodes))
    elif options.solver:
        save(options.out, "solver", accuracy(SOLVERS, episodes))
    else:
        save(options.out, "rows", rates(TASK, options))


if __name__ == "__main__":
    main()
