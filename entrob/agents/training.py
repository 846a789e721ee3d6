"""Runs of one agent side by side: compiled, and spread over the devices."""

import contextlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from entrob.agents.actor_critic import Agent
from entrob.agents.spec import Hyper
from entrob.compiling import for_once, sharded
from entrob.errors import BrokenMethod, EntrobError


class Swept(NamedTuple):
    """What differs between the runs of a batch besides their seeds; leaves [width, ...].

    Attributes:
      hyper: `Hyper`.
      weights: float32[width, C], those of a mixture's C perturbations, or ().
    """

    hyper: Hyper
    weights: jax.Array | np.ndarray | tuple[()]


class Trainer(NamedTuple):
    """Compiled functions for batches of one width.

    Attributes:
      width: runs side by side.
      init: ``(seeds, swept, env_params) -> state``.
      chunk: ``(state, swept, env_params) -> (state, curves)``.
      curves: names of the curves.
      bytes: device memory that a chunk takes.
      compile_s: seconds that compiling took.
    """

    width: int
    init: jax.stages.Compiled
    chunk: Callable
    curves: tuple[str, ...]
    bytes: int
    compile_s: float


def compile_trainer(
    agent: Agent, env_params: Any, seeds: jax.Array | np.ndarray, swept: Swept, updates: int
) -> Trainer:
    """Compile what trains runs of an agent side by side.

    Args:
      agent: its pure functions.
      env_params: the nominal params it trains on.
      seeds: uint32[width], a multiple of the number of devices.
      swept: what differs between the runs besides their seeds; leaves [width, ...].
      updates: of a chunk.

    Raises:
      BrokenMethod: a regularizer, or another piece of a user's code, does not trace.
    """
    start = time.perf_counter()

    def init(seeds, swept, env_params):
        one = lambda key, own: agent.init(key, own.hyper, _mixed(env_params, own.weights))
        return jax.vmap(one)(jax.vmap(jax.random.PRNGKey)(seeds), swept)

    def chunk(state, swept, env_params, finite):
        def one(state, own):
            mixed = _mixed(env_params, own.weights)
            return agent.train_chunk(state, own.hyper, mixed, updates, finite)

        return jax.vmap(one)(state, swept)

    with _user_code():
        finite = agent.tables(env_params)
        begun = sharded(init, (True, True, False), for_once()).lower(seeds, swept, env_params)
        over = (True, True, False, False)
        lowered = sharded(chunk, over).lower(begun.out_info, swept, env_params, finite)
    begin, compiled = begun.compile(), lowered.compile()
    train = lambda state, swept, env_params: compiled(state, swept, env_params, finite)
    memory: Any = compiled.memory_analysis()
    size = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    curves = tuple(lowered.out_info[1])
    return Trainer(len(seeds), begin, train, curves, size, time.perf_counter() - start)


def _mixed(env_params: Any, weights: jax.Array | np.ndarray | tuple[()]) -> Any:
    """The params with one run's weights float32[C] of the mixture, if they have one."""
    if isinstance(weights, tuple):
        return env_params
    mixture = env_params.randomization.replace(weight=weights)
    return env_params.replace(randomization=mixture)


@contextlib.contextmanager
def _user_code():
    """Report what goes wrong while a user's code is traced as one line: `BrokenMethod`."""
    try:
        yield
    except EntrobError as error:
        raise BrokenMethod(str(error)) from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.name} ({Path(last.filename).name}:{last.lineno})"
        text = (str(error).strip().splitlines() or [""])[0]
        raise BrokenMethod(
            f"user code does not trace: {type(error).__name__} in {where}: {text}"
        ) from error
