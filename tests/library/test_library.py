"""The lines of a user: train, evaluate, save, load, act, play."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import entrob
from entrob.agents.networks import MLP
from entrob.errors import EntrobError
from entrob.evaluation.evaluator import Evaluator
from entrob.library.policy import DESCRIPTION, WEIGHTS

ID = "minigrid/empty-8x8"
WALLS = {"wall": [0, 3, 6]}


@pytest.fixture(scope="module")
def run(cache):
    return entrob.train(
        ID,
        entrob.regularizers.state_entropy(),
        coef=0.005,
        frames=3200,
        seeds=3,
        chunk=2,
    )


@pytest.fixture(scope="module")
def table(run):
    return entrob.evaluate(run.policies, ID, WALLS, instances=12)


def test_training_gives_a_policy_per_seed_and_curves(run):
    assert len(run.policies) == 3 and run.diverged == {0: False, 1: False, 2: False}
    assert list(run.curves.frames.unique()) == [1600, 3200]
    assert run.curves.groupby("frames").seed.nunique().tolist() == [3, 3]
    assert {"return_mean", "success", "length_mean", "activity"} <= set(run.curves)
    facts = run.policies[1].provenance
    assert facts["seed"] == 1 and facts["regularizers"] == {"state_entropy": 0.005}
    one, other = (jax.tree.leaves(p.weights)[0] for p in run.policies[:2])
    assert not np.array_equal(one, other)


def test_the_table_is_tidy_and_paired(table):
    assert list(table.policy.unique()) == [0, 1, 2]
    assert table.groupby("policy").size().tolist() == [4, 4, 4]
    conditions = list(zip(table.perturbation, table.magnitude))[:4]
    assert conditions == [("nominal", 0.0), ("wall", 0.0), ("wall", 3.0), ("wall", 6.0)]
    assert (table.episodes == 12).all()
    # At 0 a perturbation is nothing.
    for _, rows in table.groupby("policy"):
        nominal, zero = (rows.iloc[i].drop(["perturbation"]) for i in (0, 1))
        pd.testing.assert_series_equal(nominal, zero, check_names=False)


def test_what_a_function_does_is_what_the_policy_does(run, table):
    """Sampled outcomes are equal: the same keys, instances and actions."""
    policy = run.policies[0]

    def act(key, carry, obs):
        return policy.act(key, carry, obs)

    def untraceable(key, carry, obs):
        assert not isinstance(obs, jax.core.Tracer)
        action, carry = policy.act(key, carry, jnp.asarray(obs))
        return int(action), carry

    columns = ["success", "return_mean", "solvable", "regret_mean"]
    mine = table[(table.policy == 0) & (table.perturbation == "wall") & (table.magnitude > 0)]
    found = entrob.evaluate(act, ID, WALLS, instances=12)
    found = found[(found.perturbation == "wall") & (found.magnitude > 0)]
    pd.testing.assert_frame_equal(
        found[columns].reset_index(drop=True), mine[columns].reset_index(drop=True)
    )
    short = {"instances": 2, "params": {"max_steps_in_episode": 30}}
    slow, fast = (entrob.evaluate(f, ID, {"wall": 6}, **short) for f in (untraceable, act))
    pd.testing.assert_frame_equal(slow[columns], fast[columns])


def test_a_stepped_function_meets_success_distance_and_the_end():
    """Against the compiled way, in an environment with a distance that ends at success."""

    def still(key, carry, obs):
        return jnp.zeros(1), carry

    def slowly(key, carry, obs):
        return np.zeros(1, np.float32), carry

    one, other = (
        entrob.evaluate(f, "gymnax:Pendulum-v1", instances=3, params={"max_steps_in_episode": 6})
        for f in (still, slowly)
    )
    np.testing.assert_allclose(one.return_mean, other.return_mean, rtol=1e-6)
    assert (one.return_mean < 0).all()


def test_a_saved_policy_is_the_same(run, tmp_path):
    policy = run.policies[2]
    policy.save(tmp_path / "policy")
    again = entrob.load_policy(tmp_path / "policy")
    assert (again.environment, again.network, again.temperature) == (ID, None, 1.0)
    assert again.provenance == json.loads(json.dumps(policy.provenance))
    for a, b in zip(jax.tree.leaves(policy.weights), jax.tree.leaves(again.weights), strict=True):
        np.testing.assert_array_equal(a, b)
    env, params = entrob.make(ID)
    obs, _ = env.reset_env(jax.random.key(0), params)
    action, carry = again.act(jax.random.key(3), again.initial(), obs)
    assert action == policy.act(jax.random.key(3), policy.initial(), obs)[0]
    assert carry == again.initial()  # it has no memory


@pytest.mark.slow  # trains it; agents/test_reference.py saves one of first weights
def test_a_normalized_recurrent_policy_survives_saving(tmp_path):
    trained = entrob.train(
        "gymnax:CartPole-v1", frames=64, chunk=1, num_envs=2, num_steps=8, network="lstm",
        normalize=True, algorithm="ppo",
    )  # fmt: skip
    (policy,) = trained.policies
    policy.save(tmp_path)
    again = entrob.load_policy(tmp_path)
    assert again.network == "lstm" and again.weights.moments
    obs, key = jnp.ones(4), jax.random.key(0)
    action, carry = again.act(key, again.initial(), obs)
    same, expected = policy.act(key, policy.initial(), obs)
    assert action == same
    jax.tree.map(np.testing.assert_array_equal, carry, expected)
    assert any(np.any(x) for x in jax.tree.leaves(carry))  # it remembers


def test_a_network_of_ones_own_acts_and_has_no_name(tmp_path):
    small = MLP(2, hidden=(4,))
    trained = entrob.train("gymnax:CartPole-v1", frames=16, chunk=1, num_steps=2, network=small)
    (policy,) = trained.policies
    action, _ = policy.act(jax.random.key(0), policy.initial(), jnp.ones(4))
    assert action in (0, 1)
    with pytest.raises(EntrobError, match="cannot be saved: it has no name"):
        policy.save(tmp_path)


def test_an_episode_is_the_test_instance_of_its_number(run, table, tmp_path):
    policy = run.policies[0]
    success = [policy.episode(instance=i, instances=12, wall=6).success for i in range(12)]
    here = table[(table.policy == 0) & (table.magnitude == 6)]
    assert np.mean(success) == pytest.approx(here.success.iloc[0])
    episode = policy.gif(tmp_path / "walk.gif", instance=3, instances=12, wall=6)
    assert (tmp_path / "walk.gif").read_bytes().startswith(b"GIF8")
    steps = len(episode.actions)
    assert len(episode.observations) == steps + 1 == len(episode.states.time)
    assert episode.terminated or episode.truncated
    condition = Evaluator(12).condition(policy.task, "wall", 6)
    np.testing.assert_array_equal(episode.params.walls, condition.params.walls[3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: entrob.evaluate([], ID), "there are no policies"),
        (lambda p: entrob.evaluate(lambda k, c, o: (0, c)), "needs an environment"),
        (lambda p: entrob.evaluate(p, ID, {"wal": 3}), "unknown perturbation 'wal'"),
        (lambda p: entrob.evaluate(p, ID, {"wall": 99}), "must be a whole number in"),
        (lambda p: p.episode(instance=200), "instance must be in 0..199"),
        (lambda p: entrob.load_policy("nowhere"), "there is no policy nowhere"),
        (lambda p: entrob.load_policy("nowhere:act"), "does not import"),
        (lambda p: entrob.train(ID, "policy_entropi"), "did you mean 'policy_entropy'"),
        (lambda p: entrob.train(ID, "steer", coef=3), r"steer must be a number in \[0, 1\)"),
        (lambda p: entrob.train(ID, "kl", "tsallis", coef=1), "give them by name"),
        (lambda p: entrob.train(ID, coef={"kl": 1}), "coef names 'kl'"),
        (lambda p: entrob.train(ID, learning_rate=1), "Spec has no field 'learning_rate'"),
        (lambda p: entrob.train(ID, hyper={"lr": 1}), "Hyper has no field 'lr'"),
    ],
)
def test_bad_input_is_one_line(run, call, message):
    with pytest.raises(EntrobError, match=message) as error:
        call(run.policies[0])
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(run, tmp_path):
    run.policies[0].save(tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EntrobError, match="cannot be read"):
        entrob.load_policy(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(EntrobError, match=f"no {WEIGHTS}"):
        entrob.load_policy(tmp_path)
    run.policies[0].save(tmp_path)
    facts = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(EntrobError, match="another version"):
        entrob.load_policy(tmp_path)


def test_one_of_a_runs_policies(whole, tmp_path, monkeypatch, tiny_file):
    """By the reference FOLDER:METHOD:SEED, from where the experiment's file is found."""
    with pytest.raises(EntrobError, match="is not to be found"):
        entrob.load_policy(f"{whole}:policy_entropy:1")
    monkeypatch.chdir(tiny_file.parent)
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["experiment"] == "tiny"
