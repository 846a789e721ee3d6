"""What the README says is what happens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from entrob.cli import main
from entrob.sweep import experiment

ROOT = Path(__file__).parent.parent

TINY = """
environment = "minigrid/empty-8x8"
num_envs = 2
num_steps = 8
chunk = 5
[[methods]]
name = "none"
[perturbations]
wall = [0, 6]
[presets.smoke]
seeds = 1
frames = 80
instances = 4
"""


def block(marker: str) -> str:
    """The code block that follows a marker in the README."""
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", text, re.S).group(1)


def test_the_added_regularizer_trains_and_shows_in_the_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_regularizers.py").write_text(block("regularizer example"))
    Path("tiny.toml").write_text(TINY)
    arguments = ["--regularizer", "my_regularizers:l2_logits", "--coef", "0,1e-3"]
    main(["run", "tiny.toml", "--preset", "smoke", "--out", "out", *arguments])
    table = Path("out/tables/success.csv").read_text()
    assert "l2_logits@0," in table and "l2_logits@0.001," in table and "none," in table


def test_an_idea_becomes_a_row_in_the_leaderboard(tmp_path):
    """The README's commands as they stand, in an empty folder."""
    script = block("idea commands")
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Test processes have devices of their own; the commands choose theirs.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PATH": binaries}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    out = tmp_path / "runs" / "leaderboard" / "smoke"
    table = (out / "tables" / "leaderboard.csv").read_text()
    assert ",my_idea,losses," in table and ",none,none," in table
    assert (out / "regularizers" / "my_idea.md").exists()


def test_the_theory_example_runs():
    found = {}
    exec(block("theory example"), found)
    best, worst, kernel, robust = (found[n] for n in ("best", "worst", "kernel", "robust"))
    assert best.converged and robust.converged
    assert worst.value < best.value and kernel.value > 0 and abs(kernel.gap) < 1e-10


def test_the_regularizer_example_is_short():
    assert len(block("regularizer example").splitlines()) <= 15


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"command=\$\((.*)\)\n", script).group(1)
    found = subprocess.run(["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == block("test command").strip()
    assert "pytest" in found.stdout and "-c constraints.txt" in found.stdout


def test_the_main_command_names_an_experiment_and_preset():
    words = block("main command").split("entrob run ")[1].split()
    assert experiment.load(words[0], words[2]).seeds == 10


def test_the_tuned_coefficients_are_those_of_the_committed_tuning_run():
    tuned = json.loads((ROOT / "results" / "minigrid" / "tune" / "tuned.json").read_text())
    methods = {m.name: m for m in experiment.load("minigrid", "paper").methods}
    assert tuned["coefficients"]
    for name, value in tuned["coefficients"].items():
        assert methods[name].coefficients[name] == pytest.approx(value)


def test_every_constraint_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
