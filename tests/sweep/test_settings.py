"""What a method trains in besides its regularizers: params, adversaries, randomization."""

import dataclasses
import json

import numpy as np
import pytest

from entrob.agents.spec import CHOICES, REFERENCE
from entrob.errors import EntrobError
from entrob.persistence.store import Store
from entrob.sweep import reading
from entrob.sweep.groups import RunBatch, group_methods, run_id, runs_of
from entrob.sweep.program import hypers, program
from entrob.sweep.runner import run

PENDULUM = """
title = "continuous"
environment = "gymnax:Pendulum-v1"
algorithm = "ppo"
network = "mlp"
normalize = true
num_envs = 4
num_steps = 8
epochs = 2
minibatches = 2
chunk = 2
points = 2
instances = 3

[params]
max_steps_in_episode = 12

[[methods]]
name = "none"

[[methods]]
name = "state_entropy"
coefficients = { state_entropy = 0.1 }
options = { state_entropy = { statistic = "kth", normalizer = "reward_std", groups = 2 } }

[[methods]]
name = "both"
adversary = { kind = "pr_mdp", strength = 0.1 }
randomize = { observation_noise = [0, 0.5] }

[[methods]]
name = "forced"
coefficients = { policy_entropy = 0.01 }
adversary = { kind = "qarl", strength = 0.2, bound = -2000 }

[perturbations]
action_noise = [0, 0.5]

[presets.smoke]
seeds = 2
frames = 128
"""


#: Adversaries by method.
KIND = {"both": "pr_mdp", "forced": "qarl"}


def load(tmp_path, text=PENDULUM):
    path = tmp_path / "continuous.toml"
    path.write_text(text)
    return reading.load(str(path), "smoke")


@pytest.mark.slow  # six programs are compiled
def test_every_setting_trains_and_is_tested_without_it(tmp_path):
    experiment = load(tmp_path)
    store = Store(tmp_path / "out")
    manifest = run(experiment, store, "test")
    runs, tests = store.gather("runs"), store.gather("evaluation")
    assert set(runs.method) == {"none", "state_entropy", "both", "forced"}
    assert (runs.status == "finished").all() and len(runs) == 8
    assert np.isfinite(tests.return_mean).all() and len(tests) == 16
    # Instances, episodes and start are the same for all methods; only the policies differ.
    nominal = tests[tests.magnitude == 0].set_index(["method", "seed"]).return_mean
    assert nominal.nunique() == 8
    assert manifest["frames_per_run"] == 128
    json.dumps(manifest)


def test_settings_are_never_mixed_within_a_program(tmp_path):
    experiment = load(tmp_path)
    groups = group_methods(experiment.methods)
    names = [sorted(m.name for m in group.methods) for group in groups]
    assert sorted(names) == [["both"], ["forced"], ["none", "state_entropy"]]
    for group, name in zip(groups, names):
        prog = program(experiment, group)
        assert int(prog.env_params.max_steps_in_episode) == 12
        adversary = prog.agent.spec.adversary
        assert (adversary and adversary.kind) == KIND.get(name[0])
        assert hasattr(prog.agent.spec.env, "disturbance_space") == (name == ["forced"])
        assert hasattr(prog.env_params, "randomization") == (name == ["both"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "pr_mdp"', 'kind = "prmdp"', "did you mean 'pr_mdp'"),
        ("strength = 0.1", "strength = 1.5", r"strength must be a number in 0\.\.1, not 1\.5"),
        ("strength = 0.1", "force = 0.1", "unknown key in continuous.toml: adversary .force."),
        ("strength = 0.1", 'strength = "much"', r"strength must be a number in 0\.\.1, not 'much'"),
        ("strength = 0.1", "bound = 1", "a bound is for the adversary 'qarl'"),
        ("[0, 0.5] }", "[0.5, 0] }", "needs \\[low, high\\]"),
        ("observation_noise = [0, 0.5]", "observation_noise = [0, -1]", "must be a number in 0"),
        ("max_steps_in_episode = 12", 'max_steps_in_episode = "12"', "must be a number"),
        ('network = "mlp"', 'network = "mlpp"', "did you mean 'mlp'"),
        ("normalize = true", 'normalize = "yes"', "must be true or false"),
        ("minibatches = 2", "minibatches = 3", "minibatches must divide"),
        ("normalize = true", 'log_std = "tan"', "unknown log_std 'tan': did you mean 'tanh'"),
        ("normalize = true", "log_prob = 3", "log_prob must be a string, not 3"),
        ("normalize = true", 'statistics = "environment"', "are for normalize = true"),
        ('algorithm = "ppo"', 'advantage_std = "sample"', "is for the algorithm 'ppo'"),
        *(
            ('name = "none"', f'name = "none"\nagent = {agent}', message)
            for agent, message in [
                ('{ entropy_of = "norm" }', "unknown entropy_of 'norm': did you mean 'normal'"),
                ("{ log_prob = true }", "agent of 'none': log_prob must be a string, not True"),
                ("{ lgo_std = 'tanh' }", "unknown key in .*agent of 'none' 'lgo_std': did you"),
                ("{ fidelity = 'code' }", "fidelity must be paper or reference, not 'code'"),
                ("{ network = 'lstn' }", "unknown network 'lstn': did you mean 'lstm'"),
                ("'reference'", "agent must be a table, not 'reference'"),
            ]
        ),
    ],
)
def test_bad_settings_are_one_line(tmp_path, old, new, message):
    assert old in PENDULUM
    with pytest.raises(EntrobError, match=message) as error:
        run(load(tmp_path, PENDULUM.replace(old, new)), Store(tmp_path / "out"), "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "kind", "message"),
    [
        ("gymnax:CartPole-v1", "nr_mdp", "'both': adversary 'nr_mdp' mixes actions, and those of"),
        ("minigrid/empty-8x8", "rarl", "'both': adversary 'rarl' needs forces, and none can"),
    ],
)
def test_an_adversary_that_an_environment_cannot_have_is_one_line(
    tmp_path, environment, kind, message
):
    text = PENDULUM.replace("gymnax:Pendulum-v1", environment).replace("pr_mdp", kind)
    text = text.replace("randomize = { observation_noise = [0, 0.5] }", "")
    with pytest.raises(EntrobError, match=message) as error:
        load(tmp_path, text.replace("action_noise = [0, 0.5]", "slip = [0, 0.5]"))
    assert "\n" not in str(error.value)


