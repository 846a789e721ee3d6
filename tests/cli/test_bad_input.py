"""Whatever is wrong with what the user says: one clear line, exit code 2, no traceback."""

import json
import shutil

import numpy as np
import pytest

from entrob import cli
from entrob.persistence.store import read_frame


@pytest.fixture
def fails(capsys):
    """Function that runs a command which must fail, and returns its one line."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            cli.main([str(a) for a in arguments])
        error = capsys.readouterr().err
        assert exit.value.code == 2, error
        *progress, last, end = error.split("\n")
        assert last.startswith("entrob: ") and end == "", error
        assert all(line.startswith(("compiling ", "training ", "testing ")) for line in progress), (
            error
        )
        return last

    return run


@pytest.fixture
def edited(tiny_file, tmp_path):
    """Function that writes the experiment with one text replaced, and returns its path."""

    def edit(old, new):
        text = tiny_file.read_text()
        assert old in text
        path = tmp_path / "edited.toml"
        path.write_text(text.replace(old, new))
        return path

    return edit


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "quik"], "unknown preset 'quik': did you mean 'quick'?"),
        (["--regularizer", "state_entropie"], "did you mean 'state_entropy'?"),
        (["--perturbation", "wal"], "unknown perturbation 'wal': did you mean 'wall'?"),
        (["--perturbation", "reward_noise"], "'reward_noise' acts in training only"),
        (["--regularizer", "no_such_module:f"], "does not import"),
        (["--regularizer", "entrob.errors:no_such"], "module has no 'no_such'"),
        (["--regularizer", "entrob.errors:EntrobError"], "neither decorated nor a Regularizer"),
        (["--regularizer", "policy_entropy", "--coef=-1"], "must be a finite number of at least 0"),
        (["--regularizer", "policy_entropy", "--coef", "0.1,much"], "at least 0, not 'much'"),
        (
            ["--regularizer", "policy_entropy", "--coef", "nan"],
            "must be a finite number of at least 0, not nan",
        ),
        (
            ["--regularizer", "policy_entropy", "--coef", ""],
            "must be a finite number of at least 0, not ''",
        ),
        (["--coef", "0.1"], "--coef needs a --regularizer"),
        (["--seeds", "0"], "--seeds must be a whole number of at least 1, not 0"),
        (["--seeds=-3"], "--seeds must be"),
        (["--seeds", "1000001"], "--seeds must be a whole number in 1..1000000, not 1000001"),
        (["--parallel-runs", "0"], "--parallel-runs must be"),
    ],
)
def test_arguments(fails, tiny_file, tmp_path, arguments, words):
    out = tmp_path / "out"
    assert words in fails("run", tiny_file, "--out", out, *arguments)
    assert not out.exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = 2", "seeds = = 2", "(at line 20, column 9)"),
        ("seeds = 2", "seeds = 0", "seeds must be a whole number"),
        ("seeds = 2", "seeds = 1.5", "seeds must be a whole number"),
        ("seeds = 2", "seed = 2", "did you mean 'seeds'?"),
        ("num_envs = 2", "num_env = 2", "did you mean 'num_envs'?"),
        ("num_envs = 2", "", ""),
        ("frames = 160", "", "'frames' is missing"),
        ("minigrid/empty-8x8", "minigrid/emty-8x8", "did you mean 'minigrid/empty-8x8'?"),
        ('environment = "minigrid/empty-8x8"', "", "'environment' is missing"),
        ('environment = "minigrid/empty-8x8"', "environment = 3", "environment must be a string"),
        ("num_envs = 2", 'algorithm = "a2d"', "did you mean 'a2c'?"),
        ("num_envs = 2", "minibatches = 3", "minibatches must divide"),
        ("num_envs = 2", "hyper = { learning_rat = 1 }", "did you mean 'learning_rate'?"),
        ("num_envs = 2", "hyper = { gamma = 'x' }", "gamma must be a number"),
        ("num_envs = 2", "evaluation_seed = 'x'", "evaluation_seed must be a whole number"),
        ("num_envs = 2", "evaluation_seed = -1", "evaluation_seed must be a whole number in 0"),
        ("num_envs = 2", "hyper = { gamma = 1.5 }", "gamma must be a number in [0, 1), not 1.5"),
        ("num_envs = 2", "hyper = { learning_rate = nan }", "at least 0, not nan"),
        ("num_envs = 2", "hyper = { clip = 0 }", "clip must be a finite number above 0, not 0"),
        ("frames = 160", "frames = 1_000_000_000_000", "a whole number in 1..2147483647"),
        ("seeds = 2", "seeds = 2_000_000", "seeds must be a whole number in 1..1000000"),
        ('name = "none"', 'name = "none"\nparams = { start_pos = [8, 8] }', "is the start"),
        ('name = "none"', 'name = "none"\nparams = { max_steps_in_episode = 0 }', "1..2147483646"),
        ("wall = [0, 8]", "wal = [0, 8]", "did you mean 'wall'?"),
        (
            "wall = [0, 8]",
            "wall = [0, 9]",
            "magnitude of 'wall' must be a whole number in 0..8, not 9",
        ),
        (
            "wall = [0, 8]",
            "wall = [-1]",
            "magnitude of 'wall' must be a whole number in 0..8, not -1",
        ),
        ("wall = [0, 8]", "wall = [1.5]", "must be a whole number"),
        ("wall = [0, 8]", "wall = ['high']", "magnitude of 'wall'"),
        ("wall = [0, 8]", "wall = [nan]", "magnitude of 'wall'"),
        ("wall = [0, 8]", "wall = []", "needs a list of magnitudes"),
        ("wall = [0, 8]", "wall = 6", "needs a list of magnitudes"),
        ("wall = [0, 8]", "wall = [0]", "'wall' needs a magnitude other than 0"),
        ("wall = [0, 8]", "slip = [1.1]", "magnitude of 'slip' must be a number in 0..1, not 1.1"),
        ("wall = [0, 8]", "reward_noise = [1]", "acts in training only"),
        ("wall = [0, 8]", "", "'perturbations' is missing"),
        ("{ policy_entropy = 0.01 }", "{ policy_entropy = -0.01 }", "at least 0"),
        ("{ policy_entropy = 0.01 }", "{ policy_entropy = 'big' }", "at least 0, not 'big'"),
        ("{ policy_entropy = 0.01 }", "{ policy_entropi = 1 }", "did you mean 'policy_entropy'?"),
        ("{ policy_entropy = 0.01 }", "0.01", "coefficients must be a table"),
        ('name = "policy_entropy"', 'name = "none"', "two methods 'none'"),
        ('name = "policy_entropy"', "", "a method has no name"),
        ('name = "none"', 'name = "none"\nfidelity = "papr"', "paper or reference"),
        ('name = "none"', 'name = "none"\noptions = { x = {} }', "does not use"),
        ('name = "none"', 'name = "none"\nparams = { reward_decay = "a" }', "must be a number"),
        ("[presets.quick]", "[presets]\nquick = 3\n[presets.slow]", "quick must be a table"),
    ],
)
def test_experiment_files(fails, edited, tmp_path, old, new, words):
    path = edited(old, new)
    if not words:  # a key that has a default may be left out
        from entrob.sweep.reading import load

        assert load(str(path), "quick").num_envs == 8
        return
    assert words in fails("run", path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "none"', 'name = "none"\nparams = { gravity = 1.0 }', "no param 'gravity'"),
        ('name = "none"', 'name = "none"\ntraining = { wal = 1 }', "did you mean 'wall'?"),
        ('name = "none"', 'name = "none"\ntraining = { reward_noise = 11 }', "0..10"),
        (
            'name = "policy_entropy"',
            'name = "policy_entropy"\noptions = { policy_entropy = { kk = 1 } }',
            "unexpected keyword argument 'kk'",
        ),
    ],
)
def test_what_the_environment_and_regularizers_refuse(fails, edited, tmp_path, old, new, words):
    assert words in fails("run", edited(old, new), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()  # found before anything was trained


def test_unknown_experiments(fails):
    assert "did you mean 'minigrid'?" in fails("run", "minigrit")
    assert "there is no experiment file nowhere.toml" in fails("run", "nowhere.toml")
    assert "declares no [tune.grids]" not in fails("tune", "minigrit")


def test_a_file_that_is_no_text(fails, tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "binary.toml" in fails("run", path)


def test_tune_needs_grids(fails, tiny_file, tmp_path):
    assert "[tune.grids]" in fails("tune", tiny_file, "--out", tmp_path / "out")


def test_folders(fails, tiny_file, edited, whole, tmp_path):
    other = edited("num_steps = 8", "num_steps = 16")
    root = shutil.copytree(whole, tmp_path / "whole")
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert "was made by another experiment" in fails("run", other, "--out", root)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").touch()
    assert "is not empty and holds no entrob results" in fails("run", tiny_file, "--out", foreign)
    assert [p.name for p in foreign.iterdir()] == ["notes.txt"]
    file = foreign / "notes.txt"
    assert "Not a directory" in fails("run", tiny_file, "--out", file)
    assert "Not a directory" in fails("run", tiny_file, "--out", file / "below")
    for command in ("status", "report"):
        assert "holds no run" in fails(command, foreign)
        assert "holds no run" in fails(command, tmp_path / "nowhere")
    assert "--level must be a number in (0, 1), not 1.5" in fails("report", root, "--level", "1.5")


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "x", "--fast"], ["fly"], ["run", "x", "--seeds", "a"]]
)
def test_what_the_parser_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


MODULE = '''
import entrob


@entrob.regularizer("{name}", coef=1.0, hook="{hook}")
def {name}({arguments}):
    """Made for a test."""
    return {value}
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Function that writes a module with one regularizer and returns its reference."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, hook, arguments, value):
        text = MODULE.format(name=name, hook=hook, arguments=arguments, value=value)
        (tmp_path / f"module_{name}.py").write_text(text)
        return f"module_{name}:{name}"

    return write


@pytest.mark.parametrize(
    ("name", "hook", "arguments", "value", "words"),
    [
        pytest.param(  # trains the others; regularizers/test_protocol.py has the same words
            "bad_loss",
            "loss",
            "policy",
            "policy.logits",
            "loss must return shape [], got shape [16, 3]",
            marks=pytest.mark.slow,
        ),
        (
            "raises",
            "loss",
            "policy",
            "policy.typo",
            "AttributeError in raises (module_raises.py:8)",
        ),
        ("strange", "loss", "weather", "0.0", "loss takes"),
        ("hookless", "los", "policy", "0.0", "unknown hook 'los'"),
    ],
)
def test_a_regularizer_that_does_not_fit(
    fails, module, tiny_file, tmp_path, name, hook, arguments, value, words
):
    reference = module(name, hook, arguments, value)
    out = tmp_path / "out"
    error = fails("run", tiny_file, "--out", out, "--regularizer", reference)
    assert words in error
    if name in ("strange", "hookless"):  # found before anything is trained
        assert not out.exists()
    else:  # the others of the sweep are finished, kept and reported
        assert f"method {name!r} was left out" in error
        assert set(read_frame(out / "runs.parquet").method) == {"none"}
        assert (out / "report.md").exists()


def test_a_module_that_raises(fails, tiny_file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_broken.py").write_text("1 / 0\n")
    error = fails("run", tiny_file, "--regularizer", "module_broken:f")
    assert "does not import (ZeroDivisionError: division by zero)" in error


@pytest.mark.slow  # regularizers/test_gates.py names the hook
def test_a_regularizer_that_returns_nan(module, tiny_file, tmp_path, capsys):
    """Its runs are frozen and labeled; the others are finished, kept and reported."""
    reference = module(
        "not_a_number", "loss", "policy, coef", "coef * policy.value.sum() / 0.0 * 0.0"
    )
    out = tmp_path / "out"
    arguments = ["--regularizer", reference, "--coef", "0,1", "--seeds", "1", "--out", str(out)]
    with pytest.raises(SystemExit) as exit:
        cli.main(["run", str(tiny_file), *arguments])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert (
        "regularizer 'not_a_number': loss returned NaN or infinity: 1 runs"
        in error.splitlines()[-1]
    )
    assert "Traceback" not in error
    runs = read_frame(out / "runs.parquet").set_index("method")
    assert dict(runs.status) == {
        "none": "finished", "not_a_number@0": "finished", "not_a_number@1": "diverged"
    }  # fmt: skip
    lost = runs.loc["not_a_number@1"]
    assert lost.cause == "not_a_number: loss" and lost.diverged_at == 0
    curves = read_frame(out / "curves.parquet")
    finite = np.isfinite(curves.policy_entropy).groupby(curves.method).all()
    assert dict(finite) == {"none": True, "not_a_number@0": True, "not_a_number@1": False}
    assert "not_a_number@1, seed 0, at update 0: not_a_number" in (out / "report.md").read_text()
    assert json.loads((out / "manifest.json").read_text())["frames"] > 0
