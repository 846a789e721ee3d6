"""Extending entrob: a new regularizer's files, and what other packages declare."""

import subprocess
import sys

import pytest

from entrob import cli
from entrob.errors import EntrobError
from entrob.registry import Registry
from entrob.regularizers import regularizers


def test_new_regularizer_writes_files_whose_test_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("fresh_idea", "wrong_idea"):
        cli.main(["new-regularizer", name])
        assert capsys.readouterr().out.split() == [f"{name}.py", f"test_{name}.py"]
    # The test fails when the function is wrong.
    text = (tmp_path / "wrong_idea.py").read_text()
    (tmp_path / "wrong_idea.py").write_text(text.replace("logits**2", "logits**4"))
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "2 failed, 2 passed" in done.stdout, done.stdout
    for outcome, name in (("PASSED", "fresh_idea"), ("FAILED", "wrong_idea")):
        assert done.stdout.count(f"{outcome} test_{name}.py") == 2, done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-name", "cannot name"),
        ("class", "cannot name"),
        ("json", "cannot name"),
        ("jnp", "cannot name"),
        ("state_entropy", "exists already"),
    ],
)
def test_names_that_cannot_be(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        cli.main(["new-regularizer", name])
    assert exit.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["loss", "policy", "coef", "formula"])
def test_names_that_the_files_use_themselves_do_no_harm(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    cli.main(["new-regularizer", name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    tests = {}
    exec((tmp_path / f"test_{name}.py").read_text(), tests)
    tests["test_it_is_its_formula"]()
    regularizers._entries.pop(name)


def test_files_are_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_idea.py").write_text("mine")
    with pytest.raises(SystemExit):
        cli.main(["new-regularizer", "idea"])
    assert "test_idea.py exists already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["test_idea.py"]


PACKAGE = '''
import entrob
from entrob.envs import make

@entrob.regularizer("from_elsewhere", coef=0.5)
def from_elsewhere(policy, coef):
    """Nothing, times coef."""
    return 0.0 * coef

@entrob.perturbation("wall", requires=("my_field",))
def wall(key, params, magnitude):
    """Another wall."""
    return params

ready = entrob.Regularizer("ready_made", coef=0.25)

@entrob.perturbation("far_goal", high=1.0, requires=("goal_pos", "walls"))
def far_goal(key, params, magnitude):
    """Nothing at all."""
    return params

def grid():
    return make("minigrid/empty-8x8")[0]
'''

DECLARED = """
[entrob.regularizers]
from_elsewhere = elsewhere:from_elsewhere
absent = elsewhere:absent
ready_made = elsewhere:ready
[entrob.perturbations]
far_goal = elsewhere:far_goal
[entrob.environments]
elsewhere/grid = elsewhere:grid
"""

USE = """
from entrob.envs import environments, make
from entrob.perturbations import perturbations
from entrob.regularizers import build, regularizers
from types import SimpleNamespace
assert perturbations.get("wall", SimpleNamespace(my_field=1)).doc == "Another wall."
assert build("ready_made").coef == 0.25
assert "from_elsewhere" in regularizers and build("from_elsewhere").coef == 0.5
assert "policy_entropy" in regularizers.names() and "absent" not in regularizers
assert perturbations.get("far_goal").doc == "Nothing at all."
assert make("elsewhere/grid")[0].name == "MiniGrid-10x10"
"""


def test_other_packages_declare_entry_points(tmp_path):
    (tmp_path / "elsewhere.py").write_text(PACKAGE)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(DECLARED)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert "regularizer 'absent' of another package does not load (AttributeError" in line


def test_a_name_that_is_taken_stays():
    registry = Registry("thing")
    registry.register("a", first := object())
    registry.register("a", first)
    with pytest.raises(EntrobError, match="registered twice"):
        registry.register("a", object())
