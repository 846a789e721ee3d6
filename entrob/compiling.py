"""Compiling for the devices there are: options, runs spread over them, how many fit."""

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import PartitionSpec

RUNS = PartitionSpec("runs")
#: Runs that a device which is not a CPU trains at least.
ABREAST = 16
P = ParamSpec("P")
T = TypeVar("T")


def in_32_bits(f: Callable[P, T]) -> Callable[P, T]:
    """The function with JAX in 32 bits, whatever the program around it computes in."""

    @functools.wraps(f)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(False):
            return f(*args, **kwargs)

    return wrapped


def mesh() -> jax.sharding.Mesh:
    """All devices in a row: runs are independent, so they shard without communication."""
    return jax.sharding.Mesh(np.array(jax.devices()), ("runs",))


def for_once() -> dict[str, Any]:
    """Options for a program that runs once, of which compiling takes the most time.

    Programs that begin runs are compiled in a quarter of the time, to the same bits.
    """
    # Who has turned optimization off altogether compiles quicker still.
    if jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations"):
        return {}
    return _known({"xla_backend_optimization_level": 1})


def everywhere() -> jax.sharding.NamedSharding:
    """How what all runs share is laid out for `sharded` functions: whole on every device."""
    return jax.sharding.NamedSharding(mesh(), PartitionSpec())


def compiler_options() -> dict[str, Any]:
    """Options for the devices there are, as far as this version of XLA has them.

    On a CPU two things that XLA does by default cost more than they gain: its fusion emitters make
    small matrix products slower and long kinematic chains very slow to compile; splitting
    operations among threads takes cores that other shards work on. On a GPU a run that is repeated
    or resumed has other bits if sums are taken by whoever comes first, or in the way that was
    fastest when the program was compiled.
    """
    options: dict[str, dict[str, Any]] = {
        "cpu": {
            "xla_cpu_use_fusion_emitters": False,
            "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
        },
        "gpu": {"xla_gpu_exclude_nondeterministic_ops": True, "xla_gpu_autotune_level": 0},
    }
    return _known(options.get(jax.default_backend(), {}))


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that this version of XLA has: they come and go."""
    return {name: value for name, value in options.items() if _accepted(name, value)}


@functools.cache
def _accepted(name: str, value: Any) -> bool:
    """Whether XLA compiles with an option."""
    nothing = jax.jit(lambda: 0, compiler_options={name: value}).lower()
    try:
        nothing.compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True


def sharded(
    f: Callable, over: tuple[bool, ...], options: dict[str, Any] | None = None
) -> jax.stages.Wrapped:
    """Jit `f` with its runs spread over the devices; `over` says which arguments have runs.

    Products are of 32 bits, which accelerators otherwise round to fewer.

    Args:
      f: a function of arrays.
      over: for each argument, whether it has an axis of runs.
      options: of the compiler besides `compiler_options`.
    """
    specs = tuple(RUNS if o else PartitionSpec() for o in over)

    @functools.wraps(f)
    def exact(*args):
        with jax.default_matmul_precision("float32"):
            return f(*args)

    mapped = jax.shard_map(exact, mesh=mesh(), in_specs=specs, out_specs=RUNS, check_vma=False)
    # Arguments are left where they are: XLA puts arrays of size 0 elsewhere than is said.
    return jax.jit(mapped, compiler_options={**compiler_options(), **(options or {})})


def memory_limit() -> int:
    """Bytes that one batch may take: half of the device's or of the machine's memory."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] * len(jax.devices()) // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def padded(runs: int) -> int:
    """The number of runs rounded up to a multiple of the number of devices.

    On accelerators to one of `ABREAST` for each: a few more runs take no longer there than fewer,
    and batches of several widths share a program, which takes some 20 s to compile.
    """
    multiple = len(jax.devices()) * (1 if jax.default_backend() == "cpu" else ABREAST)
    return -(-runs // multiple) * multiple
