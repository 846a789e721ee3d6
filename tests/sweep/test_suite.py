"""A suite of two tiny tasks: tuned, trained, tested, ranked, and joined by a user's regularizer."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from entrob import cli
from entrob.errors import EntrobError
from entrob.results.store import read_frame
from entrob.sweep import suite as suites
from entrob.sweep.experiment import Method

TOML = """
title = "Two tiny tasks"

[common]
algorithm = "ppo"
num_envs = 2
num_steps = 8
chunk = 5
points = 5
instances = 3

[common.hyper]
learning_rate = 1e-3

[tune]
seeds = 2
factors = [1, 10]

[tasks.grid]
environment = "minigrid/empty-8x8"
perturbations = { wall = [0, 6], slip = [0, 0.4] }

[tasks.pole]
environment = "gymnax:CartPole-v1"
episodes = 2
perturbations = { sticky_action = [0, 0.5] }

[presets.smoke]
seeds = 2
frames = 80

[presets.one]
tasks = ["grid"]
seeds = 1
frames = 80
tune = { factors = [1], reach = 1 }
"""

IDEA = '''
import jax.numpy as jnp
import entrob

@entrob.regularizer("suite_idea", coef=0.1)
def suite_idea(policy, coef):
    """Add coef · mean V² to the loss."""
    return coef * jnp.mean(policy.value**2)

@entrob.regularizer("suite_broken", coef=0.1)
def suite_broken(policy, coef):
    """Add nothing that exists."""
    return policy.nothing
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "tiny_suite.toml"
    path.write_text(TOML)
    return path


def test_a_preset_chooses_tasks_and_sizes(file):
    suite = suites.load(str(file), "one")
    assert list(suite.tasks) == ["grid"]
    (experiment,) = suite.tasks.values()
    assert experiment.seeds == 1 and experiment.tune["seeds"] == 2
    names = [method.name for method in experiment.methods]
    assert names[0] == "none" and {"policy_entropy", "state_entropy"} <= set(names)
    grid = experiment.tune["grids"]["policy_entropy"]
    assert (grid["values"], grid["bounds"]) == ([0.01], pytest.approx([0.0099, 0.0101]))
    assert suites.load(str(file), "smoke").tasks["pole"].episodes == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('tasks = ["grid"]', 'tasks = ["gird"]', "unknown task 'gird': did you mean 'grid'"),
        ("[tune]", "[tone]", "unknown key in tiny_suite.toml 'tone'"),
        ("factors = [1, 10]", "factor = [1]", "unknown key in tiny_suite.toml: tune 'factor'"),
        ("factors = [1],", 'factors = ["much"],', "tune.factors must be a number, not 'much'"),
        ("reach = 1 }", "reach = 0.5 }", "tune.reach must be at least 1, not 0.5"),
        ("slip = [0, 0.4]", "slip = [0, 4]", "tasks.grid|magnitude of 'slip'"),
        ("[presets.one]", "[presets.two]", "unknown preset 'one'"),
    ],
)
def test_what_a_file_says_wrong_is_named(tmp_path, old, new, message):
    path = tmp_path / "tiny_suite.toml"
    path.write_text(TOML.replace(old, new))
    with pytest.raises(EntrobError, match=message):
        suites.load(str(path), "one")


def test_a_task_has_the_adversaries_that_fit_it(tmp_path):
    kinds = ("probabilistic", "noisy", "forces", "quantal")
    more = [f'[[methods]]\nname = "my_{k}"\nadversary = {{ kind = "{k}" }}\n' for k in kinds]
    path = tmp_path / "tiny_suite.toml"
    path.write_text(TOML + "\n".join(more))
    suite = suites.load(str(path), "smoke")
    own = {task: {m.name for m in e.methods if m.adversary} for task, e in suite.tasks.items()}
    assert own["grid"] == {"my_probabilistic"}
    assert own["pole"] == {"my_probabilistic", "my_forces", "my_quantal"}
    # They are not tuned, and the leaderboard knows what they are.
    assert all("my_forces" not in e.tune["grids"] for e in suite.tasks.values())
    known = suites._manifest(suite, tmp_path, "entrob run", {})["methods"]
    assert {known[name]["family"] for name in own["pole"]} == {"adversaries"}
    assert "1703.02702" in known["my_forces"]["source"] and known["my_forces"]["strength"] == 0.1
    assert known["policy_entropy"]["family"] == "losses"


def test_a_suites_adversary_with_a_mistake_is_named(tmp_path):
    path = tmp_path / "tiny_suite.toml"
    path.write_text(TOML + '[[methods]]\nname = "a"\nadversary = { kind = "forced" }\n')
    with pytest.raises(EntrobError, match="unknown adversary 'forced': did you mean 'forces'"):
        suites.load(str(path), "one")


def test_only_run_takes_a_suite(file, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["tune", str(file)])
    assert exit.value.code == 2 and "is a suite of tasks" in capsys.readouterr().err


def test_an_untuned_method_takes_the_smallest_coefficient(file):
    (experiment,) = suites.load(str(file), "one").tasks.values()
    smallest = {"policy_entropy": 0.02, "state_entropy": 0.07}
    chosen = {"policy_entropy": 0.2, "state_entropy": 0.0}
    tuned = suites.with_coefficients(experiment, chosen, smallest)
    found = {method.name: method.coefficients for method in tuned.methods}
    assert found["policy_entropy"] == {"policy_entropy": 0.2}
    assert found["state_entropy"] == {"state_entropy": 0.07} and found["none"] == {}


@pytest.fixture(scope="module")
def root(file, tmp_path_factory, cache):
    """The suite run with two methods, then joined by a user's own and by a broken one."""
    folder = tmp_path_factory.mktemp("board")
    (folder / "suite_module.py").write_text(IDEA)
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        base = ["run", str(file), "--preset", "smoke", "--out", str(out), "--regularizer"]
        cli.main([*base, "policy_entropy"])
        with pytest.raises(SystemExit) as exit:
            reference = ["suite_module:suite_idea", "--regularizer", "suite_module:suite_broken"]
            cli.main([*base, *reference])
        assert exit.value.code == 2
    return out


