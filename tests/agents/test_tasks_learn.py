"""`none` learns every task of the board, with the board's own settings and frames.

Slow: a task takes minutes of two idle cores. MinAtar's two, which take longest, are only seen to
begin: random play earns 0.5 in Asterix and 4 in SpaceInvaders.
"""

import dataclasses

import jax
import numpy as np
import pytest

from entrob.suite.declaration import load
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.groups import RunBatch, group_methods, runs_of
from entrob.sweep.program import compiled, hypers, program

SEEDS, SOLVED = 10, 9
#: The preset whose frames are asked for.
PRESET = "standard"
#: Task -> what is measured over the last tenth of training, and from where on it is learned.
LEARNED = {
    "empty": ("success", 0.9),
    "two_paths": ("success", 0.9),
    "lava_crossing": ("success", 0.9),
    "four_rooms": ("success", 0.9),
    "cartpole": ("return", 450),
    "acrobot": ("return", -110),
    "mountain_car": ("success", 0.9),
    "pendulum": ("return", -250),
    "point_robot": ("success", 0.9),
}


def scores(experiment: Experiment, method: Method, what: str) -> np.ndarray:
    """Mean success or return over the last tenth of training, by seed."""
    (group,) = group_methods((method,))
    prog = program(experiment, group)
    batch = RunBatch("", group, runs_of(experiment, method))
    trainer = compiled(experiment, prog, batch)
    seeds, hyper = hypers(experiment, batch, trainer.width)
    state, chunks = trainer.init(seeds, hyper, prog.env_params), []
    for _ in range(experiment.chunks):
        state, curves = trainer.chunk(state, hyper, prog.env_params)
        chunks.append(jax.tree.map(np.asarray, curves))
    last = max(1, experiment.updates // 10)
    total, episodes = (
        np.concatenate([chunk[name] for chunk in chunks], 1)[: experiment.seeds, -last:].sum(1)
        for name in (f"{what}_sum", "episodes")
    )
    return total / episodes


@pytest.mark.slow
@pytest.mark.parametrize("task", LEARNED)
def test_none_learns_what_the_board_ranks(task):
    experiment = load("leaderboard", PRESET).tasks[task].experiment
    experiment = dataclasses.replace(experiment, seeds=SEEDS)
    what, least = LEARNED[task]
    found = scores(experiment, Method("none", params=experiment.methods[0].params), what)
    assert (found >= least).sum() >= SOLVED, found


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("asterix", 0.9), ("space_invaders", 20)])
def test_minatar_begins_to_be_learned(task, least):
    experiment = load("leaderboard", "paper").tasks[task].experiment
    experiment = dataclasses.replace(experiment, seeds=2, frames=500_000)
    method = Method("policy_entropy", {"policy_entropy": 0.01})
    assert (scores(experiment, method, "return") >= least).all()
