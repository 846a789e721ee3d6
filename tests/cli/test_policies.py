"""`entrob test` and `entrob play`, on a policy of an untrained network."""

import jax
import pandas as pd
import pytest

from entrob import cli
from entrob.agents.actor_critic import make_agent
from entrob.agents.spec import Hyper, Spec
from entrob.envs import make
from entrob.library import Policy

ID = "minigrid/empty-8x8"

FUNCTION = """
import jax

def forward(key, carry, obs):
    return jax.random.choice(key, 3), carry

number = 3
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory, cache):
    env, params = make(ID)
    init = jax.jit(make_agent(Spec(env)).init)
    policy = init(jax.random.PRNGKey(0), Hyper(), params).policy
    folder = tmp_path_factory.mktemp("saved") / "policy"
    Policy(ID, policy).save(folder)
    return folder


def test_a_saved_policy_is_tested(saved, tmp_path, capsys):
    out = tmp_path / "deep" / "found.csv"
    options = ["--perturbation", "wall=3,6", "--perturbation", "slip=0.2", "--instances", "4"]
    cli.main(["test", str(saved), *options, "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed.split("\n")[0].split()[:3] == ["perturbation", "magnitude", "success"]
    table = pd.read_csv(out)
    conditions = list(zip(table.perturbation, table.magnitude))
    assert conditions == [("nominal", 0), ("wall", 3), ("wall", 6), ("slip", 0.2)]
    assert (table.episodes == 4).all() and "instance_success" not in table
    whole = tmp_path / "found.parquet"
    cli.main(["test", str(saved), *options, "--out", str(whole)])
    assert len(pd.read_parquet(whole).instance_success[0]) == 4


def test_a_function_is_tested(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walkers.py").write_text(FUNCTION)
    cli.main(["test", "walkers:forward", "--environment", ID, "--instances", "2"])
    assert "nominal" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        cli.main(["test", "walkers:number", "--environment", ID])
    assert exit.value.code == 2 and "is no function" in capsys.readouterr().err


def test_an_episode_is_played(saved, tmp_path, capsys):
    out = tmp_path / "walk.gif"
    cli.main(["play", str(saved), "--perturbation", "wall=6", "--instance", "3", "--out", str(out)])
    assert out.read_bytes().startswith(b"GIF8")
    assert "return 0.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "nowhere"], "there is no policy nowhere"),
        (["test", "SAVED", "--perturbation", "wall"], "must be NAME=MAGNITUDE, not 'wall'"),
        (["test", "SAVED", "--perturbation", "wall=x"], "must be NAME=MAGNITUDE, not 'wall=x'"),
        (["test", "SAVED", "--perturbation", "wall=99"], "must be a whole number in 0..8"),
        (["test", "SAVED", "--instances", "0"], "--instances must be a whole number"),
        (["test", "SAVED", "--out", "x.txt"], "--out must end in .csv or .parquet"),
        (["test", "SAVED", "--environment", "minigrid/em"], "unknown environment 'minigrid/em'"),
        (["play", "SAVED", "--perturbation", "wall=3,6"], "one magnitude of 'wall'"),
        (["play", "SAVED", "--instance", "200"], "--instance must be a whole number in 0..199"),
    ],
)
def test_bad_input_is_one_line(saved, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        cli.main([str(saved) if a == "SAVED" else a for a in arguments])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and message in error and error.count("\n") == 1