@pytest.mark.slow  # training takes minutes; test_readme plays a suite of one task
def test_a_users_regularizer_joins_the_table(root):
    table = pd.read_csv(root / "tables" / "leaderboard.csv")
    assert set(table.method) == {"none", "policy_entropy", "suite_idea"}
    # Which cells are kept depends on what 80 frames taught; two seeds give no interval anywhere.
    assert table.overall_low.isna().all() and table.rank_low.isna().all()
    for name in ("scores", "cells", "tuning"):
        assert len(pd.read_csv(root / "tables" / f"{name}.csv"))
    families = dict(zip(table.method, table.family))
    assert families == {"none": "none", "policy_entropy": "losses", "suite_idea": "losses"}
    assert (table.tasks == 2).all() and (read_frame(root / "overhead.parquet").ratio > 0.2).all()
    page = (root / "regularizers" / "suite_idea.md").read_text()
    assert "Add coef · mean V² to the loss." in page and "Default coefficient: 0.1" in page
    board = (root / "leaderboard.md").read_text()
    assert "[suite_idea](regularizers/suite_idea.md)" in board
    for folder, what in (("", "Reported runs"), ("tune", "tuning")):
        manifests = [root / folder / task / "manifest.json" for task in ("grid", "pole")]
        frames = sum(json.loads(path.read_text())["frames"] for path in manifests)
        assert f"{what}: {frames:,} frames" in board and frames > 0
    assert "not calibrated" in board
    assert "Left out: grid, suite_broken: user code does not trace: AttributeError" in board
    assert (root / "figures" / "gains.png").stat().st_size > 5_000


@pytest.mark.slow
def test_the_random_policy_is_kept_beside_the_runs(root):
    random = read_frame(root / "pole" / "random.parquet")
    assert set(random.magnitude) == {0.0, 0.5} and (random.return_mean > 5).all()
    assert np.isfinite(random.return_worst).all()
    facts = json.loads((root / "manifest.json").read_text())["tasks"]["pole"]
    assert set(facts["coefficients"]) == {"policy_entropy", "suite_idea"}
    assert facts["categories"] == {"sticky_action": "action noise"}


@pytest.mark.slow
def test_status_and_report_know_a_suite(root, tmp_path, capsys):
    cli.main(["status", str(root)])
    shown = capsys.readouterr().out
    assert "tiny_suite-grid smoke: 6 runs trained" in shown and "tiny_suite-pole" in shown
    before = (root / "leaderboard.md").read_bytes()
    cli.main(["report", str(root), "--export", str(tmp_path / "exported")])
    assert (tmp_path / "exported" / "leaderboard.md").read_bytes() == before
    assert (tmp_path / "exported" / "regularizers" / "suite_idea.md").exists()


@pytest.mark.parametrize("resume", [[], ["--no-resume"]])
def test_a_suite_leaves_the_folders_of_others_alone(file, tmp_path, capsys, resume):
    manifest = '{"experiment": "minigrid", "preset": "quick"}'
    (tmp_path / "manifest.json").write_text(manifest)
    command = ["run", str(file), "--preset", "smoke", "--out", str(tmp_path), *resume]
    with pytest.raises(SystemExit) as exit:
        cli.main(command)
    assert exit.value.code == 2
    assert "made by another experiment (minigrid quick)" in capsys.readouterr().err
    assert (tmp_path / "manifest.json").read_text() == manifest


def test_a_declared_method_that_does_nothing_is_named(tmp_path):
    path = tmp_path / "tiny_suite.toml"
    path.write_text(TOML + '[[methods]]\nname = "a"\n')
    with pytest.raises(EntrobError, match="needs a name and an adversary or coefficients"):
        suites.load(str(path), "one")


def test_regularizers_of_discrete_actions_are_left_out_of_continuous_tasks():
    experiment = suites.load("leaderboard", "paper").tasks["pendulum"]
    lp_reg = Method("lp_reg", {"lp_reg": 1.0})
    both = replace(experiment, methods=(*experiment.methods[:2], lp_reg))
    assert [m.name for m in suites.narrowed(both).methods] == [
        m.name for m in experiment.methods[:2]
    ]


def test_a_method_that_fits_no_task_is_named(capsys, tmp_path):
    command = ["run", "leaderboard", "--preset", "smoke", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as exit:
        cli.main([*command, "--regularizer", "rarl"])
    assert exit.value.code == 2
    assert "no task of this preset can have rarl" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*command, "--regularizer", "polcy_entropy"])
    assert "did you mean 'policy_entropy'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_training_commit_stays_in_the_manifest(file, tmp_path, monkeypatch):
    """Whatever draws the report again, or goes on with further tasks, did not train these."""
    suite = suites.load(str(file), "one")
    monkeypatch.setattr(suites, "provenance", lambda: {"git_commit": "trained", "cores": 2})
    suites._manifest(suite, tmp_path, "entrob run", {})
    monkeypatch.setattr(suites, "provenance", lambda: {"git_commit": "drawn", "cores": 64})
    assert suites._manifest(suite, tmp_path, "entrob run", {})["git_commit"] == "trained"
    assert json.loads((tmp_path / "manifest.json").read_text())["cores"] == 2