BLOCKS = PENDULUM.replace("gymnax:Pendulum-v1", "mujoco/pusher").replace(
    "max_steps_in_episode = 12",
    "block_on = 1\nblock_pos = [[0.65, -0.35], [0.55, -0.21], [0.58, -0.18]]",
)
BLOCKS = BLOCKS.replace("action_noise = [0, 0.5]", "wall = [0, 1]")
BLOCKS = BLOCKS.replace("observation_noise = ", "observation_noise_raw = ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", "block 0 overlaps the puck's start"),
        ("[[0.65, -0.35]", "[[0.45, -0.05]", "block 0 overlaps the goal"),
        (", [0.58, -0.18]]", "]", r"must be a number or of shape \[3, 2\]"),
        ("[0.65, -0.35], ", "[0.65], ", r"must be a number or of shape \[3, 2\]"),
        ("[0.65, -0.35]", '[0.65, "-0.35"]', r"block_pos\[0\]\[1\] must be a number"),
        (
            "block_pos = [[0.65, -0.35], ",
            "block_size = -0.01\n#",
            "block_size must be a finite number of at least 0",
        ),
        ("block_pos", "block_position", "has no param 'block_position'"),
        ("wall = [0, 1]", "wall = [0, 3]", "must be a number in 0..2"),
        ("wall = [0, 1]", "hurdle = [0, 0.3]", "hurdle"),
    ],
)
def test_a_task_that_cannot_be_played_is_one_line(tmp_path, old, new, message):
    assert old in BLOCKS
    with pytest.raises(EntrobError, match=message) as error:
        run(load(tmp_path, BLOCKS.replace(old, new)), Store(tmp_path / "out"), "test")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_the_experiments_and_the_default_changes_no_hash(tmp_path, name):
    plain = load(tmp_path)
    said, other = (
        load(tmp_path, PENDULUM.replace("[params]", f'{name} = "{word}"\n\n[params]'))
        for word in CHOICES[name]
    )
    assert name not in plain.training_settings
    assert plain.hash == said.hash != other.hash
    method = plain.methods[0]
    assert run_id(plain, method, 0) == run_id(said, method, 0) != run_id(other, method, 0)
    (group, *_) = group_methods(other.methods)
    assert getattr(program(other, group).agent.spec, name) == CHOICES[name][1]
    with pytest.raises(EntrobError, match=f"unknown {name} 'other'"):
        load(tmp_path, PENDULUM.replace("[params]", f'{name} = "other"\n\n[params]'))


