"""The ``[paper]`` table: checked when read, in the manifest, and never part of a hash."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from entrob import cli
from entrob.envs.minigrid import MiniGrid
from entrob.errors import EntrobError
from entrob.persistence.store import Damaged, Store, read_frame
from entrob.report.paper import Paper
from entrob.report.tables import headline_magnitude
from entrob.sweep import measure, reading, runner, stored
from entrob.sweep.describe import complete, describe, headline

BASE = """
environment = "minigrid/empty-8x8"
num_envs = 2
num_steps = 8
chunk = 5
points = 5
instances = 4

[[methods]]
name = "none"

[[methods]]
name = "state_entropy[paper]"
coefficients = { state_entropy = 0.01 }

[perturbations]
wall = [0, 6, 8]
goal_shift = [0, 3, 7]

[presets.smoke]
seeds = 2
frames = 80

[presets.quick]
seeds = 2
frames = 80
perturbations = { goal_shift = [0, 3, 7] }
"""

PAPER = """
[paper]
seeds = 25
instances = 200
frames = 3_000_000
figure = 4
note = "What can be compared."
magnitudes = { wall = 6 }
orders = { wall = "state > none" }
claims = [{ perturbation = "wall", better = "state_entropy", relation = ">", worse = "none" }]

[paper.numbers]
none = { nominal = [0.9, 0.1, 17], wall = [0.2] }
"""

PERTURBED = ("wall", "goal_shift")


def load(tmp_path, text=BASE + PAPER, preset="smoke"):
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return reading.load(str(path), preset)


def test_it_is_read_and_changes_no_hash(tmp_path):
    with_paper, without = load(tmp_path), load(tmp_path, BASE)
    assert without.published == {} and with_paper.hash == without.hash
    assert with_paper.training_settings == without.training_settings
    assert with_paper.published["magnitudes"] == {"wall": 6}
    with pytest.raises(TypeError):
        with_paper.published["seeds"] = 3
    # The preset tests no wall; the file does.
    assert load(tmp_path, preset="quick").published == with_paper.published


@pytest.mark.parametrize("name", ["minigrid", "minigrid_fidelity"])
def test_the_shipped_grid_experiments_quote_figure_4(name):
    paper = reading.load(name, "paper").published
    assert paper["figure"] == 4 and len(paper["claims"]) == 8 and len(paper["orders"]) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "seeds = 25",
            "seedz = 25",
            "unknown key in tiny.toml: paper 'seedz': did you mean 'seeds'",
        ),
        ("seeds = 25", "seeds = 0", "seeds must be a whole number of at least 1, not 0"),
        ("figure = 4", 'figure = "4"', "figure must be a whole number"),
        ("note = ", "note = 3 #", "note must be a string, not 3"),
        ("{ wall = 6 }", "{ wal = 6 }", "unknown perturbation in .* 'wal': did you mean 'wall'"),
        (
            "{ wall = 6 }",
            "{ wall = 60 }",
            r"magnitude of 'wall' must be a whole number in 0\.\.8, not 60",
        ),
        ("{ wall = 6 }", "{ elbow = 5 }", "unknown perturbation in .*'elbow'"),
        ("{ wall = 6 }", "{ goal_shift = 3 }", "numbers under 'wall' need its magnitude"),
        ('{ wall = "state', '{ slip = "state', "unknown perturbation in .* 'slip'"),
        ('"state > none"', "3", "wall must be a string, not 3"),
        ('relation = ">"', 'relation = "<"', "unknown relation in .* '<': known: >, ≥, ≫"),
        ('relation = ">", ', "", "a claim has no 'relation'"),
        ('relation = ">"', "relation = 1", "relation must be a string, not 1"),
        ('better = "state_entropy"', 'better = "state_entrpy"', "did you mean 'state_entropy'"),
        ('[{ perturbation = "wall"', '[{ perturbation = "slip"', "unknown perturbation in"),
        ('perturbation = "wall"', 'perturbatio = "wall"', "did you mean 'perturbation'"),
        ("none = {", "non = {", "unknown method in tiny.toml: paper 'non': did you mean 'none'"),
        ("none = {", "state_entropy = {", "unknown method .* 'state_entropy': did you mean"),
        ("nominal = [", "nominel = [", "unknown condition .* 'nominel': did you mean 'nominal'"),
        ("[0.9, 0.1, 17]", "[0.9, 0.1]", r"must be \[mean, std, seeds\] or \[mean\], not"),
        ("[0.9, 0.1, 17]", "0.9", r"'none' under 'nominal' must be \[mean, std, seeds\]"),
        ("[0.9, 0.1, 17]", "[90, 0.1, 17]", r"must be a mean in 0\.\.1"),
        ("[0.9, 0.1, 17]", "[0.9, -0.1, 17]", "a std of at least 0"),
        ("[0.9, 0.1, 17]", "[nan, 0.1, 17]", r"must be a mean in 0\.\.1"),
        ("[0.9, 0.1, 17]", "[0.9, nan, 17]", "a std of at least 0"),
        ("[0.9, 0.1, 17]", "[0.9, 0.1, 1.5]", "seeds must be a whole number"),
        ("[0.9, 0.1, 17]", '["a", 0.1, 17]', "mean must be a number, not 'a'"),
        ("none = {", "none = 3 #", "none must be a table, not 3"),
    ],
)
def test_mistakes_are_one_line(tmp_path, old, new, message):
    assert PAPER.count(old) >= 1
    with pytest.raises(EntrobError, match=message) as error:
        load(tmp_path, BASE + PAPER.replace(old, new, 1))
    assert "\n" not in str(error.value)


def test_the_headline_is_the_papers_if_it_is_tested(tmp_path):
    experiment = load(tmp_path)
    assert headline(experiment, "wall") == 6 and headline(experiment, "goal_shift") == 7
    fewer = dataclasses.replace(experiment, perturbations={"wall": (8.0,)})
    assert headline(fewer, "wall") == 8
    described = describe(experiment, {"units": {"slip": "slip probability"}})
    assert described["units"]["wall"] == "wall length (cells)" and "scenes" not in described
    assert set(described["units"]) == {"wall", "goal_shift", "slip"}
    json.dumps(described)


def test_manifests_of_earlier_versions_are_completed(tmp_path):
    assert complete({"paper": {}, "experiment": "minigrid"})["paper"] == {}
    old = {"experiment": "minigrid", "preset": "paper", "environment": "minigrid/empty-8x8"}
    old["methods"] = {"mine": {}, "none": {}, "state_entropy": {"state_entropy": 0.005}}
    found = complete(old)
    assert (
        Paper.read(found).magnitudes["wall"] == 6 and Paper.read(found).unit("wall") != "magnitude"
    )
    assert list(found["methods"]) == ["none", "state_entropy", "mine"]
    assert found["methods"]["state_entropy"] == {"state_entropy": 0.005}
    for change in ({"experiment": "no_such"}, {"environment": "mujoco/ant"}, {"preset": "no_such"}):
        assert complete({**old, **change}) == {**old, **change}
    assert complete({}) == {}


def test_scenes_are_of_the_experiments_own_params(tmp_path, traced):
    text = BASE.replace("[[methods]]", "[params]\nreward_decay = 0.25\n\n[[methods]]", 1)
    scenes = describe(load(tmp_path, text), {"scenes": {"slip": {}}})["scenes"]
    assert scenes["nominal"]["radius"] == 0.75 and set(scenes) == {"nominal", "slip", *PERTURBED}


@pytest.fixture
def traced(monkeypatch):
    """MiniGrid leaves traces and has a scene: the goal, and a block at the start."""

    def scene(self, params):
        block = [*params.start_pos, 0.5, 0.5]
        return {
            "blocks": np.asarray([block]),
            "goal": params.goal_pos,
            "radius": 0.5 + params.reward_decay,
        }

    where = lambda self, state: state.pos.astype(jnp.float32)
    monkeypatch.setattr(MiniGrid, "finite", False)  # nothing exact to compile
    monkeypatch.setattr(MiniGrid, "trace", where, raising=False)
    monkeypatch.setattr(MiniGrid, "scene", scene, raising=False)


@pytest.mark.slow
def test_traces_and_scenes_reach_the_report(tmp_path, traced, cache):
    experiment = load(tmp_path)
    store = Store(tmp_path / "out")
    runner.run(experiment, store, "test")
    traces = read_frame(store.root / "traces.parquet")
    kept = traces.groupby(["perturbation", "magnitude"]).size()
    # The paper's wall, the largest goal shift, and one nominal.
    assert list(kept.index) == [("goal_shift", 7.0), ("nominal", 0.0), ("wall", 6.0)]
    assert set(kept) == {2 * 2 * 4}  # methods, seeds, instances
    points = np.reshape(traces["points"].iloc[0], (-1, 2))
    assert (points[0] == 1).all() and 2 <= len(points) <= 201 and np.isfinite(points).all()
    manifest = store.manifest()
    assert list(manifest["methods"]) == ["none", "state_entropy[paper]"]
    assert Paper.read(manifest) == Paper.read(json.loads(json.dumps(dict(manifest))))
    assert Paper.read(manifest).claims["wall"][0].relation == ">"
    scenes = manifest["scenes"]
    assert set(scenes) == {"nominal", "wall", "goal_shift"} and manifest["trace_axes"] == ["x", "y"]
    assert scenes["wall"]["magnitude"] == 6 and scenes["wall"]["goals"] == [[8, 8]]
    assert scenes["nominal"]["blocks"] == [[1, 1, 0.5, 0.5]] and scenes["nominal"]["radius"] == 0.5
    # The goals are those of the instances that were tested.
    assert 1 < len(scenes["goal_shift"]["goals"]) <= 4
    for name in experiment.perturbations:
        evaluation = store.gather("evaluation")
        tested = headline_magnitude(evaluation, name, Paper.read(manifest))
        assert scenes[name]["magnitude"] == tested == headline(experiment, name)
    page = cli.commands.write_run_report(store).read_text()
    assert "figures/trajectories.png" in page and "figures/figure4.png" in page

    # A damaged trace is found, and its perturbation tested again.
    path = next(path for path in store.parts("traces") if "-goal_shift-" in path.name)
    path.write_bytes(path.read_bytes()[:-9])
    (group,) = stored.groups(experiment)
    (batch,) = stored.finished(experiment, store, group)
    assert measure.Tester(experiment).missing(store, batch) == ["goal_shift"]
    with pytest.raises(Damaged, match="traces"):
        store.gather("traces")


@pytest.mark.slow  # trains; what is kept of traces is above
def test_the_seeds_share_out_the_traces(tmp_path, traced, cache, monkeypatch):
    monkeypatch.setattr(measure, "TRACED", 4)
    experiment = dataclasses.replace(load(tmp_path), perturbations={"wall": (6.0,)})
    store = Store(tmp_path / "out")
    runner.run(experiment, store, "test")
    rows = store.gather("traces").query("magnitude == 6")
    shares = rows.groupby(["method", "seed"])["instance"].apply(sorted)
    assert set(map(tuple, shares[:, 0])) == {(0, 1)} and set(map(tuple, shares[:, 1])) == {(2, 3)}
