"""Pusher's speed: steps/s of `mujoco/pusher` against brax's and Gymnasium's, in one run.

    python benchmarks/speed/pusher.py [--copies 1,32,256,1024,4096] [--out pusher.json]
    python benchmarks/speed/pusher.py --shapes     # the puck's collision shape: accuracy and speed
    python benchmarks/speed/pusher.py --solver     # solver iterations: accuracy and speed

The JAX environments run as ``lax.scan`` of ``vmap(step)`` with auto-reset on actions drawn
beforehand, Gymnasium's in its own vector environments. Contenders are timed in turn, round after
round; medians are shown. brax's "pusher" has other contacts and, but for `mjx`, other physics.
Accuracy is against MuJoCo 2.3.7: Gymnasium's Pusher-v5 with the paper's blocks, over the 400 pushes
in tests/conformance/data, all with the inverse weights that count the armature.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from entrob.compiling import compiler_options
from entrob.envs import make

# Steps per timed call: enough to time, few enough to take turns often.
CALL_STEPS, GYMNASIUM_STEPS = 3200, 1000
# More copies than these take minutes to create, and are no faster.
MOST_SYNC, MOST_ASYNC = 256, 32
BACKENDS = ("generalized", "spring", "positional", "mjx")
OPTIONS = compiler_options()
RECORDED = pathlib.Path(__file__).parents[2] / "tests/conformance/data/pusher_2_3_7.npz"
# Recorded actions are multiples of 1 / ROUND.
ROUND = 8192
FOLDED = "entrob, one shard per core"


def scanned(reset: Callable, step: Callable, copies: int, calls: int):
    """A JAX environment's timed call, its number of steps, and seconds to compile.

    Args:
      reset: ``key -> state``.
      step: ``(key, state, action) -> state``, with auto-reset.
      copies: environments side by side, over all devices.
      calls: steps per timed call.
    """
    steps = max(2, calls // copies)
    key = jax.random.PRNGKey(0)
    actions = jax.random.uniform(key, (steps, copies, 7), minval=-1, maxval=1)
    shard = copies // jax.device_count()

    def run(state, actions):
        def body(state, action):
            keys = jax.random.split(key, action.shape[0])
            return jax.vmap(step)(keys, state, action), None

        return jax.lax.scan(body, state, actions)[0]

    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), ("copies",), axis_types=auto)
    spec = jax.sharding.PartitionSpec
    if jax.device_count() > 1 and shard:
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(spec("copies"), spec(None, "copies")),
            out_specs=spec("copies"),
            check_vma=False,
        )
    keys = jax.random.split(key, copies)
    state = jax.jit(jax.vmap(reset), compiler_options=OPTIONS)(keys)
    begun = time.perf_counter()
    program = jax.jit(run).lower(state, actions).compile(compiler_options=OPTIONS)
    compiled = time.perf_counter() - begun
    return lambda: jax.block_until_ready(program(state, actions)), steps * copies, compiled


def ours(copies: int, calls: int):
    """`mujoco/pusher` with Gymnasium's random start."""
    env, params = make("mujoco/pusher")
    params = params.replace(fixed_start=jnp.bool_(False))
    return scanned(
        lambda key: env.reset(key, params)[1],
        lambda key, state, action: env.step(key, state, action, params)[1],
        copies,
        calls,
    )


def brax(backend: str) -> Callable:
    """brax's own pusher, auto-reset after 100 steps as in its training."""
    warnings.filterwarnings("ignore")
    envs = importlib.import_module("brax.envs")

    def prepare(copies: int, calls: int):
        env = envs.get_environment("pusher", backend=backend)
        env = envs.training.EpisodeWrapper(env, episode_length=100, action_repeat=1)
        env = envs.training.AutoResetWrapper(env)
        return scanned(env.reset, lambda key, state, action: env.step(state, action), copies, calls)

    return prepare