#: Of none, policy entropy and state entropy, as they were before agents had a choice.
KNOWN = {
    "pusher": ("ad624e8443168696", "b6116c920e291b73", "412f8d6b709742e8"),
    "minigrid_fidelity": ("3705c7ba6ed65300", "9c08248fcc74bcd5", "c1aeded92701703f"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_runs_are_called_what_they_were(name):
    experiment = reading.load(name, "paper")
    assert tuple(run_id(experiment, method, 0) for method in experiment.methods[:3]) == KNOWN[name]


def test_a_method_may_have_settings_of_its_own(tmp_path):
    own = {
        "same": '{ network = "mlp", log_std = "clip" }',
        "smooth": '{ log_std = "tanh" }',
        "code": '{ fidelity = "reference" }',
        "but": '{ fidelity = "reference", log_std = "clip", network = "mlp" }',
    }
    texts = [f'[[methods]]\nname = "{name}"\nagent = {table}' for name, table in own.items()]
    text = PENDULUM.replace("[perturbations]", "\n".join([*texts, "[perturbations]"]))
    plain, experiment = load(tmp_path), load(tmp_path, text)
    methods = {method.name: method for method in experiment.methods}
    assert plain.hash == experiment.hash and plain.methods == experiment.methods[:4]
    # What is the experiment's anyway is no difference, and shares its program.
    assert methods["same"].agent == {} and "agent" not in methods["same"].identity
    assert methods["smooth"].agent == {"log_std": "tanh"}
    assert methods["code"].agent == REFERENCE
    assert {**methods["but"].agent, "log_std": "tanh", "network": "lstm-reference"} == REFERENCE
    assert {"log_std", "network"}.isdisjoint(methods["but"].agent)
    for method in experiment.methods:
        assert type(method).identified(method.identity) == method
    groups = group_methods(experiment.methods)
    by_name = {method.name: group for group in groups for method in group.methods}
    assert by_name["none"] == by_name["same"] and len({g.key for g in groups}) == len(groups) == 6
    for name, settings in [("none", {}), *((name, methods[name].agent) for name in own)]:
        spec = program(experiment, by_name[name]).agent.spec
        wanted = {k: words[0] for k, words in CHOICES.items()} | {"network": "mlp"} | settings
        assert {name: getattr(spec, name) for name in wanted} == wanted
    # Sequences stay whole for every network in use.
    with pytest.raises(EntrobError, match="num_envs, as sequences stay whole"):
        load(tmp_path, text.replace("minibatches = 2", "minibatches = 8"))


def test_pushers_file_changes_one_difference_at_a_time():
    experiment = reading.load("pusher_fidelity", "smoke")
    methods = {method.name: method for method in experiment.methods}

    def settings(name):
        own = experiment.agent_of(methods[name].agent)
        return {**own, "value_coef": methods[name].hyper.get("value_coef", 0.3)}

    text, code = settings("state_entropy[paper]"), settings("state_entropy[reference]")
    assert {name for name in text if text[name] != code[name]} == {*REFERENCE, "value_coef"}
    assert code["value_coef"] == 0.5 * text["value_coef"]
    for base, other, kind in ((text, code, "text + "), (code, text, "code - ")):
        changed = []
        for name in methods:
            if name.startswith(kind):
                found = settings(name)
                (one,) = (key for key in found if found[key] != base[key])
                assert found[one] == other[one]
                changed.append(one)
        assert sorted(changed) == sorted([*REFERENCE, "value_coef"])
    whole = [m for m in methods.values() if "state_entropy" in m.coefficients]
    assert len({str((m.coefficients, m.options, m.params)) for m in whole}) == 1
    pusher = reading.load("pusher", "smoke")
    assert text["value_coef"] == pusher.hyper["value_coef"] and experiment.hyper == pusher.hyper
    assert methods["state_entropy[paper]"].options == pusher.methods[2].options


def test_strengths_of_an_adversary_share_a_program(tmp_path):
    experiment = load(tmp_path)
    forced = next(m for m in experiment.methods if m.name == "forced")
    strengths = [0.0, 0.1, 0.5]
    methods = tuple(
        dataclasses.replace(forced, variant=f"{s}", adversary=forced.adversary | {"strength": s})
        for s in strengths
    )
    other = dataclasses.replace(forced, base="other", adversary=forced.adversary | {"bound": 3})
    group, alone = group_methods((*methods, other))
    assert group.methods == methods and alone.methods == (other,)
    runs = tuple(run for method in methods for run in runs_of(experiment, method)[:1])
    assert len({run.id for run in runs}) == 3
    _, swept = hypers(experiment, RunBatch("", group, runs), 4)
    np.testing.assert_allclose(swept.hyper.strength, [*strengths, strengths[-1]])
