"""A policy that was trained elsewhere, on a board: scored, priced and never ranked."""

import dataclasses

import jax
import pandas as pd
import pytest

from entrob import cli
from entrob.agents.actor_critic import make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.errors import EntrobError
from entrob.library import Policy, boards
from entrob.persistence.store import write_json
from entrob.statistics.board import COLUMNS, Board, read_board, weighted, write_board
from entrob.suite import declaration

ID = "minigrid/empty-8x8"


@pytest.fixture(scope="module")
def policies(cache):
    env, params = make(ID)
    agent = make_agent(Spec(env))
    init = jax.jit(lambda seed: agent.init(jax.random.PRNGKey(seed), Hyper(), params).policy)
    return [Policy(ID, init(seed), provenance={"seed": seed}) for seed in range(2)]


@pytest.fixture
def small(monkeypatch):
    """The leaderboard with few instances; loading it is what takes time."""
    suite = declaration.load("leaderboard", "smoke")
    tasks = {
        name: dataclasses.replace(
            task, experiment=dataclasses.replace(task.experiment, instances=4)
        )
        for name, task in suite.tasks.items()
    }
    small = dataclasses.replace(suite, tasks=tasks)
    monkeypatch.setattr(boards, "load", lambda *_: small)
    return small


@pytest.fixture
def board(small):
    (task,) = [name for name, t in small.tasks.items() if t.experiment.environment == ID]
    rows = []
    for seed in range(2):
        for name, m, score in (("nominal", 0.0, 1.0), ("wall_mirrored", 4.0, 0.2)):
            who = {"task": task, "method": "none", "seed": seed}
            rows.append({**who, "perturbation": name, "magnitude": m, "score": score, "price": 0.0})
    cell = {"task": task, "perturbation": "wall_mirrored", "magnitude": 4.0, "category": "routes"}
    cells = weighted(pd.DataFrame([{**cell, "none": 0.2, "nominal": 1.0, "reference": 1.0}]))
    empty = lambda name: pd.DataFrame(columns=COLUMNS[name])
    scale = {"measure": "success", "floor": 0.0, "top": 1.0, "none": 1.0}
    manifest = {
        "suite": "leaderboard", "preset": "smoke", "title": "T", "methods": {},
        "calibrated": True, "tasks": {task: {"scale": scale, "coefficients": {}}},
    }  # fmt: skip
    return Board(pd.DataFrame(rows), cells, empty("tuning"), empty("activity"), manifest)


def test_it_is_scored_beside_none_and_not_ranked(board, policies):
    found = boards.with_tested(board, policies, "mine")
    own = found.scores[found.scores.method == "mine"]
    assert len(own) == 4 and set(own.seed) == {0, 1}
    nominal = own[own.perturbation == "nominal"]
    assert nominal.score.between(0, 0.95).all()  # they are untrained
    assert nominal.price.tolist() == pytest.approx((1 - nominal.score).tolist())
    assert own[own.perturbation == "wall_mirrored"].price.isna().all()
    assert found.family("mine") == "tested only"
    assert found.manifest["tested"]["mine"] == [{"seed": 0}, {"seed": 1}]
    assert board.manifest["methods"] == {}  # the given one is as it was


def test_what_does_not_fit_is_one_line(board, policies):
    function = lambda key, carry, obs: (0, carry)
    with pytest.raises(EntrobError, match="has a method 'none' already"):
        boards.with_tested(board, policies, "none")
    with pytest.raises(EntrobError, match="no task of the board fits"):
        boards.with_tested(board, [function], "mine")
    with pytest.raises(EntrobError, match="unknown task of the board 'emtpy'"):
        boards.with_tested(board, [function], "mine", ["emtpy"])


def test_the_command_writes_a_board(board, policies, tmp_path, capsys):
    write_json(tmp_path / "board" / "manifest.json", board.manifest)
    write_board(board, tmp_path / "board")
    policies[0].save(tmp_path / "policy")
    arguments = ["test", str(tmp_path / "policy"), "--tasks", "leaderboard", "--as", "mine"]
    arguments += ["--board", str(tmp_path / "board"), "--out", str(tmp_path / "out")]
    cli.main(arguments)
    assert "report: " in capsys.readouterr().out
    again = read_board(tmp_path / "out")
    assert again.methods == ["mine"] and again.family("mine") == "tested only"
    table = pd.read_csv(tmp_path / "out" / "tables" / "leaderboard.csv")
    mine = table[table.method == "mine"].iloc[0]
    assert mine.status.startswith("tested only") and pd.isna(mine["rank"])
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2 and "is not empty" in capsys.readouterr().err