def gymnasium(kind: str) -> Callable:
    """Gymnasium's Pusher-v5 in its sync or async vector environment."""
    package = importlib.import_module("gymnasium")
    importlib.import_module("mujoco")
    most = {"sync": MOST_SYNC, "async": MOST_ASYNC}[kind]

    def prepare(copies: int, calls: int):
        if copies > most:
            return None
        envs = package.make_vec("Pusher-v5", copies, vectorization_mode=kind)
        envs.reset(seed=0)
        steps = max(5, min(calls, GYMNASIUM_STEPS) // copies)
        shape = (steps, copies, 7)
        actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

        def call():
            for action in actions:
                envs.step(action)

        return call, steps * copies, 0.0

    return prepare


def contest(copies: int, rounds: int, calls: int, only: str | None) -> dict:
    """Steps/s and seconds to compile of each contender at one number of copies."""
    ready = {}
    contenders = {
        "entrob": lambda: ours,
        **{f"brax, {b}": lambda b=b: brax(b) for b in BACKENDS},
        **{f"Gymnasium, {k}": lambda k=k: gymnasium(k) for k in ("sync", "async")},
    }
    for name, load in contenders.items():
        if only and name != only:
            continue
        try:
            prepared = load()(copies, calls)
        except Exception as error:  # a backend that does not run is a result, too
            print(f"{name} at {copies}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        if prepared:
            ready[name] = prepared
            prepared[0]()
    taken = {name: [] for name in ready}
    for _ in range(rounds):
        for name, (call, _, _) in ready.items():
            begun = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begun)
    return {
        name: {"steps_per_s": steps / statistics.median(taken[name]), "compile_s": compiled}
        for name, (_, steps, compiled) in ready.items()
    }


def folded(copies: int, options: argparse.Namespace) -> dict:
    """Ours in a process that takes every core for a device of its own."""
    flags = f"--xla_force_host_platform_device_count={os.cpu_count()}"
    if jax.default_backend() != "cpu" or copies % os.cpu_count():
        return {}
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, __file__, "--only", "entrob", "--copies", str(copies)]
        command += ["--rounds", str(options.rounds), "--calls", str(options.calls)]
        subprocess.run(
            [*command, "--out", file.name],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rows = json.load(file)["rows"]
    return {FOLDED: rows["entrob"][str(copies)]} if rows else {}


def rates(options: argparse.Namespace) -> dict:
    """The table of speeds; returns {contender: {copies: {steps_per_s, compile_s}}}."""
    sizes = [int(n) for n in options.copies.split(",")]
    rows = {}
    for n in sizes:
        found = contest(n, options.rounds, options.calls, options.only)
        if not options.only:
            found |= folded(n, options)
        for name, cell in found.items():
            rows.setdefault(name, {})[n] = cell
    print("| environment | " + " | ".join(f"steps/s at {n:,}" for n in sizes) + " | compile (s) |")
    print("|---|" + "---:|" * (len(sizes) + 1))
    for name, row in rows.items():
        cells = [f"{row[n]['steps_per_s']:,.0f}" if n in row else "–" for n in sizes]
        compiled = [cell["compile_s"] for cell in row.values() if cell["compile_s"]]
        cells.append(f"{min(compiled):.1f}–{max(compiled):.1f}" if compiled else "–")
        print(f"| {name} | " + " | ".join(cells) + " |")
    return rows


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


def cpu_model() -> str:
    """The processor's name, or the architecture where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if "model name" in line:
                return line.split(":", 1)[1].strip()
    return platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Print a table; add it to the JSON that ``--out`` names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", default="1,32,256,1024,4096")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=CALL_STEPS, help="steps per timed call")
    parser.add_argument("--only", help="one contender")
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--solver", action="store_true")
    parser.add_argument("--quick", action="store_true", help="32 copies, short calls, 80 pushes")
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.quick:
        options.copies, options.rounds, options.calls = "32", 2, 640
    episodes = 80 if options.quick else 400

    if options.shapes:
        part, rows = "shapes", accuracy(SHAPES, episodes)
    elif options.solver:
        part, rows = "solver", accuracy(SOLVERS, episodes)
    else:
        part, rows = "rows", rates(options)
    if options.out:
        packages = ["jax", "mujoco", "mujoco-mjx", "brax", "gymnasium", "gymnax", "numpy"]
        facts = {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in packages},
        }
        report = {}
        with contextlib.suppress(OSError, ValueError), open(options.out) as file:
            report = json.load(file)
        report |= {"machine": facts, part: rows}
        with open(options.out, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
