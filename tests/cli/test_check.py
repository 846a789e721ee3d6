"""`entrob check`: what it is asked, what it prints, and how it exits."""

import shutil

import pandas as pd
import pytest

from entrob import cli
from entrob.errors import EntrobError
from entrob.evaluation.proofs import Proof
from entrob.suite import check as checks
from entrob.suite.check import Checked, task_of

REACHES = {2.0: ("observation",), 8.0: ("observation", "reward")}
SCORES = pd.DataFrame(
    [
        ("nominal", 0.0, 0.1, 0.9, 1.0, 0.0),
        ("wall", 2.0, 0.1, 0.5, 1.0, 0.5),
        ("wall", 8.0, 0.0, 0.1, 0.5, 1.0),
    ],
    columns=["perturbation", "magnitude", "random", "none", "optimum", "loss"],
)


@pytest.mark.parametrize(
    ("proof", "code", "words"),
    [
        (Proof("wall", "routes", REACHES, True, 6, 8, True), None, "1 of 1 perturbations"),
        (Proof("wall", "routes", {8.0: (), 2.0: ()}, True, 6, 8, True), 1, "reaches neither"),
        (Proof("wall", "routes", REACHES, False, 6, 8, True), 1, "0 is not the identity"),
    ],
)
def test_it_prints_a_table_and_fails_where_a_proof_does(monkeypatch, capsys, proof, code, words):
    found = Checked((proof,), SCORES, "success")
    monkeypatch.setattr(checks, "check", lambda experiment, frames, folder: found)
    arguments = ["check", "minigrid/empty-8x8", "--perturbation", "wall"]
    if code is None:
        cli.main(arguments)
    else:
        with pytest.raises(SystemExit) as exit:
            cli.main(arguments)
        assert exit.value.code == code
    out, error = capsys.readouterr()
    assert words in out + error and "6 of 8" in out and "50%" in out
    assert ("failed: wall: " in error) == bool(code)


def test_a_task_is_an_environment_or_one_of_a_suite():
    grid = task_of("minigrid/empty-8x8")
    assert [m.name for m in grid.methods] == ["none"]
    assert {"wall", "wall_mirrored", "slip", "goal_shift"} <= set(grid.perturbations)
    assert "reward_noise" not in grid.perturbations  # acts in training only
    assert grid.perturbations["wall"] == (6, 8)
    of_suite = task_of("leaderboard:empty")
    assert of_suite.environment == grid.environment and of_suite.network == "auto"
    assert [m.name for m in of_suite.methods] == ["none"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("leaderboard:empt", "unknown task 'empt': did you mean 'empty'"),
        ("minigrid:empty", "minigrid is no suite of tasks"),
        ("leaderbord:empty", "leaderboard"),
        ("minigrid/empty", "unknown environment"),
    ],
)
def test_a_task_that_is_none_is_one_line(task, message):
    with pytest.raises(EntrobError, match=message) as caught:
        task_of(task)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_task_from_end_to_end(whole, tmp_path, capsys, cache):
    arguments = ["check", "minigrid/empty-8x8", "--perturbation", "wall", "--perturbation", "slip"]
    cli.main([*arguments, "--frames", "2048"])
    out = capsys.readouterr().out
    assert "2 of 2 perturbations prove what they say" in out and "optimum" in out
    # From a folder of runs, whatever its methods are.
    root = shutil.copytree(whole, tmp_path / "out")
    cli.main([*arguments, "--run", str(root)])
    assert "2 of 2 perturbations" in capsys.readouterr().out
    for wrong, words in ((tmp_path, "holds no run"), (root, "is of minigrid/empty-8x8, not of")):
        other = [*arguments[:1], "minigrid/two-paths", *arguments[2:], "--run", str(wrong)]
        with pytest.raises(SystemExit) as exit:
            cli.main(other)
        assert exit.value.code == 2 and words in capsys.readouterr().err
