"""Physics in turn: steps/s of one of our MuJoCo tasks beside Gymnasium's, EnvPool's and brax's.

What pusher.py and ant.py share. The JAX environments run as ``lax.scan`` of ``vmap(step)`` with
auto-reset on actions drawn beforehand, Gymnasium's in its own vector environments, EnvPool's with a
thread per core: in step (*sync*) or whichever half is done first (*async*). Contenders are timed in
turn, round after round; medians are shown.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from entrob.compiling import compiler_options
from entrob.envs import make

# Steps per timed call: enough to time, few enough to take turns often.
CALL_STEPS, GYMNASIUM_STEPS = 3200, 1000
# More copies than these take minutes to create, and are no faster.
MOST_SYNC, MOST_ASYNC, MOST_POOL = 256, 32, 1024
BACKENDS = ("generalized", "spring", "positional", "mjx")
OPTIONS = compiler_options()
FOLDED = "entrob, one shard per core"
PACKAGES = ["jax", "mujoco", "mujoco-mjx", "brax", "gymnasium", "envpool", "gymnax", "numpy"]


class Task(NamedTuple):
    """One task under the names that contenders have for it.

    Attributes:
      ours: id in entrob.
      params: those of its params that differ from the defaults.
      gymnasium: id in Gymnasium and EnvPool.
      brax: name in brax.
      episode: steps after which brax's starts anew.
    """

    ours: str
    params: dict
    gymnasium: str
    brax: str
    episode: int


def scanned(reset: Callable, step: Callable, actions: int, copies: int, calls: int):
    """A JAX environment's timed call, its number of steps, and seconds to compile.

    Args:
      reset: ``key -> state``.
      step: ``(key, state, action) -> state``, with auto-reset.
      actions: numbers per action, from -1 to 1.
      copies: environments side by side, over all devices.
      calls: steps per timed call.
    """
    steps = max(2, calls // copies)
    key = jax.random.PRNGKey(0)
    actions = jax.random.uniform(key, (steps, copies, actions), minval=-1, maxval=1)
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


def ours(task: Task) -> Callable:
    """Ours."""

    def prepare(copies: int, calls: int):
        env, params = make(task.ours)
        params = params.replace(**task.params)
        return scanned(
            lambda key: env.reset(key, params)[1],
            lambda key, state, action: env.step(key, state, action, params)[1],
            env.num_actions,
            copies,
            calls,
        )

    return prepare


def brax(task: Task, backend: str) -> Callable:
    """brax's own, auto-reset after an episode as in its training."""
    warnings.filterwarnings("ignore")
    envs = importlib.import_module("brax.envs")

    def prepare(copies: int, calls: int):
        env = envs.get_environment(task.brax, backend=backend)
        env = envs.training.EpisodeWrapper(env, episode_length=task.episode, action_repeat=1)
        env = envs.training.AutoResetWrapper(env)
        step = lambda key, state, action: env.step(state, action)
        return scanned(env.reset, step, env.action_size, copies, calls)

    return prepare


def gymnasium(task: Task, kind: str) -> Callable:
    """Gymnasium's in its sync or async vector environment."""
    package = importlib.import_module("gymnasium")
    importlib.import_module("mujoco")
    most = {"sync": MOST_SYNC, "async": MOST_ASYNC}[kind]

    def prepare(copies: int, calls: int):
        if copies > most:
            return None
        envs = package.make_vec(task.gymnasium, copies, vectorization_mode=kind)
        envs.reset(seed=0)
        steps = max(5, min(calls, GYMNASIUM_STEPS) // copies)
        actions = drawn(steps, envs.action_space).astype(np.float32)

        def call():
            for action in actions:
                envs.step(action)

        return call, steps * copies, 0.0

    return prepare


def envpool(task: Task, kind: str) -> Callable:
    """EnvPool's, with a thread per core: all copies in step, or the half that is done first."""
    package = importlib.import_module("envpool")

    def prepare(copies: int, calls: int):
        batch = copies if kind == "sync" else copies // 2
        if copies > MOST_POOL or not batch:
            return None
        envs = package.make_gymnasium(
            task.gymnasium,
            num_envs=copies,
            batch_size=batch,
            num_threads=min(os.cpu_count(), copies),
            seed=0,
        )
        envs.async_reset()
        steps = max(5, calls // batch)
        actions = drawn(steps, envs.action_space, batch)

        def call():
            for action in actions:
                envs.send(action, envs.recv()[-1]["env_id"])

        return call, steps * batch, 0.0

    return prepare


def drawn(steps: int, space, *batch: int) -> np.ndarray:
    """So many random actions of a space: float64[steps, *batch, ...]."""
    shape = (steps, *batch, *space.shape)
    return np.random.default_rng(0).uniform(space.low, space.high, shape)


def contest(task: Task, copies: int, rounds: int, calls: int, only: str | None) -> dict:
    """Steps/s and seconds to compile of each contender at one number of copies."""
    ready = {}
    contenders = {
        "entrob": lambda: ours(task),
        **{f"brax, {b}": lambda b=b: brax(task, b) for b in BACKENDS},
        **{f"Gymnasium, {k}": lambda k=k: gymnasium(task, k) for k in ("sync", "async")},
        **{f"EnvPool, {k}": lambda k=k: envpool(task, k) for k in ("sync", "async")},
    }
    for name, load in contenders.items():
        if only and name != only:
            continue
        try:
            prepared = load()(copies, calls)
        except ImportError as error:
            print(f"{name}: not installed ({error})", file=sys.stderr)
            continue
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
        command = [sys.executable, sys.argv[0], "--only", "entrob", "--copies", str(copies)]
        command += ["--rounds", str(options.rounds), "--calls", str(options.calls)]
        subprocess.run(
            [*command, "--out", file.name],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rows = json.load(file)["rows"]
    return {FOLDED: rows["entrob"][str(copies)]} if rows else {}


def rates(task: Task, options: argparse.Namespace) -> dict:
    """The table of speeds; returns {contender: {copies: {steps_per_s, compile_s}}}."""
    sizes = [int(n) for n in options.copies.split(",")]
    rows = {}
    for n in sizes:
        found = contest(task, n, options.rounds, options.calls, options.only)
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


def arguments(doc: str, copies: str) -> argparse.ArgumentParser:
    """The arguments of all."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--copies", default=copies)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=CALL_STEPS, help="steps per timed call")
    parser.add_argument("--only", help="one contender")
    parser.add_argument("--out")
    return parser


def save(out: str | None, part: str, rows: dict) -> None:
    """Add a table and what it was measured on to a JSON file, if there is to be one."""
    if not out:
        return
    facts = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    report = {}
    with contextlib.suppress(OSError, ValueError), open(out) as file:
        report = json.load(file)
    report |= {"machine": facts, part: rows}
    with open(out, "w") as file:
        json.dump(report, file, indent=1)
