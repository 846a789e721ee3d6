"""What the README says is what happens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import entrob
from entrob.cli import main
from entrob.sweep import reading

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


def block(marker: str, page: str = "README.md") -> str:
    """The code block that follows a marker in a page."""
    text = (ROOT / page).read_text()
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", text, re.S).group(1)


def test_the_added_regularizer_trains_and_shows_in_the_tables(tmp_path, monkeypatch, sketched):
    monkeypatch.chdir(tmp_path)
    Path("my_regularizers.py").write_text(block("regularizer example"))
    Path("tiny.toml").write_text(TINY)
    arguments = ["--regularizer", "my_regularizers:l2_logits", "--coef", "0,1e-3"]
    main(["run", "tiny.toml", "--preset", "smoke", "--out", "out", *arguments])
    table = Path("out/tables/success.csv").read_text()
    assert "l2_logits@0," in table and "l2_logits@0.001," in table and "none," in table


@pytest.mark.slow
def test_an_idea_becomes_a_row_in_the_leaderboard(tmp_path):
    """The README's commands as they stand, in an empty folder: they train on all of its tasks.

    What they do is also tested one by one: test_extending.py, suite/test_board.py.
    """
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
    exec(block("theory example", "entrob/theory/README.md"), found)
    best, worst, kernel, robust = (found[n] for n in ("best", "worst", "kernel", "robust"))
    assert best.converged and robust.converged
    assert worst.value < best.value and kernel.value > 0 and abs(kernel.gap) < 1e-10


def test_the_regularizer_example_is_short():
    assert len(block("regularizer example").splitlines()) <= 15


def test_ci_runs_the_readmes_commands_in_order():
    """The script as it stands, with a git and a bash that only say what they are to run."""
    script = (ROOT / ".ci" / "run").read_text()
    script = script.replace("git archive HEAD | tar", "true | true").replace(
        '"$(dirname "$0")/.."', "."
    )
    script = script.replace("bash -euxo pipefail -c", "echo")
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = [block("test command").strip(), block("check command").strip()]
    assert done.stdout.splitlines() == commands
    assert "pytest" in commands[0] and "-c constraints.txt" in commands[0]
    for tool in ("ruff check .", "ruff format --check .", "mypy", "lint-imports"):
        assert tool in commands[1]


@pytest.mark.parametrize("frames", ["3_200", pytest.param("100_000", marks=pytest.mark.slow)])
def test_the_library_example_runs(tmp_path, monkeypatch, cache, frames):
    """As it stands in slow tests, with less training in fast ones."""
    monkeypatch.chdir(tmp_path)
    example, found = block("library example"), {}
    assert example.count("frames=100_000") == 1
    exec(example.replace("100_000", frames), found)
    assert len(found["run"].policies) == 4
    conditions = found["table"][["perturbation", "magnitude"]].drop_duplicates()
    assert conditions.to_numpy().tolist() == [["nominal", 0.0], ["wall", 3.0], ["wall", 6.0]]
    assert found["policy"].provenance["seed"] == 3
    assert Path("walk.gif").read_bytes().startswith(b"GIF8")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1600


@pytest.mark.slow  # a process of its own
def test_experiments_are_found_from_anywhere(tmp_path):
    """As installed, and not only beside the repository's benchmarks."""
    command = [sys.executable, "-m", "entrob", "list", "experiments"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    shipped = {path.stem for path in (ROOT / "benchmarks").glob("*.toml")}
    assert shipped and set(done.stdout.split()[1:]) == shipped, done.stderr


@pytest.mark.slow
def test_api_pages_are_built_without_warnings(tmp_path):
    command = [sys.executable, str(ROOT / "docs" / "api.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "arning" not in done.stderr, done.stderr
    modules = [path.relative_to(ROOT) for path in (ROOT / "entrob").rglob("*.py")]
    for module in {path.with_suffix("") for path in modules}:
        page = module.parent if module.name == "__init__" else module
        if page.name != "__main__":
            assert (tmp_path / page.with_suffix(".html")).exists(), page
    page = (tmp_path / "entrob.html").read_text()
    assert all(f'id="{name}"' in page for name in entrob.__all__)
    assert 'href="http' not in re.sub(r'href="https://pdoc.dev"', "", page)


def test_the_main_command_names_an_experiment_and_preset():
    words = block("main command").split("entrob run ")[1].split()
    assert reading.load(words[0], words[2]).seeds == 10


def test_the_tuned_coefficients_are_those_of_the_committed_tuning_run():
    tuned = json.loads((ROOT / "results" / "minigrid" / "tune" / "tuned.json").read_text())
    methods = {m.name: m for m in reading.load("minigrid", "paper").methods}
    assert tuned["coefficients"]
    for name, value in tuned["coefficients"].items():
        assert methods[name].coefficients[name] == pytest.approx(value)


def test_every_constraint_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
