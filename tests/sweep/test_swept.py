"""What may differ between the runs of one program besides seeds and coefficients."""

import dataclasses

import numpy as np
import pytest

from entrob.errors import EntrobError
from entrob.persistence.store import Store, read_frame
from entrob.suite import frontier
from entrob.sweep import reading
from entrob.sweep.experiment import Method
from entrob.sweep.groups import group_methods, run_id
from entrob.sweep.runner import run

RATE = Method("fast", hyper={"learning_rate": 0.1})
SAME = Method("same", hyper={"learning_rate": 1e-3})
WALL, SLIP = (
    Method(name, mixture=[["wall", 6, a], ["slip", 0.4, b]])
    for name, a, b in (("wall", 1.0, 0.0), ("slip", 0.0, 1.0))
)


def test_learning_rates_and_weights_are_no_reason_for_another_program():
    assert len(group_methods((Method("none"), RATE, SAME))) == 1
    assert len(group_methods((WALL, SLIP))) == 1
    assert len(group_methods((Method("none"), WALL))) == 2
    strong, weak = (Method(f"{s}", adversary={"kind": "pr_mdp", "strength": s}) for s in (0.1, 0.9))
    assert len(group_methods((strong, weak))) == 1


def test_runs_of_methods_without_the_new_fields_keep_their_names(tiny):
    """Folders of earlier versions are read."""
    method = tiny.methods[1]
    old = {"name": method.name, **dataclasses.asdict(method)}
    for name in ("mixture", "hyper", "temperature", "agent"):
        assert old.pop(name) in ([], {}, 1.0)
    for name in ("base", "variant", "value"):  # are the name
        del old[name]
    assert method.identity == old
    assert run_id(tiny, RATE, 0) != run_id(tiny, SAME, 0)


@pytest.fixture(scope="module")
def root(tiny, tmp_path_factory):
    """Runs of `none`, alone and with learning rates of its own."""
    hyper = {**tiny.hyper, "learning_rate": 1e-3}
    methods = (Method("none"), SAME, RATE)
    experiment = dataclasses.replace(tiny, hyper=hyper, methods=methods, seeds=1)
    root = tmp_path_factory.mktemp("swept") / "out"
    run(experiment, Store(root), "command")
    return experiment, root


@pytest.mark.slow  # perturbations/test_randomization.py draws from mixtures without training
def test_specialists_train_side_by_side(tiny, tmp_path):
    experiment = dataclasses.replace(tiny, methods=(WALL, SLIP), seeds=1)
    run(experiment, Store(tmp_path), "command")
    runs = read_frame(tmp_path / "runs.parquet").set_index("method")
    assert dict(runs.status) == {"wall": "finished", "slip": "finished"}
    curves = read_frame(tmp_path / "curves.parquet").set_index("method")
    wall, slip = (curves.loc[name].policy_entropy.to_numpy() for name in ("wall", "slip"))
    assert len(wall) == len(slip) and (wall != slip).any()


def test_a_learning_rate_of_its_own_is_what_it_says(root):
    _, folder = root
    curves = read_frame(folder / "curves.parquet").set_index("method")
    last = lambda name: curves.loc[name].drop(columns=["run_id", "seed"]).iloc[-1]
    np.testing.assert_array_equal(last("same"), last("none"))
    assert last("fast").policy_entropy != last("none").policy_entropy


def test_a_temperature_of_one_is_the_policy_and_a_high_one_is_random(root):
    experiment, folder = root
    one, warm, hot = (
        dataclasses.replace(Method(f"T={t:g}"), temperature=t) for t in (1.0, 1.0001, 1e6)
    )
    records = frontier.tested_at(experiment, Store(folder), Method("none"), [one, warm, hot])
    mean = records.evaluation.groupby("method").exact_success.mean()
    own = read_frame(folder / "evaluation.parquet")
    own = own[own.method == "none"].exact_success.mean()
    assert mean["T=1"] == pytest.approx(own, abs=1e-6) and mean["T=1.0001"] == pytest.approx(
        own, abs=1e-3
    )
    # Uniform play, whatever was trained.
    other = frontier.tested_at(
        experiment, Store(folder), RATE, [hot]
    ).evaluation.exact_success.mean()
    assert mean["T=1e+06"] == pytest.approx(other, abs=1e-3)
    again = frontier.tested_at(experiment, Store(folder), Method("none"), [hot]).evaluation
    assert again.exact_success.mean() == mean["T=1e+06"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("temperature = 0", "'none': temperature must be a finite number above 0"),
        ("hyper = { learning = 1 }", "unknown key in .* 'learning': did you mean 'learning_rate'"),
        ('mixture = [["wall", 6]]', "mixture needs lists of name, magnitude and weight"),
        ('mixture = [["wall", 60, 1]]', "magnitude of 'wall'"),
        ('mixture = [["wall", 6, -1]]', "weight of 'wall'"),
    ],
)
def test_what_a_file_says_wrong_is_named(tiny_file, tmp_path, entry, message):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny_file.read_text().replace('name = "none"', f'name = "none"\n{entry}'))
    with pytest.raises(EntrobError, match=message):
        reading.load(str(path), "quick")
